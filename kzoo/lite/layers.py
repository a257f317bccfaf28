"""In the child process: what becomes of each tensor of a network in its int8 file.

A float file is made of the Keras model as the int8 one was, and both are run with all tensors
kept. Needs TensorFlow and ai-edge-litert.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kzoo.errors import BadInputError
from kzoo.lite import flatbuffer
from kzoo.lite.alone import compared, constants_of, one_at_a_time
from kzoo.lite.interpret import ENCODINGS
from kzoo.lite.pixels import front
from kzoo.lite.source import source
from kzoo.lite.tensors import Runner, paired
from kzoo.lite.translate import feeding
from kzoo.progress import Progress, silent

KEPT = 4096
"""Values of a tensor that are drawn from each image for its quantiles."""
UNEXPLAINED = 0.15
"""A logarithm: ends that are so far from those of all variants tell nothing of the images."""
VARIANTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda pixels: pixels,
    "in BGR order": lambda pixels: pixels[..., ::-1],
    "divided by 255": lambda pixels: pixels / 255,
    "from -1 to 1": lambda pixels: pixels / 127.5 - 1,
    "inverted": lambda pixels: 255 - pixels,
}
"""What calibration images are often mistaken for."""


def measure(
    model: str,
    file: str,
    images_file: str,
    limit: int,
    alone: bool,
    normalize: Sequence[Sequence[float]] | None = None,
    progress: Progress = silent,
) -> dict:
    """What `kzoo.lite.localize.localize` tells, as JSON values.

    Args:
        model: the Keras file or the float .tflite.
        file: the int8 .tflite that was made of it.
        images_file: ``.npy`` of uint8 (n, h, w, c); the ranges are compared with those of all.
        limit: how many of them both files are run on.
        alone: whether operators are rounded one at a time.
        normalize: see `kzoo.lite.source.source`.
        progress: called per image and per operator.
    """
    every = np.load(images_file)
    images = every[:limit]
    rounded = Path(file).read_bytes()
    parsed = flatbuffer.parse(rounded, file)
    port = parsed.subgraphs[0]
    io = flatbuffer.DTYPES[port.tensors[port.inputs[0]].type]
    if io not in ENCODINGS:
        raise BadInputError(f"{file} takes {io}; {', '.join(ENCODINGS)} are expected")
    fold = "MUL" not in {flatbuffer.operator(parsed, op) for op in front(parsed)}
    made_of = source(model, normalize)
    data, normalization, cast, _ = made_of.in_float("int8", io, "probabilities", fold)
    feed = feeding(normalization, cast)
    pairs = paired(data, rounded)
    if not pairs:
        raise BadInputError(f"no operator of {file} is one of {model}: it was not made of it")
    exact = Runner(data, feed)
    integer = Runner(rounded, ENCODINGS[io])
    found = _statistics(exact, integer, pairs, images, progress)
    ranges = {a: found[a]["range"] for a in found if found[a]["range"]}
    ends = exact.logits, integer.logits
    float_logits, int_logits = (
        np.concatenate([runner.run(image, [end])[0] for image in images])
        for runner, end in zip((exact, integer), ends, strict=True)
    )
    rows = _rows(data, rounded, pairs, found)
    if alone:
        one_at_a_time(
            data, rounded, pairs, integer, ranges, rows, images, feed, float_logits, progress
        )
    return {
        "layers": rows,
        "images": len(images),
        **compared(float_logits, int_logits),
        "calibration": _calibration(exact, ranges, every, feed, progress),
    }


def _statistics(exact, integer, pairs, images, progress) -> dict[int, dict]:
    """Of each tensor of the float file that has one in the other: how they differ."""
    outputs = [
        (int(exact.model.subgraphs[0].operators[a].outputs[0]),
         int(integer.model.subgraphs[0].operators[b].outputs[0]))
        for a, b in pairs
    ]  # fmt: skip
    outputs.insert(0, _inputs(exact, integer))
    found = {}
    for a, b in outputs:
        found[a] = {
            "range": integer.range(b),
            "signal": 0.0, "error": 0.0, "dot": 0.0, "other": 0.0, "clipped": 0, "count": 0,
            "drawn": [], "low": [], "high": [],
        }  # fmt: skip
    rng = np.random.default_rng(0)
    for number, image in enumerate(images):
        left = exact.run(image, [a for a, _ in outputs])
        right = integer.run(image, [b for _, b in outputs])
        for (a, _), x, y in zip(outputs, left, right, strict=True):
            row, x, y = found[a], x.astype(np.float64), y.astype(np.float64)
            row["signal"] += (x**2).sum()
            row["error"] += ((x - y) ** 2).sum()
            row["dot"] += (x * y).sum()
            row["other"] += (y**2).sum()
            row["count"] += x.size
            if row["range"]:
                step = (row["range"][1] - row["range"][0]) / 255
                outside = (x < row["range"][0] - step) | (x > row["range"][1] + step)
                row["clipped"] += int(outside.sum())
            row["drawn"].append(rng.choice(x.ravel(), min(KEPT, x.size), replace=False))
            channels = x.reshape(-1, x.shape[-1])
            row["low"].append(channels.min(0))
            row["high"].append(channels.max(0))
        progress("run both files", number + 1, len(images))
    return found


def _inputs(exact, integer) -> tuple[int, int]:
    """What enters both networks; the int8 one has it behind a first QUANTIZE."""
    graph = integer.model.subgraphs[0]
    entry = int(graph.inputs[0])
    if graph.tensors[entry].type == flatbuffer.FLOAT32:
        for op in graph.operators:
            if int(op.inputs[0]) == entry and flatbuffer.operator(integer.model, op) == "QUANTIZE":
                entry = int(op.outputs[0])
    return int(exact.model.subgraphs[0].inputs[0]), entry


def _rows(data: bytes, rounded: bytes, pairs, found: dict[int, dict]) -> list[dict]:
    """A row per operator, in the network's order."""
    model = flatbuffer.parse(data)
    other = flatbuffer.parse(rounded)
    graph, layers = model.subgraphs[0], flatbuffer.layer_names(model.subgraphs[0])
    rows = []
    for a, b in pairs:
        op, rounded_op = graph.operators[a], other.subgraphs[0].operators[b]
        tensor = int(op.outputs[0])
        row = found[tensor]
        drawn = np.abs(np.concatenate(row["drawn"]))
        low, high = np.min(row["low"], 0), np.max(row["high"], 0)
        width = np.maximum(high - low, 1e-12)
        widest = int(width.argmax())
        seen = max(float(high.max()), 0.0) - min(float(low.min()), 0.0)
        written = row["range"]
        rows.append(
            {
                "layer": layers[tensor][0],
                "layers": list(layers[tensor]),
                "operator": flatbuffer.operator(model, op),
                "tensor": graph.tensors[tensor].name.decode(),
                "float": written is None,
                "sqnr_db": round(_decibel(row["signal"], row["error"]), 2),
                "cosine": round(row["dot"] / max(np.sqrt(row["signal"] * row["other"]), 1e-30), 6),
                "clipped": row["clipped"] / max(row["count"], 1),
                "range": written,
                "seen": [min(float(low.min()), 0.0), max(float(high.max()), 0.0)],
                # A range that is wide for few values leaves few steps for all others.
                "used": float(np.quantile(drawn, 0.999)) / max(float(drawn.max()), 1e-12),
                "wide": (written[1] - written[0]) / max(seen, 1e-12) if written else None,
                "inputs": [graph.tensors[i].name.decode() for i in op.inputs if int(i) in found],
                "channel": widest,
                "channels": len(width),
                "channel_ratio": float(width[widest] / max(np.median(width), 1e-12)),
                "gate": _gate(graph, op, flatbuffer.operator(model, op)),
                "swish": _swish(model, op),
                "weights_db": _weights(constants_of(model, op, other, rounded_op)),
            }
        )
    return rows


