"""How few bits weights take: Huffman codes of shared values, and of the gaps between zeros.

Han et al. 2016 (arXiv:1510.00149), sections 2 and 4. What a decoder needs is counted: each kernel's
values, and the lengths of its codewords, a byte each (canonical codes need no more).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.kernels import kernels_of

if TYPE_CHECKING:
    import keras

LONGEST_GAP = 255
"""A longer gap takes a filler, a zero that is stored."""


def coded_bytes(model: keras.Model) -> int:
    """Bytes of all weights of a model: kernels in their shortest form, all others as float32."""
    kernels = {id(each.variable): each.values for each in kernels_of(model, include=[""])}
    others = sum(int(np.prod(w.shape)) for w in model.weights if id(w) not in kernels)
    return 4 * others + sum(-(-coded_bits(values) // 8) for values in kernels.values())


def coded_bits(values: np.ndarray, bits: int = 32) -> int:
    """Bits of one tensor in the shortest of four forms.

    Plain; by codewords of its distinct values; and, with zeros left out, plain or by codewords,
    with codewords of the gaps between what is left.

    Args:
        values: float32, or what float32 holds exactly.
        bits: of one value in the plain form.
    """
    values = np.asarray(values, np.float32).ravel()
    left = np.flatnonzero(values)
    steps = np.diff(left, prepend=-1) - 1  # zeros in front of each
    fillers = int((steps // (LONGEST_GAP + 1)).sum())
    gaps = np.bincount(steps % (LONGEST_GAP + 1)) if len(left) else np.zeros(0, int)
    if fillers:
        gaps = np.pad(gaps, (0, LONGEST_GAP + 1 - len(gaps)))
        gaps[LONGEST_GAP] += fillers
    stored = np.concatenate([values[left], np.zeros(fillers, np.float32)])
    return min(
        bits * len(values),
        _by_codewords(values, bits),
        _table(gaps, 8) + min(bits * len(stored), _by_codewords(stored, bits)),
    )


def _by_codewords(values: np.ndarray, bits: int) -> int:
    counts = np.unique(values, return_counts=True)[1]
    # Of many distinct values the table alone is longer than the values, and the code slow to make.
    table = len(counts) * (bits + 8)
    return table if table >= bits * len(values) else _table(counts, bits)


def _table(counts: np.ndarray, bits: int) -> int:
    """Bits of symbols that occur so often, with their table: value and length of each."""
    counts = counts[counts > 0]
    return huffman_bits(counts) + len(counts) * (bits + 8)


def huffman_bits(counts: np.ndarray) -> int:
    """Bits of a text under its Huffman code (Huffman 1952), from how often each symbol occurs.

    Every merge of two nodes puts a bit in front of all symbols below. One symbol alone needs none:
    the shape tells how often it occurs.
    """
    heap = [int(count) for count in counts if count]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        bits += merged
        heapq.heappush(heap, merged)
    return bits
