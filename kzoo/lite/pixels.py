"""What stands in front of a float .tflite: a cast of uint8 pixels, and their normalization.

In child processes only, as all that parses a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kzoo.lite import flatbuffer
from kzoo.lite.metadata import ENTRY


def as_float(data: bytes, mean: Sequence[float], std: Sequence[float]) -> bytes:
    """The file, taking float32 pixels in [0, 255], without what is noted of it.

    Args:
        data: a float .tflite that takes (pixel - mean) / std in float32, or uint8 pixels.
        mean, std: one number or one per channel; of a file that takes uint8 they are 0 and 1.
    """
    model = flatbuffer.parse(data)
    graph = model.subgraphs[0]
    for tensor in graph.tensors:  # batch 1 it is
        tensor.shapeSignature = None
    told = (flatbuffer.NOTES.encode(), ENTRY)  # of the file, which becomes another
    model.metadata = [entry for entry in model.metadata or [] if entry.name not in told]
    start = int(graph.inputs[0])
    if graph.tensors[start].type != flatbuffer.FLOAT32:
        readers = [op for op in graph.operators if start in op.inputs]
        casts = [op for op in readers if flatbuffer.operator(model, op) == "CAST"]
        if casts and readers == casts:
            graph.inputs = [int(casts[0].outputs[0])]
            for other in casts[1:]:
                flatbuffer.replace(graph, int(other.outputs[0]), graph.inputs[0])
            graph.operators = [op for op in graph.operators if op not in casts]
        return flatbuffer.serialize(model)
    offset = -np.asarray(mean, np.float64) / np.asarray(std)
    scale = 1 / np.asarray(std, np.float64)
    if np.all(scale == 1) and np.all(offset == 0):
        return flatbuffer.serialize(model)
    _in_front(model, [("MUL", scale), ("ADD", offset)])
    return flatbuffer.serialize(model)


def as_uint8(data: bytes) -> bytes:
    """The file, which takes float32 pixels, taking them as uint8."""
    model = flatbuffer.parse(data)
    (tensor,) = _in_front(model, [("CAST", None)])
    model.subgraphs[0].tensors[tensor].type = schema.TensorType.UINT8
    return flatbuffer.serialize(model)


def without_normalization(data: bytes) -> tuple[bytes, list[float] | None]:
    """The file without a product and a sum by one number each at its start.

    Returns the file, and [scale, offset] of what was taken away, or the file as it is and None.
    The scale is positive, and some pixel becomes 0, as the zero point must be one in [0, 255].
    """
    model = flatbuffer.parse(data)
    graph = model.subgraphs[0]
    at, found, gone = int(graph.inputs[0]), [1.0, 0.0], []
    for name in ("MUL", ("ADD", "SUB")):
        readers = [op for op in graph.operators if at in op.inputs]
        if len(readers) != 1 or flatbuffer.operator(model, readers[0]) not in name:
            break
        number = _number(model, readers[0], at)
        if number is None or _activation(readers[0]):
            break
        if name == "MUL":
            found[0] = number
        else:
            found[1] = -number if flatbuffer.operator(model, readers[0]) == "SUB" else number
        gone.append(readers[0])
        at = int(readers[0].outputs[0])
    scale, offset = found
    if not gone or scale <= 0 or not 0 <= -offset / scale <= 255:
        return data, None
    graph.inputs = [at]
    graph.operators = [op for op in graph.operators if op not in gone]
    return flatbuffer.serialize(model), found


def _activation(op: schema.OperatorT) -> int:
    return getattr(op.builtinOptions, "fusedActivationFunction", 0) or 0


def _number(model: schema.ModelT, op: schema.OperatorT, tensor: int) -> float | None:
    """The one number that an operator joins a tensor with; the tensor stands first."""
    if len(op.inputs) != 2 or int(op.inputs[0]) != tensor:
        return None
    other = model.subgraphs[0].tensors[int(op.inputs[1])]
    raw = model.buffers[other.buffer].data
    if raw is None or other.type != flatbuffer.FLOAT32:
        return None
    values = np.frombuffer(bytes(raw), np.float32)
    return float(values[0]) if values.size and (values == values[0]).all() else None


def _in_front(model: schema.ModelT, steps: Sequence[tuple[str, np.ndarray | None]]) -> list[int]:
    """Puts operators in front of the graph, each by its name and constant, if it has one.

    Returns the tensors that they read, the first of which is the graph's input.
    """
    graph = model.subgraphs[0]
    entry = int(graph.inputs[0])
    reads = []
    operators = []
    for number, (name, values) in enumerate(steps):
        tensor = schema.TensorT()
        tensor.name = b"image" if number == 0 else f"normalize/{name.lower()}".encode()
        tensor.shape, tensor.type = [*graph.tensors[entry].shape], flatbuffer.FLOAT32
        tensor.buffer = 0
        graph.tensors.append(tensor)
        reads.append(len(graph.tensors) - 1)
        op = schema.OperatorT()
        op.opcodeIndex = flatbuffer.add_operator_code(model, name)
        op.inputs = [reads[-1]]
        if values is not None:
            op.inputs.append(flatbuffer.add_constant(model, f"normalize/{name.lower()}/by", values))
            kind = f"{name.capitalize()}Options"
            op.builtinOptions = getattr(schema, f"{kind}T")()
            op.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operators.append(op)
    for op, target in zip(operators, [*reads[1:], entry], strict=True):
        op.outputs = [target]
    graph.operators = [*operators, *graph.operators]
    graph.inputs = [reads[0]]
    return reads
