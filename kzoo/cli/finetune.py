"""kzoo finetune"""

from __future__ import annotations

import click

from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    force_option,
    json_option,
    keep_record,
    pairs,
    percent,
    seed_option,
    show,
)


@click.command("finetune")
@click.argument("model", type=click.Path())
@click.argument("data", shell_complete=complete_data)
@click.option("-o", "--output", required=True, type=click.Path(), help="The .keras file to write.")
@click.option("--epochs", default=15, show_default=True, help="Passes over the training images.")
@click.option(
    "--learning-rate", "--lr", default=1e-3, show_default=True, help="The initial one, or the peak."
)
@click.option("--optimizer", default="adam", show_default=True, help="Any of Keras, by name.")
@click.option(
    "--schedule", default="cosine", show_default=True, help="Any of Keras, by name, or constant."
)
@click.option(
    "--train", "trainable", multiple=True, help="Prefix of the layers to train; may be repeated."
)
@click.option(
    "--phase",
    "phases",
    multiple=True,
    help="A phase such as 'epochs: 5, trainable: head, learning_rate: 1e-3'; may be repeated. "
    "Replaces the options above.",
)
@click.option(
    "--augment",
    multiple=True,
    help="none, light, strong, or a layer of Keras such as random_flip or 'mix_up: {alpha: 0.2}'; "
    "may be repeated.  [default: none]",
)
@click.option("--batch-size", default=32, show_default=True, help="Images per step.")
@click.option("--class-weights", type=click.Choice(["balanced"]), help="Weigh rare classes up.")
@click.option(
    "--label-smoothing",
    default=0.0,
    show_default=True,
    help="Share of a label's weight that all classes get.",
)
@click.option(
    "--auxiliary-weight",
    default=0.3,
    show_default=True,
    help="Weight of the loss of every auxiliary head, for models that have them; 0.3 in GoogLeNet, "
    "0.4 in Inception v3.",
)
@click.option("--early-stopping", type=int, help="Epochs without improvement before a phase ends.")
@click.option(
    "--monitor",
    type=click.Choice(["val_loss", "val_accuracy"]),
    default="val_loss",
    show_default=True,
    help="What early stopping watches.",
)
@click.option(
    "--checkpoint-seconds",
    default=60.0,
    show_default=True,
    help="At most so much work is lost to a kill.",
)
@data_options
@seed_option
@force_option
@json_option
def command(
    model, data, output, epochs, learning_rate, optimizer, schedule, trainable, phases, augment,
    force, as_json, **options,
) -> None:  # fmt: skip
    """Train the .keras file MODEL on the images of DATA (see `kzoo data`).

    Writes the model, its record (.json) and its curves (.png). After a kill, the same command goes
    on where it was.

    \b
    Examples:
      kzoo finetune net.keras photos/ -o trained.keras --epochs 10
      kzoo finetune net.keras photos/ -o trained.keras \\
        --phase "epochs: 3, trainable: head" --phase "epochs: 10, learning_rate: 1e-4"
    """
    from kzoo.files import new_output
    from kzoo.learn.augment import parse_augment
    from kzoo.learn.finetune import finetune
    from kzoo.learn.phase import Phase, parse_phase
    from kzoo.report.plots import curves

    for written in (output, f"{output}.json", f"{output}.png"):
        new_output(written, force=force)
    chosen = [parse_phase(text) for text in phases] or [
        Phase(epochs, trainable or "all", optimizer, learning_rate, schedule)
    ]
    with bar() as progress:
        training = finetune(
            model,
            data,
            phases=chosen,
            augment=parse_augment(augment),
            output=output,
            force=force,
            progress=progress,
            **options,
        )
    record = training.to_dict()
    keep_record("finetune", output, record)
    curves(training.history, f"{output}.png", output)
    evaluation = record["evaluation"]
    text = pairs(
        [
            ("written", f"{output}, {output}.json, {output}.png"),
            (
                "epochs",
                f"{len(training.history)}{' (stopped early)' if training.stopped_early else ''}",
            ),
            ("accuracy", f"{percent(evaluation)} {evaluation['split']} images"),
            ("log-loss", f"{evaluation['log_loss']:.4f}"),
        ]
    )
    show(record, text, as_json)
