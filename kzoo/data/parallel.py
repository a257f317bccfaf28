"""One function over many files, on all cores, with the results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kzoo.environment import cores

BATCH = 256
MAX_THREADS = 16  # each may hold an image of 64 megapixels
Value = TypeVar("Value")
Result = TypeVar("Result")


def in_order(function: Callable[[Value], Result], values: Sequence[Value]) -> Iterator[Result]:
    """As ``map``, in threads: Pillow and hashlib release the GIL.

    A batch at a time, so that behind a slow disk decoded images do not pile up in memory.
    """
    with ThreadPoolExecutor(min(cores(), MAX_THREADS)) as pool:
        for start in range(0, len(values), BATCH):
            yield from pool.map(function, values[start : start + BATCH])
