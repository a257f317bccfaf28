"""A network without some of its channels: an ordinary smaller Keras model, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.channels import MAKERS, Channels
from kzoo.compress.graph import Call, replay
from kzoo.network.count import layer_macs
from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras


def narrowed(
    found: Channels, keep: np.ndarray, weights: Mapping[object, Sequence[np.ndarray]] | None = None
) -> keras.Model:
    """The model without the channels that do not stay.

    What it computes is what the whole model does where nothing reads the others.

    Args:
        found: of `kzoo.compress.channels.channels`.
        keep: bool, by root.
        weights: of layers that take these, whole, in place of their own.
    """
    copied, given = set(), weights or {}

    def visit(call: Call):
        layer = call.node.operation
        before, after = found.masks(keep, call.node)
        # All calls of a layer share the copy that the first one made.
        if layer in copied or all(mask.all() for mask in (*before, *after)):
            return call.repeat()
        copied.add(layer)
        indices = _left(layer, before, after)
        whole = given.get(layer) or (layer.get_weights() if indices else [])
        weights = [value[np.ix_(*index)] for value, index in zip(whole, indices, strict=True)]
        return call.repeat(weights or None, **_config(call.node, before[0], after[0]))

    return replay(found.model, visit)


def narrowed_counts(found: Channels, keep: np.ndarray) -> tuple[int, int]:
    """(parameters, MACs) of what `narrowed` would make, from shapes alone."""
    params, macs, seen = 0, 0, set()
    for node in calls(found.model):
        layer = node.operation
        if not getattr(layer, "weights", ()):
            continue
        before, after = found.masks(keep, node)
        if layer not in seen:
            seen.add(layer)
            indices = _left(layer, before, after)
            params += sum(
                math.prod(map(len, index))
                for weight, index in zip(getattr(layer, "weights", ()), indices, strict=True)
                if weight.name != "seed_generator_state"
            )
        came, goes = int(before[0].sum()), int(after[0].sum())
        match type(layer).__name__:
            case "DepthwiseConv2D":
                macs += layer_macs(layer, node) * goes // after[0].size
            case "SeparableConv2D":
                places = math.prod(node.outputs[0].shape[1:3]) * came * layer.depth_multiplier
                macs += places * (math.prod(layer.kernel_size) + goes)
            case _:
                macs += layer_macs(layer, node) * came * goes // (before[0].size * after[0].size)
    return params, macs


def _left(layer, before: list[np.ndarray], after: list[np.ndarray]) -> list[list[np.ndarray]]:
    """For each weight of a layer what stays of it: indices along each of its axes."""
    if not getattr(layer, "weights", ()):  # an operation of keras.ops
        return []
    found = [[np.arange(size) for size in weight.shape] for weight in layer.weights]
    if all(mask.all() for mask in (*before, *after)):
        return found
    kind = type(layer).__name__
    came, goes = (np.flatnonzero(masks[0]) for masks in (before, after))
    for weight, index in zip(layer.weights, found, strict=True):
        if kind in ("DepthwiseConv2D", "SeparableConv2D") and weight.name in (
            "kernel",
            "depthwise_kernel",
        ):
            index[2] = came
        elif weight.name == "pointwise_kernel":
            times = layer.depth_multiplier
            index[2], index[3] = (came[:, None] * times + np.arange(times)).ravel(), goes
        elif kind in MAKERS and weight.name == "kernel":
            # Groups lose the same places: the first one's say which.
            index[-2], index[-1] = came[: len(came) // getattr(layer, "groups", 1)], goes
        elif index:
            index[-1] = goes
    return found


def _config(node, before: np.ndarray, after: np.ndarray) -> dict:
    """What changes of a layer's config with the channels that stay."""
    layer, count = node.operation, int(after.sum())
    match type(layer).__name__:
        case "Conv2D" | "SeparableConv2D":
            return {"filters": count}
        case "Dense":
            return {"units": count}
        case "GroupNormalization" if layer.groups > 0:
            return {"groups": layer.groups * count // after.size}
        case "Cropping2D" if layer.data_format == "channels_first":
            (low, high), mask = layer.cropping[1], before.ravel()
            sides = int(mask[:low].sum()), int(mask[mask.size - high :].sum())
            return {"cropping": (layer.cropping[0], sides)}
        case "Reshape":
            shape = list(node.outputs[0].shape[1:])
            for axis, size in enumerate(after.shape):
                if size > 1:
                    others = tuple(i for i in range(after.ndim) if i != axis)
                    shape[axis] = int(after.any(axis=others).sum())
            return {"target_shape": tuple(shape)}
    return {}
