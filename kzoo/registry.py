"""What exists: one row for every registered architecture, with the numbers it must match.

Standard library only, so that listing and cards cost no import of Keras. Family modules in
`kzoo.zoo` register their builders with the `model` decorator; the first look-up imports them.
"""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kzoo.errors import UsageError, nearest

LAYER_NAME = re.compile(r"(preprocess|stem|stage\d+_\d+|head)(_\w+)?")
"""The naming rule: stage features, unfreezing, cache cuts and recipes all address layers by it."""


@dataclass(frozen=True)
class Entry:
    """One architecture and its published or counted numbers, all at its default input.

    Attributes:
        name: what a user types.
        builder: ``(x, classes, **variant) -> tensor``; ``x`` is normalized, (n, h, w, c).
        variant: the builder's arguments that make this name differ from its siblings.
        size: default height and width in pixels, one number where they are equal.
        min_size: the smallest height and width it can be built at.
        channels: default channels of the input.
        classes: default number of classes.
        params: trainable parameters, exact.
        total_params: parameters with BatchNorm's moving statistics, exact.
        macs: multiply-accumulates of convolutions and dense layers for one image, exact.
        mean, std: the normalization of layer ``preprocess``, ``(pixel - mean) / std``.
        top1: published top-1 accuracy in percent, where there is one, on ``top1_data``.
        top1_source: where that figure was read; a key of `SOURCES` or a text.
        paper: the paper and what of it.
        task: what the outputs mean.
        flavour: the library it is built as: "keras" or "torch".
        flavours: where it departs from `kzoo.zoo.blocks.FLAVOURS`, by flavour:
            ``{"keras": {"symmetric": True}}``.
        auxiliary: the loss weight of its auxiliary classifiers, for networks that have them.
        islands: why an int8 file of it keeps float operators; empty where it keeps none.
    """

    name: str
    builder: Callable
    variant: Mapping[str, object] = field(repr=False)
    size: int | tuple[int, int]
    params: int
    total_params: int
    macs: int
    paper: str
    min_size: int | tuple[int, int] = 32
    channels: int = 3
    classes: int = 1000
    mean: float = 127.5
    std: float = 127.5
    top1: float | None = None
    top1_data: str = ""
    top1_source: str = ""
    task: str = "image classification"
    flavour: str = "keras"
    flavours: Mapping[str, Mapping[str, object]] = field(default_factory=dict, repr=False)
    auxiliary: float | None = None
    islands: str = ""

    @property
    def family(self) -> str:
        """The module in `kzoo.zoo` that holds the builder."""
        return self.builder.__module__.rsplit(".", 1)[-1]

    @property
    def input(self) -> tuple[int, int, int]:
        """Default (height, width, channels)."""
        return (*pair(self.size), self.channels)

    def card(self) -> dict:
        """The row as JSON values, in the order in which a card shows them."""
        return {
            "name": self.name,
            "family": self.family,
            "task": self.task,
            "paper": self.paper,
            "input": list(self.input),
            "smallest_input": list(pair(self.min_size)),
            "classes": self.classes,
            "params": self.params,
            "total_params": self.total_params,
            "macs": self.macs,
            "preprocess": {"mean": self.mean, "std": self.std},
            "top1": self.top1,
            "top1_data": self.top1_data,
            "top1_source": self.top1_source,
            "flavour": self.flavour,
            "auxiliary_weight": self.auxiliary,
            "float_islands": self.islands,
            "variant": {
                key: value
                if isinstance(value, (int, float, str))
                else getattr(value, "__name__", str(value))
                for key, value in self.variant.items()
            },
        }


SOURCES = {
    "keras": "keras.io/api/applications",
    "keras-applications": "keras-team/keras-applications README",
    "torchvision": "torchvision weights, IMAGENET1K_V1",
    "timm": "timm results/results-imagenet.csv",
}
"""Where published top-1 accuracies on ImageNet-1k were read."""


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size given as one number or two."""
    return (size, size) if isinstance(size, int) else tuple(size)


_ENTRIES: dict[str, Entry] = {}

_FIELDS = frozenset(Entry.__dataclass_fields__)


def model(name: str, **row: object) -> Callable[[Callable], Callable]:
    """Registers the decorated builder as ``name``.

    Keyword arguments that are fields of `Entry` go into the row; all others are the builder's own,
    so a variant is a line of data: ``@model("resnet20", params=269_722, ..., depth=3)``.
    """

    def register(builder: Callable) -> Callable:
        if name in _ENTRIES:
            raise ValueError(f"two architectures are registered as {name!r}")
        numbers = {key: value for key, value in row.items() if key in _FIELDS}
        variant = {key: value for key, value in row.items() if key not in _FIELDS}
        if numbers.get("top1_source") in SOURCES:
            numbers["top1_source"] = SOURCES[numbers["top1_source"]]
            numbers.setdefault("top1_data", "ImageNet-1k")
        _ENTRIES[name] = Entry(name=name, builder=builder, variant=variant, **numbers)
        return builder

    return register


def _entries() -> dict[str, Entry]:
    folder = Path(__file__).parent / "zoo"
    for module in pkgutil.iter_modules([str(folder)]):
        importlib.import_module(f"kzoo.zoo.{module.name}")
    return _ENTRIES


def entry(name: str) -> Entry:
    """The row of ``name``; raises UsageError with the nearest names if there is none."""
    entries = _entries()
    if name not in entries:
        raise UsageError(
            f"no architecture is called {name!r}{nearest(name, entries)} (`kzoo list` shows all)"
        )
    return entries[name]


def list_models(pattern: str = "*") -> list[str]:
    """The registered names that match a shell pattern such as ``"resnet*"``, sorted."""
    return sorted(fnmatch.filter(_entries(), pattern))
