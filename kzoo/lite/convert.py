"""Keras to .tflite, by a frozen concrete function at batch 1, in a child process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.child import ChildCrashed, blame, call, call_shared
from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError, nearest
from kzoo.files import atomic, existing, new_output
from kzoo.learn.inputs import matching_classes, matching_images
from kzoo.lite.classify import least_probability
from kzoo.lite.inspect import Contents, inspect
from kzoo.lite.interpret import lite_outputs
from kzoo.network.model_file import checked_notes, functional, read_notes, save_model
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

IO = ("uint8", "float32")
LARGE = 128 << 20
"""Bytes of a network from which on memory is saved where it costs time."""
SPARING = {"TF_ENABLE_ONEDNN_OPTS": "0"}
"""What oneDNN's allocator holds it does not give back: 0.9 GB of VGG-16's conversion."""
TOLERANCE = 1e-3
"""Largest logit error of a float file, in standard deviations of the logits; 1e-6 is usual."""


@dataclass(frozen=True)
class Conversion:
    """A .tflite file that was written, invoked and compared.

    Attributes:
        output: its path.
        quantization: "float32" or the recipe's name.
        contents: what is inside, see `kzoo.lite.inspect.Contents`.
        max_logit_error: largest difference to the Keras model's logits on ``compared`` images,
            divided by the logits' standard deviation.
        agreement: share of those images with the same most probable class.
        compared: how many images, and which: random pixels, or calibration images.
        seconds: conversion alone, without start-up of the child.
        prepared: what was done to the network before, in this order, see `kzoo.quantize`.
        calibration: ``{"ranges", "images", "moved"}``, see `kzoo.lite.calibration.calibrated`, or
            empty where no activation is a whole number.
        preprocessing: the operators that prepare pixels before the network's first, if any:
            ``{"operators"}``.
        tried: of a choice between several files a row each, see `kzoo.lite.trials.Trial`.
    """

    output: str
    quantization: str
    contents: Contents
    max_logit_error: float
    agreement: float
    compared: str
    seconds: float
    prepared: dict = field(default_factory=dict)
    calibration: dict = field(default_factory=dict)
    preprocessing: dict = field(default_factory=dict)
    tried: list[dict] = field(default_factory=list)

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def convert(
    model: keras.Model | str | os.PathLike,
    output: str | os.PathLike,
    *,
    io: str = "uint8",
    head: str = "probabilities",
    normalize: Sequence[Sequence[float]] | None = None,
    frame: int | tuple[int, int] | None = None,
    sparse: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> Conversion:
    """Writes a Keras model, or a float .tflite from anywhere, as a float .tflite that takes pixels.

    Args:
        model: functional, pixels (n, h, w, c) in [0, 255] -> logits or probabilities (n, classes);
            its file, or a float ``.tflite`` of one image to one vector.
        output: the ``.tflite`` file.
        io: dtype of the input pixels, "uint8" (as a camera gives them) or "float32". The output of
            a float file is float32.
        head: "probabilities" (a softmax is added behind logits) or "logits".
        normalize: (mean, std), of a network or .tflite from elsewhere that takes
            (pixel - mean) / std and does not tell so.
        frame: (height, width) of a camera's images, or both in one number: the file takes these,
            and cuts out and scales the middle itself, see `kzoo.lite.pixels.with_frame`.
        sparse: keep of kernels that are mostly zeros (see `kzoo.prune`) the others alone. The file
            is smaller and no faster: runtimes unpack it as they load it.
        force: overwrite.
        progress: called at the stages of the work.

    Raises:
        UsageError: wrong argument, or the output exists.
        MissingError: a file or disk space is missing.
        BadInputError: the model cannot be loaded or converted, or the file does not compute what
            the model does.
    """
    if io not in IO:
        raise UsageError(f"io {io!r} is none of {', '.join(IO)}{nearest(io, IO)}")
    output = check_arguments(output, head, force)
    options = {"normalize": normalize, "frame": frame, "sparse": sparse}
    return write_lite(model, output, None, io, head, None, progress, **options)


def write_lite(
    model, output, recipe, io, head, calibration, progress, *, against=None, told=None, **options
) -> Conversion:
    """The common path of `convert` and `kzoo.lite.quantize.quantize`: child, compare, rename.

    Where ``model`` was prepared, as is ``told``, it is compared with ``against``: the path of the
    model it was made of, and that one's ``normalize``.
    ``options`` are of `kzoo.lite.translate.translate`.
    """
    quantization = recipe or "float32"
    name = f"convert to {quantization}"
    progress(name, 0, 3)
    with (
        model_path(model) as path,
        atomic(output) as temporary,
        tempfile.TemporaryDirectory() as work,
    ):
        if calibration is not None:
            np.save(f"{work}/calibration.npy", calibration)
        large = path.stat().st_size > LARGE
        run = partial(call, environ=SPARING) if large else call_shared
        try:
            made = run(
                "kzoo.lite.translate:translate",
                model=str(path),
                output=str(temporary),
                recipe=recipe,
                io=io,
                head=head,
                notes=notes_of(path) | ({"prepared": sorted(told)} if told else {}),
                work=work,
                progress=progress,
                **options,
            )
        except ChildCrashed as crash:
            raise BadInputError(f"{shown(model)} cannot be converted: {crash}") from crash
        progress(name, 1, 3)
        if against is not None:
            given = f"{work}/given.npy"
            first, its = against
            outputs, _ = model_outputs(first, first, given, np.arange(len(np.load(given))), its)
            np.save(f"{work}/expected.npy", outputs)
        contents = inspect(temporary, packed=False)
        compared = _compare(temporary, work, made, quantization, least_probability(contents))
        progress(name, 2, 3)
    progress(name, 3, 3)
    return Conversion(
        output=str(output),
        quantization=quantization,
        contents=Contents(**{**contents.to_dict(), "file": str(output)}),
        seconds=made["seconds"],
        prepared=told or {},
        calibration=made["calibration"],
        preprocessing={"operators": made["preprocessing"]} if made["preprocessing"] else {},
        **compared,
    )


def check_arguments(output: str | os.PathLike, head: str, force: bool) -> Path:
    """Returns the output's path; raises as `convert`. Called before any work is done."""
    output = new_output(output, force=force)
    if output.suffix != ".tflite":
        raise UsageError(f"the output's name ends in .tflite; {str(output)!r} was given")
    if head not in ("probabilities", "logits"):
        raise UsageError(f"head {head!r} is neither probabilities nor logits")
    return output


