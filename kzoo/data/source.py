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
        MissingError: there is nothing of that name.
        UsageError: it is a file, and not a .csv.
        BadInputError: the folder or the manifest does not describe a dataset.
    """
    if str(source) == digits.NAME:
        return digits.items()
    path = Path(source)
    if not path.exists():
        hint = nearest(str(source), [digits.NAME])
        raise MissingError(f"{str(source)!r} does not exist in {Path.cwd()}{hint}; give {EXPECTED}")
    if path.is_dir():
        found = folder.items(path)
    elif path.suffix.lower() == ".csv":
        found = manifest.items(path)
    else:
        raise UsageError(f"{str(source)!r} is a file but not a .csv manifest; give {EXPECTED}")
    return sorted(found, key=lambda item: (item.path, item.label, item.split))
