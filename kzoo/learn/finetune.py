"""Training in phases, with checkpoints that resume exactly."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.environment import environment
from kzoo.errors import UsageError, nearest, one_of
from kzoo.files import digest, new_output, sha256
from kzoo.learn.augment import Augment, augmentation
from kzoo.learn.checkpoint import drop_checkpoints
from kzoo.learn.evaluate import Evaluation
from kzoo.learn.features import Engine, keras_engine
from kzoo.learn.inputs import matching_data
from kzoo.learn.logs import epoch_logs
from kzoo.learn.loop import Loop, evaluate
from kzoo.learn.optimizer import make_optimizer
from kzoo.learn.phase import (
    MONITORS,
    Phase,
    as_phase,
    layer_groups,
    recipe_phases,
    set_trainable,
)
from kzoo.learn.precision import PRECISIONS, computed_in
from kzoo.learn.task import Plan
from kzoo.network.model_file import keras_name, opened, read_notes, save_model
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Training:
    """What came out of `finetune`.

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


def finetune(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    phases: str | Sequence[Phase | Mapping[str, object]] = "auto",
    batch_size: int = 32,
    class_weights: str | Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
    augment: Augment = "none",
    auxiliary_weight: float = 0.3,
    early_stopping: int | None = None,
    monitor: str = "val_loss",
    precision: str = "float32",
    seed: int = 0,
    output: str | os.PathLike | None = None,
    force: bool = False,
    checkpoint_seconds: float = 60.0,
    logs: str | os.PathLike | None = None,
    engine: Engine | None = None,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Training:
    """Trains a classifier on images, (n, h, w, c) pixels in [0, 255] -> (n, classes).

    With ``output``, a checkpoint is kept beside it; the same call after a kill goes on from there
    and ends with the same weights, on the same number of cores and as far as the backend's own
    arithmetic is deterministic.

    Auxiliary heads (`kzoo.build` with ``auxiliary=True``) add their losses, each weighted with
    ``auxiliary_weight``, and are left out of the result.

    Args:
        model: a functional Keras model or its file.
        data: a dataset, or what `kzoo.load_data` takes (then ``data_options`` are its arguments).
        phases: one after another, each with a fresh optimizer; or a recipe of
            `kzoo.learn.phase`: "scratch", "transfer", or "auto", which is "transfer" where the
            model's file tells of pretrained weights.
        batch_size: images per step; an incomplete last batch is left out of the epoch.
        class_weights: "balanced" (n / (classes * count)), a weight per class name, or None.
        label_smoothing: share of the label's weight spread over all classes, [0, 1).
        augment: of the training images: "none", "light" (flips and shifts), "strong" (with small
            turns, zooms and changes of brightness, MixUp and random erasing), or any augmentation
            layers of Keras, by name or as a mapping of ``name`` and arguments, in their order.
        auxiliary_weight: weight of the loss of every auxiliary head, for models that have them: 0.3
            in GoogLeNet (Szegedy et al. 2014, section 5), 0.4 in Inception v3.
        early_stopping: end a phase after so many epochs without a better ``monitor``, and go back
            to the best epoch's weights.
        monitor: "val_loss", "val_accuracy" or "val_macro_f1".
        precision: "float32", or "mixed_bfloat16" where the hardware multiplies it.
        seed: of the order of images, dropout and the split.
        output: the ``.keras`` file to write.
        force: overwrite ``output``.
        checkpoint_seconds: at most this much work is lost to a kill.
        logs: a folder for ``history.csv`` and, where tensorboardX is installed, for TensorBoard.
        engine: what extracts features in a phase of the classifier, see `kzoo.learn.features`.
        progress: called after each step.

    Raises:
        UsageError: an argument is wrong, ``output`` exists, or no split is left to evaluate on.
        BadInputError: the model and the data do not fit, or the training diverged.
        MissingError: a file or disk space is missing.
    """
    if output is not None:
        output = new_output(keras_name(output), force=force)
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
    pretrained = notes.get("weights", "")
    if isinstance(phases, str):
        phases = recipe_phases(phases, bool(pretrained))
    phases = [as_phase(phase) for phase in phases]
    _check_arguments(phases, batch_size, label_smoothing, auxiliary_weight, early_stopping)
    one_of("monitor", monitor, MONITORS)
    one_of("precision", precision, PRECISIONS)
    model = opened(model, auxiliary=True)
    head_weights = [1.0, *[float(auxiliary_weight)] * (len(model.outputs) - 1)]
    options = {"seed": seed, "progress": progress, **(data_options or {})}
    # Its own seed decides the split, so only the names of the notes count here.
    data = matching_data(
        model.inputs[0].shape[1:],
        model.outputs[0].shape[1],
        data,
        {"classes": notes.get("classes", ())},
        **options,
    )
    if not len(data.splits[data.evaluation_split]):
        raise UsageError(
            "nothing is left to evaluate on; load the data with validation or test above 0"
        )
    if early_stopping is not None and not len(data.splits["validation"]):
        raise UsageError(
            "early stopping needs a validation split; load the data with validation above 0"
        )
    batch_size = min(batch_size, len(data.splits["train"]))
    weights = _class_weights(class_weights, data)
    plan = Plan(
        phases=phases,
        batch_size=batch_size,
        class_weights=weights,
        label_smoothing=label_smoothing,
        head_weights=head_weights,
        augment=augmentation(augment),
        early_stopping=early_stopping,
        monitor=monitor,
        seed=seed,
    )
    recipe = {
        **asdict(plan),
        "weights": _weights_digest(model),
        "precision": precision,
        "features": (engine or keras_engine()).name,
        "data": data.fingerprint,
        "class_weights": None if weights is None else weights.tolist(),
        "computed_by": {name: environment()[name] for name in ("backend", "packages")},
    }
    folder = output and output.with_name(f"{output.name}.checkpoints") / digest(recipe)[:16]
    flags = {layer: layer.trainable for layer in model.layers}
    try:
        for phase in phases:  # a mistake in the last one is not told after hours in the first
            set_trainable(model, phase.trainable, phase.batch_norm)
            make_optimizer(phase.optimizer, phase.learning_rate, phase.schedule, 1)
            if phase.decay < 1:
                layer_groups(model)
        loop = Loop(
            model, data, plan, folder, engine=engine, logs=epoch_logs(logs), progress=progress
        )
        with computed_in(model, precision):
            loop.run(checkpoint_seconds)
        evaluation = evaluate(loop.classifier, data, progress=progress)
    finally:
        for layer, flag in flags.items():
            layer.trainable = flag
    if output:
        noted = {
            "classes": list(data.classes),
            "split": data.split_settings,
            "weights": pretrained,
        }
        save_model(loop.classifier, output, notes=noted, force=force)
        drop_checkpoints(folder)
    return Training(
        model=loop.classifier,
        classes=data.classes,
        history=loop.history,
        evaluation=evaluation,
        recipe=recipe,
        output=str(output) if output else None,
        sha256=sha256(output) if output else None,
        stopped_early=loop.stopped_early,
    )


def _check_arguments(phases, batch_size, label_smoothing, auxiliary_weight, early_stopping) -> None:
    if not phases:
        raise UsageError("at least one phase is needed")
    if batch_size < 1:
        raise UsageError(f"batch_size is at least 1; {batch_size} was given")
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"label_smoothing is in [0, 1); {label_smoothing} was given")
    if not 0 <= auxiliary_weight < math.inf:
        raise UsageError(f"auxiliary_weight is at least 0 and finite; {auxiliary_weight} was given")
    if early_stopping is not None and early_stopping < 1:
        raise UsageError(
            f"early_stopping is a number of epochs, at least 1; {early_stopping} was given"
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


def _weights_digest(model: keras.Model) -> str:
    """The identity of the architecture and its initial weights."""
    state = hashlib.sha256(model.to_json().encode())
    for weight in model.weights:
        state.update(np.ascontiguousarray(weight).tobytes())
    return state.hexdigest()
