"""A model and a dataset that fit each other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from kzoo.data.dataset import Dataset
from kzoo.data.load import load_data
from kzoo.errors import BadInputError


def matching_images(
    image: Sequence[int],
    data: Dataset | str | os.PathLike,
    notes: Mapping[str, object] | None = None,
    **options: object,
) -> Dataset:
    """Returns ``data``, loaded at the model's input size if it is a path, whatever its classes.

    Args:
        image: the model's input, (h, w, c).
        data: a dataset, or what `kzoo.load_data` takes.
        notes: of the model's file (`read_notes`). Its split is the default one,
            so that no image it was trained on is taken for a test.
        options: further arguments of `kzoo.load_data` when ``data`` is a path.

    Raises:
        BadInputError: image size or channels differ.
    """
    height, width, channels = image
    if not isinstance(data, Dataset):
        options = {**(notes or {}).get("split", {}), **options}
        data = load_data(data, size=(height, width), channels=channels, **options)
    if data.images.shape[1:] != (height, width, channels):
        raise BadInputError(
            f"the model takes {height} x {width} x {channels} images, the dataset has "
            f"{' x '.join(map(str, data.images.shape[1:]))}; load it with "
            f"size=({height}, {width}), channels={channels}"
        )
    return data


def matching_data(
    image: Sequence[int],
    classes: int,
    data: Dataset | str | os.PathLike,
    notes: Mapping[str, object] | None = None,
    **options: object,
) -> Dataset:
    """As `matching_images`, where the model's outputs have to be the classes of ``data``.

    Args:
        image, data, options: as there.
        classes: the number of the model's outputs.
        notes: of the model's file; the names of its classes count, too.

    Raises:
        BadInputError: image size, channels, number or names of the classes differ.
    """
    data = matching_images(image, data, notes, **options)
    matching_classes(classes, data, notes)
    return data


def matching_classes(
    classes: int, data: Dataset, notes: Mapping[str, object] | None = None
) -> None:
    """Raises BadInputError unless a model's outputs are the classes of ``data``, as above."""
    names = (notes or {}).get("classes", ())
    if classes != len(data.classes):
        raise BadInputError(
            f"the model has {classes} classes, {data.source} has {len(data.classes)} "
            f"({', '.join(data.classes[:8])}{', ...' if len(data.classes) > 8 else ''}); "
            f"build the model with --classes {len(data.classes)}"
        )
    if names and tuple(names) != data.classes:
        differing = next((a, b) for a, b in zip_longest(names, data.classes) if a != b)
        raise BadInputError(
            f"the model was trained on other classes than {data.source} has: its output "
            f"{differing[0]!r} meets the folder's {differing[1]!r}; rename the folders to match, "
            f"or for classes of your own build it with --classes {classes}"
        )
