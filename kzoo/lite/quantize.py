"""Full-integer int8 after training, calibrated on real images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kzoo.child import blame, call_shared
from kzoo.data.dataset import Dataset
from kzoo.errors import UsageError
from kzoo.learn.inputs import matching_data
from kzoo.lite.convert import Conversion, check_arguments, model_path, shown, write_lite
from kzoo.network.model_file import read_notes
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras


def quantize(
    model: keras.Model | str | os.PathLike,
    output: str | os.PathLike,
    *,
    calibrate: Dataset | str | os.PathLike,
    samples: int = 200,
    io: str = "uint8",
    head: str = "probabilities",
    seed: int = 0,
    force: bool = False,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Writes a Keras model as a .tflite whose weights and activations are int8.

    Weights are symmetric per output channel, activations have the range they take on calibration
    images (Jacob et al. 2018, arXiv:1712.05877; LiteRT's 8-bit specification). With ``io="uint8"``
    a normalization of one scale and offset becomes the input's scale and zero point and costs
    nothing.

    Args:
        model: functional, pixels (n, h, w, c) in [0, 255] -> logits or probabilities (n, classes).
        output: the ``.tflite`` file.
        calibrate: images to calibrate on, of their training split only.
        samples: how many.
        io: "uint8" pixels in and uint8 probabilities out (scale 1/256), or "float32" for both.
        head: "probabilities" or "logits".
        seed: of the choice of images.
        force: overwrite.
        data_options: arguments of `kzoo.load_data` when ``calibrate`` is a path; by default the
            split is the one that the model was trained on.
        progress: called at the stages of the work.

    Raises:
        As `kzoo.convert`, and BadInputError where images and model do not fit.
    """
    if samples < 1:
        raise UsageError(f"samples is at least 1; {samples} was given")
    output = check_arguments(output, io, head, force)
    with model_path(model) as path:
        with blame(f"{shown(model)} cannot be read"):
            net = call_shared("kzoo.lite.translate:describe", model=str(path))
        options = {"progress": progress, **(data_options or {})}
        data = matching_data(net["input"], net["classes"], calibrate, read_notes(path), **options)
        chosen = np.sort(data.order("train", seed, 0)[:samples])
        images = np.ascontiguousarray(data.images[chosen])
        return write_lite(path, output, "int8", io, head, images, force, progress)
