"""Which channels of a network depend on which: what channel pruning removes together.

Every channel of every tensor has a number. Where an operation makes two channels one, adds them or
scales one by the other, their numbers are joined; what is joined can only go together. Fang et al.
2023 (DepGraph, arXiv:2301.12900) state the problem; numbers of channels carry concatenations,
flattening, splits and shuffles along without a rule for each pair of layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.graph import flat
from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras

SAME = {
    "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "SpatialDropout2D",
    "GaussianNoise", "GaussianDropout", "ActivityRegularization", "Identity", "Rescaling",
    "ZeroPadding2D", "UpSampling2D", "Resizing", "PReLU",
}  # fmt: skip
"""They give each channel what they make of it alone."""
POOLS = {
    "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D",
}  # fmt: skip
MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Divide"}
MAKERS = {"Conv2D", "Dense", "SeparableConv2D"}
RULES = {
    "DepthwiseConv2D": "depthwise", "BatchNormalization": "batch_norm",
    "GroupNormalization": "group_norm", "Cropping2D": "cropping", "Concatenate": "concatenated",
    "Permute": "permuted", "Flatten": "reshaping", "Reshape": "reshaping",
}  # fmt: skip
ANY_AXIS = {"Permute", "Flatten", "Reshape"}
"""They keep or move channels that are on several axes."""


@dataclass(frozen=True)
class Channels:
    """The numbered channels of a flat model, and which are joined.

    Attributes:
        model: functional, without models inside.
        of: for the ``id`` of a tensor the numbers of its channels: an array with an axis for each
            of the tensor's but the batch, of length 1 where the numbers are the same along it.
        root: for each number the one that stands for all that it is joined with.
        movable: by number, whether it is a root that may go.
        unknown: the layers that are no part of the rules and hold what they touch, with their type.
    """

    model: keras.Model
    of: dict[int, np.ndarray]
    root: np.ndarray
    movable: np.ndarray
    unknown: dict[str, str]

    def masks(self, keep: np.ndarray, node) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Which channels of a call's inputs and of its outputs stay, where ``keep`` says by root.

        bool, with the axes of their numbers; the last is as long as the tensor's, also where all
        its values have one number, as those of an image of one channel that is flattened.
        """

        def mask(tensor) -> np.ndarray:
            kept = keep[self.root[self.of[id(tensor)]]]
            return np.broadcast_to(kept, (*kept.shape[:-1], tensor.shape[-1] or 1))

        return [*map(mask, node.input_tensors)], [*map(mask, node.outputs)]


