"""Which operator of a file an operator inside XNNPACK is.

XNNPACK numbers its operators in each part of the network that it was given, and calls them by names
of its own: a 1x1 convolution is a fully connected layer there. What it fuses has no event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ELEMENTWISE = ("ADD", "DIV", "MUL", "SUB")
CONVERTED = ("Static Reshape", "Convert|Dynamic", "Convolution|Fully Connected")
"""A float layer with weights of 8 bits or fewer: its input is rounded first."""
BECOMES: dict[str, tuple[str, ...]] = {
    "ABS": ("Abs",),
    "ADD": ("Add",),
    "AVERAGE_POOL_2D": ("Average Pooling|Global Average|Mean",),
    "BATCH_MATMUL": ("Batch Matrix",),
    "CAST": ("Convert",),
    "CEIL": ("Ceiling",),
    "CONCATENATION": ("Concatenate|Copy",) * 4,
    "CONV_2D": (r"Convolution(?!.*DWConv)",),
    "COS": ("Cosine",),
    "DEPTHWISE_CONV_2D": ("Convolution",),
    "DEPTH_TO_SPACE": ("Depth To Space",),
    "DEQUANTIZE": ("Convert",),
    "DIV": ("Divide",),
    "ELU": ("ELU|Elu",),
    "EXP": ("Exp",),
    "EXPAND_DIMS": ("Static Reshape|Copy",),
    "FLOOR": ("Floor",),
    "FULLY_CONNECTED": ("Static Reshape", "Fully Connected"),
    "GELU": ("Gelu|GELU",),
    "HARD_SWISH": ("HardSwish|Hardswish|Hard Swish",),
    "LEAKY_RELU": ("Leaky ReLU|LeakyReLU",),
    "LOG": ("Log",),
    "LOGISTIC": ("Sigmoid",),
    "MAXIMUM": ("Maximum",),
    "MAX_POOL_2D": ("Max Pooling",),
    "MEAN": ("Mean|Global Average",),
    "MINIMUM": ("Minimum",),
    "MUL": ("Multiply",),
    "NEG": ("Negate",),
    "PAD": ("Constant Pad",),
    "PADV2": ("Constant Pad",),
    "PRELU": ("PReLU|Prelu",),
    "QUANTIZE": ("Convert",),
    "RELU": ("Clamp",),
    "RELU6": ("Clamp",),
    "RELU_N1_TO_1": ("Clamp",),
    "RESHAPE": ("Static Reshape|Reshape|Copy",),
    "RESIZE_BILINEAR": ("Resize Bilinear",),
    "RSQRT": ("Reciprocal Square Root|Rsqrt",),
    "SIN": ("Sine",),
    "SLICE": ("Static Slice|Slice",),
    "SOFTMAX": ("Softmax",),
    "SPACE_TO_DEPTH": ("Space To Depth",),
    "SPLIT": ("Even Split|Static Slice|Slice|Copy",) * 4,
    "SQRT": ("Square Root",),
    "SQUARE": ("Square$|Square ",),
    "SQUARED_DIFFERENCE": ("Squared Difference",),
    "STRIDED_SLICE": ("Static Slice|Slice",),
    "SUB": ("Subtract",),
    "SUM": ("Sum",),
    "TANH": ("Tanh",),
    "TRANSPOSE": ("Transpose|Copy|Static Reshape",),
    "TRANSPOSE_CONV": ("Deconvolution",),
}
"""TensorFlow Lite's operator → the beginnings of the names of those that it may become, in order.
Where it has no event of one of them, that one was fused, or there was nothing to do."""


def pieces(row: dict) -> tuple[str, ...]:
    """What an operator of a file may become; its row is one of `kzoo.lite.work.read`."""
    kind = row["operator"]
    found = BECOMES.get(kind, ())
    if kind in ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D"):
        if row["dtype"] == "float32" and row["weight_dtype"] in ("int8", "int4", "int2"):
            return CONVERTED
        if kind == "CONV_2D" and row["kernel"][1:3] == [1, 1]:
            return (f"{found[0]}|Fully Connected",)
    if kind in ELEMENTWISE and row["activation"]:
        return (*found, "Clamp")
    return found


def parts(rows: Sequence[dict], apart: set[int]) -> list[list[int]]:
    """The operators in the order of their execution, in runs of those of a delegate and others.

    A delegate gets, again and again, all that it takes and that can run by then. Source: the
    partitioning of TensorFlow Lite, ``graph_info.cc``.

    Args:
        rows: of `kzoo.lite.work.read`.
        apart: the numbers of those that no delegate has.
    """
    left, done, found = list(rows), {-1}, []
    while left:
        part: list[int] = []
        for row in left:
            index = row["index"]
            alike = not part or (index in apart) == (part[0] in apart)
            if alike and done.issuperset(row["inputs"]):
                part.append(index)
                done.add(index)
        if not part:
            break
        found.append(part)
        left = [row for row in left if row["index"] not in done]
    return found


def assigned(names: Sequence[str], rows: Sequence[dict]) -> list[int | None]:
    """Of each operator of a part inside XNNPACK, in order, the operator of the file; None: unsure.

    As many as can be are laid over the file's operators in order. One is sure that lies on the same
    operator however that is done.
    """
    slots = [(row["index"], piece) for row in rows for piece in pieces(row)]
    fits = [[bool(re.match(piece, name)) for _, piece in slots] for name in names]
    before = _longest(fits, len(slots))
    after = [line[::-1] for line in _longest([line[::-1] for line in fits[::-1]], len(slots))[::-1]]
    most = before[-1][-1]
    found: list[int | None] = []
    for i in range(len(names)):
        on = {
            slots[j][0]
            for j in range(len(slots))
            if fits[i][j] and before[i][j] + 1 + after[i + 1][j + 1] == most
        }
        free = any(before[i][j] + after[i + 1][j] == most for j in range(len(slots) + 1))
        found.append(on.pop() if len(on) == 1 and not free else None)
    return found


def _longest(fits: Sequence[Sequence[bool]], width: int) -> list[list[int]]:
    """[i][j]: how many pairs the first i and the first j can make in order."""
    found = [[0] * (width + 1)]
    for line in fits:
        last, row = found[-1], [0]
        for j, fit in enumerate(line):
            row.append(max(row[j], last[j + 1], last[j] + 1 if fit else 0))
        found.append(row)
    return found


def groups(indices: Iterable[int]) -> list[list[int]]:
    """Places in a list of numbers that each part of a delegate begins at 0 again, part by part."""
    found: list[list[int]] = []
    last = -1
    for place, index in enumerate(indices):
        if not found or index <= last:
            found.append([])
        found[-1].append(place)
        last = index
    return found
