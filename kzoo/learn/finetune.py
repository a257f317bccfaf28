"""Training in phases, with checkpoints that resume exactly."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.environment import environment
from kzoo.errors import BadInputError, KzooError, UsageError, nearest
from kzoo.files import digest, new_output, sha256
from kzoo.learn.checkpoint import drop_checkpoints, load_checkpoint, save_checkpoint
from kzoo.learn.evaluate import Evaluation, outputs, score, softmax
from kzoo.learn.inputs import matching_data
from kzoo.learn.optimizer import make_optimizer
from kzoo.learn.phase import Phase, as_phase, set_trainable
from kzoo.network.model_file import (
    functional,
    gives_probabilities,
    keras_name,
    opened,
    read_notes,
    save_model,
)  # fmt: skip
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

DIVERGED = 1000
"""An epoch's mean loss of so many times the first step's, or chance's, is no training any more."""


@dataclass(frozen=True)
class Training:
    """What came out of `finetune`.

    Attributes:
        model: the trained model, without auxiliary heads.
        classes: the names of its outputs.
        history: one row per epoch: phase, epoch, objective (what is minimized, with class weights,
            label smoothing and auxiliary heads), loss (the log-loss without them), accuracy,
            val_loss, val_accuracy, learning_rate, seconds.
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
    phases: Sequence[Phase | Mapping[str, object]] = (Phase(),),
    batch_size: int = 32,
    class_weights: str | Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
    auxiliary_weight: float = 0.3,
    early_stopping: int | None = None,
    monitor: str = "val_loss",
    seed: int = 0,
    output: str | os.PathLike | None = None,
    force: bool = False,
    checkpoint_seconds: float = 60.0,
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
        phases: one after another, each with a fresh optimizer.
        batch_size: images per step; an incomplete last batch is left out of the epoch.
        class_weights: "balanced" (n / (classes * count)), a weight per class name, or None.
        label_smoothing: share of the label's weight spread over all classes, [0, 1).
        auxiliary_weight: weight of the loss of every auxiliary head, for models that have them: 0.3
            in GoogLeNet (Szegedy et al. 2014, section 5), 0.4 in Inception v3.
        early_stopping: end a phase after so many epochs without a better ``monitor``, and go back
            to the best epoch's weights.
        monitor: "val_loss" or "val_accuracy".
        seed: of the order of images, dropout and the split.
        output: the ``.keras`` file to write.
        force: overwrite ``output``.
        checkpoint_seconds: at most this much work is lost to a kill.
        progress: called after each step.

    Raises:
        UsageError: an argument is wrong, ``output`` exists, or no split is left to evaluate on.
        BadInputError: the model and the data do not fit, or the training diverged.
        MissingError: a file or disk space is missing.
    """
    if output is not None:
        output = new_output(keras_name(output), force=force)
    phases = [as_phase(phase) for phase in phases]
    _check_arguments(phases, batch_size, label_smoothing, auxiliary_weight, early_stopping, monitor)
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
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
    recipe = {
        "weights": _weights_digest(model),
        "data": data.fingerprint,
        "phases": [asdict(phase) for phase in phases],
        "batch_size": batch_size,
        "class_weights": None if weights is None else weights.tolist(),
        "label_smoothing": label_smoothing,
        "head_weights": head_weights,
        "early_stopping": early_stopping,
        "monitor": monitor,
        "seed": seed,
        "computed_by": {name: environment()[name] for name in ("backend", "packages")},
    }
    folder = output and output.with_name(f"{output.name}.checkpoints") / digest(recipe)[:16]
    flags = {layer: layer.trainable for layer in model.layers}
    try:
        for phase in phases:  # a mistake in the last one is not told after hours in the first
            set_trainable(model, phase.trainable)
            make_optimizer(phase.optimizer, phase.learning_rate, phase.schedule, 1)
        loop = _Loop(
            model, head_weights, data, phases, batch_size, weights, label_smoothing, seed, folder,
            progress,
        )  # fmt: skip
        loop.run(early_stopping, monitor, checkpoint_seconds)
        evaluation = evaluate(loop.classifier, data, progress=progress)
    finally:
        for layer, flag in flags.items():
            layer.trainable = flag
    if output:
        noted = {"classes": list(data.classes), "split": data.split_settings}
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


def evaluate(
    model: keras.Model, data: Dataset, *, split: str | None = None, progress: Progress = silent
) -> Evaluation:
    """Evaluates a model on a split of a dataset, the test split by default; see `Evaluation`."""
    split = split or data.evaluation_split
    found = outputs(model, data.images, data.splits[split], progress)
    probabilities = found if gives_probabilities(model) else softmax(found)
    return score(probabilities, data.labels[data.splits[split]], split)


