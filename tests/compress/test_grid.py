"""The grid is the exporter's: what lies on it is written bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.compress.grid import levels, on_grid, rounded, scales
from kzoo.errors import UsageError

SHAPES = {
    "conv": ((3, 3, 4, 6), False),
    "depthwise": ((3, 3, 6, 2), True),
    "dense": ((9, 5), False),
}


@pytest.fixture(params=SHAPES)
def kernel(request):
    shape, depthwise = SHAPES[request.param]
    return np.random.default_rng(0).normal(0, 0.2, shape).astype(np.float32), depthwise


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_no_weight_moves_by_more_than_half_a_step_and_the_largest_not_at_all(kernel, bits, per):
    values, depthwise = kernel
    scale = scales(values, depthwise=depthwise, per=per, bits=bits)
    found = on_grid(values, depthwise=depthwise, per=per, bits=bits)
    assert (np.abs(found - values) <= scale * 0.5001).all()
    assert np.abs(rounded(values, scale, bits=bits)).max() == levels(bits)
    assert np.abs(found).max() == pytest.approx(np.abs(values).max(), rel=1e-6)
    # What lies on the grid stays, in whole numbers.
    again = scales(found, depthwise=depthwise, per=per, bits=bits)
    assert np.array_equal(rounded(found, again, bits=bits), rounded(values, scale, bits=bits))
    channels = values.shape[-2] * values.shape[-1] if depthwise else values.shape[-1]
    assert scale.size == (channels if per == "channel" else 1)


def test_a_channel_of_zeros_stays():
    assert not on_grid(np.zeros((3, 3, 2, 2), np.float32)).any()


@pytest.mark.parametrize("bits", [1, 9, 4.5])
def test_other_grids_are_refused(bits):
    with pytest.raises(UsageError, match="bits"):
        levels(bits)
