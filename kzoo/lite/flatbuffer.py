"""The .tflite file as an object: signatures, notes, further outputs.

Parsing is done in child processes only: a file from outside can be anything. Needs ai-edge-litert,
not TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from kzoo.errors import BadInputError

NOTES = "kzoo"
"""The name of the metadata entry that holds class names and origin, as JSON."""

OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
DTYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}


def parse(data: bytes, name: str = "the result") -> schema.ModelT:
    """The object tree of a .tflite; raises BadInputError, about ``name``, if it is none."""
    try:
        model = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
        if not model.subgraphs or not model.subgraphs[0].operators:
            raise ValueError("it has no operators")
        return model
    except Exception as error:
        raise BadInputError(
            f"{name} is a damaged .tflite file ({type(error).__name__}: {error})"
        ) from error


def serialize(model: schema.ModelT) -> bytes:
    """The file's bytes."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def finish(data: bytes, output_name: str, notes: dict) -> bytes:
    """Adds what a frozen function loses, a signature with stable names, and kzoo's notes.

    Without a signature ai-edge-quantizer and LiteRT's signature runners refuse the file.
    """
    model = parse(data)
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_named("image", graph.inputs[0])]
    signature.outputs = [_named(output_name, graph.outputs[0])]
    model.signatureDefs = [signature]
    buffer = schema.BufferT()
    buffer.data = list(json.dumps(notes).encode())
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NOTES.encode(), len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    return serialize(model)


def _named(name: str, index: int) -> schema.TensorMapT:
    found = schema.TensorMapT()
    found.name, found.tensorIndex = name.encode(), int(index)
    return found


def notes(model: schema.ModelT) -> dict:
    """The notes that `finish` left; empty for a file from elsewhere."""
    for entry in model.metadata or []:
        if entry.name == NOTES.encode():
            return json.loads(bytes(model.buffers[entry.buffer].data))
    return {}


def with_outputs(model: schema.ModelT, tensors: Sequence[int]) -> bytes:
    """The same file with further tensors as outputs, after its own.

    So a value inside the graph is read with the kernels that really compute it: asked to preserve
    all tensors, the interpreter leaves XNNPACK aside, whose int8 results differ.
    """
    graph = model.subgraphs[0]
    graph.outputs = [*graph.outputs, *tensors]
    model.signatureDefs = []
    return serialize(model)


def operator(model: schema.ModelT, op: schema.OperatorT) -> str:
    """The operator's name, such as CONV_2D."""
    code = model.operatorCodes[op.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = OPERATORS.get(number, f"BUILTIN_{number}")
    return code.customCode.decode() if name == "CUSTOM" and code.customCode else name


def logits_tensor(model: schema.ModelT) -> int | None:
    """The tensor that enters the last softmax, or None if the graph does not end in one."""
    graph = model.subgraphs[0]
    producers = {int(out): op for op in graph.operators for out in op.outputs}
    tensor = int(graph.outputs[0])
    for _ in graph.operators:  # and not "while": a damaged graph may have a cycle
        if tensor not in producers:
            return None
        op = producers[tensor]
        match operator(model, op):
            case "SOFTMAX":
                return int(op.inputs[0])
            case "QUANTIZE" | "DEQUANTIZE":
                tensor = int(op.inputs[0])
            case _:
                return None
    return None
