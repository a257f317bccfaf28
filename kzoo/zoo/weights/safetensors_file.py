"""``.safetensors``: a JSON header of names, dtypes, shapes and offsets, then the numbers.

As strict as the format's own reader: the arrays fill the rest of the file without gap or overlap.
"""

from __future__ import annotations

import json
import math
import mmap
import struct

import numpy as np

from kzoo.errors import BadInputError
from kzoo.zoo.weights.float32 import float32, float32_of_bits

MAX_HEADER = 100_000_000
"""Bytes, as in the format's own reader."""

BFLOAT16 = "BF16"
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", BFLOAT16: "<u2"}
OTHERS = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of the dtypes that are left out."""


def is_safetensors(data: mmap.mmap) -> bool:
    """Whether the file begins as one: the format has no magic number."""
    return data[8:9] == b"{" and struct.unpack("<Q", data[:8])[0] <= MAX_HEADER


def read_safetensors(data: mmap.mmap) -> dict[str, np.ndarray]:
    """The float tensors of a file that `is_safetensors`, in the order of its header."""
    start = 8 + struct.unpack("<Q", data[:8])[0]
    if start > len(data):
        raise BadInputError("the safetensors file is cut short in its header")
    try:
        header = json.loads(data[8:start], object_pairs_hook=_no_name_twice)
        header.pop("__metadata__", None)
        spans = {name: _span(**row) for name, row in header.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(f"the safetensors header is damaged ({error})") from error
    position = 0
    for begin, end in sorted((begin, end) for *_, begin, end in spans.values()):
        if begin != position:
            raise BadInputError(f"its tensors overlap or leave a gap at byte {position:,}")
        position = end
    if start + position != len(data):
        raise BadInputError(
            f"its tensors take {position:,} bytes and the file holds {len(data) - start:,}; "
            "it is cut short or damaged"
        )
    arrays = {}
    for name, (dtype, shape, begin, _) in spans.items():
        if dtype in FLOATS:
            view = np.frombuffer(data, FLOATS[dtype], math.prod(shape), start + begin)
            convert = float32_of_bits if dtype == BFLOAT16 else float32
            arrays[name] = convert(view.reshape(shape))
    return arrays


def _no_name_twice(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _span(dtype, shape, data_offsets, **_) -> tuple[str, tuple[int, ...], int, int]:
    begin, end = data_offsets
    if not all(type(n) is int and 0 <= n < 2**48 for n in (*shape, begin, end)) or len(shape) > 32:
        raise ValueError("a shape or an offset that is none")
    if dtype not in FLOATS and dtype not in OTHERS:
        raise ValueError(f"the dtype {dtype!r} is not read")
    itemsize = OTHERS.get(dtype) or np.dtype(FLOATS[dtype]).itemsize
    if math.prod(shape) * itemsize != end - begin:
        raise ValueError(f"{begin}:{end} are not the bytes of {dtype} {shape}")
    return dtype, tuple(shape), begin, end
