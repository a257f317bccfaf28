"""kzoo qat"""

from __future__ import annotations

from functools import partial

import click

from kzoo.cli.gain import engine_of, engine_option, gained, trained
from kzoo.cli.terminal import bar
from kzoo.cli.training import rounding


@click.command("qat")
@click.option(
    "--ranges",
    type=click.Choice(["average", "learned"]),
    default="average",
    show_default=True,
    help="Of activations: averages of the batches' extremes; or these times trained factors, for "
    "the steps of weights too.",
)
@click.option(
    "--freeze", default=0.5, show_default=True, help="The averages stand still from then on."
)
@click.option(
    "--keep/--no-keep",
    default=True,
    show_default=True,
    help="Zeros and shared values of MODEL stay so.",
)
@engine_option
@partial(trained, missing=rounding, rate="0.0001")
def command(model, data, output, engine, force, as_json, **options) -> None:
    """Train the .keras file MODEL with the rounding of int8, where LiteRT rounds.

    What is written is a plain Keras model with rounded weights and the ranges in its notes: kzoo
    quantize makes of it the .tflite that was trained. Writes the model, its record (.json) and its
    curves (.png). After a kill, the same command goes on where it was.

    \b
    Examples:
      kzoo qat trained.keras photos/ -o aware.keras
      kzoo qat sparse.keras photos/ -o aware.keras --teacher trained.keras
      kzoo quantize aware.keras aware.tflite --calibrate photos/
    """
    from kzoo.compress.qat import qat
    from kzoo.files import new_output

    for written in (output, f"{output}.json", f"{output}.png"):
        new_output(written, force=force)
    with bar() as progress:
        found = qat(
            model,
            data,
            output=output,
            force=force,
            engine=engine_of(engine),
            progress=progress,
            **options,
        )
        note = "accuracy after: weights and activations rounded as in the int8 file"
        gained("qat", model, data, found, [], options["data_options"], progress, as_json, note)
