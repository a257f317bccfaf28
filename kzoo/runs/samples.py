"""Images that a report shows: the worst mistakes, and a look at the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.files import atomic
from kzoo.lite.check import Check

SAMPLES = 24
"""Images in all; the worst mistakes among them are as many as an `Evaluation` keeps."""


def write_samples(checked: Check, data: Dataset, file: Path) -> dict:
    """Writes images of the evaluated split side by side as one PNG.

    First the worst mistakes of the int8 file, the most confident first; then, spread evenly over
    the split, some of the others.

    Args:
        checked: the int8 file beside its Keras model.
        data: where the images are.
        file: the PNG; its folder is made.

    Returns:
        ``file`` and ``size`` (height, width) of an image, ``split``, ``worst``: how many of the
        images are worst mistakes, and ``predictions`` for every image: path, label, and what both
        models answer.
    """
    from PIL import Image

    worst = np.array([row["image"] for row in checked.lite.worst], np.int64)
    rest = np.setdiff1d(np.arange(len(checked.indices)), worst)
    places = np.linspace(0, len(rest) - 1, min(SAMPLES - len(worst), len(rest)))
    shown = np.concatenate([worst, rest[places.round().astype(np.int64)]])
    tiles = data.images[checked.indices[shown]]
    tiles = np.repeat(tiles, 3, axis=3) if tiles.shape[3] == 1 else tiles
    file.parent.mkdir(exist_ok=True)
    with atomic(file) as temporary:
        Image.fromarray(np.concatenate(list(tiles), axis=1)).save(temporary)
    return {
        "file": f"{file.parent.name}/{file.name}",
        "size": list(data.size),
        "split": checked.lite.split,
        "worst": len(worst),
        "predictions": [
            {
                "path": data.paths[checked.indices[i]],
                "label": data.classes[data.labels[checked.indices[i]]],
                "keras": _top(checked.keras_probabilities[i], data.classes),
                "int8": _top(checked.lite_probabilities[i], data.classes),
            }
            for i in shown
        ],
    }


def _top(probabilities: np.ndarray, classes: Sequence[str]) -> dict:
    best = int(probabilities.argmax())
    return {"class": classes[best], "probability": round(float(probabilities[best]), 4)}
