"""The loop of a training: epochs of steps, checkpoints between them, early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, KzooError
from kzoo.learn.augment import Augmenter
from kzoo.learn.checkpoint import load_checkpoint, save_checkpoint
from kzoo.learn.evaluate import Evaluation, outputs, score, softmax
from kzoo.learn.optimizer import learning_rate, make_optimizer
from kzoo.learn.phase import Phase, layer_groups, set_trainable
from kzoo.network.model_file import functional, gives_probabilities
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

DIVERGED = 1000
"""An epoch's mean loss of so many times the first step's, or chance's, is no training any more."""


def evaluate(
    model: keras.Model, data: Dataset, *, split: str | None = None, progress: Progress = silent
) -> Evaluation:
    """Evaluates a model on a split of a dataset, the test split by default; see `Evaluation`."""
    split = split or data.evaluation_split
    found = outputs(model, data.images, data.splits[split], progress)
    probabilities = found if gives_probabilities(model) else softmax(found)
    return score(probabilities, data.labels[data.splits[split]], split)


@dataclass(frozen=True)
class Plan:
    """What a training does, beside its model and images.

    Attributes:
        phases, batch_size, label_smoothing, early_stopping, monitor, seed: as `finetune` has them.
        class_weights: float32 (classes,), or None.
        head_weights: of the losses: the classifier's 1, then those of auxiliary heads.
        augment: the layers of `Augmenter`.
    """

    phases: Sequence[Phase]
    batch_size: int
    class_weights: np.ndarray | None
    label_smoothing: float
    head_weights: Sequence[float]
    augment: Sequence[object]
    early_stopping: int | None
    monitor: str
    seed: int


class Loop:
    """The state of a training: position, history, best weights; everything a checkpoint holds."""

    def __init__(
        self, model: keras.Model, data: Dataset, plan: Plan, folder: Path | None, progress: Progress
    ):
        self.model, self.data, self.plan = model, data, plan
        self.folder, self.progress = folder, progress
        self.classifier = functional(model)
        self.augmenter = Augmenter(plan.augment, plan.seed) if plan.augment else None
        self.train = data.splits["train"]
        self.steps = max(1, len(self.train) // plan.batch_size)
        self.total = self.steps * sum(phase.epochs for phase in plan.phases)
        self.history: list[dict] = []
        self.best: dict = {}
        self.best_weights: list[np.ndarray] | None = None
        self.stopped_early = False
        self.first_loss: float | None = None
        self.epoch_sums = {"objective": 0.0, "loss": 0.0, "accuracy": 0.0, "seconds": 0.0}
        self.step_now = 0
        self.start = (0, 0, 0)
        self.saved = time.monotonic()

    def run(self, checkpoint_seconds: float) -> None:
        """Trains from the start, or from the last checkpoint, to the end of the last phase."""
        found = load_checkpoint(self.folder) if self.folder else None
        if found:
            self.start = tuple(found[1]["position"])
        else:
            _seed_variables(self.model, self.plan.seed)
        self.checkpoint_seconds = checkpoint_seconds
        for index in range(self.start[0], len(self.plan.phases)):
            self._compile(index)
            if found:
                self._restore(*found)
                found = None
            first_epoch, first_step = self.start[1:] if index == self.start[0] else (0, 0)
            for epoch in range(first_epoch, self.plan.phases[index].epochs):
                stop = self._epoch(index, epoch, first_step)
                first_step = 0
                if stop:
                    self.stopped_early |= epoch + 1 < self.plan.phases[index].epochs
                    break
            if self.plan.early_stopping and self.best_weights is not None:
                self.model.set_weights(self.best_weights)
            else:  # the averaged weights of {"name": "adam", "use_ema": true}
                self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            self.best, self.best_weights = {}, None

    def _compile(self, index: int) -> None:
        import keras

        phase = self.plan.phases[index]
        set_trainable(self.model, phase.trainable, phase.batch_norm)
        from_logits = not gives_probabilities(self.model)
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=from_logits, label_smoothing=self.plan.label_smoothing
        )
        # Unweighted and without smoothing, so that they compare with those of validation.
        metrics = [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.CategoricalCrossentropy(name="log_loss", from_logits=from_logits),
        ]
        heads = len(self.plan.head_weights)
        self.model.compile(
            optimizer=make_optimizer(
                phase.optimizer, phase.learning_rate, phase.schedule, self.steps * phase.epochs,
                layer_groups(self.model) if phase.decay < 1 else (), phase.decay,
            ),
            loss=[loss] * heads,
            loss_weights=self.plan.head_weights,
            metrics=[metrics, *[[]] * (heads - 1)],
        )  # fmt: skip
        self.model.optimizer.build(self.model.trainable_variables)

    def _epoch(self, index: int, epoch: int, first: int) -> bool:
        """Trains one epoch from step ``first``, appends its row; returns whether to stop."""
        classes = np.eye(len(self.data.classes), dtype=np.float32)
        heads = len(self.plan.head_weights)
        main = f"{self.model.output_names[0]}_" if heads > 1 else ""
        number = sum(phase.epochs for phase in self.plan.phases[:index]) + epoch
        order = self.data.order("train", self.plan.seed, number)
        started = time.monotonic()
        if first == 0:
            self.epoch_sums = dict.fromkeys(self.epoch_sums, 0.0)
        started -= self.epoch_sums["seconds"]
        label = f"train: epoch {epoch + 1}/{self.plan.phases[index].epochs}"
        if self.history and self.history[-1]["val_accuracy"] is not None:
            label += f", validation accuracy {self.history[-1]['val_accuracy']:.3f}"
        for step in range(first, self.steps):
            chosen = np.sort(order[step * self.plan.batch_size : (step + 1) * self.plan.batch_size])
            images = self.data.images[chosen].astype(np.float32)
            targets = classes[self.data.labels[chosen]]
            if self.augmenter:
                images, targets = self.augmenter(images, targets)
            weights = self.plan.class_weights
            logs = self.model.train_on_batch(
                images,
                [targets] * heads if heads > 1 else targets,
                None if weights is None else targets @ weights,
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
        return self._close_epoch(index, epoch, started)

    def _close_epoch(self, index: int, epoch: int, started: float) -> bool:
        rate = learning_rate(self.model.optimizer)
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
        if self.plan.early_stopping:
            sign = -1 if self.plan.monitor == "val_loss" else 1
            value = sign * row[self.plan.monitor]
            if not self.best or value > self.best["value"]:
                self.best = {"value": value, "epoch": epoch}
                self.best_weights = self.model.get_weights()
            stop = epoch - self.best["epoch"] >= self.plan.early_stopping
        if not stop:
            self._checkpoint((index, epoch + 1, 0))
        return stop

    def _variables(self) -> list:
        """Weights, seed states and the optimizer's: what a step reads and writes."""
        random = self.augmenter.variables if self.augmenter else []
        return [*self.model.variables, *self.model.optimizer.variables, *random]

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


def _seed_variables(model: keras.Model, seed: int) -> None:
    """Makes dropout a function of ``seed``: a loaded model's generators start at random."""
    states = [variable for variable in model.variables if "seed_generator_state" in variable.path]
    for i, state in enumerate(states):
        state.assign(np.array([seed, i], dtype=np.asarray(state).dtype))
