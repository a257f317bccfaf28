"""In the child process: what a .tflite computes or stores for nothing, and what to do about it.

The patterns are those that a converter resolves when it sees them: BatchNorm goes into the kernel
before it, an activation into the operator before it (Jacob et al. 2018, arXiv:1712.05877, section
2.4 and 3.2), pairs of conversions and of transpositions away.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from kzoo.errors import BadInputError
from kzoo.lite.inspect import KERNELS
from kzoo.lite.lint.checks import NO_ACTIVATION
from kzoo.lite.lint.operators import Operator, Tensor, operators

AFFINE = ("MUL", "ADD", "SUB", "DIV")
ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1")
"""What other operators can do to their output themselves."""
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
BY_VALUE = (
    *ACTIVATIONS, *CONVERSIONS, "RELU_0_TO_1", "LEAKY_RELU", "ELU", "GELU", "LOGISTIC", "TANH",
    "HARD_SWISH", "ABS", "NEG", "EXP", "SQRT", "RSQRT", "SQUARE", "CAST",
)  # fmt: skip
"""What has one input and treats each value alone, so that a TRANSPOSE may move across it."""
LEAST_BYTES = 64
"""A shape, paddings, the axes of a reduction: operators have these of their own."""
LEAST_SHARE = 0.001
"""Of all constants: equal ones that waste less are not told, as nobody sees them in the size."""
ADVICE = {
    "unfolded BatchNorm": "fold it into the kernel and the bias: convert the trained Keras model "
    "anew (kzoo convert, kzoo quantize), with the layer directly behind its convolution",
    "unfused activation": "let the operator before it clip its own output: convert anew, with the "
    "activation directly behind its layer",
    "redundant conversion": "quantize anew from the float model (kzoo quantize), and leave layers "
    "side by side in float, not every other one",
    "cancelling transposes": "keep channels last all through the network, and convert anew",
    "duplicate constants": "call one Keras layer twice rather than two with the same weights, and "
    "convert anew; a bias of zeros can go (use_bias=False)",
}
"""Kind of finding → what to do."""


def findings(file: str) -> list[dict]:
    """What a file computes or stores for nothing, in the order of its operators.

    Returns:
        ``{"kind", "index", "operator", "layer", "bytes", "reason", "advice"}`` of each: a kind of
        `ADVICE`; the operator that could go, its number and its Keras layer; how many bytes of
        constants the file has twice. Of constants that is the operator that reads the second copy.

    Raises:
        BadInputError: the file is damaged.
    """
    graph = _Graph(operators(file))
    kinds = (_unfolded, _unfused, _conversions, _transposes, _duplicates)
    try:
        found = [each for kind in kinds for each in kind(graph)]
    except Exception as error:  # any: a flipped bit may cut a constant short
        raise BadInputError(
            f"{file} is a damaged .tflite file ({type(error).__name__}: {error})"
        ) from error
    return sorted(found, key=lambda each: each["index"])


class _Graph:
    """Operators with who makes and who reads a tensor."""

    def __init__(self, found: list[Operator]) -> None:
        self.operators = found
        self._makers = {(op.subgraph, each.index): op for op in found for each in op.outputs}
        self._readers: dict[tuple[int, int], list[Operator]] = defaultdict(list)
        for op in found:
            for each in filter(None, op.inputs):
                self._readers[op.subgraph, each.index].append(op)

    def before(self, op: Operator, place: int = 0) -> Operator | None:
        """The operator that makes an input."""
        tensor = op.input(place)
        return None if tensor is None else self._makers.get((op.subgraph, tensor.index))

    def behind(self, op: Operator) -> Operator | None:
        """The operator that reads what this one gives, if nobody else does."""
        readers = self._readers[op.subgraph, op.outputs[0].index]
        return readers[0] if len(readers) == 1 and not op.outputs[0].returned else None

    def fixed(self, op: Operator, place: int) -> bool:
        """Whether an input is a constant, or one that is stored in fewer bits."""
        tensor, maker = op.input(place), self.before(op, place)
        stored = maker is not None and maker.name == "DEQUANTIZE" and self.fixed(maker, 0)
        return tensor is not None and (tensor.constant or stored)


def _told(kind: str, op: Operator, reason: str, size: int = 0) -> dict:
    return {
        "kind": kind,
        "index": op.index,
        "operator": op.name,
        "layer": op.layer,
        "bytes": size,
        "reason": reason,
        "advice": ADVICE[kind],
    }


def _place(op: Operator) -> str:
    return f"{op.name} in {op.layer}"


def _clips(op: Operator) -> bool:
    return op.options.get("fusedActivationFunction", NO_ACTIVATION) != NO_ACTIVATION


def _unfolded(graph: _Graph) -> Iterator[dict]:
    for kernel in graph.operators:
        if kernel.name not in KERNELS or not graph.fixed(kernel, 1):
            continue
        chain, last = [], kernel
        while not _clips(last):
            last = graph.behind(last)
            if last is None or last in chain or not _per_channel(graph, last, kernel.outputs[0]):
                break
            chain.append(last)
        if chain:
            names = " and ".join(dict.fromkeys(op.name for op in chain))
            yield _told(
                "unfolded BatchNorm",
                chain[0],
                f"{names} by constants, right behind {_place(kernel)}",
            )


def _per_channel(graph: _Graph, op: Operator, made: Tensor) -> bool:
    """Whether an operator scales or shifts the channels of ``made`` by constants.

    The converter writes a constant that is the same for all channels as one number.
    """
    if op.name not in AFFINE or len(op.inputs) != 2 or not made.shape:
        return False
    place = 0 if op.name in ("MUL", "ADD") and graph.fixed(op, 0) else 1
    shape = op.inputs[place].shape if op.inputs[place] is not None else ()
    return (
        graph.fixed(op, place)
        and not graph.fixed(op, 1 - place)
        and math.prod(shape) in (1, made.shape[-1])
        and shape[-1:] in ((), (1,), made.shape[-1:])
    )


def _unfused(graph: _Graph) -> Iterator[dict]:
    for op in graph.operators:
        before = graph.before(op)
        if (
            op.name in ACTIVATIONS
            and before is not None
            and before.name in (*KERNELS, *AFFINE)
            and not _clips(before)
            and graph.behind(before) is op
        ):
            yield _told("unfused activation", op, f"right behind {_place(before)}")


def _conversions(graph: _Graph) -> Iterator[dict]:
    for op in graph.operators:
        if op.name not in CONVERSIONS or graph.fixed(op, 0):
            continue
        given, made, before = op.input(0), op.outputs[0], graph.before(op)
        if _alike(given, made):
            yield _told("redundant conversion", op, f"from {_type(given)} to the same")
        elif before is not None and before.name in CONVERSIONS and not graph.fixed(before, 0):
            first = before.input(0)
            if _alike(first, made):
                end = f"from {_type(first)} to {_type(given)} and back"
            else:
                end = f"from {_type(first)} by {_type(given)} to {_type(made)}: one can do it"
            yield _told("redundant conversion", op, f"right behind {_place(before)}, {end}")


def _alike(one: Tensor | None, other: Tensor) -> bool:
    """Whether a number means the same in both."""
    keys = ("dtype", "scales", "scale", "zero_point")
    return one is not None and all(getattr(one, key) == getattr(other, key) for key in keys)


def _type(tensor: Tensor) -> str:
    return tensor.dtype + ("" if tensor.scale is None else f" (scale {tensor.scale:.4g})")


def _transposes(graph: _Graph) -> Iterator[dict]:
    for op in graph.operators:
        if op.name != "TRANSPOSE":
            continue
        before = graph.before(op)
        for _ in graph.operators:  # and not "while": a damaged graph may have a cycle
            if before is None or before.name not in BY_VALUE or graph.behind(before) is None:
                break
            before = graph.before(before)
        if before is None or before is op or before.name != "TRANSPOSE":
            continue
        first, second = before.integers(1), op.integers(1)
        if first is None or second is None or len(first) != len(second):
            continue
        size = len(first)
        if sorted(first) == sorted(second) == [*range(size)] and np.array_equal(
            first[second], np.arange(size)
        ):
            yield _told("cancelling transposes", op, f"it undoes {_place(before)}")


def _duplicates(graph: _Graph) -> Iterator[dict]:
    copies: dict[bytes, dict[int, tuple[Operator, Tensor]]] = defaultdict(dict)
    sizes: dict[int, int] = {}
    for op in graph.operators:
        for tensor in op.inputs:
            if tensor is None or not tensor.constant or tensor.buffer in sizes:
                continue
            data = np.asarray(tensor.data, np.uint8).tobytes()
            sizes[tensor.buffer] = len(data)
            if len(data) > LEAST_BYTES:
                copies[sha256(data).digest()][tensor.buffer] = (op, tensor)
    for same in copies.values():
        (first, tensor), *others = same.values()
        wasted = len(others) * sizes[tensor.buffer]
        if others and wasted >= LEAST_SHARE * sum(sizes.values()):
            zeros = " zeros" if not np.any(tensor.data) else ""
            yield _told(
                "duplicate constants",
                others[0][0],
                f"{len(same)} equal constants of {sizes[tensor.buffer]:,} bytes{zeros}, the first "
                f"of {_place(first)}",
                wasted,
            )
