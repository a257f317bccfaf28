"""A dataset decoded once: ``<cache>/store/<key>/`` with images.npy, index.json and splits/.

The key is made of the files' contents, names and labels and of the size, so a store is never stale:
another photo, pixel or Pillow is another store. It is built aside and renamed whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL

from kzoo.data.decode import decode
from kzoo.data.item import BadImage, Item, Problem
from kzoo.errors import BadInputError, KzooError, MissingError
from kzoo.files import cache_folder, digest, disk_errors, read_json, write_json
from kzoo.progress import Progress

VERSION = 1
BATCH = 256
MAX_THREADS = 16
_UNREADABLE = "unreadable: "


@dataclass(frozen=True)
class Entry:
    """Row i of images.npy: its file, class, given split ("" if none) and the file's SHA-256."""

    path: str
    label: str
    split: str
    sha256: str


@dataclass(frozen=True)
class Store:
    """An opened store. ``images`` is a read-only memmap, uint8 (n, h, w, c), a row per entry."""

    key: str
    folder: Path
    images: np.ndarray
    entries: tuple[Entry, ...]
    bad: tuple[Problem, ...]
    converted: tuple[Problem, ...]

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
    hashes = []
    with ThreadPoolExecutor(_threads()) as pool:
        for sha in _in_order(pool, _hash, items):
            hashes.append(sha)
            progress("reading", len(hashes), len(items))
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


def _hash(item: Item) -> str:
    try:
        return hashlib.sha256(item.read()).hexdigest()
    except BadImage as error:
        return f"{_UNREADABLE}{error}"


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
        )
        whole = [
            index["key"],
            index["bytes"],
            len(store.entries),
            [*images.shape[1:]],
            images.dtype,
        ]
    except (KzooError, OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    size = store.images_file.stat().st_size
    return store if whole == [folder.name, size, len(images), index["shape"], np.uint8] else None


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
        index = _write_images(temporary / "images.npy", items, hashes, shape, progress)
        write_json(temporary / "index.json", {"key": folder.name, "shape": shape, **index})
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_images(
    file: Path, items: Sequence[Item], hashes: list[str], shape: tuple[int, ...], progress: Progress
) -> dict:
    """Writes rows one after another: into a memmap, a full disk would be a SIGBUS and no error."""
    entries, bad, converted = [], [], []
    with (
        open(file, "wb") as out,
        warnings.catch_warnings(),
        ThreadPoolExecutor(_threads()) as pool,
    ):
        warnings.simplefilter("ignore")  # Pillow's, on bombs and odd metadata; ours are problems
        header_bytes = _write_header(out, len(items), shape)
        work = zip(items, hashes, strict=True)
        results = _in_order(pool, lambda pair: _decoded(*pair, shape), list(work))
        for done, (item, sha, result) in enumerate(zip(items, hashes, results, strict=True), 1):
            if isinstance(result, BadImage):
                bad.append(Problem(item.path, "left out", str(result)))
            else:
                pixels, changes = result
                out.write(pixels.tobytes())
                entries.append(Entry(item.path, item.label, item.split, sha))
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
    }


def _write_header(out, count: int, shape: tuple[int, ...]) -> int:
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


def _in_order(pool: ThreadPoolExecutor, function: Callable, values: Sequence) -> Iterator:
    """As ``pool.map``, some at a time: behind a slow disk, images do not pile up in memory."""
    for start in range(0, len(values), BATCH):
        yield from pool.map(function, values[start : start + BATCH])


def _threads() -> int:
    # Pillow and hashlib release the GIL. Capped: each may hold 64 megapixels.
    try:
        return min(len(os.sched_getaffinity(0)), MAX_THREADS)
    except AttributeError:  # not on Linux
        return min(os.cpu_count() or 1, MAX_THREADS)
