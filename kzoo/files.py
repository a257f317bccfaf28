"""Files that are whole or not there: hashes, atomic writes, outputs that are never overwritten.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from kzoo.errors import BadInputError, MissingError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_ERRORS = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS)


def cache_folder() -> Path:
    """The folder for decoded datasets and downloads: ``$KZOO_HOME``, or ``~/.cache/kzoo``."""
    return Path(os.environ.get("KZOO_HOME") or Path.home() / ".cache" / "kzoo")


def existing(path: str | os.PathLike, what: str) -> Path:
    """Returns ``path`` as a Path, or raises MissingError naming ``what`` was looked for."""
    path = Path(path)
    if not path.exists():
        raise MissingError(f"{what} {str(path)!r} does not exist (looked in {Path.cwd()})")
    return path


def new_output(path: str | os.PathLike, *, force: bool = False) -> Path:
    """Returns ``path`` as a Path if it may be written.

    Call it before the work, so that an hour of training is not lost to an existing name.

    Raises:
        UsageError: the file exists and ``force`` is false, or it is a folder.
        MissingError: the folder it would stand in does not exist, or may not be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"the output {str(path)!r} is a folder; give a file name in it")
    if path.exists() and not force:
        raise UsageError(f"{str(path)!r} exists and is kept; pass --force, or give another name")
    if not path.parent.is_dir():
        raise MissingError(f"the folder of the output {str(path)!r} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise MissingError(
            f"no permission to write the output {str(path)!r}: its folder is not writable; "
            "give another place"
        )
    return path


@contextlib.contextmanager
def disk_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns a full disk, a quota or a missing permission into a MissingError naming ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            free = shutil.disk_usage(_existing_parent(Path(path))).free
            raise MissingError(
                f"no space left on device while writing {str(path)!r} ({free:,} bytes free); "
                "nothing was written there; free some space or give another place"
            ) from error
        if error.errno in DISK_ERRORS:
            raise MissingError(
                f"no permission to write {str(path)!r} ({error.strerror}); give another place"
            ) from error
        raise


def output_folder(path: str | os.PathLike) -> Path:
    """Returns ``path`` as a Path, a folder that may be written to; made if it is not there.

    Raises:
        UsageError: it is a file, or would be in one.
        MissingError: it cannot be made, or not be written to.
    """
    path = Path(path)
    try:
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"the output {str(path)!r} is a file, or in one; a folder is expected"
        ) from error
    except OSError as error:
        raise MissingError(f"the folder {str(path)!r} cannot be made: {error.strerror}") from error
    if not os.access(path, os.W_OK):
        raise MissingError(f"no permission to write in {str(path)!r}; give another folder")
    return path


def _existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on success it is fsynced and renamed to ``path``.

    On any failure the temporary file is removed and ``path`` is as it was. The temporary name keeps
    the suffix, because Keras chooses the format by it.

    Raises:
        MissingError: the disk is full or the folder is not writable.
    """
    path = Path(path)
    with disk_errors(path), beside(path) as temporary:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Gives an empty temporary file in the folder of ``path``; it is removed after the block."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def filled_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Returns ``folder``, filled by ``fill`` if it is not there: it is whole, or not there."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            disk_errors(folder),
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as work,
        ):
            new = Path(work, "new")
            new.mkdir()
            fill(new)
            with contextlib.suppress(OSError):  # another process was first
                new.rename(folder)
    return folder


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Writes ``data`` to ``path`` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes ``value`` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: str | os.PathLike) -> dict:
    """Reads a JSON record; raises BadInputError if it is not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise BadInputError(f"{str(path)!r} is not a JSON record: {error}") from error


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: object) -> str:
    """The SHA-256 of a JSON value with sorted keys: the identity of a recipe."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def gzip_size(data: bytes) -> int:
    """Bytes of ``data`` under gzip -9: what a download of it costs."""
    return len(gzip.compress(data, compresslevel=9, mtime=0))
