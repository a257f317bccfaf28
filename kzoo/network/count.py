"""Parameters, multiply-accumulates and memory of any functional Keras model, from shapes alone."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from kzoo.network.graph import nested_calls

if TYPE_CHECKING:
    import keras

IN_PLACE = {
    "Activation", "BatchNormalization", "Dropout", "Flatten", "Identity", "LeakyReLU", "PReLU",
    "ReLU", "Rescaling", "Reshape", "Softmax", "SpatialDropout2D", "ZeroPadding2D",
}  # fmt: skip
"""Layers that runtimes fuse into the one before or compute where their input stands."""


def parameters(model: keras.Model) -> tuple[int, int]:
    """(trainable, total) parameters; the total has BatchNorm's statistics, but no seed states."""
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return trainable, model.count_params()


def counted(model: keras.Model) -> dict:
    """A classifier of images in numbers, as JSON values: its parameters, MACs, classes, input."""
    trainable, total = parameters(model)
    height, width, channels = model.inputs[0].shape[1:]
    return {
        "params": trainable,
        "total_params": total,
        "macs": macs(model),
        "classes": model.outputs[0].shape[-1],
        "size": [height, width],
        "channels": channels,
    }


def macs(model: keras.Model) -> int:
    """Multiply-accumulates for one input: convolutions, dense and recurrent layers; nothing else.

    The convention of torchvision's and fvcore's tables: a bias, BatchNorm, activation, pooling or
    addition counts 0. A layer that is called twice counts twice.
    """
    return sum(layer_macs(node.operation, node) for node in nested_calls(model))


def layer_table(model: keras.Model) -> list[dict]:
    """One row per layer, in the order of computation.

    Each has ``name``, ``kind``, ``inputs`` (names), ``shape`` of the output without the batch,
    ``params`` (with BatchNorm's statistics), ``macs``, and ``settings``, what of `SETTINGS` the
    layer has.
    """
    return [
        {
            "name": node.operation.name,
            "kind": type(node.operation).__name__,
            "inputs": [tensor._keras_history.operation.name for tensor in node.input_tensors],
            "shape": list(node.output_tensors[0].shape[1:]),
            "params": getattr(node.operation, "count_params", int)(),
            "macs": layer_macs(node.operation, node),
            "settings": _settings(node.operation),
        }
        for node in nested_calls(model)
    ]


SETTINGS = ("kernel_size", "pool_size", "strides", "dilation_rate", "groups", "scale", "activation")


def _settings(operation) -> dict:
    found = {key: getattr(operation, key, None) for key in SETTINGS}
    found["activation"] = getattr(found["activation"], "__name__", None)
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in found.items()
        if isinstance(value, (int, float, str, tuple))
        and value != "linear"
        # BatchNormalization's ``scale`` says whether it has a gamma, not which.
        and not isinstance(value, bool)
    }


def peak_memory(table: list[dict], bytes_per_value: int = 4) -> int:
    """Bytes of the activations that are alive at the same time, at most, for one image.

    Computed from `layer_table` for execution in its order: an output lives from the layer that
    makes it to the last that reads it, input and output of a layer at once, and `IN_PLACE` layers
    that alone read their input need no room of their own. Runtimes add padding and scratch space;
    weights are not in it.
    """
    place, size, last = {}, {}, {}
    readers = Counter(name for row in table for name in row["inputs"])
    for step, row in enumerate(table):
        reads = [place[name] for name in row["inputs"] if name in place]
        alone = len(reads) == 1 and readers[row["inputs"][0]] == 1
        owner = reads[0] if alone and row["kind"] in IN_PLACE else row["name"]
        place[row["name"]] = owner
        size[owner] = max(size.get(owner, 0), math.prod(row["shape"]) * bytes_per_value)
        for name in (owner, *reads):
            last[name] = step
    born = {name: step for step, name in reversed([*enumerate(row["name"] for row in table)])}
    return max(
        sum(size[name] for name in size if born[name] <= step <= last[name])
        for step in range(len(table))
    )


def layer_macs(layer: keras.layers.Layer, node) -> int:
    """Multiply-accumulates of one call of a layer, see `macs`."""
    import keras

    if not node.input_tensors:
        return 0
    inputs, outputs = node.input_tensors[0].shape, node.output_tensors[0].shape
    match layer:
        case keras.layers.DepthwiseConv2D():
            return math.prod(outputs[1:]) * math.prod(layer.kernel_size)
        case keras.layers.SeparableConv2D():
            middle = outputs[1] * outputs[2] * inputs[-1] * layer.depth_multiplier
            return middle * (math.prod(layer.kernel_size) + outputs[-1])
        case keras.layers.Conv2D():
            return (
                math.prod(outputs[1:]) * math.prod(layer.kernel_size) * inputs[-1] // layer.groups
            )
        case keras.layers.Dense():
            return math.prod(outputs[1:]) * inputs[-1]
        case keras.layers.LSTM() | keras.layers.GRU() | keras.layers.SimpleRNN():
            gates = {"LSTM": 4, "GRU": 3}.get(type(layer).__name__, 1)
            return inputs[1] * gates * layer.units * (inputs[2] + layer.units)
    return 0
