"""A .csv manifest as a dataset: a header with path and label, and split if it wants."""

from __future__ import annotations

import csv
from pathlib import Path

from kzoo.data.item import Item
from kzoo.data.split import split_name
from kzoo.errors import BadInputError, nearest


def items(file: Path) -> list[Item]:
    """One item per row; paths are relative to the CSV. A row whose file is missing is kept here.

    Raises:
        BadInputError: it is no UTF-8 text, lacks a column or a value, or names an unknown split.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{str(file)!r} is not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise BadInputError(
            f"{str(file)!r} is empty; its first line must be path,label or path,label,split"
        )
    (_, header), *rows = rows
    columns = [column.strip().lower() for column in header]
    missing = [column for column in ("path", "label") if column not in columns]
    if missing:
        raise BadInputError(
            f"{str(file)!r} has no column {' and no column '.join(missing)}; its first line has: "
            f"{', '.join(columns)}; write path,label or path,label,split there"
        )
    if not rows:
        raise BadInputError(f"{str(file)!r} has a header and no rows")
    return [_item(file, line, columns, row) for line, row in rows]


def _item(file: Path, line: int, columns: list[str], row: list[str]) -> Item:
    # strict=False: a short row shows as a missing value, with its line
    values = {name: value.strip() for name, value in zip(columns, row, strict=False)}
    for name in ("path", "label"):
        if not values.get(name):
            raise BadInputError(f"{str(file)!r}, line {line}: no {name}")
    given = values.get("split", "")
    split = split_name(given) if given else ""
    if given and not split:
        hint = nearest(given.lower(), ["train", "validation", "val", "valid", "test"])
        raise BadInputError(
            f"{str(file)!r}, line {line}: unknown split {given!r}; "
            f"it is train, validation or test{hint}"
        )
    return Item(values["path"], values["label"], split, file.parent / values["path"])
