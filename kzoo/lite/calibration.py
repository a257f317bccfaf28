"""The range of every activation of a float .tflite, from what it takes on images.

TensorFlow's own calibrator reads a tensor after later operators may have overwritten it in place:
it gives what a residual addition reads the range of the sum. Here all tensors are preserved.
Needs ai-edge-litert, not TensorFlow; runs in a child process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kzoo.errors import UsageError, nearest
from kzoo.lite.recipes import RANGES
from kzoo.progress import Progress, silent

BINS = 2048
PERCENTILE = 99.99
FIRST, MOST = 32, 512
"""Images that are looked at first and, where their number is not given, at most."""
SETTLED = 0.02
"""So little of its range may a tensor's range move on average, at twice the images."""
LEVELS = 256
CANDIDATES = np.linspace(0.2, 1.0, 81)
"""Shares of the extremes that `mse` and `kl` choose from."""
FACTOR = 250
"""Of a step that comes in times one of a kernel to the step that goes out. From 256 on XNNPACK
refuses the file; from 1 on no result is told better."""
LEAST_WIDTH = 2e-6
"""Of a range, for TensorFlow's quantizer."""
SCALED = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "MEAN")


def known_ranges(name: str) -> str:
    """Returns the name of a method; raises UsageError if there is none of it."""
    if name not in RANGES:
        raise UsageError(f"ranges {name!r} is none of {', '.join(RANGES)}{nearest(name, RANGES)}")
    return name


def calibrated(
    data: bytes,
    images: np.ndarray,
    feed: Callable[[np.ndarray], np.ndarray],
    method: str = "minmax",
    samples: int | None = None,
    progress: Progress = silent,
) -> tuple[dict[int, tuple[float, float]], dict]:
    """The range of each float32 tensor that an operator or the caller writes.

    Args:
        data: the float file, of batch 1.
        images: uint8 (n, h, w, c), in the order in which they are looked at.
        feed: what the file takes for one image (1, h, w, c).
        method: "minmax", the extremes; "average", the mean of each image's extremes (the moving
            average of Jacob et al. 2018, arXiv:1712.05877, section 3, without an order);
            "percentile", 99.99 % of the values between both; "mse", the range with the least mean
            squared error of 8 bits (Banner et al. 2019, arXiv:1810.05723, section 3: what is
            clipped, and a twelfth of the squared step for what is not); "kl", the one whose
            rounded histogram diverges least (Migacz 2017, GTC S7310).
        samples: how many images; by default 32 and twice as many until they move by
            less than 2 %, at most 512 or as many as there are.
        progress: called for every image.

    Returns:
        (low, high) by the tensor's index, and ``{"ranges", "images", "moved"}``: the last is how
        far the ranges (of the other methods, the extremes) moved on average from half of the
        images to all, as a share of them.
    """
    from kzoo.lite.tensors import Runner

    known_ranges(method)
    runner = Runner(data, feed)
    tensors = runner.floats()
    most = min(samples or MOST, len(images))
    count, lows, highs = 0, [], []
    goal = most if samples else min(FIRST, most)
    while True:
        for image in images[count:goal]:
            values = runner.run(image, tensors)
            lows.append([each.min() for each in values])
            highs.append([each.max() for each in values])
            progress("calibrate", len(lows), most)
        moved = _moved(np.array(lows), np.array(highs), method)
        count = goal
        if count == most or moved <= SETTLED:
            break
        goal = min(2 * goal, most)
    low, high = _extremes(np.array(lows), np.array(highs), method)
    if method in ("percentile", "mse", "kl"):
        counts = np.zeros((len(tensors), BINS))
        for image in images[:count]:
            counts += _histograms(runner.run(image, tensors), low, high)
        choose = {"percentile": _percentile, "mse": _least_error, "kl": _least_divergence}[method]
        low, high = (
            np.array([choose(*row) for row in zip(counts, low, high, strict=True)]).reshape(-1, 2).T
        )
    found = {index: (float(a), float(b)) for index, a, b in zip(tensors, low, high, strict=True)}
    return found, {"ranges": method, "images": count, "moved": round(float(moved), 4)}