def shown(model) -> str:
    """A model's name in messages."""
    return repr(str(model)) if isinstance(model, (str, os.PathLike)) else model.name


@contextmanager
def model_path(model: keras.Model | str | os.PathLike):
    """The path of a model; one in memory is saved for the time of the block."""
    if isinstance(model, (str, os.PathLike)):
        yield existing(model, "the model")
        return
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        yield save_model(functional(model), Path(folder, "model.keras"))


def images_for(
    path: Path,
    model,
    data: Dataset | str | os.PathLike,
    data_options,
    progress,
    normalize=None,
    labelled: bool = True,
) -> Dataset:
    """The dataset, loaded as the file at ``path`` takes its images and names its classes.

    Args:
        path: of a Keras network or a float .tflite, which messages call ``model``.
        labelled: whether its classes have to be the network's.

    Raises:
        BadInputError: the file cannot be read, or they do not fit each other.
    """
    with blame(f"{shown(model)} cannot be read"):
        net = call_shared("kzoo.lite.translate:describe", model=str(path), normalize=normalize)
    options = {"progress": progress, **(data_options or {})}
    notes = notes_of(path)
    data = matching_images(net["input"], data, notes, **options)
    if labelled:
        matching_classes(net["classes"], data, notes)
    return data


def notes_of(path: str | os.PathLike) -> dict:
    """What is noted in a Keras file or a .tflite, see `kzoo.network.model_file.read_notes`."""
    if Path(path).suffix == ".tflite":
        return checked_notes(inspect(path, packed=False).notes)
    return read_notes(path)


def made_from(file: str | os.PathLike, contents: Contents, model, data: Dataset) -> None:
    """Raises BadInputError where a .tflite takes other images than the model that ``data`` fit."""
    given, expected = contents.input["shape"][1:], list(data.images.shape[1:])
    if contents.notes.get("frame"):
        raise BadInputError(
            f"{file} takes frames of {given}, which it scales itself: kzoo evaluate tells how good "
            "it is, and this command takes the file that was made without --frame"
        )
    if list(given) != expected:
        raise BadInputError(
            f"{file} takes {given} images, {shown(model)} {expected}: it was not made from this "
            "model"
        )


def model_outputs(
    path: Path, model, images_file: str | os.PathLike, indices: np.ndarray, normalize=None
) -> tuple[np.ndarray, bool]:
    """What the Keras network or float .tflite at ``path``, called ``model``, gives for images.

    Returns float32 (len(indices), classes), and whether these are probabilities.
    """
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        np.save(f"{folder}/indices.npy", indices)
        with blame(f"{shown(model)} cannot be run"):
            probabilities_only = call_shared(
                "kzoo.lite.translate:predict",
                model=str(path),
                images_file=str(images_file),
                folder=folder,
                normalize=normalize,
            )
        return np.load(f"{folder}/expected.npy"), probabilities_only


def _compare(file: Path, work: str, made: dict, quantization: str, least: float) -> dict:
    """Runs the new file in a fresh child on the images that the converter ran Keras on."""
    expected = np.load(f"{work}/expected.npy")
    found, logits = lite_outputs(file, f"{work}/images.npy", np.arange(len(expected)))
    if made["probabilities_only"] or logits is None:
        logits = found
    same = expected.argmax(1) == logits.argmax(1)
    if made["probabilities_only"]:
        expected, logits = (np.log(np.maximum(values, least)) for values in (expected, found))
    if not np.isfinite(logits).all():
        raise BadInputError(
            "the converted file gives NaN or infinity; has the model NaN in its weights?"
        )
    error = float(np.abs(logits - expected).max() / max(expected.std(), 1e-6))
    if quantization == "float32" and error > TOLERANCE:
        raise BadInputError(
            f"the converted file differs from the model: {error:.2g} standard deviations of the "
            f"logits at most, {TOLERANCE:g} allowed; nothing was written"
        )
    return {
        "max_logit_error": error,
        "agreement": float(same.mean()),
        "compared": made["compared"],
    }
