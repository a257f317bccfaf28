"""The learning-rate range test: which rate to begin with."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.augment import Augment, Augmenter, augmentation
from kzoo.learn.inputs import matching_data
from kzoo.learn.phase import Phase, all_phases
from kzoo.learn.task import Classification, Plan
from kzoo.learn.training import check_arguments, planned, trained_as_planned
from kzoo.network.model_file import opened, read_notes
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 120
SMOOTHING = 0.9
"""Of the moving mean of losses; its start is corrected for."""
SKIPPED = 10
"""First steps, whose moving mean is of too few losses to tell a fall from noise."""
DIVERGED = 4.0
"""Times the lowest loss, where the test ends."""


@dataclass(frozen=True)
class RateTest:
    """What came out of `find_learning_rate`.

    Attributes:
        rates: of every step, rising from LOWEST by a constant factor.
        losses: of every step's batch, before it: what is minimized, with class weights, label
            smoothing and auxiliary heads.
        smoothed: their moving mean.
        steepest: the rate at which ``smoothed`` falls fastest: a rate to train with.
        lowest: the rate at which it is lowest: too high already; a tenth of it is common, too.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest: float
    lowest: float

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def find_learning_rate(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    phase: Phase | Mapping[str, object] = Phase(),  # noqa: B008, it is frozen
    batch_size: int = 32,
    class_weights: str | Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
    augment: Augment = "none",
    auxiliary_weight: float = 0.3,
    precision: str = "float32",
    seed: int = 0,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> RateTest:
    """Trains some steps with a rising rate and tells where the loss falls fastest.

    The range test of Smith 2017 (arXiv:1506.01186, section 3.3), with a rate that rises by a
    constant factor from LOWEST to HIGHEST in STEPS steps, until the loss is DIVERGED times its
    lowest. The model's weights are as before afterwards.

    Args:
        model, data, batch_size, class_weights, label_smoothing, augment, auxiliary_weight,
            precision, seed, data_options: as for `kzoo.finetune`.
        phase: what is trained and with what optimizer; its epochs, rate and schedule do not count.
        progress: called after each step.

    Raises:
        UsageError, BadInputError, MissingError: as `kzoo.finetune`.
    """
    rising = {"name": "exponential", "decay_rate": HIGHEST / LOWEST}
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
    (phase,) = all_phases([phase], bool(notes.get("weights")))
    phase = replace(phase, learning_rate=LOWEST, schedule=rising)
    check_arguments([phase], batch_size, label_smoothing, None, "val_loss", precision)
    if not 0 <= auxiliary_weight < math.inf:
        raise UsageError(f"auxiliary_weight is at least 0 and finite; {auxiliary_weight} was given")
    model = opened(model, auxiliary=True)
    options = {"seed": seed, "progress": progress, **(data_options or {})}
    data = matching_data(
        model.inputs[0].shape[1:], model.outputs[0].shape[1], data,
        {"classes": notes.get("classes", ())}, **options,
    )  # fmt: skip
    plan = planned(
        data,
        phases=[phase],
        batch_size=batch_size,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        head_weights=[1.0, *[float(auxiliary_weight)] * (len(model.outputs) - 1)],
        augment=augmentation(augment),
        early_stopping=None,
        monitor="val_loss",
        seed=seed,
    )
    kept = [np.array(variable) for variable in model.variables]
    try:
        with trained_as_planned(model, plan, precision):
            losses, smoothed = _raised(model, data, plan, progress)
    finally:
        for variable, value in zip(model.variables, kept, strict=True):
            variable.assign(value)
    lowest = int(np.argmin(smoothed)) if smoothed else 0
    if lowest < SKIPPED + 2:
        raise BadInputError(
            f"the loss falls at no learning rate from {LOWEST:g} to {HIGHEST:g}; is the phase's "
            "trainable part connected to the labels, and are these right?"
        )
    rates = [LOWEST * (HIGHEST / LOWEST) ** (step / STEPS) for step in range(len(losses))]
    steepest = SKIPPED + int(np.argmin(np.gradient(smoothed[SKIPPED : lowest + 1])))
    return RateTest(rates, losses, smoothed, rates[steepest], rates[lowest])


def _raised(
    model: keras.Model, data: Dataset, plan: Plan, progress: Progress
) -> tuple[list[float], list[float]]:
    """Trains with the plan's rising rate; the loss of every step, and their moving mean."""
    (phase,), seed, size = plan.phases, plan.seed, plan.batch_size
    augmenter = Augmenter(plan.augment, seed) if plan.augment else None
    task = Classification(model, data, plan, phase, augmenter, None, progress)
    task.compile(phase, STEPS)
    losses, smoothed, mean = [], [], 0.0
    for step in range(STEPS):
        epoch, place = divmod(step * size, len(data.splits["train"]) - size + 1)
        chosen = np.sort(data.order("train", seed, epoch)[place : place + size])
        logs = task.model.train_on_batch(*task.batch(chosen, epoch), return_dict=True)
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            break
        losses.append(loss)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING ** (step + 1)))
        progress("raise the learning rate", step + 1, STEPS)
        if smoothed[-1] > DIVERGED * min(smoothed):
            break
    return losses, smoothed
