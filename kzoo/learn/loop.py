"""The loop of a training: epochs of steps, checkpoints between them, early stopping."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, KzooError
from kzoo.learn.augment import Augmenter
from kzoo.learn.batch_norm import recalibrate
from kzoo.learn.checkpoint import load_checkpoint, save_checkpoint
from kzoo.learn.distributed import Team
from kzoo.learn.evaluate import Evaluation, outputs, score, softmax
from kzoo.learn.features import Engine
from kzoo.learn.optimizer import learning_rate, uses_averages
from kzoo.learn.phase import MONITORS, Phase
from kzoo.learn.projection import Projection
from kzoo.learn.task import Classification, Plan
from kzoo.network.model_file import functional, gives_probabilities
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

DIVERGED = 1000
"""An epoch's mean loss of so many times the first step's, or chance's, is no training any more."""


def evaluate(
    model: keras.Model,
    data: Dataset,
    *,
    split: str | None = None,
    progress: Progress = silent,
    team: Team = Team(),  # noqa: B008, it is frozen
) -> Evaluation:
    """Evaluates a model on a split of a dataset, the test split by default; see `Evaluation`."""
    return evaluate_on(model, data.images, data, split or data.evaluation_split, progress, team)


def evaluate_on(
    model: keras.Model,
    inputs: np.ndarray,
    data: Dataset,
    split: str,
    progress: Progress,
    team: Team = Team(),  # noqa: B008, it is frozen
) -> Evaluation:
    """As `evaluate`, of a model of ``inputs`` (n, ...), one row per image of ``data``."""
    found = team.rows(lambda part: outputs(model, inputs, part, progress), data.splits[split])
    probabilities = found if gives_probabilities(model) else softmax(found)
    return score(probabilities, data.labels[data.splits[split]], split)


