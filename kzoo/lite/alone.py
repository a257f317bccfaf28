"""In the child process: operators of a float .tflite rounded one at a time, and all but one."""

from __future__ import annotations

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kzoo.learn.evaluate import softmax
from kzoo.lite import flatbuffer
from kzoo.lite.tensors import Runner, kernel

MOST_ALONE = 400
"""Operators that are rounded alone, one after another; of larger networks, the least exact ones."""
MOST_SPARED = 8
"""The worst of them, which are left out alone too."""


def one_at_a_time(data, rounded, pairs, integer, ranges, rows, images, feed, expected, progress):
    """Adds to the rows what an operator costs alone, and what is left without it.

    Its kernel and bias become the file's, whose biases may be corrected for its kernels, and what
    it writes is rounded; not what it reads, which is of those before.
    """
    float_model, int_model = flatbuffer.parse(data), flatbuffer.parse(rounded)
    made = {}
    for (a, b), row in zip(pairs, rows, strict=True):
        op, other = (m.subgraphs[0].operators[i] for m, i in ((float_model, a), (int_model, b)))
        scale = integer.scale(int(other.outputs[0])) if int(op.outputs[0]) in ranges else None
        became = {}
        for place in (1, 2):
            both = constants_of(float_model, op, int_model, other, place)
            if both is not None:
                became[place] = both[1]
        made[row["tensor"]] = (a, scale, became)
    chosen = [row for row in rows if not row["float"]]
    chosen = sorted(chosen, key=lambda row: row["sqnr_db"])[:MOST_ALONE]

    def cost(tensors) -> dict:
        runner = Runner(_rounded_at(data, [made[name] for name in tensors]), feed)
        found = [runner.run(image, [runner.logits])[0] for image in images]
        return compared(expected, np.concatenate(found))

    for number, row in enumerate(chosen):
        row["alone"] = cost([row["tensor"]])["divergence"]
        progress("round one operator at a time", number + 1, len(chosen))
    worst = sorted(chosen, key=lambda row: -row["alone"])[:MOST_SPARED]
    for number, row in enumerate(worst):
        row["without"] = cost([name for name in made if name != row["tensor"]])["divergence"]
        progress("all but one", number + 1, len(worst))


def _rounded_at(
    data: bytes, places: list[tuple[int, tuple[float, int] | None, dict[int, np.ndarray]]]
) -> bytes:
    """A float file in which some operators have rounded kernels and round what they write.

    Args:
        data: the file.
        places: of each the operator's number, (scale, zero point) of what it writes or None, and
            its kernel and bias by the number of the input.
    """
    model = flatbuffer.parse(data)
    graph = model.subgraphs[0]
    codes = [flatbuffer.add_operator_code(model, name) for name in ("QUANTIZE", "DEQUANTIZE")]
    behind = {}
    for number, scale, constants in places:
        op = graph.operators[number]
        for place, values in constants.items():
            buffer = schema.BufferT()  # its own, where others have the same constant
            buffer.data = values.astype(np.float32).view(np.uint8).ravel()
            tensor = copy.copy(graph.tensors[op.inputs[place]])
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
            op.inputs = [*op.inputs[:place], len(graph.tensors), *op.inputs[place + 1 :]]
            graph.tensors.append(tensor)
        if scale is not None:
            behind[number] = flatbuffer.add_rounding(model, int(op.outputs[0]), scale, codes)
    kept = []
    for number, op in enumerate(graph.operators):
        kept += [op, *behind.get(number, ())]
    graph.operators = kept
    return flatbuffer.serialize(model)


def constants_of(model, op, other, rounded, place=1) -> tuple[np.ndarray, np.ndarray] | None:
    """The values of a kernel, or of the bias at place 2, and what they became in the other file."""
    if flatbuffer.operator(model, op) not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return None
    found = []
    for each, one in ((model, op), (other, rounded)):
        if len(one.inputs) <= place or one.inputs[place] < 0:
            return None
        found.append(kernel(each, each.subgraphs[0].tensors[one.inputs[place]]))
    a, b = found
    return None if a is None or b is None or a.shape != b.shape else (a, b)


def compared(expected: np.ndarray, found: np.ndarray) -> dict:
    """Kullback-Leibler divergence in nats, share of equal top-1."""
    p, q = (softmax(values.reshape(len(values), -1)) for values in (expected, found))
    divergence = (p * (np.log(np.maximum(p, 1e-12)) - np.log(np.maximum(q, 1e-12)))).sum(1)
    agreement = expected.reshape(len(p), -1).argmax(1) == found.reshape(len(p), -1).argmax(1)
    return {
        "divergence": float(max(divergence.mean(), 0)),
        "agreement": float(agreement.mean()),
    }
