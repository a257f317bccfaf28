"""kzoo cluster"""

from __future__ import annotations

import click

from kzoo.cli.gain import ZEROS, compressing, engine_of, engine_option, gained
from kzoo.cli.terminal import bar


@click.command("cluster")
@click.option("--clusters", default=16, show_default=True, help="Distinct values of a kernel.")
@click.option(
    "--init",
    type=click.Choice(["linear", "density", "kmeans++"]),
    default="linear",
    show_default=True,
    help="Where k-means begins.",
)
@click.option(
    "--per",
    type=click.Choice(["tensor", "channel"]),
    default="tensor",
    show_default=True,
    help="So many values for a kernel, or for each of its output channels.",
)
@click.option(
    "--keep-zeros/--no-keep-zeros",
    default=True,
    show_default=True,
    help="Zeros are a cluster of their own and stay zero.",
)
@click.option(
    "--fold/--no-fold",
    default=True,
    show_default=True,
    help="Fold BatchNormalization before; an exporter would give each channel values of its own.",
)
@engine_option
@compressing
def command(model, data, output, engine, force, as_json, **options) -> None:
    """Give the kernels of the trained .keras file MODEL few distinct values, and train these.

    The values are as few in the file and in its float .tflite. They shrink what is downloaded, not
    the latency. Writes the model, its record (.json) and its curves (.png). After a kill, the same
    command goes on where it was.

    \b
    Examples:
      kzoo cluster trained.keras photos/ -o shared.keras --clusters 16
      kzoo cluster sparse.keras photos/ -o shared.keras --clusters 32 --init density
    """
    from kzoo.compress.cluster import cluster
    from kzoo.files import new_output

    for written in (output, f"{output}.json", f"{output}.png"):
        new_output(written, force=force)
    with bar() as progress:
        found = cluster(
            model,
            data,
            output=output,
            force=force,
            engine=engine_of(engine),
            progress=progress,
            **options,
        )
        count, per = options["clusters"], options["per"]
        shared = [
            row["values"] <= count * (row["shape"][-1] if per == "channel" else 1)
            for row in found.kernels
        ]
        told = [("values", f"at most {count} per {per} in {sum(shared)} of {len(shared)} kernels")]
        gained(
            "cluster", model, data, found, told, options["data_options"], progress, as_json, ZEROS
        )
