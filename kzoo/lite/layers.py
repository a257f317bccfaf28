"""In the child process: what becomes of each tensor of a network in its int8 file.

A float file is made of the Keras model as the int8 one was, and both are run with all tensors
kept. Needs TensorFlow and ai-edge-litert.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

from kzoo.errors import BadInputError
from kzoo.learn.evaluate import softmax
from kzoo.lite import flatbuffer
from kzoo.lite.recipes import IO
from kzoo.lite.translate import feeding, in_float
from kzoo.network.model_file import load_model
from kzoo.progress import Progress, silent

KEPT = 4096
"""Values of a tensor that are drawn from each image for its quantiles."""
MOST_ALONE = 400
"""Operators that are rounded alone, one after another; of larger networks, the least exact ones."""
MOST_SPARED = 8
"""The worst of them, which are left out alone too."""
INTEGERS = {np.dtype(np.int8): (-128, 127), np.dtype(np.uint8): (0, 255)}
ASIDE = ("QUANTIZE", "DEQUANTIZE", "CAST")
"""Operators that stand in one of the files only."""
VARIANTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda pixels: pixels,
    "in BGR order": lambda pixels: pixels[..., ::-1],
    "divided by 255": lambda pixels: pixels / 255,
    "from -1 to 1": lambda pixels: pixels / 127.5 - 1,
    "inverted": lambda pixels: 255 - pixels,
}
"""What calibration images are often mistaken for."""


def measure(
    model: str, file: str, images_file: str, limit: int, alone: bool, progress: Progress = silent
) -> dict:
    """What `kzoo.lite.localize.localize` tells, as JSON values.

    Args:
        model: the Keras file.
        file: the int8 .tflite that was made of it.
        images_file: ``.npy`` of uint8 (n, h, w, c); the ranges are compared with those of all.
        limit: how many of them both files are run on.
        alone: whether operators are rounded one at a time.
        progress: called per image and per operator.
    """
    every = np.load(images_file)
    images = every[:limit]
    rounded = Path(file).read_bytes()
    port = flatbuffer.parse(rounded, file).subgraphs[0]
    io = flatbuffer.DTYPES[port.tensors[port.inputs[0]].type]
    if io not in IO:
        raise BadInputError(f"{file} takes {io}; {', '.join(IO)} are expected")
    net = load_model(model)
    data, normalization, cast = in_float(net, "int8", io, "probabilities")
    feed = feeding(normalization, cast)
    pairs = _pairs(data, rounded)
    if not pairs:
        raise BadInputError(f"no operator of {file} is one of {model}: it was not made of it")
    exact = _Runner(data, feed)
    integer = _Runner(rounded, _encoding(io))
    found = _statistics(exact, integer, pairs, images, progress)
    ranges = {a: found[a]["range"] for a in found if found[a]["range"]}
    ends = exact.logits, integer.logits
    float_logits, int_logits = (
        np.concatenate([runner.run(image, [end])[0] for image in images])
        for runner, end in zip((exact, integer), ends, strict=True)
    )
    rows = _rows(data, rounded, pairs, found)
    if alone:
        _one_at_a_time(
            data, rounded, pairs, integer, ranges, rows, images, feed, float_logits, progress
        )
    return {
        "layers": rows,
        "images": len(images),
        **_against(float_logits, int_logits),
        "calibration": _calibration(exact, ranges, every, feed, progress),
    }


class _Runner:
    """A file with all tensors kept, in LiteRT's own kernels."""

    def __init__(self, data: bytes, encode: Callable[[np.ndarray], np.ndarray]) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        from kzoo.environment import cores

        self.model = flatbuffer.parse(data)
        self._encode = encode
        self._interpreter = Interpreter(
            model_content=data,
            num_threads=cores(),
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        logits = flatbuffer.logits_tensor(self.model)
        self.logits = int(self.model.subgraphs[0].outputs[0]) if logits is None else logits

    def run(self, image: np.ndarray, tensors: list[int]) -> list[np.ndarray]:
        """The real values (1, ...) of tensors for one image (h, w, c)."""
        return [self.real(i, raw) for i, raw in zip(tensors, self.raw(image, tensors), strict=True)]

    def raw(self, image: np.ndarray, tensors: list[int]) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input["index"], self._encode(image[None]))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(i) for i in tensors]

    def scale(self, index: int) -> tuple[float, int] | None:
        about = self.model.subgraphs[0].tensors[index].quantization
        if about is None or about.scale is None or len(about.scale) != 1:
            return None
        return float(about.scale[0]), int(about.zeroPoint[0])

    def real(self, index: int, raw: np.ndarray) -> np.ndarray:
        if raw.dtype not in INTEGERS:
            return raw
        scale, zero = self.scale(index)
        return (raw.astype(np.float32) - zero) * np.float32(scale)