class _Loop:
    """The state of a training: position, history, best weights; everything a checkpoint holds."""

    def __init__(
        self, model, head_weights, data, phases, batch_size, weights, smoothing, seed, folder,
        progress,
    ):  # fmt: skip
        self.model, self.data, self.phases, self.batch_size = model, data, phases, batch_size
        self.classifier, self.head_weights = functional(model), head_weights
        self.weights, self.smoothing, self.seed = weights, smoothing, seed
        self.folder, self.progress = folder, progress
        self.train = data.splits["train"]
        self.steps = max(1, len(self.train) // batch_size)
        self.total = self.steps * sum(phase.epochs for phase in phases)
        self.history: list[dict] = []
        self.best: dict = {}
        self.best_weights: list[np.ndarray] | None = None
        self.stopped_early = False
        self.first_loss: float | None = None
        self.epoch_sums = {"objective": 0.0, "loss": 0.0, "accuracy": 0.0, "seconds": 0.0}
        self.step_now = 0
        self.start = (0, 0, 0)
        self.saved = time.monotonic()

    def run(self, patience: int | None, monitor: str, checkpoint_seconds: float) -> None:
        found = load_checkpoint(self.folder) if self.folder else None
        if found:
            self.start = tuple(found[1]["position"])
        else:
            _seed_variables(self.model, self.seed)
        self.checkpoint_seconds = checkpoint_seconds
        for index in range(self.start[0], len(self.phases)):
            self._compile(index)
            if found:
                self._restore(*found)
                found = None
            first_epoch, first_step = self.start[1:] if index == self.start[0] else (0, 0)
            for epoch in range(first_epoch, self.phases[index].epochs):
                stop = self._epoch(index, epoch, first_step, patience, monitor)
                first_step = 0
                if stop:
                    self.stopped_early |= epoch + 1 < self.phases[index].epochs
                    break
            if patience is not None and self.best_weights is not None:
                self.model.set_weights(self.best_weights)
            else:  # the averaged weights of {"name": "adam", "use_ema": true}
                self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            self.best, self.best_weights = {}, None

    def _compile(self, index: int) -> None:
        import keras

        phase = self.phases[index]
        set_trainable(self.model, phase.trainable)
        from_logits = not gives_probabilities(self.model)
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=from_logits, label_smoothing=self.smoothing
        )
        # Unweighted and without smoothing, so that they compare with those of validation.
        metrics = [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.CategoricalCrossentropy(name="log_loss", from_logits=from_logits),
        ]
        heads = len(self.head_weights)
        self.model.compile(
            optimizer=make_optimizer(
                phase.optimizer, phase.learning_rate, phase.schedule, self.steps * phase.epochs
            ),
            loss=[loss] * heads,
            loss_weights=self.head_weights,
            metrics=[metrics, *[[]] * (heads - 1)],
        )
        self.model.optimizer.build(self.model.trainable_variables)

    def _epoch(
        self, index: int, epoch: int, first: int, patience: int | None, monitor: str
    ) -> bool:
        """Trains one epoch from step ``first``, appends its row; returns whether to stop."""
        classes = np.eye(len(self.data.classes), dtype=np.float32)
        heads = len(self.head_weights)
        main = f"{self.model.output_names[0]}_" if heads > 1 else ""
        number = sum(phase.epochs for phase in self.phases[:index]) + epoch
        order = self.data.order("train", self.seed, number)
        started = time.monotonic()
        if first == 0:
            self.epoch_sums = dict.fromkeys(self.epoch_sums, 0.0)
        started -= self.epoch_sums["seconds"]
        label = f"train: epoch {epoch + 1}/{self.phases[index].epochs}"
        if self.history and self.history[-1]["val_accuracy"] is not None:
            label += f", validation accuracy {self.history[-1]['val_accuracy']:.3f}"
        for step in range(first, self.steps):
            chosen = np.sort(order[step * self.batch_size : (step + 1) * self.batch_size])
            labels = self.data.labels[chosen]
            targets = classes[labels]
            logs = self.model.train_on_batch(
                self.data.images[chosen].astype(np.float32),
                [targets] * heads if heads > 1 else targets,
                None if self.weights is None else self.weights[labels],
                return_dict=True,
            )
            if not math.isfinite(logs["loss"]):
                raise BadInputError(
                    f"the loss became {logs['loss']} in epoch {epoch + 1}, step {step + 1}: the "
                    "training diverged; lower the learning rate"
                )
            self.first_loss = float(logs["loss"]) if self.first_loss is None else self.first_loss
            self.epoch_sums["objective"] += logs["loss"]
            self.epoch_sums["loss"] += logs[f"{main}log_loss"]
            self.epoch_sums["accuracy"] += logs[f"{main}accuracy"]
            self.epoch_sums["seconds"] = time.monotonic() - started
            self.step_now = number * self.steps + step + 1
            self.progress(label, self.step_now, self.total)
            if step + 1 < self.steps:
                self._checkpoint((index, epoch, step + 1))
        return self._close_epoch(index, epoch, started, patience, monitor)

    def _close_epoch(self, index, epoch, started, patience, monitor) -> bool:
        rate = float(np.asarray(self.model.optimizer.learning_rate))
        loss = self.epoch_sums["objective"] / self.steps
        # Saturated activations keep a diverged loss finite: 1e5 to 1e8 was seen at a rate of 1e6.
        if loss > DIVERGED * max(self.first_loss, math.log(len(self.data.classes))):
            raise BadInputError(
                f"the loss rose from {self.first_loss:.3g} to {loss:.3g} in epoch {epoch + 1}: the "
                "training diverged; lower the learning rate"
            )
        row = {
            "phase": index + 1,
            "epoch": len(self.history) + 1,
            "objective": loss,
            "loss": self.epoch_sums["loss"] / self.steps,
            "accuracy": self.epoch_sums["accuracy"] / self.steps,
            "val_loss": None,
            "val_accuracy": None,
            "learning_rate": rate,
        }
        if len(self.data.splits["validation"]):
            validation = evaluate(self.classifier, self.data, split="validation")
            row["val_loss"], row["val_accuracy"] = validation.log_loss, validation.accuracy
        row["seconds"] = round(time.monotonic() - started, 3)
        self.history.append(row)
        stop = False
        if patience is not None:
            sign = -1 if monitor == "val_loss" else 1
            value = sign * row[monitor]
            if not self.best or value > self.best["value"]:
                self.best = {"value": value, "epoch": epoch}
                self.best_weights = self.model.get_weights()
            stop = epoch - self.best["epoch"] >= patience
        if not stop:
            self._checkpoint((index, epoch + 1, 0))
        return stop

    def _variables(self) -> list:
        """Weights, seed states and the optimizer's: what a step reads and writes."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def _checkpoint(self, position: tuple[int, int, int]) -> None:
        if not self.folder or time.monotonic() - self.saved < self.checkpoint_seconds:
            return
        arrays = {f"v{i}": np.asarray(v) for i, v in enumerate(self._variables())}
        arrays |= {f"best{i}": array for i, array in enumerate(self.best_weights or ())}
        state = {
            "position": position,
            "history": self.history,
            "best": self.best,
            "epoch_sums": self.epoch_sums,
            "stopped_early": self.stopped_early,
            "first_loss": self.first_loss,
            "names": [variable.path for variable in self._variables()],
        }
        save_checkpoint(self.folder, self.step_now, arrays, state)
        self.saved = time.monotonic()

    def _restore(self, arrays: dict, state: dict) -> None:
        variables = self._variables()
        if len(variables) != len(state["names"]):
            raise KzooError(
                f"the checkpoint in {self.folder} has {len(state['names'])} variables, the model "
                f"has {len(variables)}; it was written by another version: remove that folder"
            )
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"v{i}"])
        self.history, self.best = state["history"], state["best"]
        self.epoch_sums, self.stopped_early = state["epoch_sums"], state["stopped_early"]
        self.first_loss = state["first_loss"]
        best = [arrays[f"best{i}"] for i in range(len(arrays) - len(variables))]
        self.best_weights = best or None


def _check_arguments(
    phases, batch_size, label_smoothing, auxiliary_weight, early_stopping, monitor
) -> None:
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
    if monitor not in ("val_loss", "val_accuracy"):
        raise UsageError(f"monitor is val_loss or val_accuracy; {monitor!r} was given")


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


def _seed_variables(model: keras.Model, seed: int) -> None:
    """Makes dropout a function of ``seed``: a loaded model's generators start at random."""
    states = [variable for variable in model.variables if "seed_generator_state" in variable.path]
    for i, state in enumerate(states):
        state.assign(np.array([seed, i], dtype=np.asarray(state).dtype))
