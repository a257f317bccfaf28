"""Weight files of any origin as named NumPy arrays; nothing in a file is executed."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import existing
from kzoo.zoo.weights.archive import open_archive
from kzoo.zoo.weights.checkpoint import Checkpoint
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


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
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
            files, declares more numbers than it can hold, or has lost the order of its layers.
    """
    path = weight_file(path)
    try:
        found = _read(path, _mapped(path))
        if not found.arrays:
            raise BadInputError("it holds no floating-point arrays")
        for name in found.arrays:
            if not name.isprintable():
                raise BadInputError(f"the name {name!r} is no printable text")
    except BadInputError as error:
        raise BadInputError(f"cannot read {str(path)!r}: {error}") from error
    return found


def weight_file(path: str | os.PathLike) -> Path:
    """Returns ``path`` if there is a file; else raises as `read_checkpoint`."""
    path = existing(path, "the weights")
    if (path / "saved_model.pb").exists():
        raise UsageError(
            f"{str(path)!r} is a TensorFlow SavedModel; type kzoo build NAME --weights {path}, or "
            "give what kzoo.lite.saved_model.read_saved_model returns"
        )
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder; a file is expected: {READABLE}")
    return path


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


def _read(path: Path, data: mmap.mmap) -> Checkpoint:
    if data[:8] == HDF5:
        return read_keras(path)
    if data[:4] == ZIP:
        return _read_archive(path, data)
    if data[:1] == PICKLE:
        return Checkpoint(read_torch_legacy(data))
    if is_safetensors(data):
        return Checkpoint(read_safetensors(data))
    for offset, magic, what in FOUND:
        if data[offset : offset + len(magic)] == magic:
            raise BadInputError(f"it is {what}; readable are {READABLE}")
    raise BadInputError(f"it begins with {data[:8]!r}; readable are {READABLE}")


def _read_archive(path: Path, data: mmap.mmap) -> Checkpoint:
    with open_archive(path, data) as archive:
        names = archive.namelist()
        if WEIGHTS in names and CONFIG in names:
            return read_keras(path)
        if any(name.endswith("/data.pkl") for name in names):
            return Checkpoint(read_torch_archive(archive, data))
    shown = ", ".join(names[:3])
    raise BadInputError(f"it is a zip archive with {shown!r}; readable are {READABLE}")
