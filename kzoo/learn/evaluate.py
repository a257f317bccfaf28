"""How good a classifier is on labelled images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import BadInputError
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    """Figures on one split.

    Attributes:
        split: which images.
        count: how many.
        accuracy: share whose most probable class is the label.
        interval: its 95 % Wilson interval.
        log_loss: mean negative log-probability of the label, in nats, probabilities below ``floor``
            counting as ``floor``.
        confusion: ``confusion[label][predicted]`` counts.
    """

    split: str
    count: int
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    floor: float
    confusion: list[list[int]]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def score(
    probabilities: np.ndarray, labels: np.ndarray, split: str, floor: float = 1e-7
) -> Evaluation:
    """Evaluates probabilities (n, classes) against integer labels (n,).

    ``floor`` bounds probabilities in the log-loss from below: an int8 file gives steps of 1/256,
    and a 0 there means "below half a step".

    Raises:
        BadInputError: there are no images, or a probability is NaN.
    """
    if not len(labels):
        raise BadInputError(f"the {split} split has no images to evaluate on")
    if not np.isfinite(probabilities).all():
        raise BadInputError(
            f"the model gives NaN or infinity on the {split} split: it diverged in training "
            "(lower the learning rate), or its weights are damaged"
        )
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((probabilities.shape[1],) * 2, np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    right = int((predicted == labels).sum())
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return Evaluation(
        split=split,
        count=len(labels),
        accuracy=right / len(labels),
        interval=wilson(right, len(labels)),
        log_loss=float(-np.log(np.maximum(of_label, floor)).mean()),
        floor=floor,
        confusion=confusion.tolist(),
    )


def wilson(successes: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927)."""
    share = successes / count
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def outputs(
    model: keras.Model, images: np.ndarray, indices: np.ndarray, progress: Progress = silent
) -> np.ndarray:
    """The model's outputs (n, classes), float32, for uint8 images[indices] (n, h, w, c).

    Batches are cut from the memory map one at a time, and the last is filled up, so that one
    compiled shape serves all.
    """
    parts = []
    for start in range(0, len(indices), BATCH):
        batch = images[indices[start : start + BATCH]].astype(np.float32)
        missing = min(BATCH, len(indices)) - len(batch)
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
        found = np.asarray(model.predict_on_batch(batch), np.float32)
        parts.append(found[: len(found) - missing])
        progress("evaluate", min(start + BATCH, len(indices)), len(indices))
    return np.concatenate(parts)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of logits (n, classes)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
