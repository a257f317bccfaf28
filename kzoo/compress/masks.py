"""Zeros: which weights of least magnitude are set to zero, and that they stay it while training."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.kernels import Kernel, kernels_of
from kzoo.errors import UsageError, one_of
from kzoo.learn.projection import Projection

if TYPE_CHECKING:
    import keras

SCOPES = ("layer", "global")
SCHEDULES = ("polynomial", "constant", "one_shot")
N_OF_M = re.compile(r"(\d+):(\d+)")
BLOCK = re.compile(r"(\d+)x(\d+)")


@dataclass(frozen=True)
class Pruning:
    """Which weights become zero, and when.

    Attributes:
        sparsity: the share of zeros in the end, [0, 1); or a share by prefix of layers,
            ``{"stage4": 0.9, "head": 0.5}``, where layers that no prefix fits stay whole.
        threshold: in place of a share: weights below so many standard deviations of their kernel,
            as those were in the beginning (Han et al. 2015, arXiv:1506.02626, section 3).
        scope: "layer", the share in each kernel; or "global", the share in all of them together,
            whatever kernel they are in.
        pattern: what becomes zero together. "element"; "2:4", n of m weights along the input
            channels are left, whatever ``sparsity``; "4x1", blocks of so many inputs and outputs,
            judged by their mean magnitude; "filter", whole output channels, by theirs.
        schedule: "polynomial" (Zhu, Gupta 2017, arXiv:1710.01878, equation 1: cubic); "constant",
            all at once at ``begin``; "one_shot", all at once before the first step.
        begin, end: of the schedule, in shares of all steps.
        frequency: steps between two choices of what becomes zero.
        include, exclude: prefixes of layers, see `kernels_of`.

    Raises:
        UsageError: a value is out of its range.
    """

    sparsity: float | Mapping[str, float] = 0.8
    threshold: float | None = None
    scope: str = "layer"
    pattern: str = "element"
    schedule: str = "polynomial"
    begin: float = 0.0
    end: float = 0.75
    frequency: int = 20
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        shares = [*self.sparsity.values()] if self._by_prefix else [self.sparsity]
        for share in shares:
            if not isinstance(share, (int, float)) or not 0 <= share < 1:
                raise UsageError(
                    f"sparsity is a share of zeros from 0 to below 1; {share!r} was given"
                )
        if self.threshold is not None and not 0 < self.threshold < math.inf:
            raise UsageError(f"threshold is above 0; {self.threshold!r} was given")
        one_of("scope", self.scope, SCOPES)
        one_of("schedule", self.schedule, SCHEDULES)
        if not 0 <= self.begin <= self.end <= 1:
            raise UsageError(
                "a schedule begins and ends between 0 and 1, in shares of all steps; "
                f"begin={self.begin}, end={self.end} was given"
            )
        if self.frequency < 1:
            raise UsageError(f"frequency is at least 1 step; {self.frequency} was given")
        if self.scope == "global" and (self._by_prefix or self.threshold or self.n_of_m):
            raise UsageError(
                "a global share is one number for all kernels: neither shares by prefix nor a "
                "threshold nor n of m go with it"
            )
        if self.pattern not in ("element", "filter") and not (self.n_of_m or self.block):
            raise UsageError(
                "pattern is element, filter, n of m such as 2:4 with n below m, or a block such as "
                f"4x1; {self.pattern!r} was given"
            )

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """(2, 4) of "2:4"."""
        found = N_OF_M.fullmatch(self.pattern)
        kept, group = map(int, found.groups()) if found else (0, 0)
        return (kept, group) if 0 < kept < group else None

    @property
    def block(self) -> tuple[int, int] | None:
        """(4, 1) of "4x1": inputs and outputs."""
        found = BLOCK.fullmatch(self.pattern)
        rows, columns = map(int, found.groups()) if found else (0, 0)
        return (rows, columns) if rows and columns else None

    @property
    def _by_prefix(self) -> bool:
        return isinstance(self.sparsity, Mapping)

    def shares(self, kernels: Sequence[Kernel]) -> list[float]:
        """The share of zeros that each kernel ends with; of a global one, all have it alike.

        Raises:
            UsageError: a prefix of ``sparsity`` fits no layer.
        """
        if self.threshold is not None:
            return [
                float((np.abs(k.values) < self.threshold * k.values.std()).mean()) for k in kernels
            ]
        if not self._by_prefix:
            return [float(self.sparsity)] * len(kernels)
        for prefix in self.sparsity:
            if not any(kernel.name.startswith(prefix) for kernel in kernels):
                raise UsageError(f"no layer that is pruned starts with {prefix!r}")

        def share(name: str) -> float:
            fits = [prefix for prefix in self.sparsity if name.startswith(prefix)]
            return float(self.sparsity[max(fits, key=len)]) if fits else 0.0

        return [share(kernel.name) for kernel in kernels]

    def progress(self, step: int, total: int) -> float:
        """The part of the final shares that a step has, [0, 1]."""
        if self.schedule == "one_shot":
            return 1.0
        begin, end = self.begin * total, self.end * total
        if step < begin:
            return 0.0
        if self.schedule == "constant" or self.n_of_m or step >= end:
            return 1.0
        return 1 - (1 - (step - begin) / (end - begin)) ** 3


def masks(
    kernels: Sequence[np.ndarray],
    shapes: Sequence[tuple[int, int]],
    shares: Sequence[float],
    pruning: Pruning,
) -> list[np.ndarray]:
    """Which weights are left: those of the largest magnitude.

    With the pattern "element" exactly ``round(share * size)`` weights of a kernel are not, or of
    all kernels together; with blocks and filters at most so many, and one more would be too many.
    Of a kernel's own share one weight, block or filter is left over.

    Args:
        kernels: their values.
        shapes: of each as a matrix, see `Kernel`.
        shares: of zeros, of each.
        pruning: says how.

    Returns:
        bool, of the kernels' shapes.
    """
    if pruning.n_of_m:
        return [
            _n_of_m(values, *pruning.n_of_m) if share else np.ones(values.shape, bool)
            for values, share in zip(kernels, shares, strict=True)
        ]
    units = [_units(values, shape, pruning) for values, shape in zip(kernels, shapes, strict=True)]
    if pruning.scope == "global":
        scores, sizes = (np.concatenate(each) for each in zip(*[u[:2] for u in units], strict=True))
        kept = np.ones(scores.shape, bool)
        kept[_lowest(scores, sizes, round(shares[0] * float(sizes.sum())))] = False
        chosen = np.split(kept, np.cumsum([len(each[0]) for each in units])[:-1])
    else:
        chosen = []
        for (scores, sizes, _), share in zip(units, shares, strict=True):
            kept = np.ones(scores.shape, bool)
            size = int(sizes.sum())
            # One weight is left at least: a kernel of zeros alone cuts the network in two.
            kept[_lowest(scores, sizes, min(round(share * size), size - 1))] = False
            chosen.append(kept)
    return [
        expand(kept).reshape(values.shape)
        for (_, _, expand), kept, values in zip(units, chosen, kernels, strict=True)
    ]


def _lowest(scores: np.ndarray, sizes: np.ndarray, weights: int) -> np.ndarray:
    """The units of the lowest scores that have so many weights together, at most."""
    if weights <= 0:
        return np.empty(0, int)
    if sizes.min() == sizes.max():
        count = min(int(weights // sizes[0]), len(scores))
        return np.argpartition(scores, count - 1)[:count] if count else np.empty(0, int)
    order = np.argsort(scores, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(sizes[order]), weights, side="right"))]


def _units(values: np.ndarray, shape: tuple[int, int], pruning: Pruning) -> tuple:
    """Scores and numbers of weights of what becomes zero together, and how it is spread again."""
    magnitude = np.abs(values).reshape(shape)
    if pruning.pattern == "element":
        return magnitude.ravel(), np.ones(magnitude.size, np.int64), lambda kept: kept
    rows, columns = (shape[0], 1) if pruning.pattern == "filter" else pruning.block
    rows, columns = min(rows, shape[0]), min(columns, shape[1])
    # The last block of a row or column is what is left there.
    starts = np.arange(0, shape[0], rows), np.arange(0, shape[1], columns)
    sums = np.add.reduceat(np.add.reduceat(magnitude, starts[0], 0), starts[1], 1)
    counts = [np.diff([*start, end]) for start, end in zip(starts, shape, strict=True)]
    sizes = np.outer(*counts)

    def expand(kept: np.ndarray) -> np.ndarray:
        whole = kept.reshape(sums.shape).repeat(counts[0], 0)
        return whole.repeat(counts[1], 1)

    return (sums / sizes).ravel(), sizes.ravel(), expand


def _n_of_m(values: np.ndarray, kept: int, group: int) -> np.ndarray:
    """The ``kept`` largest of every ``group`` weights along the input channels.

    A kernel whose input channels are no multiple of the group stays whole: no hardware takes it.
    """
    inputs = values.shape[-2]
    if inputs % group:
        return np.ones(values.shape, bool)
    grouped = np.abs(values).reshape(*values.shape[:-2], inputs // group, group, values.shape[-1])
    order = np.argsort(-grouped, axis=-2, kind="stable")
    mask = np.zeros(grouped.shape, bool)
    np.put_along_axis(mask, order[..., :kept, :], True, axis=-2)
    return mask.reshape(values.shape)


class Masks(Projection):
    """Holds weights at zero while a model is trained.

    Args:
        model: whose kernels are pruned.
        pruning: which and when; None keeps the zeros that the model has.
    """

    def __init__(self, model: keras.Model, pruning: Pruning | None):
        self.pruning = pruning
        chosen = (pruning.include, pruning.exclude) if pruning else ([""],)
        # A kernel of zeros alone is one that training begins with, not one that was pruned.
        self.kernels = [each for each in kernels_of(model, *chosen) if each.values.any()]
        self.shares = pruning.shares(self.kernels) if pruning else []
        self.masks = [kernel.values != 0 for kernel in self.kernels]
        self.recipe = {"masks": asdict(pruning) if pruning else "kept"}
        self.settled = pruning is None
        self.held: list = []

    @contextlib.contextmanager
    def attached(self, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
        """As `Projection`."""
        self.held = [
            optimizer.add_variable(mask.shape, initializer="zeros", dtype="bool", name="mask")
            for mask in self.masks
        ]
        before = [kernel.variable.constraint for kernel in self.kernels]
        for kernel, variable, mask in zip(self.kernels, self.held, self.masks, strict=True):
            variable.assign(mask)
            kernel.variable.constraint = partial(_masked, variable, kernel.variable.constraint)
        try:
            yield
        finally:
            for kernel, constraint in zip(self.kernels, before, strict=True):
                kernel.variable.constraint = constraint
            self.masks = [np.array(variable) for variable in self.held]
            self.held = []

    def update(self, step: int, total: int) -> None:
        """As `Projection`."""
        if self.pruning is None:
            return
        now = self.pruning.progress(step, total)
        self.settled = now == 1.0
        last = self.pruning.progress(step - 1, total) if step else 0.0
        # What was chosen at the end of the schedule stays; in between it is chosen now and then.
        if now == 0 or last == 1 or (now < 1 and step % self.pruning.frequency):
            return
        self.choose(now)

    def choose(self, part: float = 1.0) -> None:
        """Chooses what becomes zero, by a part of the final shares; zeros stay zeros."""
        values = [kernel.values for kernel in self.kernels]
        shapes = [kernel.matrix_shape for kernel in self.kernels]
        found = masks(values, shapes, [part * share for share in self.shares], self.pruning)
        now = self.held or self.masks
        found = [mask & np.asarray(before) for mask, before in zip(found, now, strict=True)]
        for variable, mask in zip(self.held, found, strict=False):
            variable.assign(mask)
        if not self.held:
            self.masks = found
        self.project()

    def project(self) -> None:
        """As `Projection`."""
        for kernel, mask in zip(self.kernels, self.held or self.masks, strict=True):
            kernel.variable.assign(np.where(np.asarray(mask), kernel.values, 0))


def _masked(mask: keras.Variable, before, value):
    import keras

    # JAX's own functions take no variables.
    value = keras.ops.convert_to_tensor(value if before is None else before(value))
    return keras.ops.where(mask.value, value, keras.ops.zeros_like(value))
