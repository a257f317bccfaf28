"""How many bytes a .tflite's activations take while it runs, one operator after the other."""

from __future__ import annotations

import math

from ai_edge_litert import schema_py_generated as schema

from kzoo.lite import flatbuffer

BITS = {
    "bool": 8,
    "complex64": 64,
    "complex128": 128,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
    "bfloat16": 16,
    **{f"float{bits}": bits for bits in (16, 32, 64)},
    **{f"int{bits}": bits for bits in (2, 4, 8, 16, 32, 64)},
    **{f"uint{bits}": bits for bits in (4, 8, 16, 32, 64)},
}
"""Of one value. Texts and resources have no size that the file tells, and count as nothing."""


def indices(given) -> list[int]:
    """An operator's or a graph's tensors; those that are left out (-1) are not among them."""
    return [] if given is None else [int(index) for index in given if index >= 0]


def shape(tensor: schema.TensorT) -> list[int]:
    """A tensor's shape; a scalar's is empty."""
    return [] if tensor.shape is None else [int(size) for size in tensor.shape]


def tensor_bytes(tensor: schema.TensorT) -> int:
    """Bytes of a tensor's values; a size that is not known before the run (-1) counts as 1."""
    values = math.prod(1 if size < 0 else size for size in shape(tensor))
    return -(-values * BITS.get(flatbuffer.DTYPES[tensor.type], 0) // 8)


def constant(model: schema.ModelT, tensor: schema.TensorT) -> bool:
    """Whether its values stand in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def live_bytes(model: schema.ModelT) -> list[int]:
    """Of each operator of the main graph, the bytes of all tensors that are alive while it runs.

    A tensor that is no constant lives from the operator that writes it to the last that reads it;
    what nobody writes, from the start; the graph's outputs, and a state that is kept from run to
    run, to the end. A runtime cannot do with less, unless an operator works in place; it takes
    more where the pieces leave gaps, and for what operators need inside.
    """
    graph = model.subgraphs[0]
    end = len(graph.operators) - 1
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index in indices(graph.inputs):
        first[index] = last[index] = 0
    for number, op in enumerate(graph.operators):
        for index in indices(op.inputs):
            first.setdefault(index, 0)
            last[index] = number
        for index in indices(op.outputs):
            first.setdefault(index, number)
            last[index] = max(number, last.get(index, 0))
    for index in indices(graph.outputs):
        first.setdefault(index, 0)
        last[index] = end
    changes = [0] * (end + 2)
    for index, start in first.items():
        tensor = graph.tensors[index]
        if constant(model, tensor):
            continue
        size = tensor_bytes(tensor)
        changes[0 if tensor.isVariable else start] += size
        changes[(end if tensor.isVariable else last[index]) + 1] -= size
    total, found = 0, []
    for change in changes[:-1]:
        total += change
        found.append(total)
    return found
