"""A folder as a dataset: one sub-folder per class, or train/ validation/ test/ that hold them."""

from __future__ import annotations

import os
from pathlib import Path

from kzoo.data.item import Item
from kzoo.data.split import split_name
from kzoo.errors import BadInputError

IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
"""What systems leave beside photos; with the names that start with a dot, ignored silently."""


def items(folder: Path) -> list[Item]:
    """The files below each class folder, at any depth. Loose files beside them are ignored.

    The folder has splits if it has a train/ and all its sub-folders have names of splits;
    a folder "train" among buses and trams is a class.

    Raises:
        BadInputError: there is no class folder, or one holds no file, or the layout is ambiguous.
    """
    found = _subfolders(folder)
    if not found:
        files = sum(1 for entry in folder.iterdir() if entry.is_file() and not _ignored(entry.name))
        raise BadInputError(
            f"{str(folder)!r} has no sub-folders ({files} files); "
            "put the images of each class into a sub-folder named after it"
        )
    splits = [(split_name(name), name) for name in found]
    if any(split == "train" for split, _ in splits) and all(split for split, _ in splits):
        return _items_of_splits(folder, splits)
    named = [split for split, _ in splits if split]
    others = [name for split, name in splits if not split]
    if len(named) > 1 and "train" in named:
        raise BadInputError(
            f"{str(folder)!r} has folders of splits beside others ({', '.join(others[:5])}); "
            "keep either train/, validation/ and test/, or one folder per class"
        )
    return [item for name in found for item in _items_of_class(folder, name, "")]


def _items_of_splits(folder: Path, splits: list[tuple[str, str]]) -> list[Item]:
    names = {}
    for split, name in splits:
        if split in names:
            raise BadInputError(
                f"{str(folder)!r} has both {names[split]}/ and {name}/ for {split}; keep one"
            )
        names[split] = name
    result = []
    for split, name in splits:
        classes = _subfolders(folder / name)
        if not classes:
            raise BadInputError(f"{str(folder / name)!r} has no class folders; add or remove it")
        for label in classes:
            result += _items_of_class(folder, f"{name}/{label}", split)
    return result


def _items_of_class(folder: Path, name: str, split: str) -> list[Item]:
    result = []
    for parent, folders, files in os.walk(folder / name, onerror=_raise):
        folders[:] = sorted(each for each in folders if not _ignored(each))
        for file in sorted(files):
            if not _ignored(file):
                path = Path(parent, file)
                label = name.rpartition("/")[2]
                result.append(Item(path.relative_to(folder).as_posix(), label, split, path))
    if not result:
        raise BadInputError(
            f"the class folder {str(folder / name)!r} holds no images; add some, or remove it"
        )
    return result


def _raise(error: OSError) -> None:
    raise error


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not _ignored(entry.name)
    )


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED
