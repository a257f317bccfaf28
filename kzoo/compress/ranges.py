"""Where int8 rounds: the tensors of a network that LiteRT gives a range, and the network that does.

LiteRT has one operator for a kernel, its bias and the ReLU behind; what only moves values keeps
their range. The rules are those of its 8-bit quantization specification.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.apart import apart
from kzoo.compress.graph import Call, is_batch_norm, readers, replay, scale_and_offset
from kzoo.compress.grid import LEVELS
from kzoo.errors import BadInputError
from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras

KERNELS = {"Conv2D", "Conv1D", "Dense", "DepthwiseConv2D", "Conv2DTranspose"}
FUSING = KERNELS | {"Add", "Subtract", "Multiply"}
"""A ReLU behind them is part of their operator."""
RELUS = {"relu", "relu6"}
MOVING = {
    "MaxPooling2D", "GlobalMaxPooling2D", "Flatten", "Reshape", "Permute", "ZeroPadding2D",
    "Cropping2D", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "Identity",
    "ActivityRegularization", "RepeatVector", "Transpose", "Squeeze", "ExpandDims", "GetItem",
    "Split", "Pad", "Maximum", "Minimum",
}  # fmt: skip
"""Their values are among those of their inputs, and LiteRT asks for the same range."""
SAME_RANGE = {"AveragePooling2D", "UpSampling2D", "Resizing"}
"""They make new values, in the range of their input."""
FIXED = {"sigmoid": (0.0, 255 / 256), "softmax": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
"""The ranges that LiteRT's specification fixes for an operator's output."""


def activation_of(node) -> str:
    """The name of the activation that a call is, or that its layer ends with; else "linear"."""
    import keras

    layer = node.operation
    match type(layer).__name__:
        case "ReLU":
            plain = not layer.negative_slope and not layer.threshold
            names = {None: "relu", 6.0: "relu6"}
            return names.get(layer.max_value, "other") if plain else "other"
        case "Relu" | "Relu6" | "Sigmoid" | "Tanh" | "Softmax" | "Silu" as kind:
            return kind.lower()
    found = getattr(layer, "activation", keras.activations.linear)
    return getattr(found, "__name__", "other")


def spread(model: keras.Model) -> keras.Model:
    """An equal network whose calls are LiteRT's operators: what is rounded apart stands apart.

    As `kzoo.compress.apart.apart`; BatchNormalization with nothing in front to fold it into becomes
    a depthwise convolution of one place, and SiLU a product.

    Args:
        model: functional or Sequential; it stays as it is.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    from keras import layers

    model, norms = apart(model), {}
    names = {node.operation.name for node in calls(model)}

    def fresh(name: str) -> str:
        while name in names:
            name += "_"
        names.add(name)
        return name

    def visit(call: Call):
        node, layer = call.node, call.node.operation
        x = call.new(node.input_tensors[0])
        if activation_of(node) == "silu" and type(layer).__name__ in ("Activation", "Silu"):
            gate = layers.Activation("sigmoid", name=fresh(f"{layer.name}_sigmoid"))(x)
            return layers.Multiply(name=fresh(f"{layer.name}_product"))([x, gate])
        if is_batch_norm(node) and len(node.outputs[0].shape) == 4:
            if layer not in norms:
                norms[layer] = layers.DepthwiseConv2D(1, name=layer.name)
            return norms[layer](x)
        return call.repeat()

    found = replay(model, visit)
    for layer, own in norms.items():
        scale, offset = scale_and_offset(layer)
        own.set_weights([scale.reshape(1, 1, -1, 1), offset])
    return found


@dataclass(frozen=True)
class Point:
    """A tensor that is rounded.

    Attributes:
        name: of its range, which it may have in common with others.
        site: which of the tensors of that range it is.
        means: whether it has means of values of its own range.
        fixed: the range where LiteRT fixes it.
    """

    name: str
    site: int = 0
    means: bool = False
    fixed: tuple[float, float] | None = None


@dataclass(frozen=True)
class Points:
    """Where a network from `spread` is rounded.

    Attributes:
        of: by a tensor's ``id``.
        source: for each tensor the name of the range that its values are in, by its ``id``; None
            for pixels, which are whole numbers already, and behind a normalization of one scale and
            offset still.
        normalizations: the calls that give the pixels another scale and offset.
        pixel: the step from one pixel value to the next behind them.
    """

    of: dict[int, Point]
    source: dict[int, str | None]
    normalizations: list
    pixel: float


def points(model: keras.Model) -> Points:
    """Where a network from `spread` is rounded.

    What moves values, pools or concatenates them has one range for all that enters and leaves it.
    """
    reads, order = readers(model), calls(model)
    exact = {id(tensor) for tensor in model.inputs}
    normalizations, rounded, fixed, means, pixel = [], {}, {}, set(), 1.0
    pairs, seen = [], {}
    for node in order:
        layer, kind = node.operation, type(node.operation).__name__
        number = seen[layer] = seen.get(layer, -1) + 1
        name = layer.name if number == 0 else f"{layer.name}_{number}"
        floats = [each for each in node.outputs if "float" in each.dtype]
        if _normalizes(node, exact):
            normalizations.append(node)
            pixel *= np.asarray(layer.scale).item()
            exact.add(id(floats[0]))
        elif kind in MOVING and exact.issuperset(map(id, node.input_tensors)):
            exact |= {*map(id, floats)}
        elif kind in MOVING | SAME_RANGE | {"Concatenate"}:
            together = [*node.input_tensors, *floats]
            together = [id(each) for each in together if id(each) not in exact | fixed.keys()]
            pairs += [(together[0], each) for each in together[1:]]
            if kind in SAME_RANGE:
                rounded |= {id(each): name for each in floats}
                means |= {*map(id, floats)}
        elif activation_of(node) in FIXED:
            fixed |= {id(each): FIXED[activation_of(node)] for each in floats}
            rounded |= {id(each): name for each in floats}
        elif (
            kind not in FUSING
            or activation_of(node) != "linear"
            or not _relu_behind(reads[id(floats[0])])
        ):
            rounded |= {id(each): name for each in floats}
    one = _joined(pairs)
    names, sites, found = {}, {}, {}
    for tensor, name in rounded.items():
        name = names.setdefault(one.get(tensor, tensor), name)
        sites[name] = site = sites.get(name, -1) + 1
        found[tensor] = Point(name, site, tensor in means, fixed.get(tensor))
    tensors = [each for node in order for each in node.outputs]
    source = {id(each): names.get(one.get(id(each), id(each))) for each in tensors}
    return Points(found, source | dict.fromkeys(exact), normalizations, pixel)


def _joined(pairs: list[tuple[int, int]]) -> dict[int, int]:
    """For each number that is in a pair the one that stands for all that it is joined with."""
    above: dict[int, int] = {}

    def top(number: int) -> int:
        while above.setdefault(number, number) != number:
            number = above[number]
        return number

    for first, second in pairs:
        above[top(first)] = top(second)
    return {number: top(number) for number in [*above]}


def _relu_behind(nodes) -> bool:
    return (
        len(nodes) == 1
        and nodes[0] is not None
        and (activation_of(nodes[0]) in RELUS and type(nodes[0].operation).__name__ not in KERNELS)
    )


def _normalizes(node, exact: set[int]) -> bool:
    """Whether a call only gives the pixels' whole numbers another scale and offset."""
    layer = node.operation
    if type(layer).__name__ != "Rescaling" or id(node.input_tensors[0]) not in exact:
        return False
    if np.size(layer.scale) * np.size(layer.offset) != 1 or np.asarray(layer.scale).item() <= 0:
        return False
    return 0 <= -np.asarray(layer.offset).item() / np.asarray(layer.scale).item() <= LEVELS


def _shifted(layer) -> dict:
    """What a normalization adds in int8, where zero is a pixel value.

    The converter rounds that value half away from 128: of x / 127.5 - 1 zero is at 127.
    """
    scale, offset = np.asarray(layer.scale).item(), np.asarray(layer.offset).item()
    zero = -offset / scale - 128
    zero = 128 + math.copysign(math.floor(abs(zero) + 0.5), zero)
    return {"offset": -zero * scale}


def rounding(
    model: keras.Model, *, learned: bool = False, whole: frozenset[str] = frozenset()
) -> keras.Model:
    """A network that computes what int8 will, and is trained to: see `kzoo.compress.fake_quant`.

    Args:
        model: from `spread`.
        learned: the ranges of weights and activations are multiplied by trained factors.
        whole: the layers whose kernel has one step for all channels.

    Returns:
        A new model with the weights of ``model``, whose ranges are empty: they begin with the first
        batch that it is trained on. Layers keep their names.
    """
    import keras

    from kzoo.compress.fake_quant import ROUNDED, Range

    placed, layers = points(model), {}
    sites = Counter(point.name for point in placed.of.values())

    def ranged(old, new):
        if (point := placed.of.get(id(old))) is None:
            return new
        if point.name not in layers:
            free = learned and not point.fixed
            name = f"{point.name}_range"
            layers[point.name] = Range(sites[point.name], free, point.fixed, name=name)
        return layers[point.name](new, site=point.site, means=point.means)

    def visit(call: Call):
        layer = call.node.operation
        if kind := ROUNDED.get(type(layer).__name__):
            extra = {"learned": learned, "whole": layer.name in whole}
            outputs = call.repeat(kind=kind, **extra)
        elif call.node in placed.normalizations:
            outputs = call.repeat(**_shifted(layer))
        else:
            outputs = call.repeat()
        outputs = keras.tree.flatten(outputs)
        return [ranged(old, new) for old, new in zip(call.node.outputs, outputs, strict=True)]

    return replay(model, visit)