def _decibel(signal: float, error: float) -> float:
    return float(min(10 * np.log10(max(signal, 1e-30) / max(error, 1e-30)), 200))


def _gate(graph, op, kind: str) -> bool:
    """Whether it multiplies maps by a number per channel, as squeeze-and-excitation does."""
    if kind != "MUL":
        return False
    sizes = [int(np.prod(graph.tensors[i].shape)) for i in op.inputs]
    ends = {int(graph.tensors[i].shape[-1]) for i in op.inputs if len(graph.tensors[i].shape)}
    return len(ends) == 1 and min(sizes) == ends.pop() < max(sizes)


def _swish(model, op) -> bool:
    """Whether it is x times its own sigmoid, or a part of it."""
    kind = flatbuffer.operator(model, op)
    if kind == "HARD_SWISH":
        return True
    if kind != "MUL":
        return False
    graph = model.subgraphs[0]
    makers = {int(o): each for each in graph.operators for o in each.outputs}
    first, second = (int(i) for i in op.inputs)
    for gate, value in ((first, second), (second, first)):
        maker = makers.get(gate)
        if (
            maker is not None
            and flatbuffer.operator(model, maker) == "LOGISTIC"
            and int(maker.inputs[0]) == value
        ):
            return True
    return False


def _weights(kernels: tuple[np.ndarray, np.ndarray] | None) -> float | None:
    """How exact a kernel is, in decibels."""
    if kernels is None:
        return None
    a, b = kernels
    return round(_decibel((a**2).sum(), ((a - b) ** 2).sum()), 2)


def _calibration(exact, ranges, images, feed, progress) -> dict[str, float]:
    """How unlike the file's ranges are to those of the images, as each variant of them has them.

    Of the logarithms of (seen / written), over the ends of all ranges, the standard deviation, and
    a third of the mean: more images make all ranges wider alike, other images do not. The input is
    left out, whose range is that of pixels whatever they are, ends that no variant moves, and, if
    they are the fewer, those that no variant explains: TensorFlow's calibrator makes some too wide.
    """
    entry = int(exact.model.subgraphs[0].inputs[0])
    tensors = [index for index in ranges if index != entry]
    written = np.abs(np.array([ranges[index] for index in tensors])).ravel()
    seen = {}
    for name, change in VARIANTS.items():
        if name == "in BGR order" and images.shape[-1] != 3:
            continue
        exact.encode = lambda pixels, change=change: feed(change(pixels.astype(np.float32)))
        ends = np.zeros((len(tensors), 2))
        for image in images:
            values = exact.run(image, tensors)
            lows, highs = [v.min() for v in values], [v.max() for v in values]
            ends = np.stack([np.minimum(ends[:, 0], lows), np.maximum(ends[:, 1], highs)], 1)
        seen[name] = np.abs(ends).ravel()
        progress("calibrate anew", len(seen), len(VARIANTS))
    exact.encode = feed
    every = np.array(list(seen.values()))
    moved = np.ptp(every, 0) > 0.02 * every.max(0)
    moved &= (written > 0.05 * every.max(0)) & (every[0] > 0)
    if moved.sum() < 4:
        return dict.fromkeys(seen, 0.0)
    logs = np.log(np.maximum(every[:, moved], 1e-3 * written[moved]) / written[moved])
    explained = np.abs(logs).min(0) < UNEXPLAINED
    if explained.mean() > 0.5:
        logs = logs[:, explained]
    return {
        name: round(float(np.hypot(row.std(), row.mean() / 3)), 4)
        for name, row in zip(seen, logs, strict=True)
    }
