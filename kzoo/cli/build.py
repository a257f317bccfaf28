"""kzoo build"""

from __future__ import annotations

import click

from kzoo.cli.terminal import (
    Size,
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
@seed_option
@click.option("-o", "--output", type=click.Path(), help="The file to write.  [default: NAME.keras]")
@force_option
@json_option
def command(name, arguments, output, force, as_json, **options) -> None:
    """Build the architecture NAME with random weights and write it as a .keras file.

    ARGUMENTS such as alpha=0.5 are the builder's, instead of those that `kzoo info` shows.

    \b
    Examples:
      kzoo build lenet5
      kzoo build mobilenet_v2_035 --classes 10 --size 96 -o net.keras
      kzoo build mlp depth=3 activation=tanh
    """
    from kzoo.files import new_output, sha256
    from kzoo.network.count import macs, parameters
    from kzoo.network.model_file import keras_name, save_model
    from kzoo.registry import entry
    from kzoo.runs.config import read_arguments
    from kzoo.zoo.build import build

    row = entry(name)
    variant = row.typed_arguments(read_arguments(arguments))
    output = new_output(keras_name(output or f"{name}.keras"), force=force)
    model = build(name, **options, **variant)
    save_model(model, output, force=force)
    trainable, total = parameters(model)
    record = {
        "output": str(output),
        "sha256": sha256(output),
        "name": name,
        "arguments": variant,
        "head": options["head"],
        "norm": options["norm"],
        "flavour": options["flavour"] or row.flavour,
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
