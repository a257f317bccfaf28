"""kzoo slim"""

from __future__ import annotations

import functools

import click

from kzoo.cli.gain import compressing, gained
from kzoo.cli.prune import Share, shares
from kzoo.cli.terminal import Several, bar, table

SHOWN = 12
"""Groups of layers that lost most; the record has all."""


@click.command("slim")
@click.option("--macs", type=float, help="Share of the multiply-accumulates that is left.")
@click.option("--params", type=float, help="Share of the parameters that is left.")
@click.option(
    "--latency",
    type=float,
    help="Share of the latency of the .tflite that is left, on one thread of this machine.",
)
@click.option(
    "--latency-of",
    type=click.Choice(["float32", "int8"]),
    default="int8",
    show_default=True,
    help="The file whose latency it is.",
)
@click.option(
    "--ratio",
    cls=Several,
    type=Share(),
    default=(),
    help="Share of channels that goes, or PREFIX=SHARE for layers; several may follow.",
)
@click.option(
    "--importance",
    type=click.Choice(["l1", "l2", "batch_norm", "taylor", "geometric_median", "random"]),
    metavar="NAME",
    default="taylor",
    show_default=True,
    help="Which channels go first, those of least l1, l2, batch_norm, taylor, geometric_median, or "
    "random.",
)
@click.option(
    "--scope",
    type=click.Choice(["local", "global"]),
    help="The same share in every layer, or the least of all.  [global; with --ratio: local]",
)
@click.option(
    "--rounds", default=1, show_default=True, help="Steps to the target; they share the epochs."
)
@click.option(
    "--multiple",
    default=8,
    show_default=True,
    help="Numbers of channels are multiples of it, of less in narrow layers.",
)
@click.option(
    "--duplicates",
    type=float,
    help="Before, join filters that are so alike, such as 0.98; 1 is equal.",
)
@click.option(
    "--blocks",
    default=0,
    show_default=True,
    help="Before, remove so many residual branches that matter least.",
)
@functools.partial(compressing, works_on="all")
def command(
    model, data, output, latency, latency_of, ratio, include, exclude, force, as_json, **options
) -> None:
    """Remove whole channels of the trained .keras file MODEL, and train what is left.

    What is written is an ordinary smaller network: fewer parameters, fewer multiply-accumulates,
    less latency. Writes the model, its record (.json) and its curves (.png). After a kill, the same
    command goes on where it was.

    \b
    Examples:
      kzoo slim trained.keras photos/ -o small.keras --macs 0.5
      kzoo slim trained.keras photos/ -o small.keras --latency 0.65 --teacher trained.keras --rounds 3
      kzoo slim trained.keras photos/ -o small.keras --params 0.4 --importance taylor --exclude stem
      kzoo slim trained.keras photos/ -o small.keras --ratio 0.3 stage4=0.6 --duplicates 0.98
    """  # noqa: E501
    from kzoo.compress.slim import slim
    from kzoo.files import new_output
    from kzoo.lite.extract import fast_engine
    from kzoo.measure.cost import latency_share

    for written in (output, f"{output}.json", f"{output}.png"):
        new_output(written, force=force)
    with bar() as progress:
        cost = None
        if latency is not None:
            cost = latency_share(
                model, data, kind=latency_of, data_options=options["data_options"],
                progress=progress,
            )  # fmt: skip
        found = slim(
            model,
            data,
            latency=latency,
            cost=cost,
            ratio=shares(ratio) if ratio else None,
            include=include,
            exclude=exclude,
            output=output,
            force=force,
            engine=fast_engine(),
            progress=progress,
            **options,
        )
        removed = [row for row in found.groups if row["left"] < row["channels"]]
        before, after = (sum(row[key] for row in found.groups) for key in ("channels", "left"))
        told = [
            ("channels", f"{after:,} of {before:,} are left, in {len(found.groups)} groups"),
            ("duplicates", found.duplicates and f"{found.duplicates} joined with others"),
            ("blocks", ", ".join(found.blocks)),
        ]
        gained(
            "slim", model, data, found, [(name, value or "") for name, value in told],
            options["data_options"], progress, as_json, more=_removed(removed),
        )  # fmt: skip


def _removed(groups: list[dict]) -> str:
    """The groups that lost the largest shares, in the order of computation."""
    most = sorted(groups, key=lambda row: row["left"] / row["channels"])[:SHOWN]
    rows = [
        (_named(row["layers"]), f"{row['channels']:,}", f"{row['left']:,}")
        for row in groups
        if row in most
    ]
    return table(("lost most", "channels", "left"), rows) if rows else ""


def _named(layers: list[str]) -> str:
    more = len(layers) - 1
    return layers[0] + (f" and {more} more" if more else "")
