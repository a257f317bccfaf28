"""A linear layer as one product of matrices, at places drawn from its output over many images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kzoo.compress.activations import pixels
from kzoo.compress.reparameterize import same_padding


@dataclass(frozen=True)
class Places:
    """Where the output of a call is looked at.

    Attributes:
        node: the call of a Conv2D, DepthwiseConv2D or Dense, channels last.
        at: int64 (rows,), ascending: the places of (n, ...) without the channels, counted through.
    """

    node: object
    at: np.ndarray

    @property
    def middle(self) -> tuple[int, ...]:
        """The output's axes between images and channels."""
        return tuple(self.node.outputs[0].shape[1:-1])

    @property
    def groups(self) -> int:
        """Of output channels that read the same inputs; every input's own of a depthwise kernel."""
        layer = self.node.operation
        if type(layer).__name__ == "DepthwiseConv2D":
            return self.node.input_tensors[0].shape[-1]
        return getattr(layer, "groups", 1)

    def outputs(self, values: np.ndarray, first: int = 0) -> np.ndarray:
        """The rows (rows, c) of an output (n, ..., c) of the images from ``first`` on."""
        size = math.prod(self.middle)
        low, high = np.searchsorted(self.at, (first * size, (first + len(values)) * size))
        return values.reshape(-1, values.shape[-1])[self.at[low:high] - first * size]

    def inputs(self, values: np.ndarray) -> np.ndarray:
        """What these places are computed from, (rows, groups, k) of the input (n, ..., c)."""
        layer = self.node.operation
        if type(layer).__name__ == "Dense":
            return pixels(values.reshape(-1, 1, values.shape[-1])[self.at])
        image, *place = np.unravel_index(self.at, (len(values), *self.middle))
        taps, inside = [], []
        pads = ((0, 0), (0, 0))
        if layer.padding == "same":
            reach = [
                (size - 1) * wide + 1
                for size, wide in zip(layer.kernel_size, layer.dilation_rate, strict=True)
            ]
            pads = same_padding(values.shape[1:3], reach, layer.strides)
        for axis in (0, 1):
            first = place[axis] * layer.strides[axis] - pads[axis][0]
            tap = first[:, None] + np.arange(layer.kernel_size[axis]) * layer.dilation_rate[axis]
            inside.append((tap >= 0) & (tap < values.shape[1 + axis]))
            taps.append(tap.clip(0, values.shape[1 + axis] - 1))
        found = pixels(values[image[:, None, None], taps[0][:, :, None], taps[1][:, None]])
        found *= (inside[0][:, :, None] & inside[1][:, None])[..., None]
        found = found.reshape(len(found), -1, self.groups, values.shape[-1] // self.groups)
        return np.ascontiguousarray(found.swapaxes(1, 2)).reshape(len(found), self.groups, -1)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel (..., c, f), or its scales, as (groups, k, f / groups)."""
        if type(self.node.operation).__name__ == "DepthwiseConv2D":
            return kernel.reshape(-1, *kernel.shape[-2:]).swapaxes(0, 1)
        return kernel.reshape(-1, self.groups, kernel.shape[-1] // self.groups).swapaxes(0, 1)

    def kernel(self, matrix: np.ndarray) -> np.ndarray:
        """The kernel again."""
        return matrix.swapaxes(0, 1).reshape(self.node.operation.kernel.shape)


def places(node, images: int, rows: int, values: int, draw: np.random.Generator) -> Places:
    """Places of a call's output over so many images, drawn without repetition.

    At most so many rows, and so many values of `Places.inputs` in all.
    """
    layer, total = node.operation, images * math.prod(node.outputs[0].shape[1:-1])
    groups = getattr(layer, "groups", 1)
    inputs = math.prod(layer.kernel.shape[:-1]) * groups
    chosen = draw.choice(total, min(rows, total, 1 + values // inputs), replace=False)
    return Places(node, np.sort(chosen))