def channels(model: keras.Model, *, apart: bool = False) -> Channels:
    """Numbers the channels of a functional model and joins those that can only go together.

    With ``apart`` a depthwise convolution makes channels of its own, as any other does: what is
    scaled behind it need not be scaled in front.

    Inputs and outputs stay. Grouped convolutions lose the same places of every group; what an
    unknown layer reads or makes stays, as does what LayerNormalization takes the mean of.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    return _Walk(flat(model), apart).walk()


class _Walk:
    """The state of numbering."""

    def __init__(self, model: keras.Model, apart: bool):
        self.model, self.count, self.apart = model, 0, apart
        self.of: dict[int, np.ndarray] = {}
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self.frozen: list[np.ndarray] = []
        self.unknown: dict[str, str] = {}
        self.first: dict[object, list[np.ndarray]] = {}

    def walk(self) -> Channels:
        for tensor in self.model.inputs:
            self.of[id(tensor)] = self.new(tensor.shape)
            self.freeze(self.of[id(tensor)])
        for node in calls(self.model):
            inputs = [self.of[id(tensor)] for tensor in node.input_tensors]
            for tensor, numbers in zip(node.outputs, self.outputs(node, inputs), strict=True):
                self.of[id(tensor)] = numbers
            self.share(node, inputs)
        for tensor in self.model.outputs:
            self.freeze(self.of[id(tensor)])
        root = _components(self.count, self.pairs)
        movable = np.zeros(self.count, bool)
        movable[root] = True
        movable[root[np.concatenate([numbers.ravel() for numbers in self.frozen])]] = False
        return Channels(self.model, self.of, root, movable, self.unknown)

    def new(self, shape: Sequence[int | None]) -> np.ndarray:
        """Fresh numbers for the last axis."""
        first, count = self.count, shape[-1] or 1
        self.count += count
        return np.arange(first, first + count).reshape((1,) * (len(shape) - 2) + (count,))

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        first, second = np.broadcast_arrays(first, second)
        self.pairs.append((first.ravel(), second.ravel()))

    def freeze(self, *numbers: np.ndarray) -> None:
        self.frozen += numbers

    def share(self, node, inputs: list[np.ndarray]) -> None:
        """A layer that is called twice loses the same channels in both calls."""
        if not getattr(node.operation, "weights", ()):
            return
        own = [*inputs, *(self.of[id(tensor)] for tensor in node.outputs)]
        for before, now in zip(self.first.setdefault(node.operation, own), own, strict=True):
            if before is not now and before.shape == now.shape:
                self.join(before, now)
            elif before is not now:
                self.freeze(before, now)

    def outputs(self, node, inputs: list[np.ndarray]) -> list[np.ndarray]:
        layer, shape = node.operation, node.outputs[0].shape
        kind = type(layer).__name__
        plain = all(_plain(each) for each in inputs) and len(node.outputs) == 1
        last = getattr(layer, "data_format", "channels_last") != "channels_first"
        found = None
        if kind in MERGES:
            found = self.merged(inputs)
        elif kind in SAME and last:
            found = inputs[0]
        elif kind in POOLS and plain and last:
            found = inputs[0].reshape((1,) * (len(shape) - 2) + (-1,))
        elif kind in MAKERS and plain and last:
            found = self.made(node, inputs[0])
        elif kind in RULES and (plain or kind in ANY_AXIS):
            found = getattr(self, RULES[kind])(node, inputs)
        if found is not None:
            return [found]
        self.freeze(*inputs)
        self.unknown[layer.name] = kind
        made = [self.new(tensor.shape) for tensor in node.outputs]
        self.freeze(*made)
        return made

    def merged(self, inputs: list[np.ndarray]) -> np.ndarray | None:
        wide = max(inputs, key=lambda numbers: numbers.size)
        if any(numbers.ndim != wide.ndim for numbers in inputs):
            return None
        for numbers in inputs:
            if numbers.shape[-1] == wide.shape[-1]:
                self.join(wide, numbers)
            else:  # one channel that scales or shifts all others
                self.freeze(numbers)
        return wide

    def made(self, node, numbers: np.ndarray) -> np.ndarray:
        """What a kernel makes is new. The groups of a convolution lose the same places."""
        made, groups = self.new(node.outputs[0].shape), getattr(node.operation, "groups", 1)
        if groups > 1:
            for each in (numbers, made):
                parts = each.reshape(groups, -1)
                self.join(parts[:1], parts)
        return made

    def depthwise(self, node, inputs):
        if node.operation.data_format == "channels_first":
            return None
        if self.apart:
            return self.new(node.outputs[0].shape)
        return np.repeat(inputs[0], node.operation.depth_multiplier, axis=-1)

    def batch_norm(self, node, inputs):
        last = node.operation.axis in (-1, len(node.outputs[0].shape) - 1)
        return inputs[0] if last else None

    def group_norm(self, node, inputs):
        layer, (numbers,) = node.operation, inputs
        if layer.axis not in (-1, len(node.outputs[0].shape) - 1):
            return None
        count = numbers.shape[-1]
        groups = count if layer.groups == -1 else layer.groups
        if groups == 1:
            return None  # the mean of all channels, as LayerNormalization has it
        parts = numbers.reshape(groups, -1)
        self.join(parts[:, :1], parts)
        return numbers

    def cropping(self, node, inputs):
        layer, (numbers,) = node.operation, inputs
        if layer.data_format == "channels_last":
            return numbers
        (_, (low, high)), count = layer.cropping, numbers.shape[-1]
        return numbers[..., low : count - high]  # (w, c) are its last two axes

    def concatenated(self, node, inputs):
        rank = len(node.outputs[0].shape)
        if node.operation.axis % rank == rank - 1:
            return np.concatenate(inputs, axis=-1)
        for numbers in inputs[1:]:
            self.join(inputs[0], numbers)
        return inputs[0]

    def permuted(self, node, inputs):
        return inputs[0].transpose([axis - 1 for axis in node.operation.dims])

    def reshaping(self, node, inputs):
        (numbers,), (tensor,) = inputs, node.input_tensors
        found = reshaped(numbers, tensor.shape[1:], node.outputs[0].shape[1:])
        axes = [axis for axis, size in enumerate(found.shape) if size > 1]
        if len(axes) > 1:  # what is left must be a box: whole rows go
            longest = max(axes, key=lambda axis: found.shape[axis])
            along = np.moveaxis(found, longest, 0).reshape(found.shape[longest], -1)
            self.join(along[:, :1], along)
        return found


def reshaped(numbers: np.ndarray, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """The numbers of a tensor of shape ``old`` in the shape ``new``, axes of length 1 where it can.

    Axes are taken together, from the first, until the products agree: (h, w, c) -> (h w, 2, c / 2)
    is (h, w) -> (h w) and (c) -> (2, c / 2).
    """
    pieces, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        first, start = i, j
        i, j = i + 1, j + 1
        while (a := math.prod(old[first:i])) != (b := math.prod(new[start:j])):
            i, j = (i + 1, j) if a < b else (i, j + 1)
        while i < len(old) and old[i] == 1:
            i += 1
        while j < len(new) and new[j] == 1:
            j += 1
        pieces.append((slice(first, i), slice(start, j)))
    full, target = list(numbers.shape), []
    for source, goal in pieces:
        if all(size == 1 for size in numbers.shape[source]):
            target += [1] * len(new[goal])
        else:
            full[source] = old[source]
            target += new[goal]
    return np.broadcast_to(numbers, full).reshape(target)


def _plain(numbers: np.ndarray) -> bool:
    """Whether only the last axis has channels."""
    return all(size == 1 for size in numbers.shape[:-1])


def _components(count: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """For each number the least that it is joined with, over any number of steps."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return np.arange(count)
    first, second = (np.concatenate(each) for each in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(first), bool), (first, second)), (count, count))
    labels = connected_components(graph, directed=False)[1]
    least = np.full(labels.max() + 1, count)
    np.minimum.at(least, labels, np.arange(count))
    return least[labels]
