"""In the child process: what each operator of a .tflite has to do, in MACs and bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kzoo.lite import flatbuffer
from kzoo.lite.diff import OUTPUT
from kzoo.lite.inspect import KERNELS, operator_rows
from kzoo.lite.lint.operators import operators
from kzoo.lite.memory import constant, indices, tensor_bytes
from kzoo.lite.tflite_file import blaming_file

UNPACKING = ("DEQUANTIZE", "DENSIFY")
"""What makes float weights of those that are stored otherwise."""


@blaming_file
def read(file: str) -> list[dict]:
    """The rows of ``tensors`` of `kzoo.lite.inspect.Contents` of the main graph, with more.

    ``layer`` is that of `kzoo.lite.lint`, "output" of what returns the file's answer; ``layers``
    are all that the converter joined in it; ``kernel`` is the shape of its weights, if it has any;
    ``activation`` tells whether one is fused into it; ``macs`` leave out biases and elementwise
    work. Bytes are as if each tensor was moved once: ``weight_bytes`` of weights and biases,
    unpacked ones as they are then, ``read_bytes`` and ``written_bytes`` of all else.
    """
    model = flatbuffer.parse(Path(file).read_bytes(), file)
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        tensor.name = tensor.name or b""
    named = flatbuffer.layer_names(graph)
    fixed = {i for i, tensor in enumerate(graph.tensors) if constant(model, tensor)}
    for op in graph.operators:
        if flatbuffer.operator(model, op) in UNPACKING and fixed.issuperset(indices(op.inputs)):
            fixed.update(indices(op.outputs))

    def moved(tensors: Iterable[int]) -> int:
        return sum(tensor_bytes(graph.tensors[index]) for index in dict.fromkeys(tensors))

    rows = []
    # Operators of further subgraphs come last there.
    for row, op, about in zip(operator_rows(model), graph.operators, operators(file), strict=False):
        given, made = indices(op.inputs), indices(op.outputs)
        weights = about.input(1) if row["operator"] in KERNELS else None
        rows.append(
            row
            | {
                "layer": "output" if OUTPUT.fullmatch(about.layer) else about.layer,
                "layers": [*named[made[0]]] if made else [],
                "kernel": [*weights.shape] if weights else [],
                "activation": bool(about.options.get("fusedActivationFunction")),
                "macs": about.macs,
                "weight_bytes": moved(i for i in given if i in fixed),
                "read_bytes": moved(i for i in given if i not in fixed),
                "written_bytes": moved(made),
            }
        )
    return rows
