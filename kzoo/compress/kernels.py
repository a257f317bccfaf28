"""The kernels of a model: what pruning and clustering work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import BadInputError, UsageError
from kzoo.network.named import layers_named

if TYPE_CHECKING:
    import keras

KERNELS = ("kernel", "pointwise_kernel", "depthwise_kernel", "recurrent_kernel")


@dataclass(frozen=True)
class Kernel:
    """A kernel of a layer.

    Attributes:
        name: the layer's, "stage1_1_conv", or "layer/pointwise_kernel" where it has two.
        variable: of Keras; the output channels are the last axis, or both last of a depthwise one.
        depthwise: whether it is one.
    """

    name: str
    variable: keras.Variable
    depthwise: bool = False

    @property
    def values(self) -> np.ndarray:
        """A copy, float32."""
        return np.array(self.variable, np.float32)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(inputs of an output, outputs): how the kernel is seen as a matrix, without a copy."""
        shape = self.variable.shape
        outputs = int(np.prod(shape[-2:])) if self.depthwise else shape[-1]
        return int(np.prod(shape)) // outputs, outputs


def kernels_of(
    model: keras.Model, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Kernel]:
    """The kernels of convolutions, dense and recurrent layers, those in models inside it too.

    Args:
        model: any; a shared layer counts once.
        include: prefixes of layers' names. Without any, all but depthwise kernels, which hold a
            hundredth of a network's weights and suffer most (Zhu, Gupta 2017, section 4.1).
        exclude: prefixes of layers to leave out.

    Raises:
        UsageError: a prefix fits no layer that has a kernel, or nothing is left.
        BadInputError: a kernel has values that are not finite.
    """
    kept = {
        layer: [weight for weight in layer.weights if weight.name in KERNELS]
        for layer in dict.fromkeys(model._flatten_layers(include_self=False))
        if not hasattr(layer, "layers")
    }
    kept = {layer: weights for layer, weights in kept.items() if weights}
    chosen = layers_named(model, include, kept) if include else [*kept]
    without = {*layers_named(model, exclude, kept)}
    found, seen = [], set()
    for layer in chosen:
        for weight in kept[layer]:
            # DepthwiseConv2D calls its own "kernel".
            depthwise = weight.name == "depthwise_kernel" or "Depthwise" in type(layer).__name__
            if layer in without or (depthwise and not include) or id(weight) in seen:
                continue
            seen.add(id(weight))
            name = f"{layer.name}/{weight.name}" if len(kept[layer]) > 1 else layer.name
            found.append(Kernel(name, weight, depthwise))
    if not found:
        raise UsageError(f"no kernel of {model.name} is left to work on")
    for kernel in found:
        if not np.isfinite(kernel.values).all():
            raise BadInputError(
                f"{model.name} has weights that are not finite, in {kernel.name}; train it again, "
                "with a lower learning rate"
            )
    return found
