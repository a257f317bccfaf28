"""What Coral's compiler wrote into a .tflite: the parts for the Edge TPU, what is left on the CPU.

A part is one custom operator, whose options are a flexbuffer map with a package of the Edge TPU's
runtime (libedgetpu: tflite/custom_op_data.cc, executable/executable.fbs).
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from flatbuffers import encode, flexbuffers, number_types, table

from kzoo.child import blame, call
from kzoo.lite.tflite_file import blaming_file, tflite_file

CUSTOM = "edgetpu-custom-op"
PACKAGE = "4"
"""Its key in the map."""
MIN_RUNTIME = 4
"""Where a package's table tells the offset of ``min_runtime_version``, its first field."""


@dataclass(frozen=True)
class Compiled:
    """What `compiled` found.

    Attributes:
        parts: how many parts run on the Edge TPU; 0 if the file is not compiled.
        min_runtime: the oldest version of the Edge TPU's runtime that takes them, if it is told.
        left: operator → how many are left on the CPU.
    """

    parts: int
    min_runtime: int | None
    left: dict[str, int]


def compiled(file: str | os.PathLike) -> Compiled:
    """Looks into a .tflite file, in a child process.

    Raises:
        MissingError: there is no such file.
        BadInputError: it is no .tflite, or damaged.
    """
    tflite_file(file)
    with blame(f"{file} cannot be read"):
        return Compiled(**call("kzoo.lite.edgetpu:read", file=str(file)))


@blaming_file
def read(file: str) -> dict:
    """In the child process: the fields of a `Compiled`."""
    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(Path(file).read_bytes(), file)
    left, versions = Counter(), []
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = flatbuffer.operator(model, operator)
            if name == CUSTOM:
                versions.append(_min_runtime(bytes(operator.customOptions)))
            else:
                left[name] += 1
    told = [version for version in versions if version is not None]
    return {
        "parts": len(versions),
        "min_runtime": max(told, default=None),
        "left": dict(sorted(left.items())),
    }


def _min_runtime(options: bytes) -> int | None:
    package = flexbuffers.GetRoot(options).AsMap[PACKAGE]
    # Not AsString: it is no text.
    content = bytes(flexbuffers.String(package._Indirect(), package._byte_width).Bytes)
    root = encode.Get(number_types.UOffsetTFlags.packer_type, content, 0)
    fields = table.Table(content, root)
    place = fields.Offset(MIN_RUNTIME)
    return fields.Get(number_types.Int32Flags, fields.Pos + place) if place else None
