"""kzoo localize"""

from __future__ import annotations

import click

from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    json_option,
    pairs,
    seed_option,
    show,
    table,
)
from kzoo.report.table import kilobytes

SHOWN = 12
"""Layers that the terminal is told of."""


@click.command("localize")
@click.argument("file", type=click.Path())
@click.option(
    "--against", required=True, type=click.Path(), help="The .keras file it was made from."
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
@click.option("--force", is_flag=True, help="Overwrite it.")
@data_options
@seed_option
@json_option
def command(file, against, data, fix, force, data_options, as_json, **options) -> int:
    """Tell where the int8 .tflite FILE loses what its network knew, why, and what to do.

    With --fix, exit code 1 if no cure is enough: it needs training then, see `kzoo qat`.

    \b
    Examples:
      kzoo localize net_int8.tflite --against net.keras --data photos/
      kzoo localize net_int8.tflite --against net.keras --data photos/ --fix cured.tflite
    """
    from kzoo.files import new_output
    from kzoo.lite.localize import cured, localize

    if fix:
        new_output(fix, force=force)
    seeded = {**data_options, "seed": options["seed"]}
    with bar() as progress:
        found = localize(
            file, against=against, data=data, data_options=seeded, progress=progress, **options
        )
        record, failed = found.to_dict(), False
        if fix:
            record["tried"] = cured(
                found, fix, against=against, data=data, force=force, data_options=seeded,
                progress=progress,
            )  # fmt: skip
            failed = not record["tried"][-1]["written"]
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
    text = f"{table(head, cells)}\n\n{pairs(whole + (said or [('found', 'nothing')]))}"
    if fix is None:
        return text
    tried = [
        (each["cure"], f"{100 * each['agreement']:.1f} %", f"{kilobytes(each['bytes'])} kB")
        for each in record["tried"]
    ]
    end = f"written  {fix}" if record["tried"][-1]["written"] else "no cure is enough: kzoo qat"
    return f"{text}\n\n{table(('cure', 'same top-1', 'size'), tried)}\n\n{end}"
