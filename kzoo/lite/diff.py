"""What two .tflite files have in common, and where they part: operators, dtypes, scales, weights.

The operators of both are matched in order by their name and their Keras layer.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path

from kzoo.child import blame, call
from kzoo.lite.inspect import constant_weights, operator_rows, read
from kzoo.lite.tflite_file import tflite_file

LEAST_CHANGE = 0.01
"""Scales are told that differ by more than this share of the larger one; zero points, of a byte."""
PLAIN = ("file", "sha256", "bytes", "gzip_bytes", "operators", "tensors", "notes", "metadata")


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
    found = []
    for each in (file, other):
        tflite_file(each)
        # One after the other, so that a crash is blamed on the file that it is due to.
        with blame(f"{each} cannot be read"):
            found.append(call("kzoo.lite.inspect:read", file=str(each), tensors=True, packed=False))
    with blame(f"{file} and {other} cannot be compared"):
        weights = call("kzoo.lite.diff:equal_weights", files=[str(file), str(other)])
    return _difference(found, weights)