class Loop:
    """The state of a training: position, history, best weights; everything a checkpoint holds.

    ``task`` makes of (model, data, plan, phase, augmenter, engine, progress) what a phase minimizes
    and on what, as `Classification` does. ``classifier`` is what of the model is judged: by default
    all but auxiliary heads. ``terms`` are what the tasks' figures have beside those of
    `Classification`. ``projection`` holds weights to a form. ``team`` shares the batches.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        plan: Plan,
        folder: Path | None,
        *,
        classifier: keras.Model | None = None,
        task: Callable[..., Classification] = Classification,
        terms: Sequence[str] = (),
        projection: Projection | None = None,
        engine: Engine | None = None,
        team: Team = Team(),  # noqa: B008, it is frozen
        logs: Callable[[list[dict]], None] = lambda _: None,
        progress: Progress = silent,
    ):
        self.model, self.data, self.plan, self.folder = model, data, plan, folder
        self.make_task, self.engine, self.logs, self.progress = task, engine, logs, progress
        self.team, self.classifier = team, classifier or functional(model)
        self.projection = projection or Projection()
        self.augmenter = Augmenter(plan.augment, plan.seed) if plan.augment else None
        self.train = data.splits["train"]
        self.steps = max(1, len(self.train) // plan.batch_size)
        self.total = self.steps * sum(phase.epochs for phase in plan.phases)
        self.history: list[dict] = []
        self.best: dict = {}
        self.best_weights: list[np.ndarray] | None = None
        self.stopped_early = False
        self.first_loss: float | None = None
        figures = ("objective", "loss", "accuracy")
        self.no_figures = dict.fromkeys([*figures, *terms])
        self.epoch_sums = {"seconds": 0.0}
        self.step_now = 0
        self.start = (0, 0, 0)
        self.saved = time.monotonic()

    def run(self, checkpoint_seconds: float) -> None:
        """Trains from the start, or from the last checkpoint, to the end of the last phase."""
        found = load_checkpoint(self.folder, self.team.told) if self.folder else None
        if found:
            self.start = tuple(found[1]["position"])
            _assign(self.model.variables, found[0])  # they decide the features of the next phase
            self._recall(*found)
        else:
            _seed_variables(self.model, self.plan.seed)
        self.checkpoint_seconds = checkpoint_seconds
        for index in range(self.start[0], len(self.plan.phases)):
            phase = self.plan.phases[index]
            self.task = self.make_task(
                self.model, self.data, self.plan, phase, self.augmenter, self.engine, self.progress
            )
            with self.team.scope():
                self.task.compile(phase, self.steps * phase.epochs)
            with self.projection.attached(self.task.model.optimizer):
                if found:
                    self._restore(*found)
                    found = None
                self._phase(index, phase)
            if phase.batch_norm == "recalibrate":
                order = self.data.order("train", self.plan.seed, 0)
                recalibrate(self.classifier, self.data.images, order, self.progress)
            self.best, self.best_weights = {}, None
        if self.start[0] < len(self.plan.phases):
            self.step_now = self.total + 1
            self._checkpoint((len(self.plan.phases), 0, 0))

    def _phase(self, index: int, phase: Phase) -> None:
        """Trains the epochs of a phase that are left, and sets the weights that it ends with."""
        first_epoch, first_step = self.start[1:] if index == self.start[0] else (0, 0)
        for epoch in range(first_epoch, phase.epochs):
            stop = self._epoch(index, epoch, first_step)
            first_step = 0
            if stop:
                self.stopped_early |= epoch + 1 < phase.epochs
                break
        if self.plan.early_stopping and self.best_weights is not None:
            self.model.set_weights(self.best_weights)
        else:
            self._average()

    def _epoch(self, index: int, epoch: int, first: int) -> bool:
        """Trains one epoch from step ``first``, appends its row; returns whether to stop."""
        number = sum(phase.epochs for phase in self.plan.phases[:index]) + epoch
        order = self.data.order("train", self.plan.seed, number)
        started = time.monotonic()
        if first == 0:
            self.epoch_sums = {"seconds": 0.0}
        started -= self.epoch_sums["seconds"]
        label = f"train: epoch {epoch + 1}/{self.plan.phases[index].epochs}"
        if self.history and self.history[-1]["val_accuracy"] is not None:
            label += f", validation accuracy {self.history[-1]['val_accuracy']:.3f}"
        with self.team.sharing(self.task.model, self._weights()):
            for step in range(first, self.steps):
                begin = step * self.plan.batch_size
                chosen = np.sort(order[begin : begin + self.plan.batch_size])
                self.projection.update(number * self.steps + step, self.total)
                logs = self.team.train_on_batch(self.task.model, self.task.batch(chosen, number))
                if not math.isfinite(logs["loss"]):
                    raise BadInputError(
                        f"the loss became {logs['loss']} in epoch {epoch + 1}, step {step + 1}: "
                        "the training diverged; lower the learning rate"
                    )
                if self.first_loss is None:
                    self.first_loss = float(logs["loss"])
                for name, figure in self.task.figures(logs).items():
                    self.epoch_sums[name] = self.epoch_sums.get(name, 0.0) + figure
                self.epoch_sums["seconds"] = time.monotonic() - started
                self.step_now = number * self.steps + step + 1
                self.progress(label, self.step_now, self.total)
                if step + 1 < self.steps:
                    self._checkpoint((index, epoch, step + 1))
        return self._close_epoch(index, epoch, started)

    def _close_epoch(self, index: int, epoch: int, started: float) -> bool:
        rate = learning_rate(self.task.model.optimizer)
        means = {name: total / self.steps for name, total in self.epoch_sums.items()}
        del means["seconds"]
        loss = means["objective"]
        # Saturated activations keep a diverged loss finite: 1e5 to 1e8 was seen at a rate of 1e6.
        if loss > DIVERGED * max(self.first_loss, math.log(len(self.data.classes))):
            raise BadInputError(
                f"the loss rose from {self.first_loss:.3g} to {loss:.3g} in epoch {epoch + 1}: the "
                "training diverged; lower the learning rate"
            )
        row = {
            "phase": index + 1,
            "epoch": len(self.history) + 1,
            **self.no_figures | means,
            **dict.fromkeys(MONITORS),
            "learning_rate": rate,
        }
        stop = False
        with self._averages():
            if len(self.data.splits["validation"]):
                found = evaluate_on(
                    self.task.classifier, self.task.inputs, self.data, "validation", silent,
                    self.team,
                )  # fmt: skip
                row |= {name: getattr(found, figure) for name, figure in MONITORS.items()}
            if self.plan.early_stopping and self.projection.settled:
                value = row[self.plan.monitor] * (-1 if self.plan.monitor == "val_loss" else 1)
                if not self.best or value > self.best["value"]:
                    self.best = {"value": value, "epoch": epoch}
                    self.best_weights = self.model.get_weights()
                stop = epoch - self.best["epoch"] >= self.plan.early_stopping
        row["seconds"] = round(time.monotonic() - started, 3)
        self.history.append(row)
        self.logs(self.history)
        if not stop:
            self._checkpoint((index, epoch + 1, 0))
        return stop

    def _average(self) -> None:
        """Sets the averaged weights of {"name": "adam", "use_ema": true}."""
        trained = self.task.model
        if uses_averages(trained.optimizer):
            trained.optimizer.finalize_variable_values(trained.trainable_variables)
            # Both would be one array in JAX, which a compiled function gives away with the first.
            for variable in trained.trainable_variables:
                variable.assign(np.array(variable))
        self.projection.project()

    @contextlib.contextmanager
    def _averages(self) -> Iterator[None]:
        """The averaged weights, where there are some, are judged and kept; the others go on."""
        if not uses_averages(self.task.model.optimizer):
            yield
            return
        trained = self.task.model.trainable_variables
        before = [np.array(variable) for variable in trained]
        self._average()
        yield
        for variable, value in zip(trained, before, strict=True):
            variable.assign(value)

    def _weights(self) -> list:
        """Weights and seed states, the phase's own too."""
        own = {id(variable) for variable in self.model.variables}
        return [*self.model.variables, *(v for v in self.task.model.variables if id(v) not in own)]

    def _variables(self) -> list:
        """Weights, seed states and the optimizer's: what a step reads and writes."""
        random = self.augmenter.variables if self.augmenter else []
        return [*self._weights(), *self.task.model.optimizer.variables, *random]

    def _checkpoint(self, position: tuple[int, int, int]) -> None:
        if not self.folder or not self.team.leads:
            return
        if time.monotonic() - self.saved < self.checkpoint_seconds:
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

    def _recall(self, arrays: dict, state: dict) -> None:
        self.history, self.best = state["history"], state["best"]
        self.epoch_sums, self.stopped_early = state["epoch_sums"], state["stopped_early"]
        self.first_loss = state["first_loss"]
        best = [arrays[f"best{i}"] for i in range(len(arrays) - len(state["names"]))]
        self.best_weights = best or None

    def _restore(self, arrays: dict, state: dict) -> None:
        variables, saved = self._variables(), state["names"]
        if len(variables) != len(saved):
            raise KzooError(
                f"the checkpoint in {self.folder} has {len(saved)} variables, the model has "
                f"{len(variables)}; it was written by another version: remove that folder"
            )
        _assign(variables, arrays)


def _seed_variables(model: keras.Model, seed: int) -> None:
    """Makes dropout a function of ``seed``: a loaded model's generators start at random."""
    states = [variable for variable in model.variables if "seed_generator_state" in variable.path]
    for i, state in enumerate(states):
        state.assign(np.array([seed, i], dtype=np.asarray(state).dtype))


def _assign(variables: list, arrays: dict) -> None:
    for i, variable in enumerate(variables):
        variable.assign(arrays[f"v{i}"])
