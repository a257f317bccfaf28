"""Cross-layer equalization: the ranges of channels made alike, the function left as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.apart import apart, linear_calls
from kzoo.compress.channels import Channels, channels
from kzoo.compress.graph import is_linear
from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras

PASS_ON = {
    "Dropout", "SpatialDropout2D", "Identity", "ZeroPadding2D", "UpSampling2D", "Resizing", "PReLU",
    "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D", "Add", "Subtract", "Average", "Maximum",
    "Minimum", "Concatenate", "Cropping2D", "Permute", "Flatten", "Reshape",
}  # fmt: skip
"""Layers that give s times as much for s times as much in a channel, whatever s > 0."""
ACTIVATIONS = {"linear", "relu", "leaky_relu"}
ROUNDS, SETTLED = 200, 1e-3
"""It ends when no factor changes by more than this part, or after so many rounds."""
DEAD = 1e-12
"""A channel with smaller weights is left alone: nothing says how far it should be scaled."""


def equalize(model: keras.Model) -> keras.Model:
    """Scales channels so that the kernels that write and those that read them have equal ranges.

    A kernel's output channel divided by s and all that reads it multiplied by s compute the same
    through whatever passes a positive factor on: ReLU, pooling, additions. Nagel et al. 2019
    (arXiv:1906.04721), section 4.1, equation 11, in turn until nothing changes; channels that are
    added have one s, and the largest range of their kernels counts. Biases too large for it are not
    absorbed by the next layer, as the function would change.

    ReLU6, sigmoid, a gate and the like pass no factor on: the channels that they read stay as they
    are; `held_channels` names them.

    Args:
        model: functional or Sequential; it stays as it is.

    Returns:
        A new model as `kzoo.compress.apart.apart` makes it, that computes the same.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    model = apart(model)
    found = channels(model, apart=True)
    free = found.movable & ~_held(found)[0]
    layers = [_Linear(found, node) for node in linear_calls(model, shared=True)]
    scale = np.ones(len(found.root))
    for _ in range(ROUNDS):
        wrote, read = np.zeros(len(scale)), np.zeros(len(scale))
        for layer in layers:
            layer.ranges(scale, wrote, read)
        scaled = free & (wrote > DEAD) & (read > DEAD)
        change = np.sqrt(wrote[scaled] / read[scaled])
        scale[scaled] *= change
        if np.abs(change - 1).max(initial=0) < SETTLED:
            break
    for layer in layers:
        layer.apply(scale)
    return model


def held_channels(model: keras.Model) -> dict[str, str]:
    """Which layers keep `equalize` from scaling the channels they read, and of what kind they are.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    found = channels(apart(model), apart=True)
    return _held(found)[1]


def _held(found: Channels) -> tuple[np.ndarray, dict[str, str]]:
    """bool by root; and the layers behind a kernel that hold channels, with what they are."""
    held, why = np.zeros(len(found.root), bool), {}
    for node in calls(found.model):
        if _passes_on(node.operation):
            continue
        roots = [found.root[found.of[id(each)]] for each in (*node.input_tensors, *node.outputs)]
        if any(found.movable[each].any() for each in roots):
            name = getattr(getattr(node.operation, "activation", None), "__name__", "")
            why[node.operation.name] = name or type(node.operation).__name__
        for each in roots:
            held[each] = True
    return held, why


def _passes_on(layer) -> bool:
    import keras

    kind = type(layer)
    if is_linear(layer):
        return True
    if kind is keras.layers.Activation:
        return layer.activation.__name__ in ACTIVATIONS
    if kind is keras.layers.ReLU:
        return layer.max_value is None and not layer.threshold
    if kind is keras.layers.Rescaling:
        return not np.any(layer.offset)
    # An operation such as ``x + 1`` shares the name of a layer and passes nothing on.
    return kind is keras.layers.LeakyReLU or (
        isinstance(layer, keras.layers.Layer)
        and kind.__module__.startswith("keras.")
        and kind.__name__ in PASS_ON
    )


class _Linear:
    """A linear layer's largest weights between channels, and the roots of these.

    Of a grouped convolution it is those between the places in a group: groups have the same places
    joined.
    """

    def __init__(self, found: Channels, node):
        self.layer = node.operation
        kernel = self.layer.get_weights()[0]
        came, goes = (
            found.root[found.of[id(tensor)]].ravel()
            for tensor in (node.input_tensors[0], node.outputs[0])
        )
        # (inputs, outputs); a depthwise kernel is (c, m) with outputs of its own for every input.
        self.largest = np.abs(kernel).reshape(-1, *kernel.shape[-2:]).max(0)
        # One number for all of an image of one channel that is flattened.
        self.came = np.broadcast_to(came[: kernel.shape[-2], None], (kernel.shape[-2], 1))
        depthwise = type(self.layer).__name__ == "DepthwiseConv2D"
        self.goes = goes.reshape(kernel.shape[-2:] if depthwise else (1, -1))

    def ranges(self, scale: np.ndarray, wrote: np.ndarray, read: np.ndarray) -> None:
        """Raises what is written to and read from every root to the ranges of this kernel."""
        now = self.largest * (scale[self.came] / scale[self.goes]).astype(np.float32)
        written = now if self.goes.shape == now.shape else now.max(0)
        np.maximum.at(wrote, self.goes.ravel(), written.ravel())
        np.maximum.at(read, self.came.ravel(), now.max(1))

    def apply(self, scale: np.ndarray) -> None:
        """Divides what the layer writes, and multiplies what it reads."""
        kernel, bias = self.layer.get_weights()
        factors = scale[self.came] / scale[self.goes]
        self.layer.set_weights([kernel * factors, bias / scale[self.goes].ravel()])
