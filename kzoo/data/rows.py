"""The rows of a store: every file hashed, decoded and written in order."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kzoo.data.decode import decode
from kzoo.data.item import BadImage, Item, Problem
from kzoo.data.parallel import in_order
from kzoo.errors import BadInputError
from kzoo.progress import Progress

_UNREADABLE = "unreadable: "


@dataclass(frozen=True)
class Entry:
    """Row i of images.npy: its file, class, given split ("" if none) and the file's SHA-256."""

    path: str
    label: str
    split: str
    sha256: str


def hash_files(items: Sequence[Item], progress: Progress) -> list[str]:
    """The SHA-256 of each file's bytes, or why they cannot be had."""
    hashes = []
    for sha in in_order(_hash, items):
        hashes.append(sha)
        progress("reading", len(hashes), len(items))
    return hashes


def _hash(item: Item) -> str:
    try:
        return hashlib.sha256(item.read()).hexdigest()
    except BadImage as error:
        return f"{_UNREADABLE}{error}"


def write_rows(
    file: Path, items: Sequence[Item], hashes: list[str], shape: tuple[int, ...], progress: Progress
) -> dict:
    """Decodes ``items`` into ``file``, an .npy of uint8 (n, h, w, c), and returns its index.

    The index has "bytes" (of the file), "entries" (one per row), "bad" (files without a row),
    "converted" and "plain" (paths of images of one colour). Rows are written one after another:
    into a memmap, a full disk would be a SIGBUS and no error.

    Raises:
        BadInputError: a file is not what ``hashes`` says any more.
        OSError: the disk is full.
    """
    entries, bad, converted, plain = [], [], [], []
    work = list(zip(items, hashes, strict=True))
    with (
        open(file, "wb") as out,
        warnings.catch_warnings(),
        contextlib.closing(in_order(lambda pair: _decoded(*pair, shape), work)) as results,
    ):
        warnings.simplefilter("ignore")  # Pillow's, on bombs and odd metadata; ours are problems
        header_bytes = _write_header(out, len(items), shape)
        for done, ((item, sha), result) in enumerate(zip(work, results, strict=True), 1):
            if isinstance(result, BadImage):
                bad.append(Problem(item.path, "left out", str(result)))
            else:
                pixels, changes = result
                row = pixels.tobytes()
                out.write(row)
                entries.append(Entry(item.path, item.label, item.split, sha))
                if one_colour(row, shape[-1]):
                    plain.append(item.path)
                if changes:
                    converted.append(Problem(item.path, "converted", "; ".join(changes)))
            progress("decoding", done, len(items))
        out.seek(0)
        # NumPy pads a header so that the number of rows may change in place.
        if _write_header(out, len(entries), shape) != header_bytes:
            raise RuntimeError("the header of images.npy changed its length")
        out.flush()
        os.fsync(out.fileno())
    return {
        "bytes": file.stat().st_size,
        "entries": [asdict(entry) for entry in entries],
        "bad": [asdict(problem) for problem in bad],
        "converted": [asdict(problem) for problem in converted],
        "plain": plain,
    }


def one_colour(pixels: bytes, channels: int) -> bool:
    """Whether all uint8 pixels are equal; the one in the middle tells most photos apart."""
    count = len(pixels) // channels
    first, middle = pixels[:channels], count // 2 * channels
    return pixels[middle : middle + channels] == first and pixels == count * first


def _write_header(out: BinaryIO, count: int, shape: tuple[int, ...]) -> int:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(out, header)
    return out.tell()


def _decoded(
    item: Item, sha: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, list[str]] | BadImage:
    try:
        data = item.read()
    except BadImage as error:
        if not sha.startswith(_UNREADABLE):
            raise _changed(item) from error
        return error
    if hashlib.sha256(data).hexdigest() != sha:
        raise _changed(item)
    try:
        return decode(data, *shape)
    except BadImage as error:
        return error


def _changed(item: Item) -> BadInputError:
    return BadInputError(f"{item.path!r} changed while the dataset was read; load it again")
