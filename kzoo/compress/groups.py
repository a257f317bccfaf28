"""Groups of channels that compete for being kept, and the weights that make each channel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.channels import MAKERS, Channels
from kzoo.errors import BadInputError
from kzoo.network.graph import calls
from kzoo.network.named import layers_named

if TYPE_CHECKING:
    import keras

NAMED = {
    ("Conv2D", "kernel"): "kernel", ("Dense", "kernel"): "kernel",
    ("SeparableConv2D", "pointwise_kernel"): "kernel", ("DepthwiseConv2D", "kernel"): "depthwise",
    ("BatchNormalization", "gamma"): "scale",
}  # fmt: skip
"""What weights are to the channels that a layer gives."""


@dataclass(frozen=True)
class Group:
    """Channels that the same layers make.

    Attributes:
        roots: their numbers, (n,); several channels of a layer may go together as one of them.
        layers: the names of the layers that make them, in the order of computation.
    """

    roots: np.ndarray
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What a layer holds of each of its channels.

    Attributes:
        layer: its name.
        kind: "kernel", "depthwise", "scale" (of BatchNormalization) or "other", biases for one.
        roots: of the channels, (c,).
        values: (c, d), what the layer holds of each.
    """

    layer: str
    kind: str
    roots: np.ndarray
    values: np.ndarray


def groups(
    found: Channels, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Group]:
    """The channels that may go, by the layers that make them.

    Args:
        found: of `kzoo.compress.channels.channels`.
        include: prefixes of layers; a group counts where all its layers begin with one.
        exclude: prefixes of layers; no group of such a layer counts.

    Raises:
        UsageError: a prefix fits no layer that makes channels.
        BadInputError: nothing may go.
    """
    makers = defaultdict(dict)
    for node in calls(found.model):
        if type(node.operation).__name__ in MAKERS:
            for root in np.unique(found.root[found.of[id(node.outputs[0])]]):
                if found.movable[root]:
                    makers[int(root)][node.operation] = None
    _check_any(found, makers)
    together = defaultdict(list)
    for root in sorted(makers):
        together[tuple(makers[root])].append(root)
    known = list(dict.fromkeys(layer for layers in together for layer in layers))
    chosen = {*layers_named(found.model, include, known)} if include else {*known}
    chosen -= {*layers_named(found.model, exclude, known)}
    kept = [
        Group(np.array(roots), tuple(layer.name for layer in layers))
        for layers, roots in together.items()
        if chosen.issuperset(layers)
    ]
    if not kept:
        raise BadInputError(
            f"no channels of {found.model.name} are left to remove: layers that add up go together "
            "or stay together; include more of them or exclude fewer"
        )
    return kept


def _check_any(found: Channels, makers: Mapping[int, object]) -> None:
    if makers:
        return
    held = [f"{name} ({kind})" for name, kind in found.unknown.items()]
    why = f"; {', '.join(held[:5])} hold all that they read or make" if held else ""
    raise BadInputError(
        f"nothing of {found.model.name} can be removed: no convolution or dense layer but those "
        f"that make the outputs has channels that may go{why}"
    )


def parts(found: Channels, of: keras.Model | None = None) -> list[Part]:
    """What every layer holds of each of its output channels: kernels, biases, scales, slopes.

    With ``of`` the layers are those of that model that have the same names; others do not count.
    """
    own = {layer.name: layer for layer in (of or found.model).layers}
    made, seen = [], set()
    for node in calls(found.model):
        kind, layer = type(node.operation).__name__, own.get(node.operation.name)
        if layer is None or layer in seen:
            continue
        seen.add(layer)
        roots = found.root[found.of[id(node.outputs[0])]].ravel()
        for weight in layer.weights:
            name = NAMED.get((kind, weight.name), "other")
            value = np.asarray(weight)
            if kind == "DepthwiseConv2D" and name == "depthwise":
                value = value.reshape(-1, len(roots))
            if value.ndim and value.shape[-1] == len(roots):
                made.append(Part(layer.name, name, roots, value.reshape(-1, len(roots)).T))
    return made


def vectors(group: Group, held: Sequence[Part], kinds: Sequence[str]) -> np.ndarray:
    """What layers hold of each channel of a group, as one row per channel: float32 (n, d).

    ``kinds`` are those of the parts that count. Where a root is several channels of a layer they
    stand one behind the other.
    """
    found = [np.zeros((len(group.roots), 0), np.float32)]
    for part in held:
        if part.kind not in kinds:
            continue
        chosen = np.flatnonzero(np.isin(part.roots, group.roots))
        if not len(chosen):
            continue
        place = np.searchsorted(group.roots, part.roots[chosen])
        order = np.argsort(place, kind="stable")
        chosen, place = chosen[order], place[order]
        nth = np.arange(len(place)) - np.searchsorted(place, place)
        rows = np.zeros((len(group.roots), nth.max() + 1, part.values.shape[1]), np.float32)
        rows[place, nth] = part.values[chosen]
        found.append(rows.reshape(len(rows), -1))
    return np.concatenate(found, axis=1)
