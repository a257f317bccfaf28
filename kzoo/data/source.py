"""What a user may call a dataset: "digits", a folder, or a .csv manifest."""

from __future__ import annotations

import os
from pathlib import Path

from kzoo.data import digits, folder, manifest
from kzoo.data.item import Item
from kzoo.errors import MissingError, UsageError, nearest

EXPECTED = (
    'a folder with one sub-folder per class, a .csv manifest (path,label[,split]) or "digits"'
)


def find(source: str | os.PathLike) -> list[Item]:
    """Lists the files of ``source`` with labels and given splits, by path; opens no image.

    Raises:
        MissingError: there is nothing of that name, or no permission to read it.
        UsageError: it is a file, and not a .csv.
        BadInputError: the folder or the manifest does not describe a dataset.
    """
    if str(source) == digits.NAME:
        return digits.items()
    path = Path(source)
    if not path.exists():
        hint = nearest(str(source), [digits.NAME])
        raise MissingError(f"{str(source)!r} does not exist in {Path.cwd()}{hint}; give {EXPECTED}")
    if not path.is_dir() and path.suffix.lower() != ".csv":
        raise UsageError(f"{str(source)!r} is a file but not a .csv manifest; give {EXPECTED}")
    try:
        found = folder.items(path) if path.is_dir() else manifest.items(path)
    except PermissionError as error:
        raise MissingError(f"no permission to read {error.filename!r}; allow it first") from error
    return sorted(found, key=lambda item: (item.path, item.label, item.split))
