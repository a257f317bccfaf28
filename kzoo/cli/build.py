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


@click.command("build")
@click.argument("name", shell_complete=complete_model)
@click.option("--classes", type=int, help="Number of classes.  [default: the card's]")
@click.option("--size", type=Size(), help="Height and width, 96 or 96x128.  [default: the card's]")
@click.option("--channels", type=int, help="Of the input, 3 for RGB.  [default: the card's]")
@click.option(
    "--head",
    type=click.Choice(["logits", "softmax", "none"]),
    default="logits",
    show_default=True,
    help="What the model gives.",
)
@seed_option
@click.option("-o", "--output", type=click.Path(), help="The file to write.  [default: NAME.keras]")
@force_option
@json_option
def command(name, classes, size, channels, head, seed, output, force, as_json) -> None:
    """Build the architecture NAME with random weights and write it as a .keras file.

    \b
    Examples:
      kzoo build lenet5
      kzoo build mobilenet_v2_035 --classes 10 --size 96 -o net.keras
    """
    from kzoo.files import new_output, sha256
    from kzoo.registry import entry
    from kzoo.zoo.build import build
    from kzoo.zoo.count import macs, parameters
    from kzoo.zoo.model_file import keras_name, save_model

    entry(name)
    output = new_output(keras_name(output or f"{name}.keras"), force=force)
    model = build(name, classes=classes, size=size, channels=channels, head=head, seed=seed)
    save_model(model, output, force=force)
    trainable, total = parameters(model)
    record = {
        "output": str(output),
        "sha256": sha256(output),
        "name": name,
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
            ("outputs", record["outputs"]),
            ("parameters", f"{trainable:,} trainable, {total:,} in all"),
            ("MACs", f"{record['macs']:,}"),
        ]
    )
    show(record, text, as_json)
