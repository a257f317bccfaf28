"""A dataset decoded once: ``<cache>/store/<key>/`` with images.npy, index.json and splits/.

The key is made of the files' contents, names and labels and of the size, so a store is never stale:
another photo, pixel or Pillow is another store. It is built aside and renamed whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL

from kzoo.data.item import Item, Problem
from kzoo.data.rows import Entry, hash_files, write_rows
from kzoo.errors import KzooError, MissingError
from kzoo.files import cache_folder, digest, disk_errors, read_json, write_json
from kzoo.progress import Progress

VERSION = 1


@dataclass(frozen=True)
class Store:
    """An opened store. ``images`` is a read-only memmap, uint8 (n, h, w, c), a row per entry.

    ``plain`` are the paths of images that are of one colour.
    """

    key: str
    folder: Path
    images: np.ndarray
    entries: tuple[Entry, ...]
    bad: tuple[Problem, ...]
    converted: tuple[Problem, ...]
    plain: tuple[str, ...]

    @property
    def images_file(self) -> Path:
        return self.folder / "images.npy"


def open_store(
    items: Sequence[Item], *, height: int, width: int, channels: int, progress: Progress
) -> Store:
    """Opens the store of ``items`` at that size; builds it if it is not there, or damaged.

    Bad files are in ``Store.bad`` and have no row; what to do about them is the caller's policy.

    Raises:
        MissingError: no disk space, or no permission to write the cache.
        BadInputError: a file changed while it was read.
    """
    shape = (height, width, channels)
    hashes = hash_files(items, progress)
    key = _key(items, hashes, shape)
    folder = cache_folder() / "store" / key
    store = _opened(folder)
    if store is None:
        with disk_errors(folder):
            _build(folder, items, hashes, shape, progress)
        store = _opened(folder)
        if store is None:
            raise MissingError(
                f"the store {str(folder)!r} was removed while it was opened; try again"
            )
    return store


def _key(items: Sequence[Item], hashes: list[str], shape: tuple[int, ...]) -> str:
    files = [
        [item.path, item.label, item.split, sha] for item, sha in zip(items, hashes, strict=True)
    ]
    return digest({"files": sorted(files), "shape": shape, "version": [VERSION, PIL.__version__]})


def _opened(folder: Path) -> Store | None:
    """The store if it is whole, else None."""
    try:
        index = read_json(folder / "index.json")
        images = np.load(folder / "images.npy", mmap_mode="r")
        store = Store(
            key=folder.name,
            folder=folder,
            images=images,
            entries=tuple(Entry(**entry) for entry in index["entries"]),
            bad=tuple(Problem(**problem) for problem in index["bad"]),
            converted=tuple(Problem(**problem) for problem in index["converted"]),
            plain=tuple(index["plain"]),
        )
        told = [index["key"], index["bytes"], [len(store.entries), *index["shape"]], np.uint8]
        size = store.images_file.stat().st_size
    except (KzooError, OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return store if told == [folder.name, size, [*images.shape], images.dtype] else None


def _build(
    folder: Path,
    items: Sequence[Item],
    hashes: list[str],
    shape: tuple[int, ...],
    progress: Progress,
) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise MissingError(
            f"the store's folder {str(folder.parent)!r} cannot be made, a file is in its place; "
            "set KZOO_HOME to a folder"
        ) from error
    _sweep(folder.parent)
    needed, free = len(items) * int(np.prod(shape)), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise MissingError(
            f"the decoded images need {needed:,} bytes, {str(folder.parent)!r} has {free:,} free; "
            "free some space, choose a smaller size, or set KZOO_HOME to a folder on another disk"
        )
    temporary = folder.with_name(f".building-{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        index = write_rows(temporary / "images.npy", items, hashes, shape, progress)
        write_json(temporary / "index.json", {"key": folder.name, "shape": shape, **index})
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, folder: Path) -> None:
    """Renames to ``folder``. Another process may have been faster: then its store stays."""
    for _ in range(10):
        try:
            os.rename(temporary, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if _opened(folder):
            return
        damaged = folder.with_name(f".building-{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):  # another process repairs it too
            os.rename(folder, damaged)
            if damaged.is_dir():
                shutil.rmtree(damaged, ignore_errors=True)
            else:
                damaged.unlink()


def _sweep(parent: Path) -> None:
    """Removes what builds that were killed left more than a day ago."""
    for folder in parent.glob(".building-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > 86400:
                shutil.rmtree(folder)
