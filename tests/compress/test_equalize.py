"""Equalization changes ranges and nothing else."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kzoo.compress.apart import apart, linear_calls
from kzoo.compress.equalize import equalize, held_channels
from kzoo.compress.grid import on_grid
from kzoo.registry import list_models

QUICK = ("lenet_300_100", "resnet8", "ds_cnn", "mobilenet_v2_035", "shufflenet_v2_x0_5")
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in list_models()
]


@pytest.mark.parametrize("name", NAMES)
def test_no_logit_changes(name, network, difference):
    model = network(name)
    before = model.get_weights()
    assert difference(model, equalize(model)) < 1e-5
    assert all(map(np.array_equal, before, model.get_weights()))


def chain(seed: int = 0, act="relu"):
    """Convolution, depthwise, convolution, a skip, dense; activations inside the layers too."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    x = layers.Conv2D(8, 3, padding="same", activation=act, name="a")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation=act, name="b")(x)
    x = skip = layers.Conv2D(12, 3, 2, activation=act, name="c")(x)
    x = layers.SeparableConv2D(12, 3, padding="same", activation=act, name="d")(x)
    x = layers.Add(name="add")([x, skip])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(16, act, name="e")(x)
    model = keras.Model(image, layers.Dense(5, name="head")(x), name="chain")
    draw = np.random.default_rng(seed)
    for layer in model.layers:
        if layer.weights:
            *kernels, bias = layer.get_weights()
            layer.set_weights([*kernels, draw.normal(0, 0.1, bias.shape)])
    return model


def ranges(model) -> dict:
    """Layer -> (largest weight by input channel, by output channel)."""
    found = {}
    for node in linear_calls(model):
        kernel = np.abs(node.operation.get_weights()[0])
        kernel = kernel.reshape(-1, *kernel.shape[-2:]).max(0)
        deep = type(node.operation).__name__ == "DepthwiseConv2D"
        found[node.operation.name] = kernel.max(1), kernel.ravel() if deep else kernel.max(0)
    return found


def test_ranges_of_paired_channels_are_equal_afterwards(difference):
    model = chain()
    equal = equalize(model)
    assert difference(model, equal) < 1e-5
    found = ranges(equal)
    for first, second in (("a", "b"), ("b", "c"), ("d_depthwise", "d"), ("e", "head")):
        np.testing.assert_allclose(found[first][1], found[second][0], rtol=5e-3)
    # c and d are added: one factor, by the larger of each.
    written = np.maximum(found["c"][1], found["d"][1])
    np.testing.assert_allclose(
        written, np.maximum(found["d_depthwise"][0], found["e"][0]), rtol=5e-3
    )


@pytest.mark.parametrize("act", ["relu6", "sigmoid", "hard_silu"])
def test_what_passes_no_factor_on_is_left_alone_and_named(act, difference):
    model = chain(act=act)
    assert held_channels(chain()) == {}
    assert {*held_channels(model).values()} == {act}
    equal = equalize(model)
    assert difference(model, equal) < 1e-6
    for name in ("a", "b", "c"):
        assert np.array_equal(
            equal.get_layer(name).get_weights()[0], model.get_layer(name).get_weights()[0]
        )


def badly_scaled(model, seed: int = 1):
    """The same function; the channels between a, b and c, and e and head, by 1e-2 to 1e2."""
    model = apart(model)
    draw = np.random.default_rng(seed)
    for first, second in (("a", "b"), ("b", "c"), ("e", "head")):
        first, second = model.get_layer(first), model.get_layer(second)
        (kernel, bias), (reader, own) = first.get_weights(), second.get_weights()
        factor = 10 ** draw.uniform(-2, 2, len(bias))
        deep = type(first).__name__ == "DepthwiseConv2D"
        first.set_weights([kernel * (factor[:, None] if deep else factor), bias * factor])
        second.set_weights([reader / factor[:, None], own])
    return model


@pytest.mark.parametrize(("per", "bits"), [("tensor", 8), ("channel", 4)])
def test_badly_scaled_channels_break_rounding_and_equalization_repairs_it(per, bits, difference):
    def baked(model):
        model = apart(model)
        for node in linear_calls(model):
            kernel, bias = node.operation.get_weights()
            deep = type(node.operation).__name__ == "DepthwiseConv2D"
            kernel = on_grid(kernel, depthwise=deep, per=per, bits=bits)
            node.operation.set_weights([kernel, bias])
        return model

    good = chain()
    bad = badly_scaled(good)
    assert difference(good, bad) < 1e-5
    plain, broken, repaired = (difference(good, baked(each)) for each in (good, bad, equalize(bad)))
    assert broken > 5 * plain
    assert repaired < 2 * plain
