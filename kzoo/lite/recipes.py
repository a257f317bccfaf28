"""What becomes of a float .tflite: whole numbers in its weights, its activations, or both.

The names are here; the work is done in the child process, by TensorFlow's quantizer where
activations are whole numbers, and by litert-quantizer where only weights are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kzoo.errors import BadInputError, UsageError, nearest


@dataclass(frozen=True)
class Recipe:
    """A row of `RECIPES`.

    Attributes:
        title: in words.
        activations: their bits, for which images are needed; None where they stay float32.
    """

    title: str
    activations: int | None = None


RECIPES = {
    "int8": Recipe("8-bit weights and activations", 8),
    "int16x8": Recipe("8-bit weights, 16-bit activations", 16),
    "dynamic": Recipe("8-bit convolutions and dense layers, inputs rounded as it runs"),
    "weights8": Recipe("8-bit weights, computed in float32"),
    "int4": Recipe("4-bit convolutions and dense layers, 8-bit depthwise weights"),
    "fp16": Recipe("16-bit floating-point weights"),
}
WITH_IO = {"int8-float-io": ("int8", "float32"), "uint8-io": ("int8", "uint8")}
"""Names that others give to a recipe and its input's dtype."""
MIXED = "mixed"
"""The recipe that leaves in float32 what int8 spoils most, see `kzoo.lite.trials.mixed`."""
IO = ("uint8", "int8", "float32")
RANGES = ("minmax", "average", "percentile", "mse", "kl")
"""How an activation's range is chosen of what it takes, see `kzoo.lite.calibration`."""


def known_recipe(name: str, io: str | None) -> tuple[str, str]:
    """The recipe's name and the dtype of the pixels; raises UsageError if there is none such."""
    known = (*RECIPES, MIXED, *WITH_IO)
    if name not in known:
        raise UsageError(f"recipe {name!r} is none of {', '.join(known)}{nearest(name, known)}")
    if name in WITH_IO:
        name, its = WITH_IO[name]
        if io not in (None, its):
            raise UsageError(f"this recipe takes {its} pixels; io {io!r} was given too")
        io = its
    io = io or "uint8"
    if io not in IO:
        raise UsageError(f"io {io!r} is none of {', '.join(IO)}{nearest(io, IO)}")
    if io == "int8" and name not in ("int8", MIXED):
        raise UsageError(f"recipe {name} takes uint8 or float32 pixels; io int8 was given")
    return name, io


def applied(
    data: bytes, name: str, ranges: Mapping[int, Sequence[float]], io: str, exclude: Sequence[str]
) -> bytes:
    """A float file, as a recipe has it.

    Args:
        data: the file, with a signature.
        name: of `RECIPES`.
        ranges: of its tensors, see `kzoo.lite.calibration`; empty where activations stay float32.
        io: dtype of the input and of the output, where activations have 8 bits.
        exclude: prefixes of the layers whose operators stay float32.
    """
    if RECIPES[name].activations == 8:
        return eight_bits(data, ranges, io, excluded(data, exclude))
    return _by_litert(data, name, ranges, exclude)


def eight_bits(
    data: bytes, ranges: Mapping[int, Sequence[float]], io: str, spared: Sequence[str]
) -> bytes:
    """As `applied` for "int8"; ``spared`` are the tensors that operators in float32 write."""
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    from kzoo.lite.calibration import with_ranges

    return mlir_quantize(
        with_ranges(data, ranges),
        input_data_type=tf.as_dtype(io),
        output_data_type=tf.as_dtype(io),
        denylisted_nodes=list(spared) or None,
    )


