"""Checkpoints that make an interrupted training equal to an uninterrupted one.

A checkpoint holds every variable (weights, optimizer, seed states), the position and the history.
It is written to a temporary file, fsynced and renamed; its name carries its hash; the last two
are kept, so a damaged one falls back to the one before.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kzoo.files import disk_errors, write_bytes

KEPT = 2
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.npz")


def save_checkpoint(folder: Path, step: int, arrays: Mapping[str, np.ndarray], state: dict) -> None:
    """Writes arrays and a JSON state as the checkpoint of ``step``, and drops all but the last two.

    Raises:
        MissingError: the disk is full; the checkpoints before are untouched.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, __state__=np.frombuffer(json.dumps(state).encode(), np.uint8), **arrays)
    data = buffer.getvalue()
    write_bytes(folder / f"step-{step:09d}-{hashlib.sha256(data).hexdigest()[:16]}.npz", data)
    # What stands after this step was found damaged when the run resumed; it must not count as kept.
    past = [path for path in _checkpoints(folder) if _step(path) <= step]
    for path in set(_checkpoints(folder)) - set(past[-KEPT:]):
        path.unlink(missing_ok=True)


def load_checkpoint(
    folder: Path, told: Callable[[bytes], bytes] = lambda data: data
) -> tuple[dict[str, np.ndarray], dict] | None:
    """The latest checkpoint whose hash is right, as (arrays, state); None if there is none.

    ``told`` makes of the bytes that this process found those that count, see `Team.told`.
    """
    data = told(_latest(folder))
    if not data:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays, json.loads(arrays.pop("__state__").tobytes())


def _latest(folder: Path) -> bytes:
    for path in reversed(_checkpoints(folder)):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:16] == _NAME.fullmatch(path.name)[2]:
            return data
    return b""


def drop_checkpoints(folder: Path) -> None:
    """Removes the folder, and its parent if that is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _step(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
