"""The options of every command that trains."""

from __future__ import annotations

import functools
from collections.abc import Callable

import click

USUAL = {"epochs": "15; pretrained: 8", "rate": "0.001; pretrained: 0.0005",
         "schedule": "cosine; pretrained: one_cycle"}  # fmt: skip
"""What `kzoo.learn.phase` does without the options."""
TUNING = {"epochs": "8", "rate": "0.0003", "schedule": "cosine"}
"""What `kzoo.compress.tune` does without them."""


def training_options(
    missing: Callable, usual: dict[str, str] = USUAL, argument: str = "model"
) -> Callable:
    """Adds the options of phases, images and checkpoints.

    The command gets ``phases`` whole, and ``augment`` as the public functions take it.

    Args:
        missing: ``missing(model, changes)`` gives the phases where none is typed, with the fields
            of a phase that are.
        usual: what stands in brackets for the epochs, the rate and the schedule.
        argument: the command's name for the model.
    """

    def decorated(command: Callable) -> Callable:
        @functools.wraps(command)
        def gathered(*, phases: tuple[str, ...], augment: tuple[str, ...], **options):
            from kzoo.learn.augment import parse_augment
            from kzoo.learn.phase import Phase, parse_phase

            names = [name for name in Phase.__dataclass_fields__ if name in options]
            typed = {name: options.pop(name) for name in names}
            typed = {name: value for name, value in typed.items() if value not in (None, ())}
            chosen = [parse_phase(text) for text in phases] or missing(options[argument], typed)
            return command(phases=chosen, augment=parse_augment(augment), **options)

        for option in reversed(_options(usual)):
            gathered = option(gathered)
        return gathered

    return decorated


def _options(usual: dict[str, str]) -> tuple[Callable, ...]:
    return (
        click.option(
            "--epochs", type=int, help=f"Passes over the training images.  [{usual['epochs']}]"
        ),
        click.option(
            "--learning-rate",
            "--lr",
            type=float,
            help=f"The initial one, or the peak.  [{usual['rate']}]",
        ),
        click.option("--optimizer", help="Any of Keras, by name.  [adam]"),
        click.option(
            "--schedule",
            help=f"Any of Keras, by name, or constant.  [{usual['schedule']}]",
        ),
        click.option(
            "--phase",
            "phases",
            multiple=True,
            help="A phase such as 'epochs: 5, trainable: head, learning_rate: 1e-3'; may be "
            "repeated. Replaces the options of phases.",
        ),
        click.option(
            "--augment",
            multiple=True,
            help="none, light, strong, or a layer of Keras such as random_flip or "
            "'mix_up: {alpha: 0.2}'; may be repeated.  [default: none]",
        ),
        click.option("--batch-size", default=32, show_default=True, help="Images per step."),
        click.option(
            "--class-weights", type=click.Choice(["balanced"]), help="Weigh rare classes up."
        ),
        click.option(
            "--label-smoothing",
            default=0.0,
            show_default=True,
            help="Share of a label's weight that all classes get.",
        ),
        click.option(
            "--early-stopping", type=int, help="Epochs without improvement before a phase ends."
        ),
        click.option(
            "--monitor",
            type=click.Choice(["val_loss", "val_accuracy", "val_macro_f1"]),
            default="val_loss",
            show_default=True,
            help="What early stopping watches.",
        ),
        click.option(
            "--checkpoint-seconds",
            default=60.0,
            show_default=True,
            help="At most so much work is lost to a kill.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "mixed_bfloat16"]),
            default="float32",
            show_default=True,
            help="mixed_bfloat16 where the hardware multiplies it.",
        ),
        click.option(
            "--logs",
            type=click.Path(file_okay=False),
            help="A folder for history.csv and, with kzoo[tensorboard], TensorBoard.",
        ),
    )


def recipe(model: str, changes: dict) -> tuple:
    """The phases of `kzoo.learn.phase`, by the model's weights."""
    from kzoo.learn.phase import recipe_phases
    from kzoo.network.model_file import read_notes

    return recipe_phases("auto", bool(read_notes(model)["weights"]), changes)


def tuning(model: str, changes: dict) -> tuple:  # noqa: ARG001
    """The phases of `kzoo.compress.tune`, for any model."""
    from kzoo.compress.tune import tuning_phases

    return tuning_phases(changes)


def rounding(model: str, changes: dict) -> tuple:  # noqa: ARG001
    """The phases of `kzoo.compress.qat`, for any model."""
    from kzoo.compress.qat import ROUNDED_PHASE
    from kzoo.compress.tune import tuning_phases

    return tuning_phases(changes, ROUNDED_PHASE)
