"""Numbers of any width as float32, copied once."""

from __future__ import annotations

import numpy as np


def float32(array: np.ndarray) -> np.ndarray:
    """A copy in float32, C order; float64 beyond its range becomes infinite."""
    with np.errstate(over="ignore"):
        return np.array(array, np.float32, order="C")


def float32_of_bits(bits: np.ndarray) -> np.ndarray:
    """bfloat16, given as uint16, is the upper half of a float32."""
    wide = bits.astype(np.uint32, order="C")
    wide <<= 16
    return wide.view(np.float32)
