"""kzoo quantize"""

from __future__ import annotations

import click

from kzoo.cli.convert import (
    conversion_text,
    frame_option,
    head_option,
    normalize_option,
    with_share,
)
from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    force_option,
    json_option,
    keep_record,
    seed_option,
    show,
)
from kzoo.lite.recipes import IO, MIXED, RANGES, RECIPES, WITH_IO


@click.command("quantize")
@click.argument("model", type=click.Path())
@click.option(
    "--calibrate",
    shell_complete=complete_data,
    help="Images to calibrate on (see `kzoo data`), where activations become whole numbers; and to "
    "correct biases on.",
)
@click.option("-o", "--output", required=True, type=click.Path(), help="The .tflite file to write.")
@click.option(
    "--recipe",
    type=click.Choice([*RECIPES, MIXED, *WITH_IO]),
    default="int8",
    show_default=True,
    metavar="RECIPE",
    help=f"What is rounded: {', '.join([*RECIPES, MIXED])}; see docs/quantization.md.",
)
@click.option(
    "--budget-drop",
    type=click.FloatRange(min=0),
    metavar="POINTS",
    help="In place of a recipe: the smallest that loses at most so many points of accuracy.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="Training images to calibrate on.  [default: until ranges settle]",
)
@click.option(
    "--ranges",
    type=click.Choice(RANGES),
    default="minmax",
    show_default=True,
    metavar="METHOD",
    help=f"How an activation's range follows from what it takes on them: {', '.join(RANGES)}.",
)
@click.option(
    "--exclude",
    multiple=True,
    default=(),
    help="Prefix of layers that stay float32; may be repeated.",
)
@click.option(
    "--equalize", is_flag=True, help="Before: scale channels so that kernels have equal ranges."
)
@click.option(
    "--adaround", is_flag=True, help="Before: learn which way each weight is rounded; minutes."
)
@click.option("--io", type=click.Choice(IO), help="Dtype of the pixels.  [default: uint8]")
@head_option
@normalize_option
@frame_option
@data_options
@seed_option
@force_option
@json_option
def command(model, output, force, as_json, **options) -> None:
    """Write MODEL, a .keras file or a float .tflite, as a .tflite of whole numbers.

    It is invoked, and compared with MODEL.

    \b
    Examples:
      kzoo quantize net.keras --calibrate photos/ -o net_int8.tflite
      kzoo quantize net.keras --recipe dynamic -o net_dynamic.tflite
      kzoo quantize net.keras --calibrate photos/ -o net_int8.tflite --adaround
      kzoo quantize net.keras --calibrate photos/ -o net_small.tflite --budget-drop 0.5
      kzoo quantize float.tflite --calibrate photos/ -o int8.tflite --normalize 127.5/127.5
    """
    from kzoo.files import new_output
    from kzoo.lite.quantize import quantize

    if options["recipe"] == MIXED:
        from kzoo.measure.cost import file_share

        options["cost"] = file_share

    for written in (output, f"{output}.json"):
        new_output(written, force=force)
    with bar() as progress:
        record = quantize(model, output, force=force, progress=progress, **options).to_dict()
        record = with_share(record, progress)
    keep_record("quantize", output, record)
    show(record, conversion_text(record), as_json)
