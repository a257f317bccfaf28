"""The constraints that rules name: each takes an operator and its setting, and says what is wrong.

``CHECKS["elements_at_most"](operator, 16000)`` is None, or such as "20000 elements; at most 16000".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kzoo.lite.lint.operators import Operator

CHECKS: dict[str, Callable[[Operator, object], str | None]] = {}
NO_ACTIVATION = 0


def _check(function: Callable) -> Callable:
    CHECKS[function.__name__] = function
    return function


def _words(names: Sequence[object]) -> str:
    *first, last = map(str, names)
    return f"{', '.join(first)} or {last}" if first else last


@_check
def dtypes(op: Operator, allowed: Sequence[str]) -> str | None:
    """The dtypes of what flows through: inputs that are no constants, and outputs."""
    found = list(dict.fromkeys(each.dtype for each in op.moving if each.dtype not in allowed))
    return f"{_words(found)} tensors (supported: {_words(allowed)})" if found else None


@_check
def input_dtypes(op: Operator, allowed: Sequence[str]) -> str | None:
    """The dtype of the first input alone."""
    tensor = op.input(0)
    if tensor is None or tensor.dtype in allowed:
        return None
    return f"{tensor.dtype} input (supported: {_words(allowed)})"


@_check
def output_dtypes(op: Operator, allowed: Sequence[str]) -> str | None:
    """The dtype of the first output alone."""
    dtype = op.outputs[0].dtype
    return None if dtype in allowed else f"{dtype} output (supported: {_words(allowed)})"


@_check
def kernel_dtypes(op: Operator, allowed: Sequence[str]) -> str | None:
    """The dtype of the kernel, the second input."""
    kernel = op.input(1)
    if kernel is None or kernel.dtype in allowed:
        return None
    return f"{kernel.dtype} weights (supported: {_words(allowed)})"


@_check
def hybrid(op: Operator, allowed: bool) -> str | None:
    """Float activations with integer weights."""
    data, kernel = op.input(0), op.input(1)
    if allowed or data is None or kernel is None:
        return None
    mixed = data.dtype == "float32" and kernel.dtype != "float32"
    return f"{kernel.dtype} weights with float32 activations" if mixed else None


@_check
def static_shapes(op: Operator, _: bool) -> str | None:
    """Sizes that are known in the file."""
    return "a tensor of dynamic size" if any(each.dynamic for each in op.moving) else None


@_check
def main_graph(op: Operator, _: bool) -> str | None:
    """Not in the body of an IF or WHILE."""
    return "it stands in the body of an IF, WHILE or CALL_ONCE" if op.subgraph else None


@_check
def inner_dimensions(op: Operator, most: int) -> str | None:
    """Only so many of the innermost dimensions are larger than 1."""
    for tensor in op.moving:
        if any(size > 1 for size in tensor.shape[:-most]):
            return f"shape {list(tensor.shape)}; only the {most} innermost sizes may exceed 1"
    return None


@_check
def rank_at_most(op: Operator, most: int) -> str | None:
    ranks = [len(each.shape) for each in op.moving]
    return f"a tensor of rank {max(ranks)}; at most {most}" if max(ranks) > most else None


@_check
def input_rank(op: Operator, allowed: Sequence[int]) -> str | None:
    tensor = op.input(0)
    if tensor is None or len(tensor.shape) in allowed:
        return None
    return f"an input of rank {len(tensor.shape)} (supported: {_words(allowed)})"


@_check
def versions(op: Operator, bounds: Sequence[int]) -> str | None:
    """The operator's version lies within the bounds."""
    low, high = bounds
    if low <= op.version <= high:
        return None
    return f"version {op.version} of the operator; {low} to {high} are known"


@_check
def constant(op: Operator, places: Sequence[int]) -> str | None:
    """These inputs are constants, where given."""
    for place in places:
        tensor = op.input(place)
        if tensor is not None and not tensor.constant:
            return f"input {place} is computed, not a constant"
    return None


@_check
def inputs(op: Operator, count: int) -> str | None:
    """This number of inputs."""
    found = sum(tensor is not None for tensor in op.inputs)
    return None if found == count else f"{found} inputs; {count} are needed"


@_check
def fused_activation(op: Operator, allowed: bool) -> str | None:
    """An activation in the operator itself."""
    has = op.options.get("fusedActivationFunction", NO_ACTIVATION) != NO_ACTIVATION
    return "a fused activation" if has and not allowed else None


@_check
def equal_dilation(op: Operator, _: bool) -> str | None:
    found = op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1)
    return None if found[0] == found[1] else f"dilation {found[0]} x {found[1]}; it must be equal"


@_check
def int8_scale_above(op: Operator, least: float) -> str | None:
    """An int8 input's scale is not too small for the kernel's fixed-point multiplier."""
    tensor = op.input(0)
    if tensor is None or tensor.dtype != "int8" or not tensor.scale or tensor.scale > least:
        return None
    return f"its input's scale is {tensor.scale:.2g} (more than {least:.2g} is needed)"


