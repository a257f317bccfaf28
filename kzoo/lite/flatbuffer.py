"""The .tflite file as an object: signatures, notes, further outputs.

Parsing is done in child processes only: a file from outside can be anything. Needs ai-edge-litert,
not TensorFlow.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from kzoo.errors import BadInputError

KERNEL = re.compile("(?i)convolution|conv2d|depthwise|matmul|biasadd")
"""What TensorFlow's operations with a kernel are called."""
NOTES = "kzoo"
"""The name of the metadata entry that holds class names and origin, as JSON."""

APART = "kernel_apart_"
"""What inputs are called that become constants, see `fill`."""

OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
FLOAT32 = schema.TensorType.FLOAT32
DTYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if name.isupper()}


def parse(data: bytes, name: str = "the result") -> schema.ModelT:
    """The object tree of a .tflite; raises BadInputError, about ``name``, if it is none."""
    try:
        model = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
        if not model.subgraphs or not model.subgraphs[0].operators:
            raise ValueError("it has no operators")
        for buffer in model.buffers:  # large ones may lie behind the flatbuffer
            if buffer.offset > 1:
                if buffer.offset + buffer.size > len(data):
                    raise ValueError("a buffer lies outside of it")
                buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        return model
    except Exception as error:
        raise BadInputError(
            f"{name} is a damaged .tflite file ({type(error).__name__}: {error})"
        ) from error


def serialize(model: schema.ModelT) -> bytes:
    """The file's bytes."""
    return bytes(as_bytes(model))


def as_bytes(model: schema.ModelT) -> bytearray:
    """The file's bytes, which are nowhere else in memory."""
    held = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(held + held // 64 + (1 << 16))  # it doubles when it is full
    builder.Finish(model.Pack(builder), b"TFL3")
    del builder.Bytes[: builder.Head()]
    return builder.Bytes


def filled(data: bytes, kernels: Mapping[str, np.ndarray]) -> bytes:
    """A file in which some inputs are constants."""
    model = parse(data)
    fill(model, kernels)
    return serialize(model)


def fill(model: schema.ModelT, kernels: Mapping[str, np.ndarray]) -> None:
    """Makes some inputs of a graph constants.

    Args:
        model: changed in place.
        kernels: float32, by the names of the inputs.
    """
    graph = model.subgraphs[0]
    left = []
    for index in map(int, graph.inputs):
        tensor = graph.tensors[index]
        values = kernels.get(tensor.name.decode())
        if values is None:
            left.append(index)
            continue
        buffer = schema.BufferT()
        buffer.data = values.view(np.uint8).ravel()
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    graph.inputs = left


def finish(data: bytes, output_name: str, notes: dict | None = None) -> bytes:
    """Adds what a frozen function loses: a signature with stable names, and kzoo's notes if any.

    Tensors of equal names get their numbers behind them.

    Without a signature litert-quantizer and LiteRT's signature runners refuse the file.
    """
    model = parse(data)
    graph = model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_named("image", graph.inputs[0])]
    signature.outputs = [_named(output_name, graph.outputs[0])]
    model.signatureDefs = [signature]
    _told_apart(graph)
    if notes is None:
        return serialize(model)
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


def named(data: bytes, layers: Collection[str], kernels: Sequence[str] = ()) -> bytes:
    """The file with its tensors called by Keras' layers: ``stem_conv/convolution;stem_bn/add``.

    The converter's names start with the network's and count calls: ``net_1/stem_conv_1/..``. An
    input ``APART`` and a number gets the name in ``kernels``, of that number.
    """
    model = parse(data)
    graph = model.subgraphs[0]
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if (name := tensor.name.decode()).startswith(APART):
            tensor.name = kernels[int(name.removeprefix(APART))].encode()
    names = [tensor.name.decode() for tensor in graph.tensors]
    for op in graph.operators:
        # What the function returns is called Identity: its kernel knows the layer.
        told = next((names[i] for i in op.inputs[1:] if i >= 0 and "/" in names[i]), None)
        if told and "/" not in names[op.outputs[0]]:
            names[op.outputs[0]] = f"{told}/{names[op.outputs[0]]}"
    for name, tensor in zip(names, graph.tensors, strict=True):
        parts = [_of_layer(part, layers) for part in name.split(";")]
        tensor.name = ";".join(dict.fromkeys(parts)).encode()
    return serialize(model)


def _told_apart(graph: schema.SubGraphT) -> None:
    """Gives each tensor a name of its own: quantizers know it by that alone."""
    seen = set()
    for number, tensor in enumerate(graph.tensors):
        if tensor.name in seen or not tensor.name:
            tensor.name = (tensor.name or b"") + f":{number}".encode()
        seen.add(tensor.name)


def _of_layer(part: str, layers: Collection[str]) -> str:
    words = part.split("/")
    for i in reversed(range(len(words))):
        for word in (words[i], re.sub(r"_\d+$", "", words[i])):
            if word in layers:
                return "/".join([word, *words[i + 1 :]])
    return part


