"""What a model says of a few images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.photo import read_photo
from kzoo.errors import UsageError
from kzoo.lite.classify import classifier, probabilities

if TYPE_CHECKING:
    import keras


def predict(
    model: keras.Model | str | os.PathLike,
    images: Sequence[str | os.PathLike],
    *,
    top: int = 5,
    classes: Sequence[str] = (),
    crop: float | None = None,
) -> list[dict]:
    """Classifies image files.

    Args:
        model: a Keras model or ``.keras`` file that maps pixels (n, h, w, c) in [0, 255] to logits
            or probabilities (n, classes), or a ``.tflite``.
        images: files; each is turned upright, scaled so that it covers the input, and cropped.
        top: how many classes to give.
        classes: names of the outputs; those noted in the file by default, else their numbers.
        crop: the side of the square in the middle that is looked at, as a share of the shorter
            side; as noted in the file by default, else 1.

    Returns:
        One ``{"image", "top": [{"class", "probability"}, ...]}`` per image, most probable first.

    Raises:
        MissingError, BadInputError: a file is missing, damaged, or none that can be used.
        UsageError: a wrong ``top`` or number of class names.
    """
    if isinstance(images, (str, os.PathLike)) or not images:
        raise UsageError(f"a list of image files is expected; {images!r} was given")
    if crop is not None and not 0.1 <= crop <= 1:
        raise UsageError(f"crop is from 0.1 to 1; {crop} was given")
    if top < 1:
        raise UsageError(f"top is at least 1; {top} was given")
    opened = classifier(model)
    names = classes or opened.notes["classes"] or [f"class {i}" for i in range(opened.classes)]
    if len(names) != opened.classes:
        raise UsageError(f"the model has {opened.classes} outputs, {len(names)} names were given")
    pixels = [read_photo(path, opened.image, crop or opened.notes["crop"]) for path in images]
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        np.save(f"{folder}/images.npy", np.stack(pixels))
        found = probabilities(opened, f"{folder}/images.npy", np.arange(len(pixels)))
    return [
        {
            "image": str(path),
            "top": [
                {"class": names[i], "probability": round(float(values[i]), 6)}
                for i in values.argsort()[::-1][:top]
            ],
        }
        for path, values in zip(images, found, strict=True)
    ]
