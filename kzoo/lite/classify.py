"""A model as a classifier, Keras' or a .tflite: what it takes, and the probabilities it gives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.ranges import as_trained
from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.evaluate import outputs, softmax
from kzoo.lite.inspect import Contents, inspect
from kzoo.lite.interpret import lite_outputs
from kzoo.network.model_file import (
    checked_notes,
    functional,
    gives_probabilities,
    load_model,
    read_notes,
)
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

FLOOR = 1 / 512
"""Half a step of a uint8 output: probabilities below it are not told apart in a log-loss."""


@dataclass(frozen=True)
class Classifier:
    """A model that is ready to be run.

    Attributes:
        model: a Keras model, or the path of a .tflite.
        image: (h, w, c) of its input.
        classes: how many it gives probabilities of.
        notes: what is noted in its file, see `kzoo.network.model_file.read_notes`.
        floor: of its log-loss, see `kzoo.learn.evaluate.score`.
    """

    model: keras.Model | Path
    image: tuple[int, int, int]
    classes: int
    notes: dict
    floor: float


def classifier(model: keras.Model | str | os.PathLike) -> Classifier:
    """Opens a Keras model, its file or a .tflite.

    Raises:
        MissingError: the file does not exist.
        UsageError: its name has another ending.
        BadInputError: it is damaged, or does not map images to classes.
    """
    if not isinstance(model, (str, os.PathLike)):
        return _of_keras(functional(model), checked_notes({}))
    path = Path(model)
    if path.suffix in (".keras", ".h5"):
        notes = read_notes(path)
        return _of_keras(as_trained(load_model(path), notes), notes)
    if path.suffix != ".tflite":
        raise UsageError(f"a model's file ends in .keras, .h5 or .tflite; {str(path)!r} was given")
    contents = inspect(path, packed=False)
    image, output = contents.input["shape"], contents.output["shape"]
    if len(image) != 4 or len(output) != 2:
        raise BadInputError(
            f"{str(path)!r} maps {image} to {output}; (n, height, width, channels) to (n, classes) "
            "is expected"
        )
    notes = checked_notes(contents.notes)
    return Classifier(path, tuple(image[1:]), output[1], notes, least_probability(contents))


def _of_keras(model: keras.Model, notes: dict) -> Classifier:
    return Classifier(model, model.inputs[0].shape[1:], model.outputs[0].shape[1], notes, 1e-7)


def least_probability(contents: Contents) -> float:
    """What probabilities are bounded by, from below, in the log-loss of a .tflite."""
    return FLOOR if "int8" in contents.output["dtype"] else 1e-7


def probabilities(
    classifier: Classifier,
    images_file: str | os.PathLike,
    indices: np.ndarray,
    progress: Progress = silent,
) -> np.ndarray:
    """Runs a model on uint8 images, a .tflite in a child process.

    Args:
        classifier: the model.
        images_file: a ``.npy`` of uint8 (n, h, w, c), mapped and not copied.
        indices: which of them.
        progress: called every few images.

    Returns:
        float32 (len(indices), classes).

    Raises:
        BadInputError: a .tflite crashes the runtime, or takes other images.
    """
    model = classifier.model
    if isinstance(model, Path):
        found, logits = lite_outputs(model, images_file, indices, progress=progress)
        return softmax(found) if gives_logits(found, logits) else found
    found = outputs(model, np.load(images_file, mmap_mode="r"), indices, progress)
    return found if gives_probabilities(model) else softmax(found)


def gives_logits(found: np.ndarray, logits: np.ndarray | None) -> bool:
    """Whether a .tflite's outputs are logits: no softmax makes them, and they do not sum to 1.

    Both as `kzoo.lite.interpret.lite_outputs` returns them.
    """
    sums_to_one = (found >= 0).all() and np.abs(found.sum(axis=1) - 1).max() < 0.05
    return logits is None and not sums_to_one


def spread(indices: np.ndarray, most: int) -> np.ndarray:
    """At most so many images of a split, evenly: a folder's stand in the order of its classes."""
    if most >= len(indices):
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).astype(int)]


def evaluated(data: Dataset, split: str | None) -> tuple[str, np.ndarray]:
    """The name and the indices of a split, by default of the one that final numbers come from.

    Raises:
        UsageError: there is no such split, or it is empty.
    """
    split = split or data.evaluation_split
    if split not in data.splits or not len(data.splits[split]):
        raise UsageError(f"the dataset has no split {split!r} with images in it")
    return split, data.splits[split]
