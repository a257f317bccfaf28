"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries: a dataset with no files."""

from __future__ import annotations

import numpy as np

from kzoo.data.item import Item

NAME = "digits"


def items() -> list[Item]:
    """The digits as PGM bytes, so that they take the same way as every photo.

    A pixel's 0..16 becomes 0..255. PGM, since its bytes depend on no compressor's version.
    """
    from sklearn.datasets import load_digits  # half a second, and only for this source

    found = load_digits()
    pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return [
        Item(f"{NAME}/{i:04}.pgm", str(label), "", b"P5\n8 8\n255\n" + image.tobytes())
        for i, (image, label) in enumerate(zip(pixels, found.target, strict=True))
    ]
