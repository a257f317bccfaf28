"""kzoo predict"""

from __future__ import annotations

import click

from kzoo.cli.build import offline_option, weights_option
from kzoo.cli.terminal import bar, complete_model, json_option, show


@click.command("predict")
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option(
    "--model",
    required=True,
    shell_complete=complete_model,
    help="A .keras or .tflite file, or an architecture's name.",
)
@weights_option
@offline_option
@click.option("--top", default=5, show_default=True, help="How many classes to show.")
@json_option
def command(images, model, weights, offline, top, as_json) -> None:
    """Classify IMAGES.

    The names of the classes come from the model's file. An architecture's name stands for its best
    pretrained weights, which are downloaded once.

    \b
    Examples:
      kzoo predict cat.jpg --model efficientnet_lite0
      kzoo predict photos/*.jpg --model trained.keras --top 3
    """
    from kzoo.lite.predict import predict

    network, classes, crop = named(model, weights, offline)
    record = {"predictions": predict(network, images, top=top, classes=classes, crop=crop)}
    show(record, "\n".join(_lines(record["predictions"])), as_json)


def named(model: str, weights: str | None, offline: bool) -> tuple:
    """What stands for MODEL: a file as it is, an architecture with its weights; classes; crop."""
    from kzoo.errors import BadInputError, UsageError

    if model.endswith((".keras", ".h5", ".tflite")):
        if weights:
            raise UsageError(f"{model} has weights of its own; --weights goes with a name")
        return model, (), None
    from kzoo.registry import entry
    from kzoo.zoo.weights.load import pretrained
    from kzoo.zoo.weights.table import weights_of

    if weights is None:
        known = weights_of(entry(model).name)
        weights = known[0].tag if known else "imagenet"
    with bar() as progress:
        found = pretrained(model, weights, offline=offline, progress=progress)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if not found.complete:
        raise BadInputError(
            f"the classifier of {model} has no weights in {found.file}; train one: "
            f"kzoo build {model} --weights {weights}, then kzoo finetune"
        )
    return found.model, found.classes, found.crop


def _lines(predictions: list[dict]) -> list[str]:
    wide = max(len(each["class"]) for one in predictions for each in one["top"])
    lines = []
    for one in predictions:
        lines.append(one["image"])
        for each in one["top"]:
            lines.append(f"  {each['class']:{wide}}  {100 * each['probability']:6.2f} %")
    return lines
