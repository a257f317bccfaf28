"""The normalization at the start of a float .tflite, folded into what computes anyway.

In child processes only, as all that parses a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kzoo.lite import flatbuffer


def without_normalization(data: bytes) -> tuple[bytes, list[float] | None]:
    """The file without a product and a sum by one number each at its start.

    Returns the file, and [scale, offset] of what was taken away, or the file as it is and None.
    The scale is positive, and some pixel becomes 0, as the zero point must be one in [0, 255].
    """
    model = flatbuffer.parse(data)
    graph = model.subgraphs[0]
    steps, scale, offset = _steps(model, int(graph.inputs[0]))
    numbers = all((values == values[0]).all() for values in (scale, offset))
    scale, offset = float(scale[0]), float(offset[0])
    if not steps or not numbers or scale <= 0 or not 0 <= -offset / scale <= 255:
        return data, None
    graph.inputs = [int(steps[-1].outputs[0])]
    graph.operators = [op for op in graph.operators if op not in steps]
    return flatbuffer.serialize(model), [scale, offset]


def in_first_kernels(
    data: bytes, kernels: Mapping[str, np.ndarray] | None = None
) -> tuple[bytes, dict[str, np.ndarray]]:
    """The file with its normalization in the kernels that come first, as far as that is exact.

    A product by one number, or by one per channel, is a product of the kernel: the zeros that a
    convolution pads stay zeros. A sum is one of the bias where nothing is padded; elsewhere it
    stays, of pixels that nothing multiplies.

    Args:
        data: it may cast its input first; all that read what is normalized are convolutions,
            behind one PAD perhaps, or dense layers behind a RESHAPE. Else it is left as it is.
        kernels: float32, of what is still an input of the file, by its name.

    Returns:
        The file, and the kernels that are to become constants of it.
    """
    held = dict(kernels or {})
    model = flatbuffer.parse(data)
    graph = model.subgraphs[0]
    start = int(graph.inputs[0])
    first = _reading(graph, start)
    if len(first) == 1 and flatbuffer.operator(model, first[0]) == "CAST":
        start = int(first[0].outputs[0])
    steps, scale, offset = _steps(model, start)
    if not steps or (scale == 0).any():
        return data, held
    found = _behind(model, int(steps[-1].outputs[0]), len(scale) > 1)
    weights = [_weights(model, op, held) for op in found]
    if not found or any(each is None or len(scale) not in (1, each.shape[-1]) for each in weights):
        return data, held
    shift = offset.astype(np.float64) / scale
    whole = not shift.any() or not any(_pads(model, op, steps[-1]) for op in found)
    for op, values in zip(found, weights, strict=True):
        tensor = graph.tensors[op.inputs[1]]
        scaled = (values * scale).astype(np.float32)
        if tensor.name.decode() in held:
            held[tensor.name.decode()] = scaled
        else:
            model.buffers[tensor.buffer].data = scaled.view(np.uint8).ravel()
        if whole and shift.any():
            axes = tuple(range(1, scaled.ndim))
            _add_to_bias(model, op, (scaled.astype(np.float64) * shift).sum(axis=axes))
    product = steps[0] if flatbuffer.operator(model, steps[0]) == "MUL" else None
    gone = steps if whole else [op for op in steps if op is product]
    if not gone:
        return data, held
    flatbuffer.replace(graph, int(gone[-1].outputs[0]), start)
    graph.operators = [op for op in graph.operators if op not in gone]
    if not whole:
        sign = -1 if flatbuffer.operator(model, steps[-1]) == "SUB" else 1
        by = shift if len(set(shift)) > 1 else shift[:1]
        name = graph.tensors[steps[-1].inputs[1]].name.decode()
        steps[-1].inputs = [start, flatbuffer.add_constant(model, name, sign * by)]
    return flatbuffer.serialize(model), held


def _steps(model: schema.ModelT, at: int) -> tuple[list[schema.OperatorT], np.ndarray, np.ndarray]:
    """The product and the sum that a tensor goes into first, each of them perhaps missing.

    Both are by constants; they are told as ``scale`` and ``offset``, float32, of one length.
    """
    graph, steps = model.subgraphs[0], []
    scale, offset = np.ones(1, np.float32), np.zeros(1, np.float32)
    for names in (("MUL",), ("ADD", "SUB")):
        readers = _reading(graph, at)
        if len(readers) != 1 or flatbuffer.operator(model, readers[0]) not in names:
            continue
        values = _by(model, readers[0], at)
        if values is None:
            break
        if "MUL" in names:
            scale = values
        else:
            offset = -values if flatbuffer.operator(model, readers[0]) == "SUB" else values
        steps.append(readers[0])
        at = int(readers[0].outputs[0])
    scale, offset = np.broadcast_arrays(scale, offset)
    return steps, scale, offset


def _by(model: schema.ModelT, op: schema.OperatorT, tensor: int) -> np.ndarray | None:
    """The constant that an operator joins a tensor with, one number or one per channel.

    None where it is another kind of operand, or an activation follows.
    """
    graph = model.subgraphs[0]
    activation = getattr(op.builtinOptions, "fusedActivationFunction", 0)
    if len(op.inputs) != 2 or int(op.inputs[0]) != tensor or activation:
        return None
    other = graph.tensors[op.inputs[1]]
    raw = model.buffers[other.buffer].data
    if raw is None or not len(raw) or other.type != flatbuffer.FLOAT32:
        return None
    values = np.frombuffer(bytes(raw), np.float32)
    if (values == values[0]).all():
        return values[:1]
    fits = [*other.shape][-1:] == [len(values)] == [graph.tensors[tensor].shape[-1]]
    return values if fits else None


def _reading(graph: schema.SubGraphT, tensor: int) -> list[schema.OperatorT]:
    return [op for op in graph.operators if tensor in op.inputs]


def _behind(model: schema.ModelT, at: int, by_channel: bool) -> list[schema.OperatorT]:
    """The operators whose kernels are multiplied with a tensor; none where others read it too."""
    graph = model.subgraphs[0]
    kind, readers = "CONV_2D", _reading(graph, at)
    if len(readers) == 1 and (name := flatbuffer.operator(model, readers[0])) in ("PAD", "RESHAPE"):
        if name == "RESHAPE":  # channels are no longer apart
            kind = "FULLY_CONNECTED"
            if by_channel:
                return []
        at = int(readers[0].outputs[0])
        readers = _reading(graph, at)
    outputs = {int(each) for each in graph.outputs}
    fitting = all(
        flatbuffer.operator(model, op) == kind and [int(op.inputs[0])] == [at] for op in readers
    )
    return readers if fitting and at not in outputs else []


def _weights(
    model: schema.ModelT, op: schema.OperatorT, held: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """The float32 kernel of an operator, (outputs, ..., inputs); None of one that others use."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[op.inputs[1]]
    users = [each for each in graph.operators if int(op.inputs[1]) in each.inputs]
    if tensor.type != flatbuffer.FLOAT32 or len(users) > 1 or tensor.sparsity is not None:
        return None
    if tensor.name.decode() in held:
        return held[tensor.name.decode()]
    raw = model.buffers[tensor.buffer].data
    if raw is None or sum(each.buffer == tensor.buffer for each in graph.tensors) > 1:
        return None
    return np.frombuffer(bytes(raw), np.float32).reshape(tensor.shape)


def _pads(model: schema.ModelT, op: schema.OperatorT, last: schema.OperatorT) -> bool:
    """Whether zeros stand beside what a convolution reads."""
    if flatbuffer.operator(model, op) != "CONV_2D":
        return False
    return (
        int(op.inputs[0]) != int(last.outputs[0])
        or op.builtinOptions.padding == schema.Padding.SAME
    )


def _add_to_bias(model: schema.ModelT, op: schema.OperatorT, values: Sequence[float]) -> None:
    graph, name = model.subgraphs[0], "normalize/bias"
    inputs = [int(each) for each in op.inputs]
    if len(inputs) > 2 and inputs[2] >= 0:
        bias = graph.tensors[inputs[2]]
        name = bias.name.decode()
        values = values + np.frombuffer(bytes(model.buffers[bias.buffer].data), np.float32)
    op.inputs = [*inputs[:2], flatbuffer.add_constant(model, name, values)]
