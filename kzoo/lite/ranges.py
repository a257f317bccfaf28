"""Gives a .tflite the ranges that a network was trained with, in place of calibrated ones.

A tensor of the file and one of the network are the same where they have the same values for an
image: the converter renames, fuses and drops, and the values tell what became of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kzoo.compress.grid import rounded, scales
from kzoo.errors import BadInputError
from kzoo.lite.flatbuffer import operator, parse, serialize
from kzoo.lite.tensors import Runner
from kzoo.lite.tensors import kernel as kernel_values

CLOSE = 1e-3
"""Of a tensor's largest value: what two runtimes may differ by and be the same tensor."""


def learned(
    data: bytes,
    image: np.ndarray,
    values: Mapping[int, np.ndarray],
    ranges: Mapping[int, Sequence[float]],
) -> dict[int, tuple[float, float]]:
    """The ranges of the tensors of a float file that a network's are found among.

    Args:
        data: the file, of batch 1.
        image: what the values are of, as the file takes it.
        values: what the network has for the image, by a number of each tensor.
        ranges: (low, high) by the same numbers.

    Returns:
        (low, high) by the tensor's index in the file.
    """
    runner, found = Runner(data, lambda pixels: pixels), {}
    tensors = runner.floats()
    seen = dict(zip(tensors, runner.run(image[0], tensors), strict=True))
    sizes: dict[int, list[int]] = {}
    for key, each in values.items():
        sizes.setdefault(each.size, []).append(key)
    for index, each in seen.items():
        own = each.ravel()
        for key in sizes.get(own.size, ()):
            wanted = values[key].ravel()
            if np.abs(own - wanted).max() <= CLOSE * max(np.abs(wanted).max(), 1e-6):
                low, high = ranges[key]
                found[index] = (low, high)
                break
    return found


def in_one_step(data: bytes, kernels: Mapping[str, np.ndarray]) -> bytes:
    """An int8 file where some kernels have one step for all output channels.

    The converter gives each channel its own, which makes of few shared values many.

    Args:
        data: the file.
        kernels: Keras' values, on the grid of that step, by name.

    Raises:
        BadInputError: the file has no such kernel.
    """
    model = parse(data)
    graph, left = model.subgraphs[0], dict(kernels)
    for op in graph.operators:
        if operator(model, op) not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        entry, weight, *bias = (graph.tensors[int(i)] for i in op.inputs if i >= 0)
        values, steps = kernel_values(model, weight), np.asarray(weight.quantization.scale)
        for name, kernel in left.items():  # noqa: B007, it is used behind the loop
            if kernel.size != values.size:
                continue
            # (h, w, in, out) -> (out, h, w, in); a depthwise one is (1, h, w, channels).
            depthwise = operator(model, op) == "DEPTHWISE_CONV_2D"
            turned = (kernel if depthwise else np.moveaxis(kernel, -1, 0)).reshape(values.shape)
            if np.abs(turned - values).max() <= 0.51 * steps.max():
                break
        else:
            continue
        del left[name]
        step = scales(kernel, per="tensor")
        buffer = model.buffers[weight.buffer]
        buffer.data = rounded(turned, step).view(np.uint8).ravel()
        step = step.item()
        weight.quantization.scale = [step] * len(steps)
        for each in bias:
            numbers = np.frombuffer(bytes(model.buffers[each.buffer].data), np.int32)
            exact = numbers * np.asarray(each.quantization.scale)
            scale = step * entry.quantization.scale[0]
            model.buffers[each.buffer].data = (
                np.round(exact / scale).astype(np.int32).view(np.uint8)
            )
            each.quantization.scale = [scale] * len(numbers)
    if left:
        raise BadInputError(f"the converted file has no kernel of {', '.join(left)}")
    return serialize(model)
