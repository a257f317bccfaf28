"""What the config of a Keras model tells of it, read as JSON: no object is made of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

LAYERS = "layers"
"""The group of a model's layers in a file of Keras 3."""
WITHOUT_VALUES = ("InputLayer", "Resizing", "CenterCrop")
"""Classes that leave a pixel's value as it is, as all do whose name begins with "Random"."""
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What a damaged config raises."""
EPSILON = 1e-7
"""The least deviation by which Keras' Normalization divides."""


def layers_of(model: dict) -> dict[str, dict]:
    """The config of every layer under its group in a file of Keras 3, in the model's order.

    Raises:
        One of `UNREADABLE`: it is damaged.
    """
    return dict(_described(model))


def _described(model: dict, prefix: str = "") -> Iterator[tuple[str, dict]]:
    """Every layer's group, numbered as by Keras' ``_save_container_state``, and its config."""
    seen: Counter[str] = Counter()
    for layer in model["config"].get("layers", ()):
        kind = _snake_case(layer["class_name"])
        group = f"{prefix}{LAYERS}/{kind}" + (f"_{seen[kind]}" if seen[kind] else "")
        seen[kind] += 1
        yield group, layer
        if isinstance(layer["config"].get("layers"), list):
            yield from _described(layer, f"{group}/")


def _snake_case(name: str) -> str:
    """As ``to_snake_case`` of Keras: Conv2DTranspose is conv2d_transpose, LSTM is lstm."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def normalization(
    layers: Mapping[str, dict], arrays: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and offset of a pixel in the first layers; None where they do nothing of the kind.

    The statistics of a Normalization that is among them are taken out of ``arrays``.
    """
    scale, offset, steps, used = np.ones(1), np.zeros(1), 0, []
    try:
        for layer in layers.values():
            kind, config = layer["class_name"], layer["config"]
            if kind in WITHOUT_VALUES or kind.startswith("Random") or "layers" in config:
                continue
            if kind == "Rescaling":
                factor, shift = _numbers(config["scale"]), _numbers(config["offset"])
            elif kind == "Normalization":
                mean, variance, names = _statistics(config, arrays)
                factor = 1 / np.maximum(np.sqrt(variance), EPSILON)
                shift = -mean * factor
                used += names
            else:
                break
            scale, offset, steps = scale * factor, offset * factor + shift, steps + 1
    except (*UNREADABLE, StopIteration):
        return None
    if not (steps and scale.all() and np.isfinite([*scale, *offset]).all()):
        return None
    for name in used:
        del arrays[name]
    return scale, offset


def _statistics(
    config: dict, arrays: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Mean and variance of a Normalization over channels, and their names in ``arrays``."""
    if config.get("invert") or not {*np.ravel(config["axis"] or [])} <= {-1, 3}:
        raise ValueError("a Normalization over other axes, or the inverse of one")
    if config["mean"] is not None:
        return _numbers(config["mean"]), _numbers(config["variance"]), []
    end = f"/{config['name']}/mean"
    name = next(each for each in arrays if f"/{each}".endswith(end)).removesuffix("mean")
    names = [f"{name}mean", f"{name}variance"]
    return *(_numbers(arrays[each]) for each in names), names


def _numbers(value: object) -> np.ndarray:
    """One number per channel, or one for all, as Keras writes them into a config."""
    if isinstance(value, dict):  # an array of NumPy
        value = value["config"]["value"]
    found = np.asarray(value, np.float64)
    if found.size != max(found.shape, default=1):
        raise ValueError("numbers that differ from pixel to pixel")
    return found.reshape(-1)
