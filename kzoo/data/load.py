"""The one way into data: find, validate, decode once, split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from kzoo.data import digits
from kzoo.data.dataset import Dataset
from kzoo.data.duplicates import duplicates, suspicious
from kzoo.data.item import Item, Problem
from kzoo.data.source import find
from kzoo.data.split import check_classes, check_fractions, stored_split
from kzoo.data.store import Store, open_store
from kzoo.errors import BadInputError, UsageError, nearest
from kzoo.files import disk_errors
from kzoo.progress import Progress, silent

POLICIES = ("fail", "skip")
MAX_SIDE = 4096
SHOWN = 20


def load_data(
    source: str | os.PathLike,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    bad: str = "fail",
    max_bad: float = 0.05,
    progress: Progress = silent,
) -> Dataset:
    """Loads a labelled image dataset, decoded once into a memory-mapped store.

    Args:
        source: a folder with one sub-folder per class; a folder with train/, validation/ (or val/,
            valid/) and test/ of such folders; a .csv manifest with path,label[,split], its paths
            relative to it; or "digits", 1,797 embedded images.
        size: side of a square, or (height, width), in pixels. None: 224, and 32 for "digits".
        channels: 3 for RGB, 1 for gray.
        validation: fraction of each class for validation, 0 for none. Given splits are kept as
            they are; a validation that is missing beside a given test is carved out of train.
        test: fraction for test, 0 for none; not used if the source gives validation or test.
        seed: of the split.
        bad: "fail" raises on files that cannot be used, "skip" leaves them out.
        max_bad: with "skip", the fraction of bad files from which it fails nevertheless.
        progress: gets the tasks "reading" and, the first time, "decoding".

    Raises:
        UsageError: an argument is out of range, or the source is a file that is not a .csv.
        MissingError: the source does not exist; no disk space or permission for the store.
        BadInputError: bad files, fewer than two classes, too few images in one.
    """
    height, width = _checked_size(size, 32 if str(source) == digits.NAME else 224)
    _check_arguments(channels, seed, bad, max_bad)
    check_fractions(validation, test)
    items = find(source)
    check_classes([(item.label, item.split) for item in items], validation, test)
    store = open_store(items, height=height, width=width, channels=channels, progress=progress)
    _apply_policy(store.bad, len(items), bad, max_bad)
    classes = tuple(sorted({item.label for item in items}))
    _check_what_is_left(store, classes, validation, test)
    with disk_errors(store.folder):
        splits = stored_split(
            store.folder / "splits", store.entries, validation=validation, test=test, seed=seed
        )
    labels = np.searchsorted(classes, [entry.label for entry in store.entries]).astype(np.int64)
    for array in (labels, *splits.values()):
        array.flags.writeable = False
    groups = duplicates(store.entries)
    return Dataset(
        source=str(source),
        classes=classes,
        images=store.images,
        images_file=store.images_file,
        labels=labels,
        paths=tuple(entry.path for entry in store.entries),
        splits=splits,
        fingerprint=_fingerprint(store.key, splits),
        split_settings={"seed": int(seed), "validation": validation, "test": test},
        problems=(
            *store.bad,
            *store.converted,
            *_plain(store.plain),
            *suspicious(groups),
            *_absent(items, classes),
        ),
        duplicates=tuple(tuple(entry.path for entry in group) for group in groups),
    )


def _checked_size(size: int | tuple[int, int] | None, default: int) -> tuple[int, int]:
    size = default if size is None else size
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or not all(_whole(side) and 1 <= side <= MAX_SIDE for side in sides):
        raise UsageError(
            f"size is one side or (height, width) of 1 to {MAX_SIDE} pixels, not {size!r}"
        )
    return int(sides[0]), int(sides[1])


def _check_arguments(channels: int, seed: int, bad: str, max_bad: float) -> None:
    if channels not in (1, 3):
        raise UsageError(f"channels is 3 for RGB or 1 for gray, not {channels!r}")
    if not _whole(seed) or seed < 0:
        raise UsageError(f"seed is a whole number from 0, not {seed!r}")
    if bad not in POLICIES:
        raise UsageError(f"bad is 'fail' or 'skip', not {bad!r}{nearest(str(bad), POLICIES)}")
    if not 0 <= max_bad <= 1:
        raise UsageError(f"max_bad is a fraction in [0, 1], not {max_bad!r}")


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _apply_policy(problems: Sequence[Problem], count: int, bad: str, max_bad: float) -> None:
    if not problems or (bad == "skip" and len(problems) <= max_bad * count):
        return
    lines = [f"  {problem.path}: {problem.reason}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more")
    hint = (
        "repair or remove them, or leave them out with --bad skip"
        if bad == "fail"
        else f"that is more than --max-bad {max_bad:g} of all; repair them, or raise it"
    )
    raise BadInputError(
        "\n".join([f"{len(problems)} of {count} files cannot be used:", *lines, hint])
    )


def _check_what_is_left(
    store: Store, classes: Sequence[str], validation: float, test: float
) -> None:
    """The same checks as before decoding, now without the bad files."""
    lost = sorted(set(classes) - {entry.label for entry in store.entries})
    if lost:
        raise BadInputError(
            f"class {lost[0]!r} has no image that can be used; repair its files or remove the class"
        )
    check_classes([(entry.label, entry.split) for entry in store.entries], validation, test)


def _plain(paths: Sequence[str]) -> list[Problem]:
    """One note on all images of one colour: a broken camera or export gives many of them."""
    if not paths:
        return []
    more = len(paths) - 1
    others = f", and those of {more:,} more image{'s' * (more > 1)}" if more else ""
    return [Problem(paths[0], "note", f"all its pixels are of one colour{others}")]


def _absent(items: Sequence[Item], classes: Sequence[str]) -> list[Problem]:
    """Notes on classes that a given validation or test split does not hold."""
    held = {(item.split, item.label) for item in items}
    given = sorted({split for split, _ in held} - {"", "train"})
    return [
        Problem(label, "note", f"the given {split} split has no image of this class")
        for split in given
        for label in classes
        if (split, label) not in held
    ]


def _fingerprint(key: str, splits: dict[str, np.ndarray]) -> str:
    """Of the indices and not of the fractions: the same split by another way is the same data."""
    result = hashlib.sha256(key.encode())
    for name, indices in splits.items():
        result.update(f"{name}:{len(indices)}:".encode() + indices.astype("<i8").tobytes())
    return result.hexdigest()