def _encoding(io: str) -> Callable[[np.ndarray], np.ndarray]:
    return {
        "uint8": lambda pixels: pixels,
        "int8": lambda pixels: (pixels.astype(np.int16) - 128).astype(np.int8),
        "float32": lambda pixels: pixels.astype(np.float32),
    }[io]


def _pairs(data: bytes, rounded: bytes) -> list[tuple[int, int]]:
    """Operators of the float file and those of the int8 one that are the same, by their numbers.

    By names where the file has kzoo's; else by their order, types and shapes.
    """
    described = []
    for each in (data, rounded):
        model = flatbuffer.parse(each)
        graph = model.subgraphs[0]
        rows = []
        for number, op in enumerate(graph.operators):
            tensor = graph.tensors[op.outputs[0]]
            kind = flatbuffer.operator(model, op)
            if kind not in ASIDE:
                rows.append((number, (kind, tuple(tensor.shape)), tensor.name))
        described.append(rows)
    first, second = described
    by_name = {name: number for number, _, name in second}
    pairs = [(number, by_name[name]) for number, _, name in first if name in by_name]
    if len(pairs) >= 0.7 * len(first):
        return pairs
    matcher = SequenceMatcher(None, [r[1] for r in first], [r[1] for r in second], autojunk=False)
    return [
        (first[block.a + i][0], second[block.b + i][0])
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]


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
        scale = integer.scale(b)
        dtype = flatbuffer.DTYPES[integer.model.subgraphs[0].tensors[b].type]
        low, high = {"int8": (-128, 127), "uint8": (0, 255)}.get(dtype, (0, 0))
        whole = scale is not None and high > low
        found[a] = {
            "range": [scale[0] * (end - scale[1]) for end in (low, high)] if whole else None,
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
        op = graph.operators[a]
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
                "weights_db": _weights(_kernels(model, op, other, other.subgraphs[0].operators[b])),
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


def _kernels(model, op, other, rounded) -> tuple[np.ndarray, np.ndarray] | None:
    """A kernel's values in the float file, and what they became in the other."""
    if flatbuffer.operator(model, op) not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return None
    kernels = []
    for each, one in ((model, op), (other, rounded)):
        tensor = each.subgraphs[0].tensors[one.inputs[1]]
        raw = each.buffers[tensor.buffer].data
        dtype = {"float32": np.float32, "int8": np.int8}.get(flatbuffer.DTYPES[tensor.type])
        if raw is None or dtype is None:
            return None
        values = np.frombuffer(bytes(raw), dtype).reshape(tensor.shape).astype(np.float64)
        if dtype == np.int8:
            steps = np.asarray(tensor.quantization.scale)
            axis = tensor.quantization.quantizedDimension
            shape = [-1 if i == axis else 1 for i in range(values.ndim)]
            values = values * (steps.reshape(shape) if len(steps) > 1 else steps)
        kernels.append(values)
    a, b = kernels
    return (a, b) if a.shape == b.shape else None


def _weights(kernels: tuple[np.ndarray, np.ndarray] | None) -> float | None:
    """How exact a kernel is, in decibels."""
    if kernels is None:
        return None
    a, b = kernels
    return round(_decibel((a**2).sum(), ((a - b) ** 2).sum()), 2)


def _one_at_a_time(data, rounded, pairs, integer, ranges, rows, images, feed, expected, progress):
    """Adds to the rows what an operator costs alone, and what is left without it.

    Its kernel is rounded, and what it writes; not what it reads, which is of those before.
    """
    float_model, int_model = flatbuffer.parse(data), flatbuffer.parse(rounded)
    made = {}
    for (a, b), row in zip(pairs, rows, strict=True):
        op, other = (m.subgraphs[0].operators[i] for m, i in ((float_model, a), (int_model, b)))
        kernels = _kernels(float_model, op, int_model, other)
        scale = integer.scale(int(other.outputs[0])) if int(op.outputs[0]) in ranges else None
        made[row["tensor"]] = (a, scale, None if kernels is None else kernels[1])
    chosen = [row for row in rows if not row["float"]]
    chosen = sorted(chosen, key=lambda row: row["sqnr_db"])[:MOST_ALONE]

    def cost(tensors) -> dict:
        runner = _Runner(_rounded_at(data, [made[name] for name in tensors]), feed)
        found = [runner.run(image, [runner.logits])[0] for image in images]
        return _against(expected, np.concatenate(found))

    for number, row in enumerate(chosen):
        row["alone"] = cost([row["tensor"]])["divergence"]
        progress("round one operator at a time", number + 1, len(chosen))
    worst = sorted(chosen, key=lambda row: -row["alone"])[:MOST_SPARED]
    for number, row in enumerate(worst):
        row["without"] = cost([name for name in made if name != row["tensor"]])["divergence"]
        progress("all but one", number + 1, len(worst))


def _rounded_at(data: bytes, places: list[tuple[int, tuple[float, int] | None, object]]) -> bytes:
    """A float file in which some operators have rounded kernels and round what they write.

    Args:
        data: the file.
        places: of each the operator's number, (scale, zero point) of what it writes or None, and
            its kernel or None.
    """
    model = flatbuffer.parse(data)
    graph = model.subgraphs[0]
    codes = [flatbuffer.add_operator_code(model, name) for name in ("QUANTIZE", "DEQUANTIZE")]
    behind = {}
    for number, scale, kernel in places:
        op = graph.operators[number]
        if kernel is not None:
            tensor = graph.tensors[op.inputs[1]]
            model.buffers[tensor.buffer].data = kernel.astype(np.float32).view(np.uint8).ravel()
        if scale is not None:
            behind[number] = flatbuffer.add_rounding(model, int(op.outputs[0]), scale, codes)
    kept = []
    for number, op in enumerate(graph.operators):
        kept += [op, *behind.get(number, ())]
    graph.operators = kept
    return flatbuffer.serialize(model)


def _against(expected: np.ndarray, found: np.ndarray) -> dict:
    """Kullback-Leibler divergence in nats, share of equal top-1."""
    p, q = (softmax(values.reshape(len(values), -1)) for values in (expected, found))
    divergence = (p * (np.log(np.maximum(p, 1e-12)) - np.log(np.maximum(q, 1e-12)))).sum(1)
    agreement = expected.reshape(len(p), -1).argmax(1) == found.reshape(len(p), -1).argmax(1)
    return {
        "divergence": float(max(divergence.mean(), 0)),
        "agreement": float(agreement.mean()),
    }


def _calibration(exact, ranges, images, feed, progress) -> dict[str, float]:
    """How unlike the file's ranges are to those of the images, as each variant of them has them.

    Of the logarithms of (seen / written), over the ends of all ranges, the standard deviation, and
    a third of the mean: more images make all ranges wider alike, other images do not. The input is
    left out, whose range is that of pixels whatever they are, and ends that no variant moves.
    """
    entry = int(exact.model.subgraphs[0].inputs[0])
    tensors = [index for index in ranges if index != entry]
    written = np.abs(np.array([ranges[index] for index in tensors])).ravel()
    seen = {}
    for name, change in VARIANTS.items():
        if name == "in BGR order" and images.shape[-1] != 3:
            continue
        exact._encode = lambda pixels, change=change: feed(change(pixels.astype(np.float32)))
        ends = np.zeros((len(tensors), 2))
        for image in images:
            values = exact.raw(image, tensors)
            lows, highs = [v.min() for v in values], [v.max() for v in values]
            ends = np.stack([np.minimum(ends[:, 0], lows), np.maximum(ends[:, 1], highs)], 1)
        seen[name] = np.abs(ends).ravel()
        progress("calibrate anew", len(seen), len(VARIANTS))
    exact._encode = feed
    every = np.array(list(seen.values()))
    moved = np.ptp(every, 0) > 0.02 * every.max(0)
    moved &= (written > 0.05 * every.max(0)) & (every[0] > 0)
    if moved.sum() < 4:
        return dict.fromkeys(seen, 0.0)
    found = {}
    for name, ends in seen.items():
        logs = np.log(np.maximum(ends[moved], 1e-3 * written[moved]) / written[moved])
        found[name] = round(float(np.hypot(logs.std(), logs.mean() / 3)), 4)
    return found
