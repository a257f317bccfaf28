"""Channels that are alike: one of them serves the layers behind in place of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.channels import MAKERS, Channels
from kzoo.compress.graph import fold_batch_norm
from kzoo.compress.groups import Group, groups, parts, vectors
from kzoo.compress.importance import squared_distances
from kzoo.compress.narrow import narrowed
from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras

ALL = ("kernel", "depthwise", "scale", "other")
ROUNDING = 1e-6
"""Equal weights are alike to within it."""


def without_duplicates(
    found: Channels, alike: float, among: Sequence[Group] | None = None
) -> tuple[keras.Model, int]:
    """Joins channels that nearly the same weights make; the layers behind read one for all.

    Two channels are as alike as ``2 a b / (a a + b b)`` is, where a and b are all that a layer
    holds of them, BatchNormalization folded into the kernel before it: the cosine where their
    lengths are equal, and less else. Of all layers that make them or keep them, the least counts.
    What the layers behind read of a channel that goes is added to what they read of the one that
    stays, so equal channels leave the outputs as they are (Srinivas, Babu 2015, arXiv:1507.06149,
    section 3).

    Args:
        found: the numbered channels of a network.
        alike: from so much on two channels are one, (0, 1].
        among: the groups to look in, by default all.

    Returns:
        The network, and how many channels, by root, it has less.
    """
    held = defaultdict(list)
    for part in parts(found, fold_batch_norm(found.model)):
        held[part.layer].append(part)
    mixed = _mixed(found)
    keep, stands_for = np.ones(len(found.root), bool), np.arange(len(found.root))
    for group in groups(found) if among is None else among:
        alike_in = [_likeness(vectors(group, each, ALL)) for each in held.values()]
        likeness = np.minimum.reduce([each for each in alike_in if each is not None])
        for i, root in enumerate(group.roots):
            if not keep[root] or root in mixed:
                continue
            twins = group.roots[i + 1 :][likeness[i, i + 1 :] >= alike - ROUNDING]
            twins = twins[keep[twins] & ~np.isin(twins, [*mixed])]
            keep[twins], stands_for[twins] = False, root
    if keep.all():
        return found.model, 0
    return narrowed(found, keep, _reading(found, stands_for)), int((~keep).sum())


def _likeness(rows: np.ndarray) -> np.ndarray | None:
    """Between all rows of (n, d), (n, n); None of a layer that holds nothing of the group."""
    if not rows.shape[1]:
        return None
    squares = (rows.astype(np.float64) ** 2).sum(axis=1)
    # Rows of zeros are alike.
    return 1 - squared_distances(rows) / np.maximum(squares[:, None] + squares[None, :], 1e-30)


def _mixed(found: Channels) -> set[int]:
    """The roots that a SeparableConv2D reads: it has a kernel for each, which do not add up."""
    return {
        int(root)
        for node in calls(found.model)
        if type(node.operation).__name__ == "SeparableConv2D"
        for root in np.unique(found.root[found.of[id(node.input_tensors[0])]])
    }


def _reading(found: Channels, stands_for: np.ndarray) -> dict[object, list[np.ndarray]]:
    """The weights of layers that read some channels in the place of others too, by root."""
    changed = {}
    for node in calls(found.model):
        layer = node.operation
        if type(layer).__name__ not in MAKERS or layer in changed:
            continue
        read = found.root[found.of[id(node.input_tensors[0])]].ravel()
        read = read[: read.size // getattr(layer, "groups", 1)]
        weights = layer.get_weights()
        kernel = np.moveaxis(weights[0], -2, 0)  # a view, inputs first
        if len(kernel) != len(read):
            continue  # one number for many inputs, which stay
        for root in np.unique(read[stands_for[read] != read]):
            # Where a root is several inputs, they are so in the same order.
            kernel[read == stands_for[root]] += kernel[read == root]
            changed[layer] = weights
    return changed
