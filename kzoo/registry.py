"""What exists: one row for every registered architecture, with the numbers it must match.

Standard library only, so that listing and cards cost no import of Keras. Family modules in
`kzoo.zoo` register their builders with the `model` decorator; the first look-up imports them.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import math
import numbers
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kzoo.errors import UsageError, nearest
from kzoo.zoo.weights.table import weights_of

LAYER_NAME = re.compile(r"(preprocess|stem|stage\d+_\d+|head)(_\w+)?")
"""The naming rule: stage features, unfreezing, cache cuts and recipes all address layers by it."""


@dataclass(frozen=True)
class Entry:
    """One architecture and its published or counted numbers, all at its default input.

    Attributes:
        name: what a user types.
        builder: ``(x, classes, **variant) -> tensor``; ``x`` is normalized, (n, h, w, c).
        variant: the builder's arguments that make this name differ from its siblings.
        params: trainable parameters, exact.
        total_params: parameters with BatchNorm's moving statistics, exact.
        macs: multiply-accumulates of convolutions, dense and recurrent layers for one image, exact.
        paper: the paper and what of it.
        size: default height and width in pixels, one number where they are equal.
        min_size: the smallest height and width it is offered at.
        channels: default channels of the input.
        classes: default number of classes.
        mean, std: the normalization of layer ``preprocess``, ``(pixel - mean) / std``, for all
            channels alike or for each.
        top1: published top-1 accuracy in percent, where there is one, on ``top1_data``.
        top1_source: where that figure was read; a key of `SOURCES` or a text.
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
    params: int
    total_params: int
    macs: int
    paper: str
    size: int | tuple[int, int] = 224
    min_size: int | tuple[int, int] = 32
    channels: int = 3
    classes: int = 1000
    mean: float | tuple[float, ...] = 127.5
    std: float | tuple[float, ...] = 127.5
    top1: float | None = None
    top1_data: str = ""
    top1_source: str = ""
    task: str = "image classification"
    flavour: str = "keras"
    flavours: Mapping[str, Mapping[str, object]] = field(default_factory=dict, repr=False)
    auxiliary: float | None = None
    islands: str = ""

    @property
    def weights(self) -> tuple[str, ...]:
        """The tags of its pretrained weights, the best published top-1 first."""
        return tuple(row.tag for row in weights_of(self.name))

    @property
    def family(self) -> str:
        """The module in `kzoo.zoo` that holds the builder."""
        return self.builder.__module__.rsplit(".", 1)[-1]

    @property
    def input(self) -> tuple[int, int, int]:
        """Default (height, width, channels)."""
        return (*pair(self.size), self.channels)

    @property
    def year(self) -> int | None:
        """Of the paper."""
        # Not the 1905 of arXiv:1905.02244.
        found = re.search(r"(?<![\d:.])(19[5-9]|20\d)\d(?!\d|\.\d)", self.paper)
        return int(found[0]) if found else None

    def card(self) -> dict:
        """The row as JSON values, in the order in which a card shows them."""
        return {
            "name": self.name,
            "family": self.family,
            "task": self.task,
            "paper": self.paper,
            "year": self.year,
            "input": list(self.input),
            "smallest_input": list(pair(self.min_size)),
            "classes": self.classes,
            "params": self.params,
            "total_params": self.total_params,
            "macs": self.macs,
            "weight_bytes": {"float32": 4 * self.params, "int8": self.params},
            "preprocess": {"mean": self.mean, "std": self.std},
            "top1": self.top1,
            "top1_data": self.top1_data,
            "top1_source": self.top1_source,
            "flavour": self.flavour,
            "auxiliary_weight": self.auxiliary,
            "float_islands": self.islands,
            "weights": list(self.weights),
            "variant": {
                key: value
                if isinstance(value, (int, float, str, type(None)))
                else getattr(value, "__name__", str(value))
                for key, value in self.variant.items()
            },
        }

    def known(self, argument: str) -> list:
        """An argument of the builder as this row has it, then as its siblings have it.

        A sibling's may be 0.5 where this one's is 1, or a number where it is None.
        """
        siblings = [row for row in _entries().values() if row.builder == self.builder]
        return [row.variant[argument] for row in (self, *siblings) if argument in row.variant]

    def typable(self) -> list[str]:
        """The builder's arguments that text can give; the others are functions and tables."""
        return [key for key in self.variant if self._kinds(key) - {type(None)}]

    def _kinds(self, argument: str) -> set[type]:
        return {type(value) for value in self.known(argument)} & {*_KINDS}

    def check_arguments(self, given: Mapping[str, object]) -> None:
        """Raises UsageError for an argument that the builder does not take (with the nearest), and
        for a number that no network has, such as a depth of -3."""
        if unknown := sorted(set(given) - set(self.variant)):
            raise UsageError(
                f"{self.name} takes no argument {', '.join(unknown)}; it takes {self.takes()}"
                f"{nearest(unknown[0], self.variant)}"
            )
        for key, value in given.items():
            known = [each for each in self.known(key) if _is_number(each)]
            if not known or not _is_number(value):
                continue
            if key.startswith("drop"):
                holds, said = 0 <= value < 1, "at least 0 and below 1"
            elif min(known) > 0:
                holds, said = value > 0, "above 0"
            else:
                holds, said = value >= 0, "at least 0"
            if not holds:
                raise UsageError(f"{key} of {self.name} is {said}; {value} was given")

    def takes(self, values: Mapping[str, object] | None = None) -> str:
        """The builder's arguments, those that can be typed first and with their ``values`` if these
        are given: ``groups=1, width=64 (in Python also block, depths)``."""
        typable = self.typable()
        typed = ", ".join(key if values is None else f"{key}={values[key]}" for key in typable)
        others = ", ".join(key for key in self.variant if key not in typable)
        if typed and others:
            return f"{typed} (in Python also {others})"
        return typed or (f"{others}, in Python alone" if others else "none")

    def typed_arguments(self, given: Mapping[str, object]) -> dict[str, object]:
        """The builder's arguments as a person may give them, on a command line or in a config.

        Raises:
            UsageError: as `check_arguments`; one that text cannot give, as the row holds a function
                or a table; one of another kind.
        """
        self.check_arguments(given)
        for key, value in given.items():
            known, kinds = self.known(key), self._kinds(key)
            if key not in self.typable():
                raise UsageError(
                    f"{key} of {self.name} is {_described(self.variant[key])}, which cannot be "
                    f"typed; in Python: kzoo.build({self.name!r}, {key}=...)"
                )
            if float in kinds:
                kinds.discard(int)
            if type(value) not in kinds and not (type(value) is int and float in kinds):
                expected = " or ".join(text for kind, text in _KINDS.items() if kind in kinds)
                example = next(each for each in known if each is not None)
                raise UsageError(
                    f"{key} of {self.name} is {expected}, such as {str(example).lower()}; "
                    f"{value!r} was given"
                )
        return dict(given)


_KINDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a word",
    type(None): "null",
}  # fmt: skip
"""The kinds of builders' arguments that can be typed."""


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _described(value: object) -> str:
    return f"the function {value.__name__}" if callable(value) else f"the table {value}"


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


def model(
    name: str, params: int, total_params: int, macs: int, **row: object
) -> Callable[[Callable], Callable]:
    """Registers the decorated builder as ``name``, with its three counts.

    Keyword arguments that are fields of `Entry` go into the row; all others are the builder's own,
    so a variant is a line of data: ``@model("resnet20", 269_722, 271_098, 40_551_040, depth=3)``.
    """

    def register(builder: Callable) -> Callable:
        if name in _ENTRIES:
            raise ValueError(f"two architectures are registered as {name!r}")
        numbers = {key: value for key, value in row.items() if key in _FIELDS}
        variant = {key: value for key, value in row.items() if key not in _FIELDS}
        if numbers.get("top1_source") in SOURCES:
            numbers["top1_source"] = SOURCES[numbers["top1_source"]]
        if "top1" in numbers:
            numbers.setdefault("top1_data", "ImageNet-1k")
        else:
            numbers.pop("top1_source", None)  # its siblings have a figure from there
        counts = {"params": params, "total_params": total_params, "macs": macs}
        _ENTRIES[name] = Entry(name=name, builder=builder, variant=variant, **counts, **numbers)
        return builder

    return register


def _entries() -> dict[str, Entry]:
    _import_families()
    return _ENTRIES


@functools.cache
def _import_families() -> None:
    folder = Path(__file__).parent / "zoo"
    for module in pkgutil.iter_modules([str(folder)]):
        importlib.import_module(f"kzoo.zoo.{module.name}")


def entry(name: str) -> Entry:
    """The row of ``name``; raises UsageError with the nearest names if there is none."""
    entries = _entries()
    if name not in entries:
        raise UsageError(
            f"no architecture is called {name!r}{nearest(name, entries)} (`kzoo list` shows all)"
        )
    return entries[name]