@_check
def options(op: Operator, wanted: dict) -> str | None:
    """Options of the flatbuffer have these values."""
    for name, value in wanted.items():
        if (found := op.options.get(name, value)) != value:
            return f"{name} is {found} (supported: {value})"
    return None


@_check
def window_at_most(op: Operator, most: int) -> str | None:
    """The window of a pooling in integers."""
    size = op.options.get("filterHeight", 1) * op.options.get("filterWidth", 1)
    if op.outputs[0].dtype == "float32" or size <= most:
        return None
    return f"a window of {size} values; at most {most} in integers"


@_check
def elements_at_most(op: Operator, most: int) -> str | None:
    count = math.prod(op.outputs[0].shape)
    return f"{count} elements; at most {most}" if count > most else None


@_check
def one_dimensional(op: Operator, _: bool) -> str | None:
    """One size of the output may exceed 1."""
    shape = op.outputs[0].shape
    large = sum(size > 1 for size in shape)
    return f"output {list(shape)}; only one size may exceed 1" if large > 1 else None


@_check
def one_dimensional_alpha(op: Operator, _: bool) -> str | None:
    """The slopes of a PRELU differ by channel alone."""
    alpha = op.input(1)
    if alpha is None or all(size == 1 for size in alpha.shape[:-1]):
        return None
    return f"slopes of shape {list(alpha.shape)}; they may differ by channel alone"


@_check
def zero_constants(op: Operator, _: bool) -> str | None:
    """A concatenation with a constant has two inputs, and the constant is zero."""
    for tensor in op.inputs:
        if tensor is None or not tensor.constant:
            continue
        if len(op.inputs) != 2:
            return f"a constant among {len(op.inputs)} inputs; two inputs are supported then"
        if tensor.values is None or np.any(tensor.values != tensor.zero_point):
            return "a constant input that is not all zeros"
    return None


@_check
def batch_untouched(op: Operator, kind: str) -> str | None:
    """The operator leaves the batch's dimension alone; ``kind`` is how it names what it touches."""
    rank = len(op.input(1 if kind == "split" else 0).shape)
    match kind:
        case "reduce":
            touched = op.integers(1)
        case "pad":
            pads = op.integers(1)
            touched = None if pads is None else np.flatnonzero(pads.reshape(-1, 2).any(axis=1))
        case "pack":
            return "it packs the batch's dimension" if op.options.get("axis", 0) == 0 else None
        case "split":
            touched = op.integers(0)
    if touched is None:
        return "what it works on is not a constant"
    touches = any(int(axis) % max(rank, 1) == 0 for axis in touched)
    return f"it works on the batch's dimension ({kind})" if touches else None


@_check
def depth_multiple(op: Operator, of: int) -> str | None:
    """A reduction over the last dimension has a multiple of so many values."""
    axes, tensor = op.integers(1), op.input(0)
    if axes is None or tensor is None or not tensor.shape:
        return None
    rank, size = len(tensor.shape), tensor.shape[-1]
    if any(int(axis) % rank == rank - 1 for axis in axes) and size % of:
        return f"it reduces {size} channels, which is no multiple of {of}"
    return None


@_check
def unit_strides(op: Operator, _: bool) -> str | None:
    """A strided slice takes neighbours."""
    strides = op.integers(3)
    if strides is not None and np.all(strides == 1):
        return None
    return "strides other than 1"


@_check
def resize(op: Operator, limits: dict) -> str | None:
    """A resizing whose sizes keep the precision.

    ``limits``: the largest ``output`` size, and the largest ``corner_scale``, how many steps
    between outputs make one between inputs where the corners are aligned; it must be whole.
    """
    tensor = op.input(0)
    if tensor is None or len(tensor.shape) != 4:
        return "its input is not of rank 4"
    sizes = [*zip(tensor.shape[1:3], op.outputs[0].shape[1:3], strict=True)]
    told = " and ".join(f"{given} to {made}" for given, made in dict.fromkeys(sizes))
    if max(made for _, made in sizes) > limits["output"]:
        return f"it resizes {told}; more than {limits['output']} are held to lose precision"
    if op.options.get("alignCorners"):
        for given, made in sizes:
            steps, rest = divmod(made - 1, max(1, given - 1))
            if rest or steps > limits["corner_scale"]:
                return f"with corners aligned it resizes {told}, held to lose precision"
    return None


@_check
def depth_multiplier(op: Operator, _: bool) -> str | None:
    """A depthwise convolution with several outputs for an input has one input channel."""
    tensor = op.input(0)
    if op.options.get("depthMultiplier", 1) in (0, 1) or tensor is None or tensor.shape[-1] == 1:
        return None
    return f"depth multiplier {op.options['depthMultiplier']} on {tensor.shape[-1]} channels"


@_check
def broadcast(op: Operator, _: bool) -> str | None:
    """Not both inputs are smaller than the other in some dimension."""
    one, other = op.input(0), op.input(1)
    if one is None or other is None or len(one.shape) != len(other.shape):
        return None
    pairs = [*zip(one.shape, other.shape, strict=True)]
    if any(a < b for a, b in pairs) and any(a > b for a, b in pairs):
        return f"{list(one.shape)} with {list(other.shape)}: each is smaller somewhere"
    return None
