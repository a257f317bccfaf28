"""The time of a file's operators as tables and pages show it: by layer, by kind, beside another's.

``operators`` is that of the record of `kzoo.profile` with ``ops``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

FAMILIES = {
    "convolution": ("CONV_2D", "TRANSPOSE_CONV", "CONV_3D"),
    "depthwise": ("DEPTHWISE_CONV_2D",),
    "dense": ("FULLY_CONNECTED", "BATCH_MATMUL", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
    "arithmetic": (
        "ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "RSQRT", "SQRT",
        "SQUARE", "POW", "NEG", "ABS", "EXP", "LOG",
    ),
    "activation": (
        "RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "HARD_SWISH", "TANH", "GELU", "ELU", "PRELU",
        "LEAKY_RELU", "SOFTMAX", "LOG_SOFTMAX",
    ),
    "pooling": ("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "SUM", "REDUCE_MAX"),
}  # fmt: skip
"""What kinds of operators are drawn in one colour; the rest moves or converts values."""
MOVING, UNMAPPED = "moving, converting", "of the delegate alone"
TIMED_US = 10.0
"""A shorter layer's rate is no peak: the clock's step is too large a part of its time."""
BYTES = ("weight_bytes", "read_bytes", "written_bytes")


def family(operator: Mapping) -> str:
    """What an operator is drawn as."""
    if operator["node"] is None:
        return UNMAPPED
    return next((name for name, of in FAMILIES.items() if operator["kind"] in of), MOVING)


def by_layer(operators: Sequence[Mapping]) -> list[dict]:
    """Neighbours of one Keras layer as one row, in the order in which they ran.

    Returns:
        Rows with ``layer`` (what is not mapped has its operator's name) and ``layers``; ``kinds``,
        ``names`` and the ``family`` of the longest; ``us`` and ``share``; ``macs`` and ``bytes``,
        0 where they are unknown; ``shape`` and ``dtype`` of the last output.
    """
    rows = []
    for _, group in itertools.groupby(enumerate(operators), _place):
        found = [operator for _, operator in group]
        longest = max(found, key=lambda each: each["us"])
        rows.append(
            {
                "layer": found[0]["layer"] or found[0]["name"],
                "layers": list(dict.fromkeys(name for each in found for name in each["layers"])),
                "kinds": list(dict.fromkeys(each["kind"] for each in found)),
                "names": list(dict.fromkeys(each["name"] for each in found)),
                "family": family(longest),
                "us": sum(each["us"] for each in found),
                "share": sum(each["share"] for each in found),
                "macs": sum(each["macs"] or 0 for each in found),
                "bytes": sum(moved(each) for each in found),
                "shape": found[-1]["shape"],
                "dtype": found[-1]["dtype"],
            }
        )
    return rows


def _place(numbered: tuple[int, Mapping]) -> object:
    place, operator = numbered
    return operator["layer"] or place  # what is not mapped stands alone


def moved(operator: Mapping) -> int:
    """Bytes of weights, inputs and outputs, each once."""
    return sum(operator[key] or 0 for key in BYTES)


def by_kind(operators: Sequence[Mapping]) -> list[dict]:
    """Totals, the longest first: ``kind``, ``family``, ``count``, ``us``, ``share`` of the time,
    ``macs``, and ``mac_share`` of all MACs."""
    macs = sum(each["macs"] or 0 for each in operators)
    rows: dict[str, dict] = {}
    for each in operators:
        row = rows.setdefault(
            each["kind"],
            {"kind": each["kind"], "family": family(each), "count": 0, "us": 0.0, "share": 0.0,
             "macs": 0},
        )  # fmt: skip
        row["count"] += each["node"] is None or each["macs"] is not None  # its first event
        row["us"] += each["us"]
        row["share"] += each["share"]
        row["macs"] += each["macs"] or 0
    found = [row | {"mac_share": row["macs"] / macs if macs else 0.0} for row in rows.values()]
    return sorted(found, key=lambda row: -row["us"])


def peaks(layers: Sequence[Mapping]) -> dict:
    """The best rates that layers of 10 us or more reach: ``macs`` and ``bytes`` per second.

    Args:
        layers: rows of `by_layer`.
    """
    timed = [each for each in layers if each["us"] >= TIMED_US]
    return {
        rate: max((1e6 * each[rate] / each["us"] for each in timed), default=0.0)
        for rate in ("macs", "bytes")
    }


def pair_of(records: Sequence[Mapping]) -> list[Mapping]:
    """The measured records with operators if they are two, else []: none is beside an emulated."""
    found = [each for each in records if each.get("operators") and each["kind"] == "measured"]
    return found if len(found) == 2 else []


def side_by_side(first: Sequence[Mapping], second: Sequence[Mapping]) -> list[dict]:
    """The layers of two files, matched in order by their Keras layer.

    Args:
        first, second: rows of `by_layer`.

    Returns:
        Rows with ``layer``, ``kinds``, ``family``, and ``us``, a pair in which None stands for a
        file without it.
    """
    names = [[row["layer"] for row in rows] for rows in (first, second)]
    pairs = []
    for kind, a, a_end, b, b_end in SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        if kind == "equal":
            pairs += zip(first[a:a_end], second[b:b_end], strict=True)
        else:
            pairs += [(row, None) for row in first[a:a_end]]
            pairs += [(None, row) for row in second[b:b_end]]
    return [
        {
            "layer": (one or other)["layer"],
            "kinds": list(dict.fromkeys(k for row in (one, other) if row for k in row["kinds"])),
            "family": (one or other)["family"],
            "us": [row and row["us"] for row in (one, other)],
        }
        for one, other in pairs
    ]
