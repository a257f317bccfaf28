"""What stands in front of a network in a .tflite: the middle of a frame, a cast, a normalization.

In child processes only, as all that parses a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kzoo.errors import BadInputError, UsageError
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
        else:
            names = sorted({flatbuffer.operator(model, op) for op in readers})
            raise BadInputError(
                f"the file takes uint8, and {', '.join(names)} read it; a cast to float32 is "
                "expected"
            )
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


def with_frame(data: bytes, frame: Sequence[int], crop: float = 1.0) -> bytes:
    """The file, taking frames of a camera: it cuts out the middle and makes that its size.

    It is turned into int8 or float32 first, if at all, as XNNPACK has no kernels for uint8. Then
    the middle is halved while it is twice the size or more, and then scaled; both are bilinear,
    which of two by two pixels is their mean, so that lines do not alias.

    Args:
        data: a .tflite that takes images (1, h, w, c), of any dtype.
        frame: (height, width) of what it then takes.
        crop: the side of what is cut out, as a share of the largest that there is.

    Raises:
        UsageError: the frame has no pixels.
    """
    if min(frame) < 1:
        raise UsageError(f"a frame is HxW of pixels, such as 480x640; {tuple(frame)} was given")
    model = flatbuffer.parse(data)
    graph = model.subgraphs[0]
    entry = int(graph.inputs[0])
    size = [int(each) for each in graph.tensors[entry].shape[1:3]]
    cut = _middle(frame, size, crop)
    readers = [op for op in graph.operators if entry in op.inputs]
    turning = readers[0] if flatbuffer.operator(model, readers[0]) in TURNING else None
    if len(readers) > 1:
        turning = None
    network = entry if turning is None else int(turning.outputs[0])
    steps = []
    if cut != [*frame]:
        begin = [(whole - each) // 2 for whole, each in zip(frame, cut, strict=True)]
        channels = int(graph.tensors[entry].shape[3])
        constants = [[0, *begin, 0], [1, *cut, channels]]
        steps.append(_step(model, network, "SLICE", constants, cut))
    steps += [_step(model, network, "RESIZE_BILINEAR", [each], each) for each in _sizes(cut, size)]
    if not steps:
        return data
    flatbuffer.replace(graph, network, int(steps[-1].outputs[0]))
    if turning is not None:
        graph.operators.remove(turning)
        turning.outputs = [_like(model, network, frame, "frame/pixels")]
        steps = [turning, *steps]
    graph.inputs = [_like(model, entry, frame, "frame"), *graph.inputs[1:]]
    at = graph.inputs[0]
    for op in steps:
        op.inputs = [at, *op.inputs[1:]]
        at = int(op.outputs[0])
    graph.operators = [*steps, *graph.operators]
    return flatbuffer.serialize(model)


def _middle(frame: Sequence[int], size: Sequence[int], crop: float) -> list[int]:
    """(height, width) of what is cut out of a frame for a network of ``size``."""
    share = crop * min(whole / each for whole, each in zip(frame, size, strict=True))
    return [min(whole, round(each * share)) for whole, each in zip(frame, size, strict=True)]


def framed(image: np.ndarray, frame: Sequence[int], crop: float) -> np.ndarray:
    """A frame in whose middle is an image, uint8 (h, w, c), and around it its edge."""
    from PIL import Image

    cut = _middle(frame, image.shape[:2], crop)
    shown = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    middle = np.asarray(shown.resize(cut[::-1])).reshape(*cut, image.shape[2])
    before = [(whole - each) // 2 for whole, each in zip(frame, cut, strict=True)]
    sides = [(b, w - c - b) for b, w, c in zip(before, frame, cut, strict=True)]
    return np.pad(middle, [*sides, (0, 0)], "edge")


TURNING = ("CAST", "QUANTIZE")


def _sizes(size: Sequence[int], target: Sequence[int]) -> list[list[int]]:
    """From one (height, width) to another, halving as long as it can."""
    found, now = [], [*size]
    while now != [*target]:
        halved = [each // 2 for each in now]
        both = all(each % 2 == 0 for each in now)
        enough = all(a >= b for a, b in zip(halved, target, strict=True))
        now = halved if both and enough else _even(now, target)
        found.append(now)
    return found


def _even(size: Sequence[int], target: Sequence[int]) -> list[int]:
    """The largest size that halving leads from to the target, if it is not twice as large."""
    times = 0
    while all(a >= 2 ** (times + 1) * b for a, b in zip(size, target, strict=True)):
        times += 1
    return [each * 2**times for each in target]


def _like(model: schema.ModelT, tensor: int, size: Sequence[int], name: str) -> int:
    """The index of a new tensor as another one, but of (height, width) ``size``."""
    graph, made = model.subgraphs[0], schema.TensorT()
    given = graph.tensors[tensor]
    made.name, made.type, made.buffer = name.encode(), given.type, 0
    made.quantization = given.quantization
    made.shape = [1, *size, given.shape[3]]
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def _step(model: schema.ModelT, tensor: int, name: str, constants, size) -> schema.OperatorT:
    """An operator that makes ``size`` of a tensor of the kind of another one; its input is open."""
    op = schema.OperatorT()
    op.opcodeIndex = flatbuffer.add_operator_code(model, name)
    label = f"frame/{name.lower()}"
    op.inputs = [
        -1,
        *(flatbuffer.add_constant(model, f"{label}/by", each, np.int32) for each in constants),
    ]
    op.outputs = [_like(model, tensor, size, label)]
    if name == "RESIZE_BILINEAR":
        options = schema.ResizeBilinearOptionsT()
        options.alignCorners, options.halfPixelCenters = False, True
        _with_options(op, "ResizeBilinearOptions", options)
    else:
        _with_options(op, "SliceOptions", schema.SliceOptionsT())
    return op


def _with_options(op: schema.OperatorT, kind: str, options: object) -> None:
    op.builtinOptions, op.builtinOptionsType = options, getattr(schema.BuiltinOptions, kind)


FRONT = ("SLICE", "RESIZE_BILINEAR", *TURNING, "MUL", "ADD", "SUB")
"""What of a graph's first operators prepares pixels."""


