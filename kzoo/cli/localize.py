"""kzoo localize"""

from __future__ import annotations

import click

from kzoo.cli.convert import normalize_option, trials_text
from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    force_option,
    json_option,
    pairs,
    seed_option,
    show,
    table,
)

SHOWN = 12
"""Layers that the terminal is told of."""


@click.command("localize")
@click.argument("file", type=click.Path())
@click.option(
    "--against",
    required=True,
    type=click.Path(),
    help="The .keras file, or float .tflite, it was made from.",
)
@click.option(
    "--data", required=True, shell_complete=complete_data, help="Images (see `kzoo data`)."
)
@click.option("--limit", type=click.IntRange(min=1), default=32, show_default=True,
              help="Images to run.")  # fmt: skip
@click.option(
    "--alone/--no-alone",
    default=True,
    show_default=True,
    help="Round each operator alone: seconds to minutes, and what an error is made by.",
)
@click.option("--fix", type=click.Path(), help="The .tflite to write, cured as cheaply as can be.")
@click.option("--html", type=click.Path(), help="The page to write, with bars for each operator.")
@force_option
@normalize_option
@data_options
@seed_option
@json_option
def command(file, against, data, fix, html, force, data_options, as_json, **options) -> int:
    """Tell where the int8 .tflite FILE loses what its network knew, why, and what to do.

    With --fix, exit code 1 if no cure is enough: it needs training then, see `kzoo qat`.

    \b
    Examples:
      kzoo localize net_int8.tflite --against net.keras --data photos/
      kzoo localize net_int8.tflite --against net.keras --data photos/ --fix cured.tflite
      kzoo localize net_int8.tflite --against net.keras --data photos/ --html page.html
    """
    import datetime

    from kzoo.environment import environment
    from kzoo.files import new_output
    from kzoo.lite.localize import localize
    from kzoo.lite.trials import cured
    from kzoo.report.localization import write_localization
    from kzoo.report.page import ending_of

    if html:
        ending_of(html, "a localization")
    for written in filter(None, (fix, html)):
        new_output(written, force=force)
    seeded = {**data_options, "seed": options["seed"]}
    with bar() as progress:
        found = localize(
            file, against=against, data=data, data_options=seeded, progress=progress, **options
        )
        record, failed = found.to_dict(), False
        if fix:
            tried = cured(
                found, fix, against=against, data=data, normalize=options["normalize"],
                force=force, data_options=seeded, progress=progress,
            )  # fmt: skip
            record["tried"] = [trial.to_dict() for trial in tried]
            failed = not record["tried"][-1]["written"]
    if html:
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_localization(record, html, {"date": date, "environment": environment()})
        record["html"] = html
    show(record, _text(record, fix), as_json)
    return int(failed)


def _text(record: dict, fix: str | None) -> str:
    rows = [row for row in record["layers"] if not row["float"]]
    by = any("alone" in row for row in rows)
    rows = sorted(rows, key=lambda row: -row.get("alone", 0) if by else row["sqnr_db"])
    cells = [
        (row["layer"], row["operator"], f"{row['sqnr_db']:.1f}", f"{row['cosine']:.4f}",
         f"{100 * row['clipped']:.2f} %", f"{row['channel_ratio']:.1f}",
         f"{row['alone']:.4f}" if "alone" in row else "",
         f"{row['without']:.4f}" if "without" in row else "")
        for row in rows[:SHOWN]
    ]  # fmt: skip
    head = ("layer", "operator", "dB", "cosine", "clipped", "widest channel", "alone", "without")
    whole = [
        ("same top-1", f"{100 * record['agreement']:.1f} % of {record['images']} images"),
        ("divergence", f"{record['divergence']:.4f} nats"),
    ]
    said = [
        (f"{number + 1}", f"{found['layer']}: {found['cause']}. {found['text']}. {found['cure']}")
        for number, found in enumerate(record["findings"][:5])
    ]
    page = [("page", record.get("html"))]
    text = f"{table(head, cells)}\n\n{pairs(whole + (said or [('found', 'nothing')]) + page)}"
    if fix is None:
        return text
    end = f"written  {fix}" if record["tried"][-1]["written"] else "no cure is enough: kzoo qat"
    return f"{text}\n\n{trials_text(record['tried'])}\n\n{end}"
