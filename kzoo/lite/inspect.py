"""What is inside a .tflite: operators by type and dtype, float islands, bytes, memory, metadata."""

from __future__ import annotations

import lzma
import math
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kzoo.child import blame, call
from kzoo.files import gzip_size, sha256
from kzoo.lite.tflite_file import blaming_file, tflite_file

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
            layer". What casts or quantizes the input, or dequantizes the last output, is none.
        bytes_by_kind: bytes of "weights int8", "bias int32", ...; "structure" is all but tensors.
        notes: what kzoo wrote into the file: classes, origin, normalization. Of a file from
            elsewhere the classes alone, if its metadata name as many as it gives.
        metadata: the standard metadata, see `kzoo.lite.metadata.read_metadata`, with the number of
            ``labels``; empty where it has none.
        lzma_bytes: its size under LZMA, as .xz files are; None if not asked for.
        huffman_bytes: the weights of convolutions and dense layers in their shortest form, see
            `kzoo.compress.coding.coded_bits`, and what else is constant as it is; None if not
            asked for, or if there are no weights.
        peak_bytes: the most that tensors take which are alive at the same time, constants left
            out, see `kzoo.lite.memory.live_bytes`. What a runtime allocates is not less, unless it
            works in place.
        peak_layer: the operator at which it is, "NAME in layer".
        signatures: ``{"name", "inputs", "outputs"}``, both lists of names.
        min_runtime: the oldest TensorFlow Lite that runs the file, "2.5.0", if it tells.
        tensors: a row for each operator in order: ``index``, ``operator``, ``layer``, and of its
            first output ``shape``, ``dtype``, ``scale``, ``zero_point`` (of the first channel, None
            if not quantized); ``inputs``, the operators whose outputs it reads, -1 for what the
            file takes; ``weight_bytes``, of the constants it reads, and of that of most values
            ``weight_dtype`` and ``weight_shape`` ("" and empty if there is none); ``live_bytes``,
            of the tensors alive while it runs. Empty if not asked for.
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
    lzma_bytes: int | None
    huffman_bytes: int | None
    peak_bytes: int
    peak_layer: str
    signatures: list[dict]
    min_runtime: str | None
    tensors: list[dict] = field(default_factory=list)

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def inspect(file: str | os.PathLike, *, tensors: bool = False, packed: bool = True) -> Contents:
    """Looks into a .tflite file, in a child process.

    Args:
        file: the .tflite file.
        tensors: whether to list the operators with what each writes.
        packed: whether to count its bytes under LZMA and Huffman codes, which takes a second or two
            per MB of float weights.

    Raises:
        MissingError: it does not exist.
        BadInputError: it is no .tflite, or damaged.
    """
    tflite_file(file)
    with blame(f"{file} cannot be read"):
        return Contents(
            **call("kzoo.lite.inspect:read", file=str(file), tensors=tensors, packed=packed)
        )


@blaming_file
def read(file: str, tensors: bool, packed: bool) -> dict:
    """In the child: the fields of `Contents`."""
    from kzoo.lite import flatbuffer
    from kzoo.lite.memory import live_bytes
    from kzoo.lite.metadata import read_metadata

    data = Path(file).read_bytes()
    model = flatbuffer.parse(data, file)
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        tensor.name = tensor.name or b""
    live = live_bytes(model)
    peak = max(range(len(live)), key=live.__getitem__)
    rows = operator_rows(model)
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
        "lzma_bytes": len(lzma.compress(data)) if packed else None,
        "huffman_bytes": _huffman_bytes(model) if packed else None,
        "peak_bytes": live[peak],
        "peak_layer": f"{rows[peak]['operator']} in {rows[peak]['layer']}",
        "signatures": _signatures(model),
        "min_runtime": _min_runtime(model),
        "tensors": [row | {"live_bytes": live[row["index"]]} for row in rows] if tensors else [],
    }


