"""Sizes that are counted are what a coder reaches: Huffman's bounds, and a decoder's needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.compress.coding import coded_bits, coded_bytes, huffman_bits


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_a_huffman_code_is_within_a_bit_of_the_entropy(counts):
    total = sum(counts)
    entropy = -sum(c * math.log2(c / total) for c in counts)
    assert entropy - 1e-6 <= huffman_bits(np.array(counts)) < entropy + total


@pytest.mark.parametrize(
    ("counts", "bits"),
    [([5], 0), ([], 0), ([1, 1], 2), ([5, 9, 12, 13, 16, 45], 224), ([4, 2, 1, 1], 14)],
)
def test_known_codes(counts, bits):
    """The third is the example of Cormen et al., Introduction to Algorithms, section 16.3."""
    assert huffman_bits(np.array(counts)) == bits


def test_values_that_are_all_different_stay_as_they_are():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert coded_bits(values) == 32 * 1000


def test_shared_values_cost_their_codewords_and_their_table():
    values = np.repeat(np.float32([1, 2, 3, 4]), 250)
    assert coded_bits(values) == 2 * 1000 + 4 * 40


def test_few_values_among_zeros_cost_their_gaps_and_themselves():
    values = np.zeros(100_000, np.float32)
    values[99::100] = np.random.default_rng(0).normal(size=1000)
    # One gap, 99 zeros, in every place: a symbol that needs no bit; and the values as they are.
    assert coded_bits(values) == 32 * 1000 + 16
    far = np.zeros(10_000, np.float32)
    far[-1] = 1.0  # 9,999 zeros in front: 39 fillers of 256 places, and 15 zeros
    assert coded_bits(far) == huffman_bits(np.array([39, 1])) * 2 + 2 * 16 + 2 * 40


def test_a_tensor_of_zeros_costs_its_table():
    assert coded_bits(np.zeros(1000, np.float32)) == 0


def test_everything_that_is_no_kernel_counts_as_float(tiny):
    model = tiny()
    others = sum(np.size(w) for w in model.weights if w.name != "kernel")
    kernels = [w for w in model.weights if w.name == "kernel"]
    for kernel in kernels:
        kernel.assign(np.sign(kernel.numpy()))
    coded = coded_bytes(model) - 4 * others
    count = sum(np.size(kernel) for kernel in kernels)
    assert count / 8 <= coded <= count / 8 + 3 * 11


def test_whole_numbers_are_plain_at_their_own_width():
    values = np.arange(-100, 100).astype(np.int8)
    assert coded_bits(values, 8) == 8 * 200
    assert coded_bits(np.repeat(np.int8([1, 2, 3, 4]), 250), 8) == 2 * 1000 + 4 * 16
