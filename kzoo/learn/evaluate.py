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
BINS = 15
"""Of equal width, of the confidence in [0, 1] (Guo et al. 2017)."""
WORST = 12
"""Mistakes that are kept."""


@dataclass(frozen=True)
class Evaluation:
    """Figures on one split.

    A class is its number, its place in the sorted names; an image is its place in the split. Of
    equal probabilities the first class counts as the most probable. A ratio with nothing to divide
    by is None.

    Attributes:
        split: which images.
        count: how many.
        accuracy: share whose most probable class is the label.
        interval: its 95 % Wilson interval.
        top5_accuracy: share whose label is among the five most probable classes; None where there
            are at most five.
        log_loss: mean negative log-probability of the label, in nats, probabilities below ``floor``
            counting as ``floor``.
        ece: expected calibration error (Guo et al. 2017, section 2): the mean distance between
            accuracy and confidence, the probability of the most probable class, bin by bin. By
            chance a calibrated model has some, too: at most ``sqrt(BINS / count) / 2`` on average.
        reliability: one ``{"count", "confidence", "accuracy"}`` per bin, the means of the images
            with a confidence in (i / BINS, (i + 1) / BINS]; None in an empty one.
        macro_f1: mean of the classes' F1, those without one left out.
        per_class: one ``{"count", "precision", "recall", "f1"}`` per class: how many images of it;
            the share of them among the images taken for it; the share of them that were taken for
            it; and F1, twice those that were over the sum of its images and the images taken for
            it. So recall is None where the class has no image, precision where no image was taken
            for it, F1 where neither is there.
        worst: the mistakes of the highest confidence, at most WORST, the most confident first:
            ``{"image", "label", "predicted", "probability"}``.
        confusion: ``confusion[label][predicted]`` counts.
    """

    split: str
    count: int
    accuracy: float
    interval: tuple[float, float]
    top5_accuracy: float | None
    log_loss: float
    floor: float
    ece: float
    reliability: list[dict]
    macro_f1: float
    per_class: list[dict]
    worst: list[dict]
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
    confidence = probabilities.max(axis=1).astype(np.float64)
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    right = predicted == labels
    confusion = np.zeros((probabilities.shape[1],) * 2, np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    ece, reliability = _calibration(confidence, right)
    per_class = _per_class(confusion)
    return Evaluation(
        split=split,
        count=len(labels),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(labels)),
        top5_accuracy=_top5(probabilities, labels),
        log_loss=float(-np.log(np.maximum(of_label, floor)).mean()),
        floor=floor,
        ece=ece,
        reliability=reliability,
        macro_f1=float(np.mean([row["f1"] for row in per_class if row["f1"] is not None])),
        per_class=per_class,
        worst=_worst(confidence, predicted, labels),
        confusion=confusion.tolist(),
    )


def _top5(probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    classes = probabilities.shape[1]
    if classes <= 5:
        return None
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    tied = (probabilities == of_label) & (np.arange(classes) < labels[:, None])
    before = ((probabilities > of_label) | tied).sum(axis=1)
    return float((before < 5).mean())


def _calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[float, list[dict]]:
    """The expected calibration error and its bins, from float64 (n,) and bool (n,)."""
    # To the left: a bin holds its upper edge.
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    count, confident, correct = (
        np.bincount(bins, weights, minlength=BINS) for weights in (None, confidence, right)
    )
    columns = (count.tolist(), _ratios(confident, count), _ratios(correct, count))
    rows = [
        dict(zip(("count", "confidence", "accuracy"), row, strict=True))
        for row in zip(*columns, strict=True)
    ]
    return float(np.abs(correct - confident).sum() / len(right)), rows


def _per_class(confusion: np.ndarray) -> list[dict]:
    right, count, taken = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = _ratios(2 * right, count + taken)
    columns = (count.tolist(), _ratios(right, taken), _ratios(right, count), f1)
    return [
        dict(zip(("count", "precision", "recall", "f1"), row, strict=True))
        for row in zip(*columns, strict=True)
    ]


def _ratios(parts: np.ndarray, wholes: np.ndarray) -> list[float | None]:
    return [
        part / whole if whole else None
        for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)
    ]


def _worst(confidence: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> list[dict]:
    wrong = np.flatnonzero(predicted != labels)
    return [
        {
            "image": int(i),
            "label": int(labels[i]),
            "predicted": int(predicted[i]),
            "probability": float(confidence[i]),
        }
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")[:WORST]]
    ]


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
