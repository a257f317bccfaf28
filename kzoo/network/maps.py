"""Where a network keeps maps (n, h, w, c): behind its convolutions, at the end of its stages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kzoo.network.features import STAGE
from kzoo.network.graph import nested_calls

if TYPE_CHECKING:
    import keras

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")
FOLLOWERS = (
    "BatchNormalization", "GroupNormalization", "LayerNormalization",
    "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU",
)  # fmt: skip


@dataclass(frozen=True)
class Convolution:
    """A convolution of a network.

    Attributes:
        part: its stage, None in front of and behind the stages; "network" where there are none.
        layer: the convolution.
        node: the call whose output is what the convolution makes of an image: its own, or that of
            the normalization and activation that alone follow it.
        depth: convolutions on the longest way from the input to it, itself included.
    """

    part: str | None
    layer: keras.layers.Layer
    node: object
    depth: int


def convolutions(model: keras.Model) -> list[Convolution]:
    """The convolutions of a functional model, those in models inside it too.

    They are sorted by depth, those of equal depth by size, so that a shortcut follows its branch.
    """
    nodes, depth, readers = nested_calls(model), {}, {}
    for node in nodes:
        above = [depth.get(id(tensor), 0) for tensor in node.input_tensors]
        here = max(above, default=0) + is_convolution(node.operation)
        depth |= dict.fromkeys(map(id, node.outputs), here)
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node)

    def behind(node):
        after = readers.get(id(node.outputs[0]), [])
        follows = len(after) == 1 and type(after[0].operation).__name__ in FOLLOWERS
        return behind(after[0]) if follows else node

    found = [node for node in nodes if is_convolution(node.operation)]
    staged = any(stage_of(node) for node in found)
    listed = [
        Convolution(
            part=stage_of(node) if staged else "network",
            layer=node.operation,
            node=behind(node),
            depth=depth[id(node.outputs[0])],
        )
        for node in found
    ]
    return sorted(listed, key=lambda each: (each.depth, -math.prod(each.layer.kernel_size)))


def last_maps(model: keras.Model) -> dict[str, object]:
    """The calls that give the last map of every stage and of the network, by name.

    A map is larger than one pixel and stands behind a convolution. The network's is what is pooled
    or flattened for the classifier, often the last stage's too; it stands last, by that stage's
    name or its layer's.
    """
    found, convolved, last = {}, False, None
    for node in nested_calls(model):
        convolved = convolved or is_convolution(node.operation)
        shape = node.outputs[0].shape
        if convolved and len(shape) == 4 and shape[1] * shape[2] > 1:
            last = node
            if stage := stage_of(node):
                found.pop(stage, None)
                found[stage] = node
    if last is not None and last not in found.values():
        found[last.operation.name] = last
    return found


def is_convolution(operation) -> bool:
    return type(operation).__name__ in CONVOLUTIONS


def stage_of(node) -> str | None:
    """ "stage2" of a layer named stage2_1*, see `kzoo.network.features`."""
    found = STAGE.fullmatch(node.operation.name)
    return found and found[1]
