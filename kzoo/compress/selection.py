"""Which channels stay: so many of each group, those of the highest scores, down to a target."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kzoo.compress.channels import Channels
from kzoo.compress.groups import Group
from kzoo.errors import UsageError, nearest

LEAST_SHARE = 0.1
"""Of a group stays, unless a share of channels is asked for: a layer of one channel cuts a network
in two long before the ranking of all channels knows."""


@dataclass(frozen=True)
class Ranking:
    """Channels in the order in which they go.

    Attributes:
        found: the numbered channels.
        groups: what competes.
        scores: by root, see `kzoo.compress.importance`; infinite ones stay.
        sizes: of the groups before anything went.
        scope: "global", the least scores of all groups go first, or "local", the least of each
            group, the same share of each.
        multiple: numbers of channels that stay are multiples of so many, where that is at most an
            eighth of a group; of half as many, and so on, in smaller ones.
        least: the share of a group that stays.
    """

    found: Channels
    groups: Sequence[Group]
    scores: np.ndarray
    sizes: Sequence[int]
    scope: str = "global"
    multiple: int = 1
    least: float = LEAST_SHARE

    @functools.cached_property
    def _ranks(self) -> list[np.ndarray]:
        """Of each group, the places of its channels: 0 is the best."""
        own = [self.scores[group.roots] for group in self.groups]
        return [np.argsort(np.argsort(-each, kind="stable"), kind="stable") for each in own]

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """The groups that lose one channel after the other."""
        keys = [self.scores[group.roots] for group in self.groups]
        if self.scope == "local":  # (i + 1/2) / n, so that a share of n goes rounded
            keys = [
                np.where(np.isfinite(own), 1 - (rank + 0.5) / len(own), np.inf)
                for own, rank in zip(keys, self._ranks, strict=True)
            ]
        every, of = np.concatenate(keys), np.repeat(np.arange(len(keys)), [*map(len, keys)])
        order = np.argsort(every, kind="stable")
        return of[order[np.isfinite(every[order])]]

    @property
    def count(self) -> int:
        """How many channels could go, but for what stays of each group."""
        return len(self._order)

    def without(self, count: int) -> np.ndarray:
        """What stays without the ``count`` channels that go first: bool, by root."""
        return self.keep(np.bincount(self._order[:count], minlength=len(self.groups)))

    def keep(self, gone: Sequence[int]) -> np.ndarray:
        """What stays where so many of each group go: bool, by root."""
        kept = np.ones(len(self.found.root), bool)
        rows = zip(self.groups, self._ranks, self.sizes, gone, strict=True)
        for group, ranks, size, out in rows:
            left = max(len(ranks) - int(out), 1, math.ceil(self.least * size))
            step = self.multiple
            while step > max(1, size // 8):
                step //= 2
            kept[group.roots] = ranks < -(-left // step) * step
        return kept

    def largest(self, fits: Callable[[np.ndarray], bool], told: str, step: int = 1) -> np.ndarray:
        """The largest network that ``fits``, found by bisection over the channels that go.

        ``fits`` is asked of what stays, by root; fewer channels must not fit less. With ``step``
        so many channels go at once, which takes fewer questions.

        Raises:
            UsageError: not even the smallest one fits; ``told`` says what was asked.
        """
        if fits(self.without(0)):
            return self.without(0)
        low, high = 0, self.count
        if not fits(self.without(high)):
            raise UsageError(
                f"{told} cannot be met: {self.least:.0%} of the channels of every layer stay, and "
                "all of those that are excluded or held; ask for less, or exclude less"
            )
        while high - low > step:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(self.without(middle)) else (middle, high)
        return self.without(high)


def shares_of(groups: Sequence[Group], ratio: float | Mapping[str, float]) -> list[float]:
    """The share of channels that goes, of each group.

    Of shares by prefix the longest one that fits a layer counts, and of a group's layers the least
    share; layers that no prefix fits stay whole.

    Raises:
        UsageError: a prefix fits no layer whose channels may go.
    """
    if not isinstance(ratio, Mapping):
        return [float(ratio)] * len(groups)
    names = [name for group in groups for name in group.layers]
    for prefix in ratio:
        if not any(name.startswith(prefix) for name in names):
            known = sorted({name.split("_")[0] for name in names})
            raise UsageError(
                f"no layer whose channels may go starts with {prefix!r}{nearest(prefix, known)} "
                f"(they start with {', '.join(known[:12])})"
            )

    def share(name: str) -> float:
        fits = [prefix for prefix in ratio if name.startswith(prefix)]
        return float(ratio[max(fits, key=len)]) if fits else 0.0

    return [min(map(share, group.layers)) for group in groups]
