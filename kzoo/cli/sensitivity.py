"""kzoo sensitivity"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from kzoo.cli.terminal import (
    Several,
    bar,
    complete_data,
    data_options,
    force_option,
    json_option,
    keep_record,
    pairs,
    seed_option,
    show,
    table,
)

SHOWN = 8
"""Layers that the terminal is told of."""


@click.command("sensitivity")
@click.argument("model", type=click.Path())
@click.argument("data", shell_complete=complete_data)
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="The record to write, .json."
)
@click.option(
    "--of",
    cls=Several,
    type=click.Choice(["sparsity", "bits", "channels"]),
    default=("sparsity", "bits", "channels"),
    show_default=True,
    help="What to sweep; several may follow.",
)
@click.option(
    "--sparsity",
    cls=Several,
    type=float,
    default=(0.3, 0.5, 0.7, 0.8, 0.9),
    show_default=True,
    help="Shares of zeros.",
)
@click.option(
    "--bits",
    cls=Several,
    type=int,
    default=(8, 6, 4, 3),
    show_default=True,
    help="Of the grid that a kernel is rounded to.",
)
@click.option(
    "--channels",
    cls=Several,
    type=float,
    default=(0.1, 0.25, 0.5),
    show_default=True,
    help="Shares of channels that are removed.",
)
@click.option("--images", default=256, show_default=True, help="How many to judge by.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation"]),
    default="train",
    show_default=True,
    help="Of which images.",
)
@click.option(
    "--choose", type=float, help="Choose shares by layer for this overall sparsity, for kzoo prune."
)
@click.option(
    "--include",
    multiple=True,
    default=(),
    help="Prefix of the layers to look at; may be repeated.  [all]",
)
@click.option(
    "--exclude", multiple=True, default=(), help="Prefix of layers to leave out; may be repeated."
)
@data_options
@seed_option
@force_option
@json_option
def command(model, data, output, force, as_json, **options) -> None:
    """Change one layer of the .keras file MODEL at a time, untrained, and see what is lost on DATA.

    Writes the record (.json) and a picture of it (.png). With --choose it ends in the options that
    `kzoo prune` takes.

    \b
    Examples:
      kzoo sensitivity trained.keras photos/ -o sens.json
      kzoo sensitivity trained.keras photos/ -o sens.json --of sparsity --choose 0.7
    """
    from kzoo.compress.sensitivity import sensitivity
    from kzoo.errors import UsageError
    from kzoo.files import new_output
    from kzoo.report.sensitivity import sensitivity_plot

    if Path(output).suffix != ".json":
        raise UsageError(f"the record's name ends in .json; {output!r} was given")
    picture = str(Path(output).with_suffix(".png"))
    for written in (output, picture):
        new_output(written, force=force)
    with bar() as progress:
        record = sensitivity(model, data, progress=progress, **options).to_dict()
    keep_record("sensitivity", str(output).removesuffix(".json"), record)
    sensitivity_plot(record, picture, f"{Path(model).name}: what each layer bears")
    show(record, _text(record, model, data, output, picture), as_json)


def _text(record: dict, model: str, data: str, output: str, picture: str) -> str:
    from kzoo.report.sensitivity import worst

    rows = [
        (kind, layer, f"{point['at']:g}", f"{point['divergence']:.4f}",
         f"{100 * (record['accuracy'] - point['accuracy']):.1f}")
        for kind, layer, point in worst(record, SHOWN)
    ]  # fmt: skip
    below = [
        (
            "whole",
            f"{100 * record['accuracy']:.2f} % of {record['count']} {record['split']} images",
        ),
        ("written", f"{output}, {picture}"),
    ]
    text = f"{table(('what', 'layer', 'at', 'divergence', 'points lost'), rows)}\n\n{pairs(below)}"
    if record["shares"] is None:
        return text
    shares = " ".join(f"{shlex.quote(name)}={share:g}" for name, share in record["shares"].items())
    typed = f"kzoo prune {shlex.quote(model)} {shlex.quote(data)} -o sparse.keras"
    return f"{text}\n\n{typed} --sparsity {shares}"