def layer_names(graph: schema.SubGraphT) -> list[tuple[str, ...]]:
    """Of each tensor, the Keras layers that the converter joined in it, kernels first.

    What most names start with is the network's name, and is left out.
    """
    paths = [
        [re.split(r"[/:]", part) for part in tensor.name.decode().split(";")]
        for tensor in graph.tensors
    ]
    while True:
        heads = Counter(words[0] for parts in paths for words in parts if len(words) > 1)
        ((head, count),) = heads.most_common(1) or [("", 0)]
        if count <= 0.7 * sum(map(len, paths)):
            break
        paths = [[w[1:] if len(w) > 1 and w[0] == head else w for w in parts] for parts in paths]
    return [
        tuple(dict.fromkeys(words[0] for words in sorted(parts, key=_without_kernel)))
        for parts in paths
    ]


def _without_kernel(words: list[str]) -> bool:
    return not KERNEL.search(words[-1])


def graph_input(data: bytes) -> int:
    """The index of the tensor that a file takes."""
    return int(parse(data).subgraphs[0].inputs[0])


def notes(model: schema.ModelT) -> dict:
    """The notes that `finish` left; empty for a file from elsewhere.

    Anybody may have written them: what is no mapping, and class names that are no texts, are none.
    """
    for entry in model.metadata or []:
        if entry.name == NOTES.encode():
            found = json.loads(bytes(model.buffers[entry.buffer].data))
            if not isinstance(found, dict):
                return {}
            classes = found.get("classes", [])
            if not (isinstance(classes, list) and all(isinstance(each, str) for each in classes)):
                del found["classes"]
            return found
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


def add_operator_code(model: schema.ModelT, name: str) -> int:
    """The index of an operator's code in a file, which is added."""
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # a byte, which ends there
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def add_constant(
    model: schema.ModelT, name: str, values: Sequence[float], dtype: type = np.float32
) -> int:
    """The index of a tensor of constant values, float32 or int32, which is added."""
    buffer, tensor = schema.BufferT(), schema.TensorT()
    values = np.atleast_1d(np.asarray(values, dtype))
    buffer.data = values.view(np.uint8).ravel()
    model.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.type = name.encode(), [*values.shape], FLOAT32
    if dtype == np.int32:
        tensor.type = schema.TensorType.INT32
    tensor.buffer = len(model.buffers) - 1
    graph = model.subgraphs[0]
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def replace(graph: schema.SubGraphT, tensor: int, by: int) -> None:
    """Lets all that read a tensor read another one."""
    for op in graph.operators:
        op.inputs = [by if int(i) == tensor else int(i) for i in op.inputs]
    graph.outputs = [by if int(i) == tensor else int(i) for i in graph.outputs]


def without_softmax(data: bytes) -> bytes:
    """A float file that ends in a softmax, giving its logits."""
    model = parse(data)
    graph, logits = model.subgraphs[0], logits_tensor(model)
    graph.outputs, model.signatureDefs = [logits], []
    graph.operators = _needed(graph)
    return serialize(model)


def _needed(graph: schema.SubGraphT) -> list[schema.OperatorT]:
    """The operators whose results are read, in their order."""
    wanted, kept = set(map(int, graph.outputs)), []
    for op in reversed(graph.operators):
        if wanted.intersection(map(int, op.outputs)):
            wanted |= set(map(int, op.inputs))
            kept.append(op)
    return kept[::-1]


def with_softmax(data: bytes) -> bytes:
    """A float file that gives logits, giving probabilities."""
    model = parse(data)
    graph = model.subgraphs[0]
    op, tensor, logits = schema.OperatorT(), schema.TensorT(), int(graph.outputs[0])
    tensor.name, tensor.shape = b"probabilities", [*graph.tensors[logits].shape]
    tensor.type, tensor.buffer = FLOAT32, 0
    graph.tensors.append(tensor)
    op.opcodeIndex, op.inputs = add_operator_code(model, "SOFTMAX"), [logits]
    op.outputs = [len(graph.tensors) - 1]
    op.builtinOptions = schema.SoftmaxOptionsT()
    op.builtinOptions.beta = 1.0
    op.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
    graph.operators = [*graph.operators, op]
    graph.outputs, model.signatureDefs = [op.outputs[0]], []
    return serialize(model)


def add_rounding(
    model: schema.ModelT, tensor: int, scale: tuple[float, int], codes: Sequence[int]
) -> list[schema.OperatorT]:
    """The two operators that round a float tensor to int8 and back, for its readers.

    They have to be put behind the one that writes it.

    Args:
        model: the file; its tensors are added to, and those that read ``tensor`` are changed.
        tensor: its index.
        scale: (scale, zero point).
        codes: those of QUANTIZE and DEQUANTIZE, see `add_operator_code`.
    """
    graph, given = model.subgraphs[0], model.subgraphs[0].tensors[tensor]
    added = []
    for word, kind in (("int8", schema.TensorType.INT8), ("float", schema.TensorType.FLOAT32)):
        made = schema.TensorT()
        made.name, made.shape, made.type = given.name + f":{word}".encode(), given.shape, kind
        made.buffer = 0
        if word == "int8":
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [scale[0]], [scale[1]]
        graph.tensors.append(made)
        added.append(len(graph.tensors) - 1)
    replace(graph, tensor, added[1])
    operators = []
    for code, source, target in zip(codes, (tensor, added[0]), added, strict=True):
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = code, [source], [target]
        operators.append(op)
    return operators


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
