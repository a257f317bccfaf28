"""What every training shares: its arguments, its plan, its recipe, its record."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.environment import environment
from kzoo.errors import UsageError, nearest, one_of
from kzoo.files import digest
from kzoo.learn.evaluate import Evaluation
from kzoo.learn.features import Engine, keras_engine
from kzoo.learn.optimizer import make_optimizer
from kzoo.learn.phase import MONITORS, Phase, layer_groups, set_trainable
from kzoo.learn.precision import PRECISIONS, computed_in
from kzoo.learn.task import Plan

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Training:
    """What came out of a training.

    Attributes:
        model: the trained model, without auxiliary heads.
        classes: the names of its outputs.
        history: one row per epoch: phase, epoch, objective (what is minimized, with class weights,
            label smoothing and auxiliary heads), loss (the log-loss without them), accuracy,
            val_loss, val_accuracy, val_macro_f1, learning_rate, seconds.
        evaluation: on the test split, or on validation where there is no test split.
        recipe: everything that determined the weights.
        output: the file written, or None; ``sha256`` is its hash.
        stopped_early: whether early stopping ended a phase.
    """

    model: keras.Model = field(repr=False)
    classes: tuple[str, ...]
    history: list[dict]
    evaluation: Evaluation
    recipe: dict
    output: str | None
    sha256: str | None
    stopped_early: bool

    def to_dict(self) -> dict:
        """The record as JSON values, without the model."""
        return {
            "output": self.output,
            "sha256": self.sha256,
            "classes": list(self.classes),
            "evaluation": self.evaluation.to_dict(),
            "stopped_early": self.stopped_early,
            "recipe": self.recipe,
            "history": self.history,
        }


def check_arguments(
    phases: Sequence[Phase],
    batch_size: int,
    label_smoothing: float,
    early_stopping: int | None,
    monitor: str,
    precision: str,
) -> None:
    """Raises UsageError for what is wrong whatever the model and the data."""
    if not phases:
        raise UsageError("at least one phase is needed")
    if batch_size < 1:
        raise UsageError(f"batch_size is at least 1; {batch_size} was given")
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"label_smoothing is in [0, 1); {label_smoothing} was given")
    if early_stopping is not None and early_stopping < 1:
        raise UsageError(
            f"early_stopping is a number of epochs, at least 1; {early_stopping} was given"
        )
    one_of("monitor", monitor, MONITORS)
    one_of("precision", precision, PRECISIONS)


def planned(
    data: Dataset,
    *,
    batch_size: int,
    class_weights: str | Mapping[str, float] | None,
    early_stopping: int | None,
    **others: object,
) -> Plan:
    """The plan of a training on ``data``; ``others`` are as `Plan` has them.

    Raises:
        UsageError: no split is left to evaluate on or to stop early by, or no such class.
    """
    if not len(data.splits[data.evaluation_split]):
        raise UsageError(
            "nothing is left to evaluate on; load the data with validation or test above 0"
        )
    if early_stopping is not None and not len(data.splits["validation"]):
        raise UsageError(
            "early stopping needs a validation split; load the data with validation above 0"
        )
    return Plan(
        batch_size=min(batch_size, len(data.splits["train"])),
        class_weights=_class_weights(class_weights, data),
        early_stopping=early_stopping,
        **others,
    )


def _class_weights(weights: str | Mapping[str, float] | None, data: Dataset) -> np.ndarray | None:
    """A weight per class, float32 (classes,), or None."""
    if weights is None:
        return None
    counts = np.bincount(data.labels[data.splits["train"]], minlength=len(data.classes))
    if weights == "balanced":
        return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
    if isinstance(weights, str):
        raise UsageError(
            f"class_weights is 'balanced' or a weight per class; {weights!r} was given"
        )
    for name in weights:
        if name not in data.classes:
            raise UsageError(f"class_weights names {name!r}{nearest(name, data.classes)}")
    return np.array([weights.get(name, 1.0) for name in data.classes], np.float32)


def recipe_of(
    plan: Plan, model: keras.Model, data: Dataset, engine: Engine | None, precision: str
) -> dict:
    """Everything that determines the weights, as JSON values."""
    weights = plan.class_weights
    return {
        **asdict(plan),
        "weights": weights_digest(model),
        "precision": precision,
        "features": (engine or keras_engine()).name,
        "data": data.fingerprint,
        "class_weights": None if weights is None else weights.tolist(),
        "computed_by": {name: environment()[name] for name in ("backend", "packages")},
    }


def weights_digest(model: keras.Model) -> str:
    """The identity of the architecture and its initial weights."""
    state = hashlib.sha256(model.to_json().encode())
    for weight in model.weights:
        state.update(np.ascontiguousarray(weight).tobytes())
    return state.hexdigest()


def checkpoints(output: Path | None, recipe: dict) -> Path | None:
    """The folder for the checkpoints of a recipe, beside its output."""
    return output and output.with_name(f"{output.name}.checkpoints") / digest(recipe)[:16]


def notes_of(data: Dataset, before: Mapping[str, object]) -> dict:
    """What a trained model's file tells, see `kzoo.network.model_file.read_notes`.

    Of those it had ``before``, what is told of its pretrained weights stays.
    """
    kept = {name: before.get(name, "") for name in ("weights", "licence")}
    return {"classes": list(data.classes), "split": data.split_settings, **kept}


@contextlib.contextmanager
def trained_as_planned(model: keras.Model, plan: Plan, precision: str) -> Iterator[None]:
    """For the time of a training: its precision, and afterwards the layers' flags as they were.

    Raises:
        UsageError: at once, not after hours in the first phase, for a mistake in the last.
    """
    flags = {layer: layer.trainable for layer in model.layers}
    try:
        for phase in plan.phases:
            set_trainable(model, phase.trainable, phase.batch_norm)
            make_optimizer(phase.optimizer, phase.learning_rate, phase.schedule, 1)
            if phase.decay < 1:
                layer_groups(model)
        with computed_in(model, precision):
            yield
    finally:
        for layer, flag in flags.items():
            layer.trainable = flag
