"""kzoo build"""

from __future__ import annotations

import click

from kzoo.cli.terminal import (
    Size,
    bar,
    complete_model,
    force_option,
    json_option,
    pairs,
    seed_option,
    show,
)
from kzoo.zoo.blocks import FLAVOURS, NORMS
from kzoo.zoo.build import HEADS

OUTPUTS = {"logits": "logits", "softmax": "probabilities", "none": "features, without a head"}
"""What each head gives."""

arguments_argument = click.argument("arguments", nargs=-1)
classes_option = click.option(
    "--classes", type=int, help="Number of classes.  [default: the card's]"
)
size_option = click.option(
    "--size", type=Size(), help="Height and width, 96 or 96x128.  [default: the card's]"
)
channels_option = click.option(
    "--channels", type=int, help="Of the input, 3 for RGB.  [default: the card's]"
)
norm_option = click.option(
    "--norm",
    type=click.Choice(NORMS),
    default="batch",
    show_default=True,
    help="What stands where the network has BatchNorm.",
)
flavour_option = click.option(
    "--flavour",
    type=click.Choice(list(FLAVOURS)),
    help="Whose padding, epsilon and details.  [default: the card's]",
)

weights_option = click.option(
    "--weights",
    metavar="TAG|FILE",
    help="Pretrained: a tag of `kzoo info NAME`, imagenet for the best, or a file.",
)
offline_option = click.option("--offline", is_flag=True, help="Download nothing.")


@click.command("build")
@click.argument("name", shell_complete=complete_model)
@arguments_argument
@classes_option
@size_option
@channels_option
@click.option(
    "--head",
    type=click.Choice(HEADS),
    default="logits",
    show_default=True,
    help="What the model gives.",
)
@norm_option
@flavour_option
@click.option("--auxiliary", is_flag=True, help="With the auxiliary classifiers, for training.")
@weights_option
@offline_option
@seed_option
@click.option("-o", "--output", type=click.Path(), help="The file to write.  [default: NAME.keras]")
@force_option
@json_option
def command(name, arguments, output, weights, offline, force, as_json, **options) -> None:
    """Build the architecture NAME, with random or pretrained weights, and write a .keras file.

    ARGUMENTS such as alpha=0.5 are the builder's, instead of those that `kzoo info` shows. The
    FILE of --weights may be the folder of a TensorFlow SavedModel.

    \b
    Examples:
      kzoo build lenet5
      kzoo build mobilenet_v2_035 --classes 10 --size 96 -o net.keras
      kzoo build mlp depth=3 activation=tanh
      kzoo build resnet50 --weights tv_in1k --classes 10
    """
    from kzoo.files import new_output, sha256
    from kzoo.network.count import macs, parameters
    from kzoo.network.model_file import keras_name, save_model
    from kzoo.registry import entry
    from kzoo.runs.config import read_arguments
    from kzoo.zoo.build import build
    from kzoo.zoo.weights.load import pretrained

    row = entry(name)
    variant = row.typed_arguments(read_arguments(arguments))
    output = new_output(keras_name(output or f"{name}.keras"), force=force)
    found = None
    if weights is not None:
        with bar() as progress:
            found = pretrained(
                name, _opened(weights), offline=offline, progress=progress, **options, **variant
            )
    model = found.model if found else build(name, **options, **variant)
    notes, told = {}, list(found.notes) if found else []
    if found:
        notes = {"crop": found.crop, **found.notes_of_file(weights)}
        if options["classes"] is None:
            notes["classes"] = list(found.classes)
        elif options["classes"] == len(found.classes):
            told.append("--classes are your own: the names of the weights' classes are left out")
    save_model(model, output, notes=notes, force=force)
    trainable, total = parameters(model)
    record = {
        "output": str(output),
        "sha256": sha256(output),
        "name": name,
        "arguments": variant,
        "head": options["head"],
        "norm": options["norm"],
        "flavour": found.flavour if found else options["flavour"] or row.flavour,
        "weights": found and found.record() | {"file": str(found.file or weights)},
        "auxiliary": options["auxiliary"],
        "seed": options["seed"],
        "input": list(model.inputs[0].shape[1:]),
        "outputs": model.outputs[0].shape[1],
        "params": trainable,
        "total_params": total,
        "macs": macs(model),
    }
    text = pairs(
        [
            ("written", record["output"]),
            ("input", " x ".join(map(str, record["input"]))),
            ("outputs", f"{record['outputs']} ({OUTPUTS[record['head']]})"),
            ("auxiliary", _auxiliary(model, row, record)),
            ("weights", _weights(found, weights)),
            *(("note", note) for note in told),
            ("seed", record["seed"]),
            ("parameters", f"{trainable:,} trainable, {total:,} in all"),
            ("MACs", f"{record['macs']:,}"),
        ]
    )
    show(record, text, as_json)


def _auxiliary(model, row, record: dict) -> str | None:
    if not record["auxiliary"]:
        return None
    return (
        f"{len(model.outputs) - 1} classifiers; train with: kzoo finetune {record['output']} ... "
        f"--auxiliary-weight {row.auxiliary:g}"
    )


def _opened(weights: str):
    """The variables of a SavedModel, which TensorFlow reads; else what was given."""
    from pathlib import Path

    if not (Path(weights) / "saved_model.pb").exists():
        return weights
    from kzoo.lite.saved_model import read_saved_model

    return read_saved_model(weights)


def _weights(found, given: str) -> str | None:
    if found is None:
        return None
    if found.source is None or not found.source.labels:
        return given
    source = found.source
    top1 = f", published top-1 {source.top1} %" if source.top1 else ""
    return f"{source.tag}{top1}, licence {source.licence}"
