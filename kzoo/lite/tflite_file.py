"""Is this file a .tflite? Told from its first bytes, before a runtime reads it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

from kzoo.errors import BadInputError, KzooError, MissingError
from kzoo.files import existing

IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of every .tflite file (the flatbuffer's file identifier)."""


def tflite_file(path: str | os.PathLike) -> Path:
    """Returns ``path`` as a Path if it begins as a .tflite file does.

    Raises:
        MissingError: there is no such file, or it may not be read.
        BadInputError: it is something else; the message says what it looks like.
    """
    path = existing(path, "the model")
    if path.is_dir():
        raise BadInputError(f"{str(path)!r} is a folder; give the .tflite file in it")
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except PermissionError as error:
        raise MissingError(f"no permission to read {str(path)!r}") from error
    if head[4:8] != IDENTIFIER:
        raise BadInputError(f"{str(path)!r} is not a .tflite file: {_looks_like(head)}")
    return path


def blaming_file(function: Callable) -> Callable:
    """Decorates a child's function of a ``file``: its failures become BadInputErrors.

    Any number in a damaged file may point anywhere, and so any line may fail on it.
    """

    @functools.wraps(function)
    def parsing(file: str, **arguments: object) -> object:
        try:
            return function(file, **arguments)
        except (KzooError, OSError, ImportError):
            raise
        except Exception as error:
            raise BadInputError(
                f"{file} is a damaged .tflite file ({type(error).__name__}: {error})"
            ) from error

    return parsing


def _looks_like(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head.startswith(b"PK\x03\x04"):
        return "it looks like a .keras file or another zip archive; kzoo convert makes a .tflite"
    if head.startswith(b"\x89HDF"):
        return "it looks like an HDF5 (.h5) file; kzoo convert makes a .tflite"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; git lfs pull fetches the model itself"
    if head.lstrip()[:1] == b"<":
        return "it looks like a web page; was the download answered by an error page?"
    if len(head) < 8:
        return f"it is truncated, only {len(head)} bytes long"
    return f"bytes 4 to 8 are {head[4:8]!r}, not {IDENTIFIER!r}; it is damaged or another format"
