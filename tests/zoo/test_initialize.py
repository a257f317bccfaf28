"""Values drawn into a network that was laid out without them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kzoo.zoo.build import build
from kzoo.zoo.initialize import initialize, without_values


def drawn(initializer, shape: tuple[int, ...], dtype: str = "float32") -> keras.Variable:
    with without_values():
        variable = keras.Variable(initializer, shape=shape, dtype=dtype)
    keras.utils.set_random_seed(0)
    initialize([variable])
    return variable


@pytest.mark.parametrize("shape", [(300, 500), (3, 3, 64, 96), (5, 5, 960, 1)])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_weights_are_spread_as_keras_spreads_them(shape, mode):
    initializer = keras.initializers.VarianceScaling(1.7, mode, "uniform", seed=1)
    ours = keras.ops.convert_to_numpy(drawn(initializer, shape))
    theirs = keras.ops.convert_to_numpy(initializer(shape))
    assert abs(ours.mean()) < 0.02 * ours.std()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    assert ours.max() == pytest.approx(theirs.max(), rel=1e-3)
    assert ours.min() == pytest.approx(theirs.min(), rel=1e-3)
    assert np.unique(ours).size > 0.99 * ours.size


@pytest.mark.parametrize(
    "initializer", ["zeros", "ones", keras.initializers.Constant(1e-6), "orthogonal", "he_normal"]
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_any_initializer_and_type_is_kept(initializer, dtype):
    variable = drawn(initializer, (8, 6), dtype)
    assert variable.dtype == dtype
    values = keras.ops.convert_to_numpy(variable).astype("float32")
    assert np.isfinite(values).all()
    if initializer not in ("orthogonal", "he_normal"):
        expected = keras.Variable(initializer, shape=(8, 6), dtype=dtype)
        np.testing.assert_array_equal(values, keras.ops.convert_to_numpy(expected))


def test_keras_own_seed_decides_where_none_is_given():
    def first(seed):
        keras.utils.set_random_seed(seed)
        return build("lenet5").get_weights()[0]

    np.testing.assert_array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))


def test_weights_beyond_memory_are_not_tried():
    with without_values():
        variables = [keras.Variable("zeros", shape=(1 << 30, 1 << 10)) for _ in range(3)]
    with pytest.raises(MemoryError, match="13,194,139,533,312 bytes"):
        initialize(variables)
