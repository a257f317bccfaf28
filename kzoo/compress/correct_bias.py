"""Bias correction: what rounding the kernels adds to a channel on average is subtracted again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.activations import BATCH, computed, pixels, walk
from kzoo.compress.apart import apart, linear_calls
from kzoo.compress.grid import on_grid
from kzoo.network.graph import run
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras


def correct_bias(
    model: keras.Model,
    images: np.ndarray,
    *,
    against: keras.Model | None = None,
    bits: int = 8,
    progress: Progress = silent,
) -> keras.Model:
    """Corrects every layer's bias for the rounding that its kernel will get.

    The output's mean error by channel, over images and positions, layer after layer, with the ones
    before rounded and corrected: Nagel et al. 2019 (arXiv:1906.04721), section 4.2 and appendix D.

    Args:
        model: functional, pixels (n, h, w, c) in [0, 255] -> anything; it stays as it is.
        images: uint8 or float32 (n, h, w, c), as it was trained on.
        against: the same network before its kernels were rounded, where those of ``model`` already
            are, as after `adaround`; by default ``model`` itself.
        bits: of the grid that the kernels are rounded to when they are exported.
        progress: called after every layer.

    Returns:
        A new model as `kzoo.compress.apart.apart` makes it, with the same kernels, not rounded.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    model = apart(model)
    nodes = linear_calls(model)
    whole = model if against is None else apart(against)
    means = _means(whole, linear_calls(whole), images)
    wanted = dict(zip(nodes, means.values(), strict=True))
    kernels, done = {}, 0
    for node, tensors in walk(model, images):
        if node not in nodes:
            continue
        layer = node.operation
        kernel, bias = layer.get_weights()
        kernels[layer] = kernel
        deep = type(layer).__name__ == "DepthwiseConv2D"
        layer.set_weights([on_grid(kernel, depthwise=deep, bits=bits), bias])
        bias = bias + wanted[node] - mean(computed(node, tensors)[0])
        layer.set_weights([layer.get_weights()[0], bias])
        done += 1
        progress("correct biases", done, len(nodes))
    for layer, kernel in kernels.items():
        layer.set_weights([kernel, layer.get_weights()[1]])
    return model


def mean(values: np.ndarray) -> np.ndarray:
    """By channel, float64 (c,) of (n, ..., c)."""
    return values.mean(tuple(range(values.ndim - 1)), dtype=np.float64)


def _means(model, nodes, images) -> dict:
    """Of each call's output by channel, over all images."""
    import keras

    sums = dict.fromkeys(nodes, 0.0)

    def visit(node, *args, **kwargs):
        found = node.operation(*args, **kwargs)
        if node in sums:
            sums[node] += size * mean(keras.ops.convert_to_numpy(found))
        return found

    for start in range(0, len(images), BATCH):
        batch = pixels(images[start : start + BATCH])
        size = len(batch)
        run(model, [keras.ops.convert_to_tensor(batch)], visit)
    return {node: total / len(images) for node, total in sums.items()}
