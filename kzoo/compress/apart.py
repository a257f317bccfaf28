"""A model as the exporter quantizes it: linear layers with a bias each, activations behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.graph import Call, fold_batch_norm, is_linear, replay
from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras


def apart(model: keras.Model) -> keras.Model:
    """An equal model: BatchNorm folded, nothing but a kernel and a bias in a linear layer.

    An activation inside a layer becomes the layer ``<name>_act`` behind it, a SeparableConv2D the
    two convolutions ``<name>_depthwise`` and ``<name>``; all get a bias, as every kernel of a
    .tflite has one.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    import keras

    folded = fold_batch_norm(model)
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    names = {node.operation.name for node in calls(folded)}
    behind, separated = {}, {}

    def free(name: str) -> str:
        while name in names:
            name += "_"
        names.add(name)
        return name

    def visit(call: Call):
        layer, (x, *_) = call.node.operation, call.node.input_tensors
        if type(layer) not in (*kinds, keras.layers.SeparableConv2D):
            return call.repeat()
        plain = {"activation": "linear", "use_bias": True}
        if type(layer) in kinds:
            weights = layer.get_weights()
            outputs = weights[0].shape[-1] * (weights[0].shape[-2] if _depthwise(layer) else 1)
            if len(weights) > 1 + layer.use_bias:  # LoRA, int8: their own affair
                return call.repeat()
            if not layer.use_bias:
                weights.append(np.zeros(outputs, np.float32))
            x = call.repeat(weights, **plain)
        else:
            if layer not in separated:
                separated[layer] = _convolutions(layer, free(f"{layer.name}_depthwise"))
            first, second, weights = separated[layer]
            x = second(first(call.new(x)))
            for each, own in zip((first, second), weights, strict=True):
                each.set_weights(own)
        if layer.activation is keras.activations.linear:
            return x
        if layer not in behind:
            behind[layer] = keras.layers.Activation(
                layer.activation, dtype=layer.dtype_policy, name=free(f"{layer.name}_act")
            )
        return behind[layer](x)

    return replay(folded, visit)


def linear_calls(model: keras.Model, *, shared: bool = False) -> list:
    """The calls of the layers whose kernels are worked on, in the order of computation.

    Args:
        model: from `apart`.
        shared: with the first call of a layer that is called several times. By default it is left
            out: its calls want different things of it.
    """
    found = {}
    for node in calls(model):
        last = getattr(node.operation, "data_format", "channels_last") == "channels_last"
        if is_linear(node.operation) and last:
            found.setdefault(node.operation, []).append(node)
    return [nodes[0] for nodes in found.values() if shared or len(nodes) == 1]


def _depthwise(layer) -> bool:
    return type(layer).__name__ == "DepthwiseConv2D"


def _convolutions(layer, name: str) -> tuple:
    """The depthwise and the 1 x 1 convolution of a SeparableConv2D, and their weights."""
    import keras

    given = layer.get_config()
    shared = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")
    both = {"data_format": layer.data_format, "dtype": layer.dtype_policy}
    first = keras.layers.DepthwiseConv2D(
        **{key: given[key] for key in shared} | both,
        depth_multiplier=layer.depth_multiplier,
        name=name,
    )
    second = keras.layers.Conv2D(layer.filters, 1, **both, name=layer.name)
    deep, wide, *bias = layer.get_weights()
    zeros = [np.zeros(size, np.float32) for size in (deep.shape[2] * deep.shape[3], wide.shape[-1])]
    return first, second, ([deep, zeros[0]], [wide, *(bias or [zeros[1]])])
