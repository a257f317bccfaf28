"""An image file as a network is given it."""

from __future__ import annotations

import os

import numpy as np

from kzoo.data.decode import decode
from kzoo.data.item import BadImage, Item
from kzoo.errors import BadInputError
from kzoo.files import existing


def read_photo(
    path: str | os.PathLike, shape: tuple[int, int, int], crop: float = 1.0
) -> np.ndarray:
    """The middle of an image, upright and scaled so that it covers the size: uint8 ``shape``.

    Args:
        path: the file.
        shape: (h, w, c), with 1 or 3 channels.
        crop: the side of the square in the middle that is looked at, as a share of the shorter
            side.

    Raises:
        MissingError, BadInputError: the file is missing, damaged, or none that can be used.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise BadInputError(f"the model takes {channels} channels; images have 1 or 3")
    high, wide = round(height / crop), round(width / crop)
    try:
        data = Item(str(path), "", "", existing(path, "the image")).read()
        pixels, _ = decode(data, high, wide, channels)
    except BadImage as error:
        raise BadInputError(f"cannot use the image {str(path)!r}: {error}") from error
    top, left = (high - height) // 2, (wide - width) // 2
    return pixels[top : top + height, left : left + width]
