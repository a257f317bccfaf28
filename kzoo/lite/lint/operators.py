"""The operators of a .tflite as rules see them: tensors, options, layer, multiply-accumulates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kzoo.errors import BadInputError
from kzoo.lite import flatbuffer
from kzoo.lite.memory import indices

VALUES = {"int8": "i1", "uint8": "u1", "int16": "<i2", "int32": "<i4", "int64": "<i8"}
MOST_DIMENSIONS = 16
INSERTED = "tfl."
"""What the names of operators begin with that the converter put between layers."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor: ``data`` are a constant's bytes, else None, which stand in the file's ``buffer``.

    ``scales`` counts its scales; ``scale`` and ``zero_point`` are those of the first channel.
    ``returned`` are the outputs of its graph.
    """

    index: int
    dtype: str
    shape: tuple[int, ...]
    dynamic: bool
    data: object
    buffer: int
    scales: int
    scale: float | None
    zero_point: int
    returned: bool

    @property
    def constant(self) -> bool:
        return self.data is not None

    @property
    def values(self) -> np.ndarray | None:
        """A constant's integers, flat; None of other tensors."""
        if self.data is None or self.dtype not in VALUES:
            return None
        return np.frombuffer(bytes(self.data), VALUES[self.dtype])


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator: ``inputs`` holds None for those that are left out."""

    index: int
    subgraph: int
    name: str
    custom: bool
    version: int
    layer: str
    macs: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: dict

    @property
    def moving(self) -> list[Tensor]:
        """The inputs that are no constants, and the outputs."""
        given = [tensor for tensor in self.inputs if tensor is not None and not tensor.constant]
        return [*given, *self.outputs]

    def input(self, place: int) -> Tensor | None:
        return self.inputs[place] if place < len(self.inputs) else None

    def integers(self, place: int) -> np.ndarray | None:
        """The values of a constant input; None if it is none."""
        tensor = self.input(place)
        return None if tensor is None else tensor.values


def operators(file: str) -> list[Operator]:
    """All operators, subgraph by subgraph.

    Raises:
        BadInputError: the file is damaged.
    """
    model = flatbuffer.parse(Path(file).read_bytes(), file)
    try:
        return _operators(model)
    except Exception as error:  # any: a flipped bit may make a list of a number
        raise BadInputError(
            f"{file} is a damaged .tflite file ({type(error).__name__}: {error})"
        ) from error


def _operators(model) -> list[Operator]:
    found = []
    for number, graph in enumerate(model.subgraphs):
        for tensor in graph.tensors:
            tensor.name = tensor.name or b""
        ends = set(indices(graph.outputs))
        tensors = [
            _tensor(model, index, each, index in ends) for index, each in enumerate(graph.tensors)
        ]
        layers = flatbuffer.layer_names(graph)
        for op in graph.operators:
            places = [int(i) for i in op.inputs] if op.inputs is not None else []
            given = tuple(tensors[_within(i, tensors)] if i != -1 else None for i in places)
            made = tuple(tensors[_within(int(i), tensors)] for i in op.outputs)
            code = model.operatorCodes[_within(op.opcodeIndex, model.operatorCodes)]
            name = flatbuffer.operator(model, op)
            options = vars(op.builtinOptions) if op.builtinOptions is not None else {}
            found.append(
                Operator(
                    index=len(found),
                    subgraph=number,
                    name=name,
                    custom=name not in flatbuffer.OPERATORS.values(),
                    version=int(code.version),
                    layer=layers[made[0].index][0],
                    macs=_macs(name, given, made, options),
                    inputs=given,
                    outputs=made,
                    options=options,
                )
            )
    return _with_layers(found)


def _with_layers(found: list[Operator]) -> list[Operator]:
    """What the converter inserted gets the layer that it feeds, or else the one that feeds it."""
    made = {(op.subgraph, tensor.index): op.layer for op in found for tensor in op.outputs}
    feeds: dict[tuple[int, int], str] = {}
    named = []
    for op in reversed(found):
        layer = op.layer
        if layer.startswith(INSERTED):
            after = (feeds.get((op.subgraph, each.index)) for each in op.outputs)
            before = (made.get((op.subgraph, each.index)) for each in op.inputs if each is not None)
            layer = next((name for name in (*after, *before) if name), layer)
        for tensor in op.inputs:
            if tensor is not None:
                feeds[op.subgraph, tensor.index] = layer  # the last kept is the first in the file
        named.append(replace(op, layer=layer))
    return named[::-1]


def _within(index: int, things: list) -> int:
    if not 0 <= index < len(things):
        raise ValueError(f"it has no tensor {index}")
    return index


def _tensor(model, index: int, tensor, returned: bool) -> Tensor:
    shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
    if len(shape) > MOST_DIMENSIONS or any(size < -1 for size in shape):
        raise ValueError(f"a tensor has the shape {shape[:MOST_DIMENSIONS]}")
    # A batch of any size in the signature is a batch of 1 in the file, until somebody resizes it.
    signature = tensor.shapeSignature[1:] if tensor.shapeSignature is not None else ()
    data = model.buffers[_within(tensor.buffer, model.buffers)].data
    quantization = tensor.quantization
    scales = quantization.scale if quantization is not None else None
    points = quantization.zeroPoint if quantization is not None else None
    return Tensor(
        index=index,
        dtype=flatbuffer.DTYPES[tensor.type],
        shape=shape,
        dynamic=any(int(size) < 0 for size in (*shape, *signature)),
        data=data if data is not None and len(data) else None,
        buffer=int(tensor.buffer),
        scales=0 if scales is None else len(scales),
        scale=float(scales[0]) if scales is not None and len(scales) else None,
        zero_point=int(points[0]) if points is not None and len(points) else 0,
        returned=returned,
    )


def _macs(name: str, given: tuple, made: tuple, options: dict) -> int:
    """Multiply-accumulates, biases and elementwise work left out; unknown sizes count as one."""

    def size(shape: tuple[int, ...]) -> int:
        return math.prod(max(1, each) for each in shape)

    def kernel(place: int = 1) -> tuple[int, ...]:
        return given[place].shape if place < len(given) and given[place] is not None else ()

    match name:
        case "CONV_2D":
            return size(made[0].shape) * size(kernel()[1:])
        case "DEPTHWISE_CONV_2D":
            return size(made[0].shape) * size(kernel()[1:3])
        case "TRANSPOSE_CONV":  # each input value meets each value of its channel's kernels
            return size(kernel(2)) * size(kernel()[:3])
        case "CONV_3D":  # the kernel is (d, h, w, in, out)
            return size(made[0].shape) * size(kernel()[:4])
        case "FULLY_CONNECTED":
            return size(made[0].shape) * size(kernel()[-1:])
        case "BATCH_MATMUL":
            left = kernel(0)
            return size(made[0].shape) * size(left[-2:-1] if options.get("adjX") else left[-1:])
        case "UNIDIRECTIONAL_SEQUENCE_LSTM":  # eight matrices in each step of each sequence
            matrices = sum(size(kernel(i)) for i in range(1, 9) if len(kernel(i)) == 2)
            return size(kernel(0)[:-1]) * matrices
    return 0
