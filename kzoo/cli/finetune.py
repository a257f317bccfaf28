"""kzoo finetune"""

from __future__ import annotations

import click

from kzoo.cli.evaluate import figures
from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    force_option,
    json_option,
    keep_record,
    pairs,
    seed_option,
    show,
)
from kzoo.cli.training import recipe, training_options


@click.command("finetune")
@click.argument("model", type=click.Path())
@click.argument("data", shell_complete=complete_data)
@click.option("-o", "--output", required=True, type=click.Path(), help="The .keras file to write.")
@training_options(recipe)
@click.option(
    "--train",
    "trainable",
    multiple=True,
    help="Prefix of the layers to train, or classifier (the last one, on features computed once); "
    "may be repeated.  [all; pretrained: classifier, then all]",
)
@click.option(
    "--auxiliary-weight",
    default=0.3,
    show_default=True,
    help="Weight of the loss of every auxiliary head, for models that have them; 0.3 in GoogLeNet, "
    "0.4 in Inception v3.",
)
@click.option(
    "--distributed",
    is_flag=True,
    help="Share every batch with all devices of all processes that were started together, with "
    "KERAS_BACKEND=jax; see docs/scale.md.",
)
@click.option(
    "--find-lr",
    is_flag=True,
    help="Train nothing: raise the learning rate step by step and plot the loss to OUTPUT.lr.png.",
)
@data_options
@seed_option
@force_option
@json_option
def command(model, data, output, phases, augment, find_lr, force, as_json, **options) -> None:
    """Train the .keras file MODEL on the images of DATA (see `kzoo data`).

    A model with pretrained weights gets its classifier first, on features that are computed once,
    then all its layers, the earlier ones with smaller steps; one with random weights gets all its
    layers at once. The options above the phases change the last phase.

    Writes the model, its record (.json) and its curves (.png). After a kill, the same command goes
    on where it was.

    \b
    Examples:
      kzoo finetune net.keras photos/ -o trained.keras --epochs 10
      kzoo finetune net.keras photos/ -o trained.keras \\
        --phase "epochs: 3, trainable: head" --phase "epochs: 10, learning_rate: 1e-4"
    """
    from kzoo.errors import UsageError
    from kzoo.files import new_output
    from kzoo.learn.finetune import finetune
    from kzoo.lite.extract import fast_engine
    from kzoo.report.plots import curves

    if find_lr:
        if options["distributed"]:
            raise UsageError("--find-lr runs in one process; leave --distributed out")
        options |= {"phase": phases[-1], "augment": augment}
        in_phases = bool(click.get_current_context().params["phases"])
        _find_lr(model, data, output, options, in_phases, force, as_json)
        return
    for written in (output, f"{output}.json", f"{output}.png"):
        new_output(written, force=force)
    with bar() as progress:
        training = finetune(
            model,
            data,
            phases=phases,
            augment=augment,
            output=output,
            force=force,
            engine=fast_engine(),
            progress=progress,
            **options,
        )
    if training.output is None:  # process 0 of those that trained together writes and prints
        return
    record = training.to_dict()
    keep_record("finetune", output, record)
    curves(training.history, f"{output}.png", output)
    text = pairs(
        [
            ("written", f"{output}, {output}.json, {output}.png"),
            (
                "epochs",
                f"{len(training.history)}{' (stopped early)' if training.stopped_early else ''}",
            ),
            *figures(record["evaluation"]),
        ]
    )
    show(record, text, as_json)


def _find_lr(model, data, output, options, in_phases, force, as_json) -> None:
    from kzoo.files import new_output
    from kzoo.learn.rate_finder import find_learning_rate
    from kzoo.report.plots import rate_test

    picture = new_output(f"{output}.lr.png", force=force)
    for of_epochs in ("early_stopping", "monitor", "checkpoint_seconds", "logs", "distributed"):
        options.pop(of_epochs)
    with bar() as progress:
        found = find_learning_rate(model, data, progress=progress, **options)
    rate_test(found.to_dict(), picture)
    rate = f"{found.steepest:.1g}"
    how = f"learning_rate: {rate} in the last phase" if in_phases else f"--lr {rate}"
    text = pairs(
        [
            ("written", str(picture)),
            ("steepest", f"{found.steepest:.2g}  (a rate to train with)"),
            ("lowest loss", f"at {found.lowest:.2g}  (too high to train with)"),
            ("next", f"the same command with {how} in place of --find-lr"),
        ]
    )
    show(found.to_dict(), text, as_json)