def runnable(
    data: bytes, ranges: Mapping[int, tuple[float, float]]
) -> dict[int, tuple[float, float]]:
    """Ranges of int8 so wide that XNNPACK runs the file: what no image excites has hardly any.

    Args:
        data: the float file.
        ranges: (low, high) by tensor, as of `calibrated`.
    """
    from kzoo.lite import flatbuffer
    from kzoo.lite.tensors import kernel

    model, found = flatbuffer.parse(data), dict(ranges)
    graph = model.subgraphs[0]
    for op in graph.operators:
        if flatbuffer.operator(model, op) not in SCALED or int(op.outputs[0]) not in found:
            continue
        comes = max(
            (_width(found[i]) / 255 for i in map(int, op.inputs) if i in found), default=0.0
        )
        kernels = [kernel(model, graph.tensors[i]) for i in op.inputs[:2] if i >= 0]
        by = max((np.abs(each).max() / 127 for each in kernels if each is not None), default=1.0)
        low, high = found[int(op.outputs[0])]
        found[int(op.outputs[0])] = low, max(high, low + 255 * comes * by / FACTOR)
    return found


def _width(ends: tuple[float, float]) -> float:
    return max(ends[1] - ends[0], LEAST_WIDTH)


def _histograms(values: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    rows = []
    for each, a, b in zip(values, low, high, strict=True):
        width = max(float(b) - float(a), 1e-12)
        bins = ((each.ravel() - a) * (BINS / width)).astype(np.int64)
        rows.append(np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS))
    return np.array(rows)


def _extremes(lows: np.ndarray, highs: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Per tensor; a range holds 0, which padding and ReLU need to be exact."""
    if method == "average":
        low, high = lows.mean(0), highs.mean(0)
    else:
        low, high = lows.min(0), highs.max(0)
    return np.minimum(low, 0), np.maximum(high, 0)


def _moved(lows: np.ndarray, highs: np.ndarray, method: str) -> float:
    half = max(1, len(lows) // 2)
    before, after = (_extremes(lows[:n], highs[:n], method) for n in (half, len(lows)))
    width = np.maximum(after[1] - after[0], 1e-12)
    return float(((np.abs(after[0] - before[0]) + np.abs(after[1] - before[1])) / width).mean())


def _percentile(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    edges = np.linspace(low, high, BINS + 1)
    below = np.cumsum(counts) / counts.sum()
    tail = (1 - PERCENTILE / 100) / 2
    first, last = np.searchsorted(below, [tail, 1 - tail])
    return min(edges[first], 0.0), max(edges[last + 1], 0.0)


def _centers(low: float, high: float) -> np.ndarray:
    return low + (np.arange(BINS) + 0.5) * ((high - low) / BINS)


def _least(error: Callable[[float, float], float], low: float, high: float) -> tuple[float, float]:
    """The ends with the least error, each in turn, as a ReLU has one end only."""
    a, b = low, high
    for _ in range(2):
        b = min((high * share for share in CANDIDATES), key=lambda end: error(a, end))
        a = min((low * share for share in CANDIDATES), key=lambda end: error(end, b))
    return a, b


def _least_error(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    values, total = _centers(low, high), counts.sum()

    def error(a: float, b: float) -> float:
        over = np.maximum(values - b, 0) + np.maximum(a - values, 0)
        inside = counts[over == 0].sum() / total
        return (counts * over**2).sum() / total + inside * ((b - a) / 255) ** 2 / 12

    return _least(error, low, high)


def _least_divergence(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    values = _centers(low, high)
    # Zeros that a ReLU makes are exact in any range, and would outweigh all else.
    zero = np.abs(values).argmin()
    counts = counts.copy()
    counts[zero] = min(counts[zero], np.delete(counts, zero).max(initial=0))

    def divergence(a: float, b: float) -> float:
        kept = (values >= a) & (values <= b)
        if kept.sum() < LEVELS:  # finer than the histogram
            return np.inf
        given = counts[kept].astype(np.float64)
        given[0] += counts[values < a].sum()
        given[-1] += counts[values > b].sum()
        level = (np.arange(len(given)) * LEVELS) // len(given)
        inside, there = counts[kept], counts[kept] > 0
        sums, filled = np.bincount(level, inside, LEVELS), np.bincount(level, there, LEVELS)
        rounded = np.where(there, (sums / np.maximum(filled, 1))[level], 0)
        p, q = given / given.sum(), rounded / max(rounded.sum(), 1e-12)
        some = p > 0
        return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-10))).sum())

    return _least(divergence, low, high)


def with_ranges(data: bytes, ranges: dict[int, Sequence[float]]) -> bytes:
    """The file with ``min`` and ``max`` of its tensors, as the converter reads them."""
    from ai_edge_litert import schema_py_generated as schema

    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(data)
    for index, (low, high) in ranges.items():
        tensor = model.subgraphs[0].tensors[index]
        tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = [low], [high]
    return flatbuffer.serialize(model)
