"""What a phase of training minimizes, and on which arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.learn.augment import Augmenter
from kzoo.learn.features import Engine, features
from kzoo.learn.optimizer import make_optimizer
from kzoo.learn.phase import CLASSIFIER, Phase, layer_groups, set_trainable
from kzoo.network.features import classifier_model
from kzoo.network.model_file import functional, gives_probabilities
from kzoo.progress import Progress

if TYPE_CHECKING:
    import keras

    from kzoo.learn.lessons import Lessons
    from kzoo.learn.variants import Variants


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


class Classification:
    """Cross-entropy of labels: of all heads on pixels, or of the classifier alone on its features.

    Attributes:
        model: what is compiled and trained, rows of ``inputs`` -> logits or probabilities.
        inputs: (n, ...), one row per image of the dataset.
        classifier: ``model`` without auxiliary heads.
        main: what the names of the classifier's metrics begin with.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        plan: Plan,
        phase: Phase,
        augmenter: Augmenter | None,
        engine: Engine | None,
        progress: Progress,
    ):
        set_trainable(model, phase.trainable, phase.batch_norm)
        self.plan = plan
        self.labels = data.labels
        self.one_hot = np.eye(len(data.classes), dtype=np.float32)
        self.model, self.inputs, self.augmenter = model, data.images, augmenter
        if phase.trainable == CLASSIFIER:
            found = features(model, data, ["head"], pooled=False, engine=engine, progress=progress)
            self.model, self.inputs, self.augmenter = classifier_model(model), found["head"], None
        self.classifier = functional(model) if self.model is model else self.model
        self.heads = len(self.model.outputs)
        self.main = f"{self.model.output_names[0]}_" if self.heads > 1 else ""

    def compile(self, phase: Phase, steps: int) -> None:
        """Compiles ``model`` for a phase of so many steps."""
        loss, metrics = cross_entropy(self.classifier, self.plan.label_smoothing)
        self._compile(
            phase,
            steps,
            loss=[loss] * self.heads,
            loss_weights=list(self.plan.head_weights[: self.heads]),
            metrics=[metrics, *[[]] * (self.heads - 1)],
        )

    def _compile(self, phase: Phase, steps: int, **losses: object) -> None:
        groups = layer_groups(self.model) if phase.decay < 1 else ()
        self.model.compile(
            optimizer=make_optimizer(
                phase.optimizer, phase.learning_rate, phase.schedule, steps, groups, phase.decay
            ),
            **losses,
        )
        self.model.optimizer.build(self.model.trainable_variables)

    def batch(self, chosen: np.ndarray, epoch: int) -> tuple:  # noqa: ARG002
        """The arguments of ``train_on_batch`` for the images of these numbers in an epoch."""
        inputs = self.inputs[chosen].astype(np.float32)
        targets = self.one_hot[self.labels[chosen]]
        if self.augmenter:
            inputs, targets = self.augmenter(inputs, targets)
        return inputs, [targets] * self.heads if self.heads > 1 else targets, self._weights(targets)

    def _weights(self, targets: np.ndarray) -> np.ndarray | None:
        weights = self.plan.class_weights
        return None if weights is None else targets @ weights

    def figures(self, logs: Mapping[str, float]) -> dict[str, float]:
        """What of a step's logs is averaged over the epoch, by its name in the history."""
        return {
            "objective": logs["loss"],
            "loss": logs[f"{self.main}log_loss"],
            "accuracy": logs[f"{self.main}accuracy"],
        }


class Distillation(Classification):
    """What a teacher asks of a student, beside the labels, on variants of the images.

    In a phase of the classifier alone it is `Classification`: labels teach, on cached features.
    """

    def __init__(self, lessons: Lessons, variants: Variants, model: keras.Model, *others: object):
        """``model`` has been made of the lessons; ``others`` are as for `Classification`."""
        data, plan, phase, augmenter, engine, progress = others
        super().__init__(lessons.student, data, plan, phase, augmenter, engine, progress)
        self.taught = phase.trainable != CLASSIFIER
        if self.taught:
            self.model, self.lessons, self.variants = model, lessons, variants
            self.pixels = variants.images[data.size]
            self.main = "hard_" if lessons.losses else ""

    def compile(self, phase: Phase, steps: int) -> None:
        """As `Classification`."""
        if not self.taught or not self.lessons.losses:
            super().compile(phase, steps)
            return
        loss, metrics = cross_entropy(self.classifier, self.plan.label_smoothing)
        self._compile(
            phase,
            steps,
            loss={"hard": loss, **self.lessons.losses},
            loss_weights={"hard": self.plan.head_weights[0], **self.lessons.weights},
            metrics={"hard": metrics},
        )

    def batch(self, chosen: np.ndarray, epoch: int) -> tuple:
        """As `Classification`."""
        if not self.taught:
            return super().batch(chosen, epoch)
        rows = self.variants.rows(chosen, epoch)
        labels = self.variants.labels[rows]
        targets = {name: array[rows] for name, array in self.lessons.targets.items()}
        return (
            self.pixels[rows].astype(np.float32),
            {"hard": labels, **targets} if targets else labels,
            self._weights(labels),
        )

    def figures(self, logs: Mapping[str, float]) -> dict[str, float]:
        """As `Classification`, and each loss, unweighted."""
        found = super().figures(logs)
        if self.taught and self.lessons.losses:
            for term, names in self.lessons.terms.items():
                found[term] = float(np.mean([logs[f"{name}_loss"] for name in names]))
        return found


def cross_entropy(model: keras.Model, label_smoothing: float) -> tuple:
    """The loss of a classifier, and its metrics: accuracy and log-loss.

    The metrics are without weights and smoothing, so that they compare with those of validation.
    """
    import keras

    from_logits = not gives_probabilities(model)
    metrics = [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.CategoricalCrossentropy(name="log_loss", from_logits=from_logits),
    ]
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=from_logits, label_smoothing=label_smoothing
    )
    return loss, metrics
