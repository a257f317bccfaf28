"""Parameters and multiply-accumulates of any functional Keras model, counted layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def parameters(model: keras.Model) -> tuple[int, int]:
    """(trainable, total) parameters; the total has BatchNorm's statistics, but no seed states."""
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return trainable, model.count_params()


def macs(model: keras.Model) -> int:
    """Multiply-accumulates for one input: convolutions and dense layers; nothing else is counted.

    The convention of torchvision's and fvcore's tables: a bias, BatchNorm, activation, pooling or
    addition counts 0. A layer that is called twice counts twice.
    """
    import keras

    total = 0
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, keras.Model):
            continue
        for node in layer._inbound_nodes:
            total += _layer_macs(layer, node)
    return total


def _layer_macs(layer, node) -> int:
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
    return 0
