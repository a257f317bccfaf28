"""What a phase of training minimizes, and on which arrays."""

from __future__ import annotations

from collections.abc import Sequence
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
        import keras

        from_logits = not gives_probabilities(self.model)
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=from_logits, label_smoothing=self.plan.label_smoothing
        )
        # Unweighted and without smoothing, so that they compare with those of validation.
        metrics = [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.CategoricalCrossentropy(name="log_loss", from_logits=from_logits),
        ]
        groups = layer_groups(self.model) if phase.decay < 1 else ()
        self.model.compile(
            optimizer=make_optimizer(
                phase.optimizer, phase.learning_rate, phase.schedule, steps, groups, phase.decay
            ),
            loss=[loss] * self.heads,
            loss_weights=list(self.plan.head_weights[: self.heads]),
            metrics=[metrics, *[[]] * (self.heads - 1)],
        )
        self.model.optimizer.build(self.model.trainable_variables)

    def batch(self, chosen: np.ndarray) -> tuple:
        """The arguments of ``train_on_batch`` for the images of these numbers."""
        inputs = self.inputs[chosen].astype(np.float32)
        targets = self.one_hot[self.labels[chosen]]
        if self.augmenter:
            inputs, targets = self.augmenter(inputs, targets)
        weights = self.plan.class_weights
        return (
            inputs,
            [targets] * self.heads if self.heads > 1 else targets,
            None if weights is None else targets @ weights,
        )