def list_models(
    pattern: str = "*",
    *,
    task: str | None = None,
    family: str | None = None,
    max_params: float | None = None,
    max_gmacs: float | None = None,
    min_top1: float | None = None,
    weights: bool = False,
    sort: str = "name",
) -> list[str]:
    """The registered names for which all that is asked holds.

    Args:
        pattern: a shell pattern such as ``"resnet*"``.
        task: what the outputs mean, such as "image classification".
        family: the file of `kzoo.zoo` it stands in, such as "mobilenet_v2".
        max_params: trainable parameters, at most.
        max_gmacs: billions of multiply-accumulates, at most.
        min_top1: published top-1 accuracy on ImageNet-1k in percent, at least; figures on other
            data are not compared.
        weights: with pretrained weights only.
        sort: "name"; "params", "gmacs" or "size" (of the input), smallest first; "top1", best
            first, and last those without a figure on ImageNet-1k.

    Raises:
        UsageError: no such task, family or sort (with the nearest), a limit that is negative or
            not finite, a share for a percentage.
    """
    if sort not in SORTS:
        raise UsageError(f"there is no sort {sort!r}{nearest(sort, SORTS)} ({', '.join(SORTS)})")
    found = [*_entries().values()]
    asked = _filters(pattern, task, family, max_params, max_gmacs, min_top1, weights)
    for holds, _, _ in asked:
        found = [row for row in found if holds(row)]
    return [row.name for row in sorted(found, key=lambda row: (SORTS[sort](row), row.name))]


def why_none(**asked: object) -> str:
    """Which argument left `list_models` with nothing, and what would leave something."""
    found, those = [*_entries().values()], "no architecture"
    for holds, said, hint in _filters(**asked):
        before, found = found, [row for row in found if holds(row)]
        if not found:
            return f"{those} {said}; {hint(before)}".removesuffix("; ")
        those += f" {'that' if those == 'no architecture' else 'and'} {said}"
    return ""


SORTS: dict[str, Callable[[Entry], float]] = {
    "name": lambda _: 0,
    "params": lambda row: row.params,
    "gmacs": lambda row: row.macs,
    "top1": lambda row: -_imagenet(row),
    "size": lambda row: row.input[0] * row.input[1],
}


def _imagenet(row: Entry) -> float:
    return (row.top1 or 0.0) if row.top1_data == "ImageNet-1k" else 0.0


def _filters(
    pattern="*", task=None, family=None, max_params=None, max_gmacs=None, min_top1=None,
    weights=False,
) -> list[tuple]:  # fmt: skip
    """For each that is asked: whether it holds for a row, how it is said, and a hint where none
    of the rows that were left has it."""
    rows = [*_entries().values()]
    for what, given, known in (
        ("task", task, {row.task for row in rows}),
        ("family", family, {row.family for row in rows}),
    ):
        if given is not None and given not in known:
            raise UsageError(
                f"there is no {what} {given!r}{nearest(given, known)} "
                f"(there are: {', '.join(sorted(known))})"
            )
    for what, given in (
        ("max_params", max_params), ("max_gmacs", max_gmacs), ("min_top1", min_top1),
    ):  # fmt: skip
        if given is not None and not (math.isfinite(given) and given >= 0):
            raise UsageError(f"{what} is a finite number of at least 0; {given:g} was given")
    if min_top1 is not None and 0 < min_top1 < 1:
        raise UsageError(
            f"the least top-1 is in percent, such as {100 * min_top1:g}; {min_top1:g} was given"
        )

    def close(before: list[Entry]) -> str:
        return nearest(pattern.strip("*"), [row.name for row in before]).removeprefix("; ")

    def smallest(before: list[Entry]) -> str:
        least = min(before, key=lambda row: row.params)
        return f"the smallest, {least.name}, has {least.params:,}"

    def fewest(before: list[Entry]) -> str:
        least = min(before, key=lambda row: row.macs)
        return f"the one with the fewest, {least.name}, has {least.macs / 1e9:.3g}"

    def best(before: list[Entry]) -> str:
        most = max(before, key=_imagenet)
        known = f"the best, {most.name}, has {most.top1} %"
        return known if _imagenet(most) else "no figure is known for them"

    filters = []
    if pattern != "*":
        matches = re.compile(fnmatch.translate(pattern)).match
        filters.append((lambda row: matches(row.name), f"matches {pattern!r}", close))
    if task is not None:
        filters.append((lambda row: row.task == task, f"is for {task}", lambda _: ""))
    if family is not None:
        filters.append(
            (lambda row: row.family == family, f"is of the family {family}", lambda _: "")
        )
    if max_params is not None:
        said = f"has at most {max_params:,.10g} parameters"
        filters.append((lambda row: row.params <= max_params, said, smallest))
    if max_gmacs is not None:
        said = f"has at most {max_gmacs:,.10g} GMACs"
        filters.append((lambda row: row.macs <= 1e9 * max_gmacs, said, fewest))
    if min_top1 is not None:
        said = f"has a top-1 of at least {min_top1:g} % on ImageNet-1k"
        filters.append((lambda row: _imagenet(row) >= min_top1, said, best))
    if weights:
        filters.append((lambda row: row.weights, "has pretrained weights", lambda _: ""))
    return filters
