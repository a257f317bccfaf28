"""Weight files of any origin as named NumPy arrays; nothing in a file is executed."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import existing
from kzoo.zoo.weights.archive import open_archive
from kzoo.zoo.weights.keras_file import CONFIG, WEIGHTS, read_keras
from kzoo.zoo.weights.safetensors_file import is_safetensors, read_safetensors
from kzoo.zoo.weights.torch_file import read_torch_archive, read_torch_legacy

READABLE = "Keras (.keras, .weights.h5, .h5), PyTorch (.pth, .pt, .th, .bin) and .safetensors"

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"
PICKLE = b"\x80"

FOUND = (
    (0, b"version https://git-lfs", "a Git LFS pointer, in place of the file it points to"),
    (0, b"<", "a web page or XML, perhaps what a server said in place of a download"),
    (0, b"{", "JSON text"),
    (0, b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (0, b"\x93NUMPY", "a NumPy array without names"),
    (4, b"TFL3", "a .tflite model"),
    (257, b"ustar", "a tar archive; unpack it first"),
)
"""Offset, bytes, and what a file is that has them there."""


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights of a Keras, PyTorch or safetensors file, told apart by their content.

    Returns:
        Name → float32 array that is the caller's own, in the file's order, with its names and its
        shapes: Keras' ``layer/kernel`` (h, w, in, out), PyTorch's ``layer.weight`` (out, in, h, w).
        Of a checkpoint the state dict, without the ``module.`` of DataParallel. Arrays of integers,
        optimizers and metrics are left out. In a ``.weights.h5`` the layers are ordered by class
        and number, which is all that it knows; a variable that cannot be named has its number.

    Raises:
        MissingError: there is no such file, or it may not be read.
        UsageError: it is a folder.
        BadInputError: it is of another format, damaged, cut short, asks to run code, leads to other
            files, or declares more numbers than it can hold.
    """
    path = existing(path, "the weights")
    if path.is_dir():
        what = " with a TensorFlow SavedModel" if (path / "saved_model.pb").exists() else ""
        raise UsageError(f"{str(path)!r} is a folder{what}; a file is expected: {READABLE}")
    try:
        weights = _read(path, _mapped(path))
        if not weights:
            raise BadInputError("it holds no floating-point arrays")
        for name in weights:
            if not name.isprintable():
                raise BadInputError(f"the name {name!r} is no printable text")
    except BadInputError as error:
        raise BadInputError(f"cannot read {str(path)!r}: {error}") from error
    return weights


def _mapped(path: Path) -> mmap.mmap:
    if not path.is_file():
        raise BadInputError("it is no regular file")
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise BadInputError("it is empty")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise MissingError(f"cannot open {str(path)!r}: {error.strerror}") from error


def _read(path: Path, data: mmap.mmap) -> dict[str, np.ndarray]:
    if data[:8] == HDF5:
        return read_keras(path)
    if data[:4] == ZIP:
        return _read_archive(path, data)
    if data[:1] == PICKLE:
        return read_torch_legacy(data)
    if is_safetensors(data):
        return read_safetensors(data)
    for offset, magic, what in FOUND:
        if data[offset : offset + len(magic)] == magic:
            raise BadInputError(f"it is {what}; readable are {READABLE}")
    raise BadInputError(f"it begins with {data[:8]!r}; readable are {READABLE}")


def _read_archive(path: Path, data: mmap.mmap) -> dict[str, np.ndarray]:
    with open_archive(path, data) as archive:
        names = archive.namelist()
        if WEIGHTS in names and CONFIG in names:
            return read_keras(path)
        if any(name.endswith("/data.pkl") for name in names):
            return read_torch_archive(archive, data)
    shown = ", ".join(names[:3])
    raise BadInputError(f"it is a zip archive with {shown!r}; readable are {READABLE}")
