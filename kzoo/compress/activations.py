"""A network computed call by call for many images at once, holding what is still to be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras

BATCH = 32

Tensors = dict[int, np.ndarray]
"""By the ``id`` of a model's tensor its values, (n, ...) for n images."""


def walk(model: keras.Model, images: np.ndarray) -> Iterator[tuple[object, Tensors]]:
    """Computes a flat model; stops before every call, and at the end with None.

    What is changed in the weights of a layer before its call counts in all that follows. Two of the
    largest feature maps of all images are in memory at the same time, at most, and what skips over
    them.

    Args:
        model: functional, of one input, no models inside.
        images: uint8 or float32 (n, h, w, c).

    Yields:
        The call, and the tensors that it or a later one reads, or that are an output.
    """
    nodes = calls(model)
    last = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.input_tensors}
    last |= {id(tensor): len(nodes) for tensor in model.outputs}
    tensors = {id(model.inputs[0]): images}
    for i, node in enumerate(nodes):
        yield node, tensors
        found = computed(node, tensors)
        tensors |= {id(tensor): each for tensor, each in zip(node.outputs, found, strict=True)}
        for key in [key for key in tensors if last.get(key, -1) <= i]:
            del tensors[key]
    yield None, tensors


def computed(node, tensors: Tensors) -> list[np.ndarray]:
    """The outputs of a call, as for prediction, (n, ...) each."""
    import keras

    read = {id(tensor): tensors[id(tensor)] for tensor in node.input_tensors}
    count = len(next(iter(read.values())))
    found: list[np.ndarray] = []
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        batch = {key: keras.ops.convert_to_tensor(pixels(each[part])) for key, each in read.items()}
        args, kwargs = node.arguments.fill_in(batch)
        given = keras.tree.flatten(node.operation(*args, **kwargs))
        given = [keras.ops.convert_to_numpy(each) for each in given]
        if not found:
            found = [np.empty((count, *each.shape[1:]), each.dtype) for each in given]
        for whole, each in zip(found, given, strict=True):
            whole[part] = each
    return found


def pixels(values: np.ndarray) -> np.ndarray:
    """Images as a network takes them, float32; all else as it is."""
    return values.astype(np.float32) if values.dtype == np.uint8 else values
