"""What is inside a .tflite: operators by type and dtype, float islands, where the bytes are."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from kzoo.child import blame, call
from kzoo.files import gzip_size, sha256
from kzoo.lite.tflite_file import tflite_file

KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Contents:
    """What `inspect` found.

    Attributes:
        file, sha256: which file.
        bytes, gzip_bytes: its size, raw and under gzip -9.
        input, output: ``{"name", "shape", "dtype", "scale", "zero_point"}``.
        operators: how many of each "NAME dtype", the dtype being that of its first output.
        integer_kernels: how many convolutions and dense layers compute in integers.
        float_islands: operators that compute in float32 inside a file with integer ones: "NAME in
            layer". Quantizing a float input and dequantizing the last output are not islands.
        bytes_by_kind: bytes of "weights int8", "bias int32", ...; "structure" is all but tensors.
        notes: what kzoo wrote into the file: classes, origin, normalization. Of a file from
            elsewhere the classes alone, if its metadata name as many as it gives.
        metadata: the standard metadata, see `kzoo.lite.metadata.read_metadata`, with the number of
            ``labels``; empty where it has none.
    """

    file: str
    sha256: str
    bytes: int
    gzip_bytes: int
    input: dict
    output: dict
    operators: dict[str, int]
    integer_kernels: int
    float_islands: list[str]
    bytes_by_kind: dict[str, int]
    notes: dict
    metadata: dict

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def inspect(file: str | os.PathLike) -> Contents:
    """Looks into a .tflite file, in a child process.

    Raises:
        MissingError: it does not exist.
        BadInputError: it is no .tflite, or damaged.
    """
    tflite_file(file)
    with blame(f"{file} cannot be read"):
        return Contents(**call("kzoo.lite.inspect:read", file=str(file)))


def read(file: str) -> dict:
    """In the child: the fields of `Contents`."""
    from kzoo.lite import flatbuffer
    from kzoo.lite.metadata import read_metadata

    data = Path(file).read_bytes()
    model = flatbuffer.parse(data, file)
    graph = model.subgraphs[0]
    metadata, output = read_metadata(data, file), _port(graph, graph.outputs[0])
    labels = metadata.get("labels", [])
    named = {"classes": labels} if output["shape"][-1:] == [len(labels)] else {}

    def dtype(index: int) -> str:
        return flatbuffer.DTYPES[graph.tensors[index].type]

    operators = Counter(
        f"{flatbuffer.operator(model, op)} {dtype(op.outputs[0])}" for op in graph.operators
    )
    return {
        "file": file,
        "sha256": sha256(file),
        "bytes": len(data),
        "gzip_bytes": gzip_size(data),
        "input": _port(graph, graph.inputs[0]),
        "output": output,
        "operators": dict(sorted(operators.items())),
        "integer_kernels": _integer_kernels(model),
        "float_islands": _float_islands(model) if _integer_kernels(model) else [],
        "bytes_by_kind": _bytes_by_kind(model, len(data)),
        "notes": flatbuffer.notes(model) or named,
        "metadata": metadata and {**metadata, "labels": len(labels)},
    }


def _port(graph, index: int) -> dict:
    from kzoo.lite import flatbuffer

    tensor = graph.tensors[index]
    quantization = tensor.quantization
    quantized = (
        quantization is not None and quantization.scale is not None and len(quantization.scale)
    )
    return {
        "name": tensor.name.decode(),
        "shape": [int(size) for size in tensor.shape],
        "dtype": flatbuffer.DTYPES[tensor.type],
        "scale": float(quantization.scale[0]) if quantized else None,
        "zero_point": int(quantization.zeroPoint[0]) if quantized else None,
    }


def _kernels(model) -> list:
    """The operators that hold nearly all weights and work."""
    from kzoo.lite import flatbuffer

    operators = model.subgraphs[0].operators
    return [op for op in operators if flatbuffer.operator(model, op) in KERNELS]


def _integer_kernels(model) -> int:
    from kzoo.lite import flatbuffer

    tensors = model.subgraphs[0].tensors
    dtypes = [flatbuffer.DTYPES[tensors[op.outputs[0]].type] for op in _kernels(model)]
    return sum(dtype in ("int8", "uint8", "int16") for dtype in dtypes)


def _float_islands(model) -> list[str]:
    from kzoo.lite import flatbuffer

    graph = model.subgraphs[0]
    dtypes = [flatbuffer.DTYPES[tensor.type] for tensor in graph.tensors]
    layers, islands = flatbuffer.layer_names(graph), []
    for op in graph.operators:
        name = flatbuffer.operator(model, op)
        enters = name == "QUANTIZE" and op.inputs[0] in graph.inputs
        leaves = name == "DEQUANTIZE" and op.outputs[0] in graph.outputs
        used = [int(i) for i in (*op.inputs, *op.outputs) if i >= 0]
        if not (enters or leaves) and any(dtypes[i] == "float32" for i in used):
            islands.append(f"{name} in {layers[op.outputs[0]][0]}")
    return islands


def _bytes_by_kind(model, size: int) -> dict[str, int]:
    from kzoo.lite import flatbuffer

    graph = model.subgraphs[0]
    weights = {int(op.inputs[1]) for op in _kernels(model)}
    biases = {int(op.inputs[2]) for op in _kernels(model) if len(op.inputs) > 2}
    kinds: Counter[str] = Counter()
    seen = set()
    for index, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.buffer in seen:
            continue
        seen.add(tensor.buffer)
        dtype = flatbuffer.DTYPES[tensor.type]
        kind = "weights" if index in weights else "bias" if index in biases else "constants"
        kinds[f"{kind} {dtype}"] += len(data)
    kinds["structure"] = size - sum(kinds.values())
    return dict(sorted(kinds.items()))
