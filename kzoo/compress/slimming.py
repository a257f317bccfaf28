"""What slimming is asked for, and the channels that stay for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.channels import MAKERS, Channels
from kzoo.compress.groups import Group, groups
from kzoo.compress.importance import IMPORTANCES, importance
from kzoo.compress.narrow import narrowed, narrowed_counts
from kzoo.compress.selection import LEAST_SHARE, Ranking, shares_of
from kzoo.data.dataset import Dataset
from kzoo.errors import UsageError, one_of
from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras

SCOPES = ("local", "global")
ELEMENT = 50
"""Multiply-accumulates that take as long as writing an element of a map, about, in XNNPACK's int8
kernels: on 64 x 64 maps of few channels half of the time is that."""
MEASUREMENTS = 64
"""Steps between all channels and none in which a latency is looked for: six measurements."""


@dataclass(frozen=True)
class Slimming:
    """How small a network becomes, and what goes first.

    Attributes:
        macs, params: the share that is left of the network as it came, (0, 1).
        latency: what ``cost`` of the network is at most in the end.
        ratio: the share of channels that goes, [0, 1), of each group or by prefix of layers.
        importance: one of `kzoo.compress.importance`.
        scope: "global" or "local"; None is local for a ratio and global else.
        rounds: in so many steps, each a like share of what the step before left.
        multiple: see `kzoo.compress.selection.Ranking`.
        duplicates: filters that are so alike become one before, see `kzoo.compress.duplicates`.
        blocks: so many residual branches go before, see `kzoo.compress.branches`.
        include, exclude: prefixes of layers, see `kzoo.compress.groups`.

    Raises:
        UsageError: a value is out of its range, or not exactly one size is asked for.
    """

    macs: float | None = None
    params: float | None = None
    latency: float | None = None
    ratio: float | Mapping[str, float] | None = None
    importance: str = "taylor"
    scope: str | None = None
    rounds: int = 1
    multiple: int = 8
    duplicates: float | None = None
    blocks: int = 0
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        one_of("importance", self.importance, IMPORTANCES)
        asked = self.asked
        if len(asked) > 1 or not (asked or self.duplicates is not None or self.blocks):
            raise UsageError(
                "one of macs, params, latency and ratio says how small the network becomes, or "
                f"duplicates or blocks what goes; {' and '.join(asked) or 'none'} was given"
            )
        for name in ("macs", "params"):
            share = getattr(self, name)
            if share is not None and not (_is_number(share) and 0 < share < 1):
                raise UsageError(
                    f"{name} is the share that is left, above 0 and below 1; {share!r} was given"
                )
        if self.latency is not None and not (_is_number(self.latency) and self.latency > 0):
            raise UsageError(f"latency is above 0; {self.latency!r} was given")
        if self.ratio is not None:
            by_prefix = isinstance(self.ratio, Mapping)
            for share in self.ratio.values() if by_prefix else [self.ratio]:
                if not _is_number(share) or not 0 <= share < 1:
                    raise UsageError(
                        "ratio is the share of channels that goes, from 0 to below 1; "
                        f"{share!r} was given"
                    )
            if by_prefix and self.scope == "global":
                raise UsageError("shares by prefix are local; a global ratio is one number")
        if self.scope is not None:
            one_of("scope", self.scope, SCOPES)
        for name, least in (("rounds", 1), ("multiple", 1), ("blocks", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UsageError(f"{name} is a whole number from {least}; {value!r} was given")
        if self.duplicates is not None and not (
            _is_number(self.duplicates) and 0 < self.duplicates <= 1
        ):
            raise UsageError(
                "duplicates is how alike filters are that become one, above 0 and at most 1, such "
                f"as 0.98; {self.duplicates!r} was given"
            )

    @property
    def asked(self) -> list[str]:
        """The sizes that are asked for."""
        return [
            name
            for name in ("macs", "params", "latency", "ratio")
            if getattr(self, name) is not None
        ]


@dataclass(frozen=True)
class Whole:
    """What shares are of: the network as it came, or for a ratio without blocks and duplicates.

    Attributes:
        params, macs: of the network as it came.
        cost: of it, or None.
        channels: of each group, by the names of its layers.
    """

    params: int
    macs: int
    cost: float | None
    channels: Mapping[tuple[str, ...], int]


def remaining(
    found: Channels,
    slimming: Slimming,
    whole: Whole,
    part: float,
    data: Dataset,
    seed: int,
    cost: Callable[[keras.Model], float] | None = None,
) -> np.ndarray:
    """The channels that stay for a part of what is asked: bool, by root.

    Args:
        found: the numbered channels of the network as it is now.
        slimming: says what is asked.
        whole: what the shares are of.
        part: (0, 1], where 1 is all of it; in between shares go geometrically.
        data: for importances that look at images; seed: of what they draw.
        cost: what a network costs, for a latency.

    Raises:
        UsageError: a prefix fits nothing, or the target cannot be met.
        BadInputError: nothing may go, or the importance does not fit the network.
    """
    if not slimming.asked:
        return np.ones(len(found.root), bool)
    (name,) = slimming.asked
    value = getattr(slimming, name)
    among = groups(found, slimming.include, slimming.exclude)
    sizes = [whole.channels[group.layers] for group in among]
    scope = slimming.scope or ("local" if name == "ratio" else "global")
    scores = importance(found, among, slimming.importance, data, seed)
    if slimming.importance == "taylor" and scope == "global" and name != "ratio":
        scores = per_cost(found, among, scores, "params" if name == "params" else "macs")
    ranking = Ranking(
        found,
        among,
        scores,
        sizes,
        scope,
        slimming.multiple,
        LEAST_SHARE if name != "ratio" else 0.0,
    )
    told = f"{name} {value:g} of {found.model.name}" if _is_number(value) else ""
    if name == "latency":
        limit = whole.cost * (value / whole.cost) ** part
        step = max(1, ranking.count // MEASUREMENTS)
        return ranking.largest(lambda keep: cost(narrowed(found, keep)) <= limit, told, step)
    if name in ("macs", "params"):
        limit, index = getattr(whole, name) * value**part, ("params", "macs").index(name)
        return ranking.largest(lambda keep: narrowed_counts(found, keep)[index] <= limit, told)
    if ranking.scope == "global":
        left = round(sum(sizes) * (1 - value) ** part)
        return ranking.without(max(0, sum(len(group.roots) for group in among) - left))
    left = [
        round(size * (1 - share) ** part)
        for size, share in zip(sizes, shares_of(among, value), strict=True)
    ]
    return ranking.keep(
        [max(0, len(group.roots) - stay) for group, stay in zip(among, left, strict=True)]
    )


def per_cost(found: Channels, among: Sequence[Group], scores: np.ndarray, unit: str) -> np.ndarray:
    """Losses by channel, divided by what goes with the channel: the least loss per saving first.

    It is the greedy answer to the knapsack that a budget is (Shen et al. 2021, arXiv:2110.10811,
    there for latency). Losses alone leave the first layers whole, whose few channels matter most
    and whose maps cost most.

    Args:
        found: the numbered channels.
        among: what competes.
        scores: by root, see `kzoo.compress.taylor`.
        unit: "params"; or "macs", where an element of a map that is written counts as `ELEMENT`.
    """
    keep = np.ones(len(found.root), bool)
    divided, elements = scores.copy(), _elements(found) if unit == "macs" else None
    index = ("params", "macs").index(unit)
    whole = narrowed_counts(found, keep)[index]
    for group in among:
        keep[group.roots[0]] = False
        saved = whole - narrowed_counts(found, keep)[index]
        keep[group.roots[0]] = True
        if elements is not None:
            saved += ELEMENT * elements[group.roots[0]]
        divided[group.roots] /= max(1, saved)
    return divided


def _elements(found: Channels) -> np.ndarray:
    """How many elements of maps convolutions and dense layers write of each channel, by root."""
    counts = np.zeros(len(found.root))
    for node in calls(found.model):
        if type(node.operation).__name__ in (*MAKERS, "DepthwiseConv2D"):
            of = found.root[found.of[id(node.outputs[0])]].ravel()
            np.add.at(counts, of, math.prod(node.outputs[0].shape[1:-1]))
    return counts


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
