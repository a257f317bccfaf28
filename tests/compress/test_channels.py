"""The laws of removing channels: what is left is the whole network, those channels unread."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.compress.channels import channels, reshaped
from kzoo.compress.narrow import narrowed, narrowed_counts
from kzoo.network.count import macs, parameters
from kzoo.network.model_file import load_model, save_model
from kzoo.registry import list_models

QUICK = (
    "lenet_300_100", "resnet8", "ds_cnn", "squeezenet1_1", "shufflenet_v2_x0_5", "alexnet",
)  # fmt: skip
"""Flattening, additions, depthwise, concatenation, shuffles and splits."""
ALL_STAY = {"row_lstm", "row_rnn"}
"""A recurrent layer is unknown, and there is nothing else."""
NAMES = [
    pytest.param(name, marks=() if name in (*QUICK, *ALL_STAY) else pytest.mark.slow)
    for name in list_models()
]


def some(found, seed: int = 0, share: float = 0.4) -> np.ndarray:
    """Which channels stay: a random part of those that may go, and one of each tensor at least."""
    keep = np.ones(len(found.root), bool)
    movable = np.flatnonzero(found.movable)
    keep[movable] = np.random.default_rng(seed).random(len(movable)) > share
    for numbers in found.of.values():
        roots = np.unique(found.root[numbers])
        keep[roots[0]] |= not keep[roots].any()
    return keep


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_computes_what_the_whole_does_without_reading_the_rest(
    name, network, unread, difference
):
    model = network(name)
    found = channels(model)
    keep = some(found)
    small = narrowed(found, keep)
    counted = parameters(small)[1], macs(small)
    assert counted == narrowed_counts(found, keep)
    assert narrowed_counts(found, np.ones(len(found.root), bool)) == (
        parameters(model)[1],
        macs(model),
    )
    if name in ALL_STAY:
        assert keep.all()
        assert set(found.unknown.values()) & {"LSTM", "SimpleRNN"}
        return
    assert counted[0] < 0.9 * parameters(model)[1]
    assert difference(unread(found, keep), small) < 1e-5
    assert [each.shape for each in small.outputs] == [each.shape for each in model.outputs]


@pytest.mark.parametrize("name", ["resnet8", "shufflenet_v2_x0_5"])
def test_removed_channels_stay_gone_through_a_file(name, network, difference, tmp_path):
    found = channels(network(name))
    small = narrowed(found, some(found))
    again = load_model(save_model(small, tmp_path / "small.keras"))
    assert [w.shape for w in again.weights] == [w.shape for w in small.weights]
    assert difference(small, again) == 0


def conv(x, filters, **options):
    import keras

    return keras.layers.Conv2D(filters, 3, padding="same", **options)(x)


def residual(x):
    import keras

    y = conv(x, 8, name="a")
    return keras.layers.Add()([y, conv(keras.layers.ReLU()(y), 8, name="b")])


def gated(x):
    import keras

    y = conv(x, 8, name="a")
    one = keras.layers.Conv2D(1, 1, activation="sigmoid", name="gate")(y)
    return keras.layers.Multiply()([y, one])


def group_normalized(x):
    import keras

    return keras.layers.GroupNormalization(4)(conv(x, 16, name="a"))


def layer_normalized(x):
    import keras

    return keras.layers.LayerNormalization()(conv(x, 8, name="a"))


def grouped(x):
    return conv(conv(x, 8, name="a"), 12, groups=2, name="b")


def shared(x):
    import keras

    layer = keras.layers.Conv2D(6, 3, padding="same", name="twice")
    x = conv(x, 6, name="a")
    return layer(layer(x))


def separable(x):
    import keras

    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(conv(x, 6, name="a"))
    x = keras.layers.SeparableConv2D(10, 3, depth_multiplier=3)(x)
    return keras.layers.PReLU(shared_axes=[1, 2])(x)


def nested(x):
    import keras

    inside = keras.Input((16, 16, 8))
    model = keras.Model(inside, conv(inside, 12, name="b"))
    return model(conv(x, 8, name="a"))


def own_layer(x):
    import keras

    class Reverse(keras.layers.Layer):
        def call(self, x):
            return x[..., ::-1]

    return Reverse(name="reverse")(conv(x, 8, name="a"))


@pytest.mark.parametrize(
    ("body", "together"),
    # What may go, as (how many decisions, of how many channels): of the body and the last conv.
    [
        (residual, 8), (gated, 8), (group_normalized, 4), (layer_normalized, 0), (shared, 6),
        (grouped, 10),
        (separable, 16), (nested, 20), (own_layer, 0),
    ],
)  # fmt: skip
def test_what_must_go_together_does(body, together, unread, difference):
    import keras

    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(body(image))
    model = keras.Model(image, keras.layers.Dense(5)(x))
    found = channels(model)
    assert found.movable.sum() == together
    keep = some(found, share=0.5)
    small = narrowed(found, keep)
    assert difference(unread(found, keep), small) < 1e-5
    assert narrowed_counts(found, keep) == (parameters(small)[1], macs(small))
    unknown = {layer_normalized: "LayerNormalization", own_layer: "Reverse"}
    assert [*found.unknown.values()] == ([unknown[body]] if body in unknown else [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((4, 4, 6), (96,)), ((4, 4, 6), (16, 2, 3)), ((16, 3, 2), (4, 4, 6)),
        ((4, 4, 6), (4, 4, 6)), ((1, 1, 6), (6,)), ((6,), (1, 1, 6)), ((4, 1, 6), (4, 6, 1)),
        ((2, 6), (3, 4)),
    ],
)  # fmt: skip
def test_numbers_are_reshaped_as_the_tensor_is(old, new):
    numbers = np.arange(old[-1]).reshape((1,) * (len(old) - 1) + (old[-1],))
    found = reshaped(numbers, old, new)
    wanted = np.broadcast_to(numbers, old).reshape(new)
    np.testing.assert_array_equal(np.broadcast_to(found, new), wanted)
