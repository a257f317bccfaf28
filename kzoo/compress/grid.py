"""The grid of whole numbers that LiteRT stores a kernel on.

Symmetric, a scale for every output channel, of dense layers too, and a narrow range: -127 to 127 in
8 bits (LiteRT's 8-bit quantization specification; what the converter of TensorFlow 2.21 writes was
compared). A kernel that is on the grid is exported without a further error.
"""

from __future__ import annotations

import numpy as np

from kzoo.errors import UsageError

LEVELS = 255
"""Steps from the least to the largest of the 256 values of an activation."""
LEAST = 5e-7
"""The largest weight of a channel counts as at least this: the converter's floor."""


def levels(bits: int = 8) -> int:
    """The largest whole number of the grid, 127 in 8 bits; the least is its negative.

    Raises:
        UsageError: bits are not from 2 to 8.
    """
    if bits not in range(2, 9):
        raise UsageError(f"bits are a whole number from 2 to 8; {bits!r} was given")
    return 2 ** (bits - 1) - 1


def scales(
    kernel: np.ndarray, *, depthwise: bool = False, per: str = "channel", bits: int = 8
) -> np.ndarray:
    """How far the grid's points lie apart, so that the largest weight of a channel is on its end.

    Args:
        kernel: its values; the output channels are the last axis, or both last of a depthwise one.
        depthwise: whether it is one.
        per: "channel", or "tensor" for one scale, as engines without scales per channel have it.
        bits: of the whole numbers.

    Returns:
        float32, of as many axes as the kernel, (1, 1, 1, filters), (1, 1, c, m) or (1, units).
    """
    kept = {"channel": 2 if depthwise else 1, "tensor": 0}[per]
    largest = np.abs(kernel).max(tuple(range(kernel.ndim - kept)), keepdims=True)
    return (np.maximum(largest, LEAST).astype(np.float64) / levels(bits)).astype(np.float32)


def rounded(kernel: np.ndarray, scale: np.ndarray, *, bits: int = 8) -> np.ndarray:
    """The nearest whole numbers, int8, of the kernel's shape; ``scale`` as of `scales`."""
    largest = levels(bits)
    return np.clip(np.rint(kernel / scale.astype(np.float64)), -largest, largest).astype(np.int8)


def on_grid(
    kernel: np.ndarray, *, depthwise: bool = False, per: str = "channel", bits: int = 8
) -> np.ndarray:
    """The kernel with every weight at the nearest point of the grid, float32."""
    scale = scales(kernel, depthwise=depthwise, per=per, bits=bits)
    return rounded(kernel, scale, bits=bits) * scale
