"""How good a model is on labelled images, and where it is most wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.files import sha256
from kzoo.learn.evaluate import Evaluation, score
from kzoo.learn.inputs import matching_data
from kzoo.lite.classify import classifier, evaluated, probabilities
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Assessment:
    """A model's figures on a dataset.

    Attributes:
        model: its file, or its name where it has none; ``sha256`` is the file's hash, or None.
        data: the dataset's source; ``fingerprint`` is its identity.
        classes: names, in the order of the model's outputs.
        evaluation: the figures.
        mistakes: ``evaluation.worst`` in names: ``{"path", "label", "predicted", "probability"}``.
        images: uint8 (mistakes, h, w, c), as the model saw them.
    """

    model: str
    sha256: str | None
    data: str
    fingerprint: str
    classes: tuple[str, ...]
    evaluation: Evaluation
    mistakes: list[dict]
    images: np.ndarray = field(repr=False, compare=False)

    def to_dict(self) -> dict:
        """The record as JSON values, without the images."""
        return {name: value for name, value in asdict(self).items() if name != "images"}


def evaluate(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    split: str | None = None,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Assessment:
    """Evaluates a classifier on labelled images, each seen whole: `kzoo.predict` alone crops.

    Args:
        model: a Keras model or ``.keras`` file that maps pixels (n, h, w, c) in [0, 255] to logits
            or probabilities (n, classes), or a ``.tflite``.
        data: a dataset or what `kzoo.load_data` takes.
        split: "train", "validation" or "test"; by default test, or validation where that is empty.
        data_options: arguments of `kzoo.load_data` when ``data`` is a path; by default the split is
            the one that the model was trained on.
        progress: called at the stages of the work.

    Raises:
        MissingError: a file is missing.
        BadInputError: the model or the data is damaged, they do not fit each other, or the model
            gives NaN.
        UsageError: an argument is wrong, or the split has no images.
    """
    found = classifier(model)
    options = {"progress": progress, **(data_options or {})}
    data = matching_data(found.image, found.classes, data, found.notes, **options)
    split, indices = evaluated(data, split)
    values = probabilities(found, data.images_file, indices, progress)
    evaluation = score(values, data.labels[indices], split, found.floor)
    in_a_file = isinstance(model, (str, os.PathLike))
    return Assessment(
        model=str(model) if in_a_file else model.name,
        sha256=sha256(model) if in_a_file else None,
        data=data.source,
        fingerprint=data.fingerprint,
        classes=data.classes,
        evaluation=evaluation,
        mistakes=[
            {
                "path": data.paths[indices[row["image"]]],
                "label": data.classes[row["label"]],
                "predicted": data.classes[row["predicted"]],
                "probability": row["probability"],
            }
            for row in evaluation.worst
        ],
        images=data.images[indices[[row["image"] for row in evaluation.worst]]],
    )