def excluded(data: bytes, prefixes: Sequence[str]) -> list[str]:
    """The names of the tensors that the operators of these layers write.

    Raises:
        UsageError: no layer's name begins so.
    """
    from kzoo.lite import flatbuffer

    graph = flatbuffer.parse(data).subgraphs[0]
    layers = flatbuffer.layer_names(graph)
    written = [int(i) for op in graph.operators for i in op.outputs]
    known = {layer for i in written for layer in layers[i]}
    for prefix in prefixes:
        if not any(layer.startswith(prefix) for layer in known):
            hint = nearest(prefix, sorted(known))
            raise UsageError(f"no layer of the file begins with {prefix!r}{hint}")
    return [
        graph.tensors[i].name.decode()
        for i in written
        if any(layer.startswith(tuple(prefixes)) for layer in layers[i])
    ]


def _by_litert(
    data: bytes, name: str, ranges: Mapping[int, Sequence[float]], exclude: Sequence[str]
) -> bytes:
    """By litert-quantizer, which leaves the dtypes of input and output as they are.

    A depthwise convolution that rounds its activations as it runs is slower than one in float32,
    so that `dynamic` and `int4` keep its weights in 8 bits and no more.
    """
    import re

    import numpy as np
    from litert_quantizer import quantizer
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.qtyping import TFLOperationName as Operation
    from litert_quantizer.recipe_manager import RecipeManager

    from kzoo.lite import flatbuffer

    _large_kernels()
    manager, every = RecipeManager(), {"regex": ".*", "operation_name": Operation.ALL_SUPPORTED}
    if name == "fp16":
        manager.add_weight_only_config(
            **every, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    elif name == "int16x8":
        manager.add_static_config(**every, activation_num_bits=16, weight_num_bits=8)
    else:
        manager.add_weight_only_config(**every, num_bits=8)
    if name in ("dynamic", "int4"):
        for operation in (Operation.CONV_2D, Operation.FULLY_CONNECTED):
            manager.add_dynamic_config(".*", operation, num_bits=4 if name == "int4" else 8)
    left = [
        (f"{re.escape(tensor)}.*", Operation.ALL_SUPPORTED) for tensor in excluded(data, exclude)
    ]
    for regex, operation in (*left, (".*", Operation.INPUT), (".*", Operation.OUTPUT)):
        manager.add_quantization_config(regex, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    tool = quantizer.Quantizer(bytearray(data), manager.get_quantization_recipe())
    tensors = flatbuffer.parse(data).subgraphs[0].tensors
    found = {
        tensors[index].name.decode(): {"min": np.array(low), "max": np.array(high)}
        for index, (low, high) in ranges.items()
    }
    try:
        made = bytes(tool.quantize(found or None).quantized_model)
    except (RuntimeError, ValueError) as error:
        raise BadInputError(f"litert-quantizer refuses the model: {error}") from error
    return _any_scale(made) if name == "int16x8" else made


def _large_kernels() -> None:
    """Lets litert-quantizer 0.11 round convolutions' kernels of over 32 MiB.

    It takes them in pieces as matrices, with steps that still have four axes, and fails. The
    quantizer runs in a process of its own, which this changes.
    """
    from dataclasses import replace

    from litert_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as module

    rounded = module.uniform_quantize
    if getattr(rounded, "as_matrices", False):
        return

    def as_matrices(tensor, steps, blocks=False):
        if tensor.ndim <= 2 or blocks or steps.quantized_dimension != 0:
            return rounded(tensor, steps, blocks)
        flat = replace(steps, scale=steps.scale.ravel(), zero_point=steps.zero_point.ravel())
        return rounded(tensor.reshape(len(tensor), -1), flat).reshape(tensor.shape)

    as_matrices.as_matrices = True
    module.uniform_quantize = as_matrices


def _any_scale(data: bytes) -> bytes:
    """The file, its sums of int16 taking any scales.

    Where it is not said, the kernels of ADD and SUB expect powers of two, and refuse the rest.
    """
    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(data)
    for op in model.subgraphs[0].operators:
        if flatbuffer.operator(model, op) in ("ADD", "SUB"):
            op.builtinOptions.potScaleInt16 = False
    return flatbuffer.serialize(model)
