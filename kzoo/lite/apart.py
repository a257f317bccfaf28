"""Kernels that go around TensorFlow's converter: it sees inputs in their place.

It takes 18 times as much memory as the weights of a network, and most of its time, for folding
BatchNormalization into kernels and transposing them. Both are done here, and what it writes is
filled with them at the end. Runs where Keras does; TensorFlow is not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kzoo.compress.graph import folded, norm_behind, producer, readers
from kzoo.network.graph import calls, run

LARGE = 64 << 10
"""Bytes from which on it is worth it."""
NEIGHBOURS = (
    "Activation", "ReLU", "Add", "Multiply", "Concatenate", "ZeroPadding2D", "Flatten",
    "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Conv2D",
    "DepthwiseConv2D", "Dense",
)  # fmt: skip
"""Layers of which the converter folds nothing into the kernels beside them, as it does a factor."""


@dataclass(frozen=True)
class Apart:
    """A convolution or dense layer whose kernel goes around.

    Attributes:
        layer: Keras'.
        kernel: with the BatchNormalization behind it folded in, float32, as a .tflite has it:
            (outputs, h, w, inputs) or (outputs, inputs).
        back: the axes of ``kernel`` in the order that Keras has them.
        norm: what was folded, or None.
        offset: what is left of both: a bias, float32 (outputs,).
    """

    layer: object
    kernel: np.ndarray
    back: tuple[int, ...]
    norm: object
    offset: np.ndarray | None


def apart(net) -> list[Apart]:
    """The layers of a flat network whose kernels can go around, and are worth it."""
    norms, calls_of, reads = norm_behind(net), {}, readers(net)
    for node in calls(net):
        calls_of.setdefault(node.operation, []).append(node)
    # A norm that other layers use too is not one layer's to fold.
    norms = {
        layer: nodes[0].operation
        for layer, nodes in norms.items()
        if len(calls_of[nodes[0].operation]) == len(nodes)
    }
    large = {
        layer for layer, nodes in calls_of.items() if _is_large(layer) and _is_plain(layer, nodes)
    }
    passing = {norms[layer] for layer in large if layer in norms}
    found = []
    for layer in large:
        norm, nodes = norms.get(layer), calls_of[layer]
        behind = calls_of[norm] if norm else nodes
        around = [_before(tensor) for node in nodes for tensor in node.input_tensors]
        around += [reader for node in behind for reader in _after(node, reads)]
        if all(node is None or _folds_nothing(node.operation, passing) for node in around):
            found.append(_apart(layer, norm))
    return sorted(found, key=lambda each: each.layer.name)


def _is_large(layer) -> bool:
    import keras

    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.Dense)
        and {weight.name for weight in layer.weights} <= {"kernel", "bias"}  # neither LoRA nor int8
        and layer.kernel.dtype == "float32"
        and 4 * np.prod(layer.kernel.shape, dtype=np.int64) > LARGE
    )


def _is_plain(layer, nodes: Sequence) -> bool:
    """Whether the converter makes one operator of it, whatever its kernel is."""
    if len(layer.kernel.shape) == 2:
        return all(len(node.input_tensors[0].shape) == 2 for node in nodes)
    return (
        layer.groups == 1 and layer.data_format == "channels_last" and layer.dilation_rate == (1, 1)
    )


def _before(tensor):
    """The call that gives a tensor. Dropout is nothing at inference."""
    node = producer(tensor)
    return _before(node.input_tensors[0]) if _drops(node) else node


def _after(node, reads) -> list:
    """The calls that read its output."""
    near = reads[id(node.outputs[0])]
    return [far for each in near for far in (_after(each, reads) if _drops(each) else [each])]


def _drops(node) -> bool:
    import keras

    return node is not None and type(node.operation) is keras.layers.Dropout


def _folds_nothing(layer, passing: set) -> bool:
    import keras

    return type(layer) in [getattr(keras.layers, name) for name in NEIGHBOURS] or layer in passing


def _apart(layer, norm) -> Apart:
    kernel, *bias = folded(layer, norm) if norm else [np.asarray(layer.kernel)]
    there, back = ((3, 0, 1, 2), (1, 2, 3, 0)) if kernel.ndim == 4 else ((1, 0), (1, 0))
    offset = np.asarray(bias[0], np.float32) if norm else None
    kernel = np.ascontiguousarray(kernel.transpose(there), np.float32)
    return Apart(layer, kernel, back, norm, offset)


def run_apart(net, image, large: Sequence[Apart], kernels: Sequence):
    """The output of a flat network for an image, for inference.

    Args:
        net: of one input and one output.
        image: a tensor.
        large: layers of it.
        kernels: what they take in the place of their own, tensors as `Apart.kernel`.
    """
    import keras

    given, offsets = [], {}
    for each, kernel in zip(large, kernels, strict=True):
        given.append((each.layer.kernel, keras.ops.transpose(kernel, each.back)))
        if each.norm:
            offsets[each.norm] = each.offset
            given += [(each.layer.bias, 0 * each.offset)] if each.layer.use_bias else []

    def visit(node, *args, **kwargs):
        layer = node.operation
        if layer in offsets:
            with keras.name_scope(layer.name):
                return args[0] + offsets[layer]
        return layer(*args, **kwargs)

    with keras.StatelessScope(state_mapping=given):
        (found,) = run(net, [image], visit)
    return found
