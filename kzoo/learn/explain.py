"""Why a classifier says what it says of images: filters, activations, Grad-CAM, occlusion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.photo import read_photo
from kzoo.errors import UsageError, nearest
from kzoo.learn.attribution import GRAY, feature_maps, grad_cam, mean_gradients, occlude
from kzoo.network.maps import Convolution, convolutions, last_maps
from kzoo.network.model_file import checked_notes, opened, read_notes
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

TOP = 5
CHANNELS = 16
"""Activations that are kept of a convolution."""
POSITIONS = 16
"""Of the occluding square along the shorter side, by default."""


@dataclass(frozen=True)
class Filters:
    """The kernels of the first convolution.

    Attributes:
        layer: its name.
        kernels: float32 (n, kh, kw, c): c is 3 where each filter sees three channels; else 1, and
            a kernel is what one filter does to one channel.
    """

    layer: str
    kernels: np.ndarray


@dataclass(frozen=True)
class Activations:
    """What a convolution makes of an image, the normalization and activation behind it included.

    Attributes:
        part: its stage, or "network" where that has no stages.
        layer: the convolution's name.
        behind: that of the layer whose output this is.
        maps: float32 (h, w, k), the channels of the largest mean magnitude, the largest first.
        channels: which these are.
        count: of how many.
    """

    part: str
    layer: str
    behind: str
    maps: np.ndarray
    channels: tuple[int, ...]
    count: int


@dataclass(frozen=True)
class Seen:
    """An image and what the network makes of it.

    Attributes:
        image: the file.
        pixels: uint8 (h, w, c), as the network is given it.
        top: the most probable classes, ``{"class", "index", "probability"}`` each.
        index, name, probability: of the class that is explained.
        grad_cam: float32 (h, w) >= 0 at the last map of every stage and, as the last one, of the
            network; by the name of the stage or the layer.
        activations: of the first and the last convolution of every stage, or of the network.
        occlusion: float64 (rows, columns), by how much less probable the class is when a gray
            square hides the middle of a cell of ``stride`` x ``stride`` pixels: 0.2 is 20 points.
    """

    image: str
    pixels: np.ndarray
    top: list[dict]
    index: int
    name: str
    probability: float
    grad_cam: dict[str, np.ndarray]
    activations: tuple[Activations, ...]
    occlusion: np.ndarray

    def to_dict(self) -> dict:
        """As JSON values: shapes and figures in place of the arrays."""
        return {
            "image": self.image,
            "input": list(self.pixels.shape),
            "top": self.top,
            "explained": {
                "class": self.name,
                "index": self.index,
                "probability": round(self.probability, 6),
            },
            "grad_cam": [
                {"at": name, "shape": list(cam.shape), "speaks_for_it": bool(cam.any())}
                for name, cam in self.grad_cam.items()
            ],
            "activations": [
                {
                    "part": each.part,
                    "layer": each.layer,
                    "behind": each.behind,
                    "shape": [*each.maps.shape[:2], each.count],
                    "channels": list(each.channels),
                }
                for each in self.activations
            ],
            "occlusion": {
                "shape": list(self.occlusion.shape),
                "largest_drop": round(max(0.0, float(self.occlusion.max())), 6),
                "largest_rise": round(max(0.0, -float(self.occlusion.min())), 6),
            },
        }


@dataclass(frozen=True)
class Explanation:
    """What `explain` found.

    Attributes:
        model: the network's name.
        classes: how many it tells apart.
        filters: None where it has no convolution; then there are neither activations nor Grad-CAM.
        images: each with what is made of it.
        patch, stride: of the occluding square, pixels.
    """

    model: str
    classes: int
    filters: Filters | None
    images: tuple[Seen, ...]
    patch: int
    stride: int

    def to_dict(self) -> dict:
        """The record as JSON values: shapes and figures in place of the arrays."""
        kernels = self.filters and {
            "layer": self.filters.layer,
            "shape": list(self.filters.kernels.shape),
        }
        return {
            "model": self.model,
            "classes": self.classes,
            "filters": kernels,
            "images": [seen.to_dict() for seen in self.images],
            "occlusion": {"patch": self.patch, "stride": self.stride, "gray": GRAY},
        }


def explain(
    model: keras.Model | str | os.PathLike,
    images: Sequence[str | os.PathLike],
    *,
    target: str | int | None = None,
    patch: int | None = None,
    stride: int | None = None,
    classes: Sequence[str] = (),
    crop: float | None = None,
    progress: Progress = silent,
) -> Explanation:
    """Shows why a network takes images for what it takes them.

    Args:
        model: a functional Keras model or its file, pixels (n, h, w, c) in [0, 255] -> logits or
            probabilities (n, classes).
        images: files; each is turned upright, scaled so that it covers the input, and cropped.
        target: the class to explain, by its name or else its number; by default the one that is
            most probable for the image.
        patch: side of the occluding square, pixels; by default three strides.
        stride: how far it is moved, pixels; by default a sixteenth of the shorter side.
        classes: names of the outputs; those noted in the file by default, else their numbers.
        crop: the side of the square in the middle that is looked at, as a share of the shorter
            side; as noted in the file by default, else 1.
        progress: called at the start and after every batch of occluded images.

    Raises:
        MissingError, BadInputError: a file is missing, damaged, or none that can be used.
        UsageError: no such class; a wrong patch, stride, crop or number of class names.
    """
    if isinstance(images, (str, os.PathLike)) or not images:
        raise UsageError(f"a list of image files is expected; {images!r} was given")
    if crop is not None and not 0.1 <= crop <= 1:
        raise UsageError(f"crop is from 0.1 to 1; {crop} was given")
    on_disk = isinstance(model, (str, os.PathLike))
    if on_disk and Path(model).suffix == ".tflite":
        raise UsageError(f"{model} has no gradients; explain the .keras that it was made from")
    network, notes = opened(model), read_notes(model) if on_disk else checked_notes({})
    shape, count = network.inputs[0].shape[1:], network.outputs[0].shape[1]
    names = [*(classes or notes["classes"])] or [f"class {i}" for i in range(count)]
    if len(names) != count:
        raise UsageError(f"the model has {count} outputs, {len(names)} names were given")
    index = None if target is None else _index(target, names)
    shorter = min(shape[:2])
    stride = max(1, round(shorter / POSITIONS)) if stride is None else stride
    patch = min(3 * stride, shorter) if patch is None else patch
    for what, value in (("stride", stride), ("patch", patch)):
        if not 1 <= value <= shorter:
            raise UsageError(f"the {what} is from 1 to {shorter} pixels; {value} was given")
    photos = [read_photo(path, shape, crop or notes["crop"]) for path in images]
    found, ends = convolutions(network), last_maps(network)
    seen = []
    for path, pixels in zip(images, photos, strict=True):

        def told(task: str, done: int, total: int, name: str = Path(path).name) -> None:
            progress(f"{task}: {name}", done, total)

        probabilities, drops = occlude(network, pixels, patch, stride, told)
        chosen = int(probabilities.argmax()) if index is None else index
        seen.append(
            Seen(
                image=str(path),
                pixels=pixels,
                top=[
                    {
                        "class": names[i],
                        "index": int(i),
                        "probability": round(float(probabilities[i]), 6),
                    }
                    for i in probabilities.argsort()[::-1][:TOP]
                ],
                index=chosen,
                name=names[chosen],
                probability=float(probabilities[chosen]),
                grad_cam=_grad_cams(network, pixels, chosen, ends),
                activations=_activations(network, pixels, _shown(found)),
                occlusion=drops[..., chosen],
            )
        )
    return Explanation(
        model=network.name,
        classes=count,
        filters=_filters(found[0].layer) if found else None,
        images=tuple(seen),
        patch=patch,
        stride=stride,
    )


def _index(target: str | int, names: Sequence[str]) -> int:
    if target in names:
        return names.index(target)
    if str(target).isdecimal() and int(target) < len(names):
        return int(target)
    raise UsageError(
        f"the model knows no class {str(target)!r}{nearest(str(target), names)} "
        f"(a name, or a number from 0 to {len(names) - 1}, is expected)"
    )


def _grad_cams(model, pixels, index, ends) -> dict[str, np.ndarray]:
    nodes = [*ends.values()]
    maps = feature_maps(model, pixels, nodes)
    gradients = mean_gradients(model, pixels, index, nodes)
    return {name: grad_cam(*each) for name, *each in zip(ends, maps, gradients, strict=True)}


def _shown(found: Sequence[Convolution]) -> list[Convolution]:
    """The first and the last of every part, in order."""
    chosen = []
    for part in dict.fromkeys(each.part for each in found if each.part):
        inside = [each for each in found if each.part == part]
        last = next(each for each in inside if each.depth == inside[-1].depth)
        chosen += [inside[0]] if last is inside[0] else [inside[0], last]
    return chosen


def _activations(model, pixels, shown: Sequence[Convolution]) -> tuple[Activations, ...]:
    found = []
    maps = feature_maps(model, pixels, [each.node for each in shown])
    for convolution, values in zip(shown, maps, strict=True):
        strength = np.abs(values).mean(axis=(0, 1))
        channels = np.argsort(-strength, kind="stable")[:CHANNELS]
        found.append(
            Activations(
                part=convolution.part,
                layer=convolution.layer.name,
                behind=convolution.node.operation.name,
                maps=values[..., channels],
                channels=tuple(map(int, channels)),
                count=values.shape[-1],
            )
        )
    return tuple(found)


def _filters(layer: keras.layers.Layer) -> Filters:
    kernel = np.asarray(layer.get_weights()[0], np.float32)
    together = type(layer).__name__ == "Conv2D" and kernel.shape[2] == 3
    high, wide, *_ = kernel.shape
    kernel = kernel.reshape(high, wide, 3 if together else 1, -1)
    return Filters(layer.name, np.moveaxis(kernel, -1, 0))
