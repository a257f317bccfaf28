"""kzoo explain"""

from __future__ import annotations

import click

from kzoo.cli.build import offline_option, weights_option
from kzoo.cli.predict import named
from kzoo.cli.terminal import bar, complete_model, force_option, json_option, pairs, show


@click.command("explain")
@click.argument("model", shell_complete=complete_model)
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="The page to write, .html, or the picture, .png.",
)
@click.option(
    "--class",
    "target",
    metavar="NAME|NUMBER",
    help="The class to explain.  [default: the most probable]",
)
@click.option(
    "--patch", type=int, help="Side of the occluding square, pixels.  [default: three strides]"
)
@click.option(
    "--stride",
    type=int,
    help="How far it is moved, pixels.  [default: a sixteenth of the shorter side]",
)
@weights_option
@offline_option
@force_option
@json_option
def command(model, images, output, weights, offline, force, as_json, **options) -> None:
    """Show why MODEL takes IMAGES for what it takes them.

    Draws the filters of the first convolution, what the convolutions make of each image, Grad-CAM,
    and how much less probable the class is when parts are hidden. MODEL is a .keras file, or an
    architecture's name: it stands for its best pretrained weights, which are downloaded once.

    \b
    Examples:
      kzoo explain net.keras cat.jpg -o cat.html
      kzoo explain efficientnet_lite0 cat.jpg --class tabby -o cat.png
    """
    import datetime

    from kzoo.environment import environment
    from kzoo.files import new_output
    from kzoo.learn.explain import explain
    from kzoo.report.explain import ending, write_explanation

    ending(output)
    new_output(output, force=force)
    network, classes, crop = named(model, weights, offline)
    with bar() as progress:
        found = explain(network, images, classes=classes, crop=crop, progress=progress, **options)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_explanation(found, output, {"date": date, "environment": environment()})
    record = found.to_dict() | {"output": str(output)}
    show(record, "\n".join([*_lines(record), pairs([("written", output)])]), as_json)


def _lines(record: dict) -> list[str]:
    lines = []
    for each in record["images"]:
        explained, hidden = each["explained"], each["occlusion"]
        lines.append(
            pairs(
                [
                    ("image", each["image"]),
                    ("explained", f"{explained['class']}, {100 * explained['probability']:.2f} %"),
                    ("Grad-CAM at", ", ".join(cam["at"] for cam in each["grad_cam"])),
                    (
                        "occlusion",
                        f"at most {100 * hidden['largest_drop']:.2f} points less probable, "
                        f"{100 * hidden['largest_rise']:.2f} more",
                    ),
                ]
            )
        )
    if not record["filters"]:
        lines.append(f"{record['model']} has no convolution: no filters, maps or Grad-CAM")
    return lines
