"""The layers that see the image: other channels, and blue before red.

With one channel a convolution has the shape of a depthwise one, so that these are paired apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

    from kzoo.zoo.weights.place import Placed, Unit


def first_layers(
    model: keras.Model,
    pixels: Sequence,
    bgr: bool,
    targets: list[Unit],
    sources: list[Unit],
    placed: Placed,
) -> list[tuple[Unit, Unit]]:
    """Takes out the layers that see the image, and their counterparts, and pairs them.

    ``pixels`` are the normalizations, (scale, offset), of the file's network and of the model.
    """
    names, pairs = _seeing(model), []
    for target in [unit for unit in targets if unit.name in names]:
        ours = tuple(target.tensors["weight"].shape)
        fits = [
            unit for unit in sources
            if {*unit.tensors} == {*target.tensors}
            and (theirs := unit.tensors["weight"].shape)
            and len(theirs) == len(ours) == 4
            and (*theirs[:2], theirs[3]) == (*ours[:2], ours[3])
        ]  # fmt: skip
        found = next((unit for unit in fits if unit.tensors["weight"].shape[2] == 3), None)
        found = found or next((u for u in fits if u.tensors["weight"].shape[2] == ours[2]), None)
        if found is None:
            continue
        if bgr:
            found.tensors["weight"] = found.tensors["weight"][:, :, ::-1]
        said = _other_channels(target, found, *pixels)
        if said and said not in placed.notes:
            placed.notes.append(said)
        pairs.append((target, found))
        targets.remove(target)
        sources.remove(found)
    return pairs


def _seeing(model: keras.Model) -> set[str]:
    """The names of the convolutions whose input is the image, normalized and padded at most."""
    found, front = set(), [model.inputs[0]._keras_history.operation]
    while front:
        for node in front.pop()._outbound_nodes:
            if not getattr(node.operation, "weights", ()):
                front += [node.operation] if len(node.input_tensors) == 1 else []
            elif len(node.operation.weights[0].shape) == 4:
                found.add(node.operation.name)
    return found


def _other_channels(target: Unit, source: Unit, theirs: Sequence, ours: Sequence) -> str | None:
    """Fits a first convolution to another number of channels; says so.

    An image of equal channels gives what it gave, but at borders that are padded with zeros: pixels
    are normalized by ``theirs`` in the file's network, by ``ours`` in the model, (scale, offset).
    """
    kernel = source.tensors["weight"]
    found, wanted = kernel.shape[2], target.tensors["weight"].shape[2]
    if found == wanted:
        return None
    scale, offset = (_per_channel(value, found) for value in theirs)
    our_scale, our_offset = (_per_channel(value, wanted) for value in ours)
    if wanted == 1:
        new = (kernel * (scale / our_scale)[:, None]).sum(axis=2, keepdims=True)
        how = "summed"
    else:
        chosen = np.arange(wanted) % found
        shares = np.bincount(chosen)[chosen] if wanted > found else wanted / found
        new = kernel[:, :, chosen] * (scale[chosen] / our_scale / shares)[:, None]
        how = "repeated"
    # What normalization makes of one pixel, the average of those that ours makes 0 of.
    pixel = -(our_offset / our_scale).mean()
    shift = (scale * pixel + offset) @ kernel.sum(axis=(0, 1))
    shift -= (our_scale * pixel + our_offset) @ new.sum(axis=(0, 1))
    source.tensors["weight"] = new.astype(np.float32)
    if "bias" in source.tensors:
        source.tensors["bias"] = (source.tensors["bias"] + shift).astype(np.float32)
    elif not np.allclose(shift, 0, atol=1e-6):
        source.shift = shift
    return f"the first layer's {found} channels are {how} for {wanted}"


def _per_channel(value: float | Sequence[float], channels: int) -> np.ndarray:
    """As many numbers as channels; of another number of them the mean stands for each."""
    values = np.atleast_1d(np.asarray(value, np.float64))
    return values if len(values) == channels else np.full(channels, values.mean())


def shift_outputs(model: keras.Model, name: str, shift: np.ndarray, placed: Placed) -> None:
    """Adds ``shift`` to what a convolution without biases gives, in the BatchNorm behind it."""
    import keras

    behind = [node.operation for node in model.get_layer(name)._outbound_nodes]
    if len(behind) == 1 and isinstance(behind[0], keras.layers.BatchNormalization):
        mean = behind[0].moving_mean
        mean.assign(mean - shift)
    else:
        placed.notes.append(f"{name} has no biases: the means of the channels are met on average")