def front(model: schema.ModelT) -> list[schema.OperatorT]:
    """The operators that prepare pixels: the first ones, each the only reader of the one before.

    None where there is only the one that turns pixels into int8.
    """
    graph = model.subgraphs[0]
    at, found = int(graph.inputs[0]), []
    while True:
        readers = [op for op in graph.operators if at in op.inputs]
        if len(readers) != 1 or flatbuffer.operator(model, readers[0]) not in FRONT:
            break
        if at in map(int, graph.outputs) or len(found) == len(graph.operators):
            break
        found.append(readers[0])
        at = int(readers[0].outputs[0])
    names = {flatbuffer.operator(model, op) for op in found}
    return found if names - {"QUANTIZE"} else []


def prepared(data: bytes, images: np.ndarray) -> np.ndarray:
    """What reaches the network of a file with a frame: pixels, float32 (n, h, w, c).

    Args:
        data: of `with_frame`.
        images: uint8 (n, height, width, c).
    """
    from kzoo.lite.interpret import infer

    model = flatbuffer.parse(data)
    graph = model.subgraphs[0]
    scaled = [op for op in front(model) if flatbuffer.operator(model, op) in ("SLICE", FRONT[1])]
    if not scaled:
        return images
    last = int(scaled[-1].outputs[0])
    graph.operators = graph.operators[: graph.operators.index(scaled[-1]) + 1]
    graph.inputs, graph.outputs, model.signatureDefs = graph.inputs[:1], [last], []
    (found,) = infer(flatbuffer.serialize(model), images, 1)
    about, dtype = graph.tensors[last].quantization, flatbuffer.DTYPES[graph.tensors[last].type]
    if about is not None and about.scale is not None and len(about.scale):
        found = np.round(found / about.scale[0]) + about.zeroPoint[0]  # from real numbers
    return found + 128 if dtype == "int8" else found


def without_front(file: str, output: str) -> list[str]:
    """Writes a file without what prepares pixels, to see what that costs; returns its operators.

    Empty, and nothing is written, where there is none.
    """
    model = flatbuffer.parse(Path(file).read_bytes(), file)
    graph, gone = model.subgraphs[0], front(model)
    if gone:
        graph.inputs, model.signatureDefs = [int(gone[-1].outputs[0])], []
        graph.operators = [op for op in graph.operators if op not in gone]
        Path(output).write_bytes(flatbuffer.serialize(model))
    return [flatbuffer.operator(model, op) for op in gone]


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
            _with_options(op, kind, getattr(schema, f"{kind}T")())
        operators.append(op)
    for op, target in zip(operators, [*reads[1:], entry], strict=True):
        op.outputs = [target]
    graph.operators = [*operators, *graph.operators]
    graph.inputs = [reads[0]]
    return reads
