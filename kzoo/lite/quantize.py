"""Full-integer int8 after training, calibrated on real images."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.child import blame, call_shared
from kzoo.data.dataset import Dataset
from kzoo.errors import UsageError
from kzoo.learn.inputs import matching_data
from kzoo.lite.convert import Conversion, check_arguments, model_path, shown, write_lite
from kzoo.network.model_file import load_model, read_notes, save_model
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras


def quantize(
    model: keras.Model | str | os.PathLike,
    output: str | os.PathLike,
    *,
    calibrate: Dataset | str | os.PathLike,
    samples: int = 200,
    equalize: bool = False,
    adaround: bool = False,
    correct_bias: bool = False,
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
        equalize: before it, scale channels so that kernels have equal ranges.
        adaround: then learn which way each weight is rounded.
        correct_bias: then correct biases for what rounding adds. These three give another network
            that computes much the same; the file is compared with ``model`` still. See
            `kzoo.compress.equalize`, ``adaround`` and ``correct_bias`` there.
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
    asked = {"equalize": equalize, "adaround": adaround, "correct_bias": correct_bias}
    with model_path(model) as path:
        notes = read_notes(path)
        if notes.get("ranges") and any(asked.values()):
            given = ", ".join(name for name, wanted in asked.items() if wanted)
            raise UsageError(
                f"{shown(model)} was trained with the rounding of int8, which is exported as it "
                f"is; leave out {given}, or quantize the file that kzoo qat was given"
            )
        with blame(f"{shown(model)} cannot be read"):
            net = call_shared("kzoo.lite.translate:describe", model=str(path))
        options = {"progress": progress, **(data_options or {})}
        data = matching_data(net["input"], net["classes"], calibrate, notes, **options)
        chosen = np.sort(data.order("train", seed, 0)[:samples])
        images = np.ascontiguousarray(data.images[chosen])
        if not any(asked.values()):
            return write_lite(path, output, "int8", io, head, images, force, progress)
        with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
            ready = Path(folder, Path(path).with_suffix(".keras").name)
            told = _prepare(path, ready, images, asked, seed, progress)
            return write_lite(
                ready, output, "int8", io, head, images, force, progress, against=path, told=told
            )


def _prepare(path, ready: Path, images, asked: Mapping[str, bool], seed: int, progress) -> dict:
    """Writes the network that is exported in place of another, and tells what was done."""
    from kzoo.compress.adaround import adaround
    from kzoo.compress.correct_bias import correct_bias
    from kzoo.compress.equalize import equalize, held_channels

    model, told = load_model(path), {}
    if asked["equalize"]:
        told["equalize"] = {"held by": dict(Counter(held_channels(model).values()))}
        model = equalize(model)
    whole = model
    if asked["adaround"]:
        told["adaround"] = {"images": len(images)}
        model = adaround(model, images, seed=seed, progress=progress)
    if asked["correct_bias"]:
        told["correct_bias"] = {"images": len(images)}
        model = correct_bias(model, images, against=whole, progress=progress)
    save_model(model, ready, notes=read_notes(path))
    return told
