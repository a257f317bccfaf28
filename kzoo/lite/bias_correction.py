"""In the child process: biases of a quantized .tflite, less what rounding its kernels adds.

A channel moves by its kernel's rounding errors times what the layer reads, and behind a ReLU that
is never negative, so that they do not cancel.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kzoo.lite import flatbuffer
from kzoo.lite.tensors import Runner, kernel, paired
from kzoo.progress import Progress, silent

IMAGES = 32
"""The mean of what a layer reads is of all its positions too: 8 are nearly as good."""
KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
BIASES = {"float32": np.float32, "int32": np.int32, "int64": np.int64}


def corrected(
    rounded: bytes,
    data: bytes,
    images: np.ndarray,
    feed: Callable[[np.ndarray], np.ndarray],
    progress: Progress = silent,
) -> bytes:
    """The file with each bias less the mean of what its kernel's rounding adds to the channel.

    Empirical bias correction: Nagel et al. 2019 (arXiv:1906.04721), section 4.2 and appendix D.
    There each layer's mean output is compared, after those before it were corrected. Convolutions
    are linear, so their mean output is that of their mean input, border included, and the latter
    stays the float network's where all before are corrected: one pass serves all layers.

    Args:
        rounded: the quantized file.
        data: the float file of which it was made.
        images: uint8 (n, h, w, c), of which the first `IMAGES` are looked at.
        feed: what the float file takes for one image (1, h, w, c).
        progress: called for every image.
    """
    exact, model = Runner(data, feed), flatbuffer.parse(rounded)
    graph = model.subgraphs[0]
    made = {int(op.outputs[0]): op for op in graph.operators if len(op.outputs)}
    places = []
    for a, b in paired(data, rounded):
        op, other = exact.graph.operators[a], graph.operators[b]
        biased = len(other.inputs) > 2 and int(other.inputs[2]) >= 0
        if biased and flatbuffer.operator(exact.model, op) in KINDS:
            stored = int(other.inputs[1])
            if stored in made and flatbuffer.operator(model, made[stored]) == "DEQUANTIZE":
                stored = int(made[stored].inputs[0])  # it is unpacked as the file runs
            places.append((op, other, int(op.inputs[1]), stored))
    entries = [int(op.inputs[0]) for op, *_ in places]
    sums = [0.0] * len(entries)
    for number, image in enumerate(images[:IMAGES]):
        for place, values in enumerate(exact.run(image, entries)):
            sums[place] = sums[place] + values.astype(np.float64)
        progress("correct biases", number + 1, min(IMAGES, len(images)))
    for (op, other, before, after), total in zip(places, sums, strict=True):
        before = kernel(exact.model, exact.graph.tensors[before])
        error = kernel(model, graph.tensors[after])
        bias = model.buffers[graph.tensors[int(other.inputs[2])].buffer]
        if before is None or error is None or bias.data is None:
            continue
        error -= before  # in place: of VGG-16 there are 100 million
        kind, read = flatbuffer.operator(exact.model, op), total / min(IMAGES, len(images))
        shape = exact.graph.tensors[int(op.outputs[0])].shape
        _subtract(model, other, _mean(kind, op.builtinOptions, read, error, shape[1:3]))
    return flatbuffer.serialize(model)


def _subtract(model: schema.ModelT, op: schema.OperatorT, added: np.ndarray) -> None:
    """From its bias, which becomes its own where others have the same one."""
    graph, index = model.subgraphs[0], int(op.inputs[2])
    bias = graph.tensors[index]
    dtype = BIASES[flatbuffer.DTYPES[bias.type]]
    values = np.frombuffer(bytes(model.buffers[bias.buffer].data), dtype).astype(np.float64)
    if dtype is np.float32:
        values = values - added
    else:
        ends = np.iinfo(dtype)
        values = np.round(values - added / np.asarray(bias.quantization.scale))
        values = np.clip(values, ends.min, ends.max)
    if sum(index in map(int, each.inputs) for each in graph.operators) > 1:
        bias = copy.copy(bias)
        op.inputs = [*op.inputs[:2], len(graph.tensors)]
        graph.tensors.append(bias)
    if sum(each.buffer == bias.buffer for each in graph.tensors) > 1:
        bias.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT())
    model.buffers[bias.buffer].data = values.astype(dtype).view(np.uint8)


def _mean(kind: str, options, read: np.ndarray, error: np.ndarray, made) -> np.ndarray:
    """The mean by channel of what a kernel of errors makes, in float64 (out,).

    Args:
        kind: one of `KINDS`.
        options: of the operator.
        read: its mean input, (1, h, w, in), or (n, in).
        error: (out, h, w, in / groups); of a depthwise convolution (1, h, w, in x multiplier), a
            channel's outputs side by side; of a dense layer (out, in).
        made: (height, width) of its output.
    """
    if kind == "FULLY_CONNECTED":
        return error @ read.reshape(-1, error.shape[-1]).mean(0)
    _, height, width, depth = error.shape
    read = _windows(options, read[0], (height, width), made)
    if kind == "DEPTHWISE_CONV_2D":
        return (error[0] * read.repeat(depth // read.shape[-1], -1)).sum((0, 1))
    groups = read.shape[-1] // depth
    error = error.reshape(groups, -1, height, width, depth)
    return np.einsum("gohwi,hwgi->go", error, read.reshape(height, width, groups, depth)).ravel()


def _windows(options, read: np.ndarray, kernel_size, made) -> np.ndarray:
    """(h, w, in): what each place of the kernel reads of an image, its mean over all positions."""
    strides = options.strideH, options.strideW
    steps = options.dilationHFactor, options.dilationWFactor
    spans = [(n - 1) * stride + 1 for n, stride in zip(made, strides, strict=True)]
    if options.padding == schema.Padding.SAME:
        pads = [
            max(span + (size - 1) * step - length, 0)
            for span, size, step, length in zip(
                spans, kernel_size, steps, read.shape[:2], strict=True
            )
        ]
        read = np.pad(read, [*((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    found = np.empty((*kernel_size, read.shape[-1]))
    for place in np.ndindex(*kernel_size):
        rows, columns = (
            slice(at * step, at * step + span, stride)
            for at, step, span, stride in zip(place, steps, spans, strides, strict=True)
        )
        found[place] = read[rows, columns].mean((0, 1))
    return found