def operator_rows(model) -> list[dict]:
    """In the child: the rows of ``Contents.tensors``, all but ``live_bytes``."""
    from kzoo.lite import flatbuffer
    from kzoo.lite.memory import constant, indices, shape

    graph, rows = model.subgraphs[0], []
    layers = flatbuffer.layer_names(graph)
    maker = dict.fromkeys(indices(graph.inputs), -1)
    for index, op in enumerate(graph.operators):
        made = {"name": "", "shape": [], "dtype": "", "scale": None, "zero_point": None}
        for output in indices(op.outputs)[:1]:
            made = _port(graph, output)
        read = [graph.tensors[i] for i in dict.fromkeys(indices(op.inputs))]
        stored = [each for each in read if constant(model, each)]
        # Of most values: a bias of 32 bits may have more bytes than its kernel.
        kernel = max(stored, key=lambda each: math.prod(shape(each)), default=None)
        rows.append(
            {
                "index": index,
                "operator": flatbuffer.operator(model, op),
                "layer": layers[indices(op.outputs)[0]][0] if indices(op.outputs) else "",
                **{key: made[key] for key in ("shape", "dtype", "scale", "zero_point")},
                "inputs": list(dict.fromkeys(maker[i] for i in indices(op.inputs) if i in maker)),
                "weight_bytes": sum(len(model.buffers[each.buffer].data) for each in stored),
                "weight_dtype": flatbuffer.DTYPES[kernel.type] if kernel else "",
                "weight_shape": shape(kernel) if kernel else [],
            }
        )
        maker |= dict.fromkeys(indices(op.outputs), index)
    return rows


def constant_weights(model) -> dict[int, int]:
    """In the child: of each convolution or dense layer, operator → the tensor with its weights.

    Those kept as float16 stand before the operator that makes them float32. Weights that are no
    constants are left out.
    """
    from kzoo.lite import flatbuffer
    from kzoo.lite.memory import constant, indices

    graph = model.subgraphs[0]
    stored = {
        indices(op.outputs)[0]: indices(op.inputs)[0]
        for op in graph.operators
        if flatbuffer.operator(model, op) == "DEQUANTIZE"
    }
    found = {}
    for number, op in enumerate(graph.operators):
        if flatbuffer.operator(model, op) in KERNELS:
            index = int(op.inputs[1])
            index = stored.get(index, index)
            if constant(model, graph.tensors[index]):
                found[number] = index
    return found


def _huffman_bytes(model) -> int | None:
    import numpy as np

    from kzoo.compress.coding import coded_bits
    from kzoo.lite import flatbuffer
    from kzoo.lite.memory import BITS, constant

    graph = model.subgraphs[0]
    plain = {
        each.buffer: len(model.buffers[each.buffer].data)
        for each in graph.tensors
        if constant(model, each)
    }
    weights = {graph.tensors[i].buffer: graph.tensors[i] for i in constant_weights(model).values()}
    total = sum(size for buffer, size in plain.items() if buffer not in weights)
    for buffer, tensor in weights.items():
        dtype, point = flatbuffer.DTYPES[tensor.type], tensor.quantization
        data = np.asarray(model.buffers[buffer].data, np.uint8)
        if dtype in ("int4", "int2"):  # packed, the lowest bits first; pads may stay
            bits = BITS[dtype]
            values = np.stack([data >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)], -1)
        elif dtype in ("int8", "uint8", "float16", "float32"):
            values, bits = np.frombuffer(data.tobytes(), dtype), BITS[dtype]
        else:
            total += len(data)
            continue
        values = values.astype(np.float32)
        if point is not None and point.zeroPoint is not None and len(point.zeroPoint) == 1:
            values -= np.float32(point.zeroPoint[0])  # so that 0 is a weight that does nothing
        total += -(-coded_bits(values, bits) // 8)
    return total if weights else None


def _signatures(model) -> list[dict]:
    def names(entries) -> list[str]:
        return [(each.name or b"").decode(errors="replace") for each in entries or []]

    return [
        {
            "name": (each.signatureKey or b"").decode(errors="replace"),
            "inputs": names(each.inputs),
            "outputs": names(each.outputs),
        }
        for each in model.signatureDefs or []
    ]


def _min_runtime(model) -> str | None:
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            data = model.buffers[entry.buffer].data
            text = b"" if data is None else bytes(data)
            return text.split(b"\0")[0].decode(errors="replace") or None
    return None


def _port(graph, index: int) -> dict:
    from kzoo.lite import flatbuffer
    from kzoo.lite.memory import shape

    tensor = graph.tensors[index]
    quantization = tensor.quantization
    quantized = (
        quantization is not None and quantization.scale is not None and len(quantization.scale)
    )
    points = quantization.zeroPoint if quantized else None
    points = [0] if points is None or not len(points) else points  # one that is not written is 0
    return {
        "name": tensor.name.decode(),
        "shape": shape(tensor),
        "dtype": flatbuffer.DTYPES[tensor.type],
        "scale": float(quantization.scale[0]) if quantized else None,
        "zero_point": int(points[0]) if quantized else None,
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
    given = {int(i) for i in graph.inputs}
    for op in graph.operators:
        name = flatbuffer.operator(model, op)
        enters = name in ("CAST", "QUANTIZE") and int(op.inputs[0]) in given
        if enters and name == "CAST":
            given |= set(map(int, op.outputs))
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