def baked(network: keras.Model, model: keras.Model) -> dict[str, list[float]]:
    """Gives a plain network what its rounding twin was trained to.

    Its kernels become those that the twin computes with. Biases, which are int32 in a file, are
    rounded to their steps in both: a hundredth of an activation's step there turns one in two
    hundred values of the first layer, and all that is computed from them.

    Args:
        network: from `rounding`.
        model: what it was made of.

    Returns:
        The ranges, [low, high] by name.
    """
    from kzoo.compress.fake_quant import Range

    twins = {layer.name: layer for layer in network.layers}
    ranges = {
        layer.name.removesuffix("_range"): [float(value) for value in layer.range()]
        for layer in network.layers
        if isinstance(layer, Range)
    }
    found, inputs = points(model), {}
    for node in calls(model):
        inputs.setdefault(node.operation, []).append(found.source.get(id(node.input_tensors[0])))
    for layer in model.layers:
        if not layer.weights:
            continue
        twin = twins[layer.name]
        weights = twin.get_weights()[: len(layer.weights)]
        if hasattr(twin, "rounded_kernel"):
            weights[0] = np.array(twin.rounded_kernel())
            if layer.use_bias and len({*inputs[layer]}) == 1:
                (name,) = {*inputs[layer]}
                step = found.pixel if name is None else np.ptp(ranges[name]) / LEVELS
                steps = step * np.array(twin.step(), np.float64).ravel()
                weights[1] = np.round(weights[1] / steps) * steps
                twin.bias.assign(weights[1])
        layer.set_weights(weights)
    fixed = {point.name for point in found.of.values() if point.fixed}
    return {name: each for name, each in ranges.items() if name not in fixed}


def as_trained(model: keras.Model, notes: Mapping[str, object]) -> keras.Model:
    """What a file of `kzoo.qat` computes once it is int8; any other model is returned as it is.

    Args:
        model: of the file.
        notes: of it, see `kzoo.network.model_file.read_notes`.

    Raises:
        BadInputError: the notes are not of this model.
    """
    if not notes.get("ranges"):
        return model
    from kzoo.compress.fake_quant import Range

    network = rounding(model, whole=frozenset(notes["whole"]))
    for layer in network.layers:
        if isinstance(layer, Range) and not layer.fixed:
            low, high = _range(notes["ranges"], layer.name.removesuffix("_range"))
            layer.low.assign([low] * layer.sites)
            layer.high.assign([high] * layer.sites)
    return network


def ranged_values(
    model: keras.Model, image: np.ndarray, ranges: Mapping[str, list[float]]
) -> tuple[dict[int, np.ndarray], dict[int, list[float]]]:
    """What the tensors of a network that have a range have for an image, and these ranges.

    Args:
        model: of a file of `kzoo.qat`.
        image: (1, h, w, c) pixels.
        ranges: of its notes.

    Returns:
        float32 values without rounding, and [low, high], by the tensors' numbers.
    """
    import keras

    found = points(model)
    tensors = [each for node in calls(model) for each in node.outputs]
    names = [found.source.get(id(each)) for each in tensors]
    fixed = {point.name for point in found.of.values() if point.fixed}
    chosen = [i for i, name in enumerate(names) if name is not None and name not in fixed]
    tensors = [tensors[i] for i in chosen]
    values = keras.Model(model.inputs, tensors)(image.astype(np.float32))
    return (
        {i: np.array(value) for i, value in enumerate(values)},
        {i: _range(ranges, names[place]) for i, place in enumerate(chosen)},
    )


def _range(ranges: Mapping[str, list[float]], name: str) -> list[float]:
    if name not in ranges:
        raise BadInputError(
            f"the file has no range for {name!r}, though its notes tell of quantization-aware "
            "training: it was changed afterwards; train it again with kzoo qat"
        )
    return ranges[name]
