"""What two .tflite files have in common, and where they part: operators, dtypes, scales, weights.

The operators of both are matched in order by their name and their Keras layer.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path

from kzoo.child import Worker, blame
from kzoo.lite.tflite_file import tflite_file

Pairs = list[tuple[int, int]]
"""Operators by their numbers, in the first file and in the second."""
OUTPUT = re.compile(r"(Identity|StatefulPartitionedCall)[_:]?(int8|\d*)")
"""What the converter calls what a file returns; quantizing the output moves the name along."""
LEAST_CHANGE = 0.01
"""Scales are told that differ by more than this share of the larger one; zero points, of a byte."""


@dataclass(frozen=True)
class Difference:
    """How a file differs from another; a pair is [of the first, of the second].

    Attributes:
        files, sha256: pairs: which.
        same: whether they are equal to the byte.
        sizes: pairs: ``bytes``, ``gzip_bytes``, ``peak_bytes``, and each of ``bytes_by_kind``.
        added, removed: ``{"operator", "layer", "shape"}`` that one file alone has.
        changed: of operators that both have, those with another shape: ``operator``, ``layer``, and
            a pair ``shape``; and those in whose place another stands for the same layer, which
            have a pair ``operator``.
        dtypes: of operators that both have: ``operator``, ``layer``, and a pair ``dtype``.
        scales: of operators that both have with the same dtype: ``operator``, ``layer``, and pairs
            ``scale`` and ``zero_point``, where one differs by more than 1 %.
        weights: of kernels that both have: ``operator``, ``layer``, a pair ``dtype``, and
            ``equal``, the share of equal bytes; None of another dtype or size.
        ports: "input" and "output" → a pair, where they differ.
        notes: what kzoo wrote → a pair, where they differ; None where one file has none.
        metadata: the same for standard metadata, signatures, and the oldest runtime.
    """

    files: list[str]
    sha256: list[str]
    same: bool
    sizes: dict[str, list[int]]
    added: list[dict]
    removed: list[dict]
    changed: list[dict]
    dtypes: list[dict]
    scales: list[dict]
    weights: list[dict]
    ports: dict[str, list[dict]]
    notes: dict[str, list]
    metadata: dict[str, list]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def diff(file: str | os.PathLike, other: str | os.PathLike) -> Difference:
    """Compares two .tflite files, in a child process; neither is run.

    Args:
        file: the first.
        other: the second.

    Raises:
        MissingError: one of them does not exist.
        BadInputError: one is no .tflite, or damaged.
    """
    files = [str(file), str(other)]
    with contextlib.closing(Worker()) as child:
        found = []
        for each in files:
            tflite_file(each)
            # One after the other, so that a crash is blamed on the file that it is due to.
            with blame(f"{each} cannot be read"):
                found.append(
                    child.call("kzoo.lite.inspect:read", file=each, tensors=True, packed=False)
                )
        rows = [each["tensors"] for each in found]
        both, changed = matched(*rows)
        with blame(f"{files[0]} and {files[1]} cannot be compared"):
            weights = child.call("kzoo.lite.diff:equal_weights", files=files, both=both)
    return _difference(found, both, changed, weights)


def matched(rows: list[dict], others: list[dict]) -> tuple[Pairs, Pairs]:
    """The operators of two files that are the same one, and those that took another's place.

    Args:
        rows: of the first file, see ``tensors`` of `kzoo.lite.inspect.Contents`.
        others: of the second.

    Returns:
        Pairs of equal name and layer, and pairs of equal layer alone. Both are in order: a layer
        that moved behind another is in one of the files alone.
    """
    layers = [
        ["" if OUTPUT.fullmatch(row["layer"]) else row["layer"] for row in each]
        for each in (rows, others)
    ]
    keys = [
        [(row["operator"], layer) for row, layer in zip(each, named, strict=True)]
        for each, named in zip((rows, others), layers, strict=True)
    ]
    both, changed = [], []
    for kind, a, a_end, b, b_end in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if kind == "equal":
            both += zip(range(a, a_end), range(b, b_end), strict=True)
        elif kind == "replace":
            start = b
            for number in range(a, a_end):
                at = (i for i in range(start, b_end) if layers[1][i] == layers[0][number])
                if (place := next(at, None)) is not None:
                    changed.append((number, place))
                    start = place + 1
    return both, changed


def equal_weights(files: list[str], both: Pairs) -> list[dict]:
    """In the child: ``operator`` (of the first file), ``dtype`` and ``equal`` of each kernel."""
    import numpy as np

    from kzoo.lite import flatbuffer
    from kzoo.lite.inspect import constant_weights

    models = [flatbuffer.parse(Path(file).read_bytes(), file) for file in files]
    stored = [constant_weights(model) for model in models]
    found = []
    for pair in both:
        if not all(number in of for number, of in zip(pair, stored, strict=True)):
            continue
        tensors = [
            model.subgraphs[0].tensors[of[number]]
            for number, of, model in zip(pair, stored, models, strict=True)
        ]
        first, second = (
            np.asarray(model.buffers[tensor.buffer].data, np.uint8)
            for tensor, model in zip(tensors, models, strict=True)
        )
        dtypes = [flatbuffer.DTYPES[tensor.type] for tensor in tensors]
        alike = dtypes[0] == dtypes[1] and len(first) == len(second)
        equal = float((first == second).mean()) if alike else None
        found.append({"operator": pair[0], "dtype": dtypes, "equal": equal})
    return found


def _difference(found: list[dict], both: Pairs, changed: Pairs, weights: list[dict]) -> Difference:
    first, second = found
    rows, others = first["tensors"], second["tensors"]
    pairs = [(rows[a], others[b]) for a, b in both]
    places = [{pair[side] for pair in both + changed} for side in (0, 1)]
    alone = [
        [
            {key: row[key] for key in ("operator", "layer", "shape")}
            for row in each["tensors"]
            if row["index"] not in taken
        ]
        for each, taken in zip(found, places, strict=True)
    ]
    replaced = [_pair(rows[a], others[b], "operator") for a, b in changed]
    sizes = {key: [each[key] for each in found] for key in ("bytes", "gzip_bytes", "peak_bytes")}
    for kind in dict.fromkeys([*first["bytes_by_kind"], *second["bytes_by_kind"]]):
        sizes[kind] = [each["bytes_by_kind"].get(kind, 0) for each in found]
    standard = [
        {**each["metadata"], "signatures": each["signatures"], "min_runtime": each["min_runtime"]}
        for each in found
    ]
    return Difference(
        files=[each["file"] for each in found],
        sha256=[each["sha256"] for each in found],
        same=first["sha256"] == second["sha256"],
        sizes=sizes,
        added=alone[1],
        removed=alone[0],
        changed=[_pair(a, b, "shape") for a, b in pairs if a["shape"] != b["shape"]] + replaced,
        dtypes=[_pair(a, b, "dtype") for a, b in pairs if a["dtype"] != b["dtype"]],
        scales=[_pair(a, b, "scale", "zero_point") for a, b in pairs if _rescaled(a, b)],
        weights=[
            {**each, **{key: rows[each["operator"]][key] for key in ("operator", "layer")}}
            for each in weights
        ],
        ports=_parting(*({key: each[key] for key in ("input", "output")} for each in found)),
        notes=_parting(first["notes"], second["notes"]),
        metadata=_parting(*standard),
    )


def _pair(row: dict, other: dict, *keys: str) -> dict:
    """The operator that two rows are of, with what each of them says of it."""
    return {
        "operator": row["operator"],
        "layer": row["layer"],
        **{key: [row[key], other[key]] for key in keys},
    }


def _rescaled(row: dict, other: dict) -> bool:
    if row["dtype"] != other["dtype"] or None in (row["scale"], other["scale"]):
        return row["dtype"] == other["dtype"] and row["scale"] != other["scale"]
    scales, points = (row["scale"], other["scale"]), (row["zero_point"], other["zero_point"])
    larger = max(map(abs, scales))
    return (
        abs(scales[0] - scales[1]) > LEAST_CHANGE * larger
        or abs(points[0] - points[1]) > LEAST_CHANGE * 256
    )


def _parting(first: dict, second: dict) -> dict[str, list]:
    """The entries that differ, as pairs; one that stands in one of both alone has a None."""
    pairs = {name: [first.get(name), second.get(name)] for name in {**first, **second}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
