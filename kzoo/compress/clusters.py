"""Shared weights: a kernel has few distinct values, which are trained in place of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.kernels import kernels_of
from kzoo.errors import UsageError, one_of
from kzoo.learn.projection import Projection

if TYPE_CHECKING:
    import keras

INITS = ("linear", "density", "kmeans++")
PER = ("tensor", "channel")
ITERATIONS = 300
INT8_VALUES = 255


@dataclass(frozen=True)
class Clustering:
    """How weights are shared.

    Attributes:
        clusters: distinct values of a kernel, at least 2; zero is one of them where it is kept.
        init: where k-means begins: "linear", evenly between the least and the largest weight, which
            leaves centroids to the few large weights (Han et al. 2016, arXiv:1510.00149, section
            3.2); "density", at quantiles; "kmeans++" (Arthur, Vassilvitskii 2007), at random.
        per: "tensor", or "channel": so many values for every output channel.
        keep_zeros: zeros are a cluster of their own and stay zero.
        include, exclude: prefixes of layers, see `kernels_of`.

    Raises:
        UsageError: a value is out of its range.
    """

    clusters: int = 16
    init: str = "linear"
    per: str = "tensor"
    keep_zeros: bool = True
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.clusters, int) or self.clusters < 2:
            raise UsageError(f"clusters is a whole number from 2; {self.clusters!r} was given")
        one_of("init", self.init, INITS)
        one_of("per", self.per, PER)


def kmeans(values: np.ndarray, clusters: int, init: str, seed: int) -> np.ndarray:
    """Lloyd's k-means of numbers, to its end: sorted once, an iteration costs clusters, not values.

    Args:
        values: (n,).
        clusters: at most.
        init: as in `Clustering`.
        seed: of "kmeans++".

    Returns:
        The centroids, ascending, float64: as many as are the nearest of some value.
    """
    ordered = np.sort(values.astype(np.float64))
    distinct = np.unique(ordered)
    if len(distinct) <= clusters:
        return distinct
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = _begin(ordered, clusters, init, np.random.default_rng(seed))
    for _ in range(ITERATIONS):
        # Cluster i holds the values between the middles to its neighbours.
        middles = (centroids[1:] + centroids[:-1]) / 2
        ends = np.concatenate([[0], np.searchsorted(ordered, middles), [len(ordered)]])
        counts = np.diff(ends)
        means = (sums[ends[1:]] - sums[ends[:-1]])[counts > 0] / counts[counts > 0]
        if len(means) == len(centroids) and np.array_equal(means, centroids):
            break
        centroids = means
    return centroids


def _begin(ordered: np.ndarray, clusters: int, init: str, draw: np.random.Generator) -> np.ndarray:
    if init == "linear":
        return np.linspace(ordered[0], ordered[-1], clusters)
    if init == "density":
        return np.unique(np.quantile(ordered, (np.arange(clusters) + 0.5) / clusters))
    chosen = [draw.choice(ordered)]
    distance = np.full(len(ordered), np.inf)
    for _ in range(clusters - 1):
        distance = np.minimum(distance, (ordered - chosen[-1]) ** 2)
        chosen.append(draw.choice(ordered, p=distance / distance.sum()))
    return np.sort(chosen)


def labels(kernel: np.ndarray, outputs: int, clustering: Clustering, seed: int) -> np.ndarray:
    """The cluster of every weight.

    Args:
        kernel: its values, output channels last.
        outputs: how many channels.
        clustering: how.
        seed: of "kmeans++".

    Returns:
        int32, of the kernel's shape: -1 for a zero that is kept; with "channel" no two channels
        have a cluster in common.
    """
    matrix = kernel.reshape(-1, outputs)
    parts = [matrix] if clustering.per == "tensor" else np.split(matrix, outputs, axis=1)
    found, first = [], 0
    for i, part in enumerate(parts):
        zero = (part == 0) if clustering.keep_zeros else np.zeros(part.shape, bool)
        others = part[~zero]
        own = np.full(part.shape, -1, np.int32)
        if others.size:
            count = clustering.clusters - bool(zero.any())
            centroids = kmeans(others, count, clustering.init, seed + i)
            middles = (centroids[1:] + centroids[:-1]) / 2
            own[~zero] = first + np.searchsorted(middles, others)
            first += len(centroids)
        found.append(own)
    return np.concatenate(found, axis=1).reshape(kernel.shape)


def shared(kernel: np.ndarray) -> np.ndarray | None:
    """The cluster of every weight of a kernel that was clustered before; else None.

    That it was shows in its weights, of which two have the same value on average: trained weights
    hardly ever do.

    Returns:
        int32, of the kernel's shape: -1 for a zero.
    """
    found = np.full(kernel.shape, -1, np.int32)
    nonzero = kernel != 0
    values, own = np.unique(kernel[nonzero], return_inverse=True)
    if 2 * len(values) > own.size or not own.size:
        return None
    found[nonzero] = own
    return found


class Clusters(Projection):
    """Holds the weights of each cluster equal while a model is trained.

    After every step they are replaced by their mean, which is what the mean of their updates gives:
    for plain gradient descent, that of their gradients (Han et al. 2016, section 3.3, has the sum,
    which is a higher rate for larger clusters).

    Args:
        model: whose kernels are clustered.
        clustering: how; None keeps those together that have the same value.
        seed: of "kmeans++".

    Attributes:
        few: the names of kernels that have as few values in all as int8 has.
    """

    def __init__(self, model: keras.Model, clustering: Clustering | None, seed: int = 0):
        self.clustering = clustering
        chosen = (clustering.include, clustering.exclude) if clustering else ([""],)
        self.kernels = kernels_of(model, *chosen)
        if clustering:
            self.labels = [
                labels(kernel.values, kernel.matrix_shape[1], clustering, seed + 1000 * i)
                for i, kernel in enumerate(self.kernels)
            ]
        else:
            found = [(kernel, shared(kernel.values)) for kernel in self.kernels]
            found = [(kernel, own) for kernel, own in found if own is not None]
            self.kernels, self.labels = [each[0] for each in found], [each[1] for each in found]
        pairs = zip(self.kernels, self.labels, strict=True)
        self.few = [kernel.name for kernel, own in pairs if own.max(initial=-1) < INT8_VALUES]
        self.recipe = {"clusters": asdict(clustering) if clustering else "kept"}
        self.project()

    @contextlib.contextmanager
    def attached(self, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
        """As `Projection`."""
        before = [kernel.variable.constraint for kernel in self.kernels]
        for kernel, own in zip(self.kernels, self.labels, strict=True):
            count = int(own.max(initial=-1)) + 1
            # Zeros that are kept are the last segment, of which the mean is taken for zero.
            flat = np.where(own < 0, count, own).ravel()
            members = np.bincount(flat, minlength=count + 1)
            shares = np.where(members > 0, 1 / np.maximum(members, 1), 0)
            shares[count] = 0
            index = _variable(optimizer, flat, "int32", "labels")
            inverse = _variable(optimizer, shares, "float32", "shares")
            kernel.variable.constraint = partial(
                _shared, index, inverse, kernel.variable.constraint
            )
        try:
            yield
        finally:
            for kernel, constraint in zip(self.kernels, before, strict=True):
                kernel.variable.constraint = constraint

    def project(self) -> None:
        """As `Projection`."""
        for kernel, own in zip(self.kernels, self.labels, strict=True):
            values, taken = kernel.values, own >= 0
            sums = np.bincount(own[taken], values[taken].astype(np.float64))
            means = sums / np.maximum(np.bincount(own[taken]), 1)
            values[taken] = means[own[taken]]
            values[~taken] = 0
            kernel.variable.assign(values)


def _variable(optimizer, value, dtype, name):
    variable = optimizer.add_variable(value.shape, initializer="zeros", dtype=dtype, name=name)
    variable.assign(value.astype(dtype))
    return variable


def _shared(labels, shares, before, value):
    from keras import ops

    # JAX's own functions take no variables.
    value = ops.convert_to_tensor(value if before is None else before(value))
    sums = ops.segment_sum(ops.reshape(value, (-1,)), labels.value, shares.shape[0])
    return ops.reshape(ops.take(sums * shares.value, labels.value), value.shape)
