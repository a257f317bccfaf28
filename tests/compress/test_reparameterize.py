"""Branches merged into plain convolutions: the same logits, the papers' parameter counts."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from kzoo.compress.reparameterize import reparameterize
from kzoo.data.load import load_data
from kzoo.lite.convert import convert
from kzoo.lite.quantize import quantize
from kzoo.network.count import macs, parameters
from kzoo.network.model_file import load_model, save_model
from kzoo.registry import LAYER_NAME
from kzoo.zoo.build import build

PAPERS = {"repvgg_a0": (8_309_384, 1_361_451_008), "mobileone_s0": (2_078_504, 275_110_400)}
"""Parameters and MACs deployed. RepVGG's table 4 has 8.30 M and 1.4 G (its model zoo and
mmpretrain 8.31 M, 1.36 G), MobileOne's table 3 has 2.1 M and 275 M."""

THIN = {
    "repvgg_a0": {"blocks": (2, 1, 2, 1), "a": 0.25, "b": 0.125},
    "mobileone_s0": {"blocks": (1, 2, 1, 1), "widths": (8, 8, 16, 32), "k": 2},
}


@pytest.fixture(scope="module")
def deployed(shaken):
    """deployed(name): a network as its row has it and its deployed form; not to be changed."""
    found = {}

    def make(name: str):
        if name not in found:
            model = shaken(build(name, seed=0))
            before = [np.array(weight) for weight in model.get_weights()]
            found[name] = model, reparameterize(model)
            assert all(map(np.array_equal, before, model.get_weights()))
        return found[name]

    return make


def thin(name: str, shaken, **options) -> keras.Model:
    settings = {"size": 32, "channels": 1, "classes": 10, "seed": 0} | THIN[name] | options
    return shaken(build(name, **settings))


def kinds(model) -> Counter:
    return Counter(type(layer).__name__ for layer in model.layers)


zoo = pytest.mark.parametrize("name", PAPERS)


@zoo
def test_the_logits_are_the_same(name, deployed, difference):
    assert difference(*deployed(name)) < 1e-4


@zoo
def test_the_counts_are_the_paper_s(name, deployed):
    model = deployed(name)[1]
    assert (*parameters(model), macs(model)) == (PAPERS[name][0], *PAPERS[name])


@zoo
def test_only_plain_convolutions_are_left_named_by_the_rule(name, deployed):
    model, plain = deployed(name)
    assert set(kinds(plain)) <= {
        "InputLayer", "Rescaling", "ZeroPadding2D", "Conv2D", "DepthwiseConv2D", "Activation",
        "GlobalAveragePooling2D", "Dense",
    }  # fmt: skip
    convolutions = kinds(plain)["Conv2D"] + kinds(plain)["DepthwiseConv2D"]
    assert convolutions == kinds(model)["Add"] == kinds(plain)["Activation"]
    assert all(LAYER_NAME.fullmatch(layer.name) for layer in plain.layers[1:])
    first = "stage1_2_depthwise_conv" if name == "mobileone_s0" else "stage1_2_conv"
    assert plain.get_layer(first).use_bias


@zoo
@pytest.mark.parametrize(
    "options",
    [{"flavour": "keras"}, {"flavour": "keras", "size": (37, 44)}, {"norm": "none"}],
    ids=str,
)
def test_every_flavour_merges_at_every_size(name, options, shaken, difference):
    model = thin(name, shaken, **options)
    plain = reparameterize(model)
    assert difference(model, plain) < 1e-4
    assert not kinds(plain).keys() & {"Add", "BatchNormalization"}


@zoo
def test_it_is_idempotent_saved_loaded_and_exported(name, shaken, difference, tmp_path):
    pytest.importorskip("tensorflow")
    plain = reparameterize(thin(name, shaken))
    again = reparameterize(plain)
    assert [layer.get_config() for layer in again.layers] == [
        layer.get_config() for layer in plain.layers
    ]
    assert all(map(np.array_equal, again.get_weights(), plain.get_weights()))
    path = save_model(plain, tmp_path / "m.keras")
    assert difference(plain, load_model(path)) == 0
    convert(path, tmp_path / "m.tflite")
    digits = load_data("digits", channels=1, size=32)
    contents = quantize(path, tmp_path / "m8.tflite", calibrate=digits, samples=20).contents
    assert contents.float_islands == []
    assert not any(name.startswith(("ADD", "MUL")) for name in contents.operators)


def test_normalization_by_the_image_keeps_the_branches(shaken, difference):
    model = thin("mobileone_s0", shaken, norm="layer")
    left = reparameterize(model)
    assert difference(model, left) < 1e-6
    assert kinds(left) == kinds(model)


KERNELS = st.tuples(st.integers(1, 4), st.integers(1, 4))


def branchy(draw) -> keras.Model:
    """Sums of parallel branches as anyone may write them, mergeable or not."""
    high, wide, channels = draw(st.integers(4, 7)), draw(st.integers(4, 7)), 4
    stride = draw(st.sampled_from([1, 1, 2, 3]))
    image = keras.Input((high, wide, channels))
    source = layers.ReLU(name="source")(image)

    def branch():
        kind = draw(st.sampled_from(["conv", "conv", "depthwise", "norm", "identity"]))
        size, padding = draw(KERNELS), draw(st.sampled_from(["same", "symmetric"]))
        if stride > 1 and kind not in ("conv", "depthwise"):
            kind = "conv"
        x = source
        if kind in ("norm", "identity"):
            layer = layers.BatchNormalization if kind == "norm" else layers.Identity
            return layer()(x) if draw(st.booleans()) else x
        if padding == "symmetric":
            size = tuple(length | 1 for length in size)
            x = layers.ZeroPadding2D([length // 2 for length in size])(x)
        options = {
            "padding": padding if padding == "same" else "valid",
            "use_bias": draw(st.booleans()),
        }
        options["bias_initializer"] = "normal"
        if kind == "depthwise":
            x = layers.DepthwiseConv2D(size, stride, **options)(x)
        else:
            groups = draw(st.sampled_from([1, 2]))
            x = layers.Conv2D(channels, size, stride, groups=groups, **options)(x)
        return layers.BatchNormalization()(x) if draw(st.booleans()) else x

    branches = [branch() for _ in range(draw(st.integers(2, 4)))]
    if draw(st.booleans()):
        total = layers.Add(name="total_add")(branches)
    else:
        total = branches[0]
        for each in branches[1:]:
            total = total + each
    return keras.Model(image, layers.ReLU(name="end")(total))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_whatever_merges_is_exact_and_costs_no_more(data, shaken, difference):
    model = shaken(branchy(data.draw))
    merged = reparameterize(model)
    assert difference(model, merged) < 1e-4
    assert macs(merged) <= macs(model)


def summed(make) -> keras.Model:
    """A model of ``make``'s branches on a source, added and activated."""
    image = keras.Input((8, 8, 4), name="image")
    x = layers.ReLU(name="source")(image)
    return keras.Model(image, layers.ReLU(name="end")(layers.Add(name="block_add")(make(x))))


def conv(*arguments, name=None, **options):
    return layers.Conv2D(4, *arguments, padding="same", name=name, **options)


def test_asymmetric_branches_lie_on_the_square_one(difference):
    """ACNet: its skeleton is strengthened, figure 3 of the paper."""
    model = summed(lambda x: [conv(3)(x), conv((1, 3))(x), conv((3, 1))(x)])
    merged = reparameterize(model)
    assert difference(model, merged) < 1e-4
    assert [layer.name for layer in merged.layers] == ["image", "source", "block_conv", "end"]
    assert merged.get_layer("block_conv").padding == "same"


def test_under_same_padding_at_stride_2_a_1x1_lies_in_a_corner(difference):
    model = summed(lambda x: [conv(3, 2, name="a")(x), conv(1, 2, name="b")(x)])
    small = model.get_layer("b").get_weights()[0]
    merged = reparameterize(model)
    kernel = merged.get_layer("block_conv").get_weights()[0]
    assert np.allclose(kernel[0, 0] - model.get_layer("a").get_weights()[0][0, 0], small[0, 0])
    assert difference(model, merged) < 1e-4


def test_one_depthwise_convolution_stays_depthwise_with_its_multiplier(difference):
    model = summed(
        lambda x: [
            layers.DepthwiseConv2D(k, padding="same", depth_multiplier=2)(x) for k in (5, 3, 1)
        ]
    )
    merged = reparameterize(model)
    assert isinstance(merged.get_layer("block_conv"), layers.DepthwiseConv2D)
    assert difference(model, merged) < 1e-4


def test_sums_in_sums_and_nested_blocks_merge_into_one(difference, shaken):
    def block(x):
        norm = keras.Sequential([conv(3), layers.BatchNormalization()])
        return [norm(x) + layers.BatchNormalization()(x), conv(1)(x)]

    model = shaken(summed(block))
    merged = reparameterize(model)
    assert kinds(merged) == {"InputLayer": 1, "ReLU": 2, "Conv2D": 1}
    assert difference(model, merged) < 1e-4


def test_a_shared_block_becomes_a_shared_convolution(difference, shaken):
    image = keras.Input((8, 8, 4))
    inner = keras.Input((8, 8, 4))
    total = layers.Add()([conv(3)(inner), conv(1)(inner), layers.BatchNormalization()(inner)])
    tower = keras.Model(inner, layers.ReLU()(total))
    model = shaken(keras.Model(image, tower(tower(image))))
    merged = reparameterize(model)
    assert len(merged.weights) == 2
    assert difference(model, merged) < 1e-4


def test_one_add_layer_used_for_two_sums_gives_two_names(difference):
    image = keras.Input((8, 8, 4))
    add = layers.Add(name="add")
    x = layers.ReLU()(add([conv(3)(image), image]))
    model = keras.Model(image, add([conv(3)(x), conv(1)(x)]))
    merged = reparameterize(model)
    assert difference(model, merged) < 1e-4
    assert {"add_conv", "add_2_conv"} <= {layer.name for layer in merged.layers}


def test_unknown_sizes_merge_where_no_size_decides():
    """At stride 2, "same" pads by the parity of the size; explicit padding does not."""
    image = keras.Input((None, None, 4))

    def merged(*convolutions):
        total = layers.Add()([convolution(image) for convolution in convolutions])
        return kinds(reparameterize(keras.Model(image, total)))["Add"] == 0

    padded = keras.Sequential([layers.ZeroPadding2D(1), layers.Conv2D(4, 3, 2)])
    assert merged(conv(3), conv(1))
    assert merged(padded, conv(1, 2))
    assert not merged(conv(3, 2), conv(1, 2))


def left_alone():
    """Branches whose sum must stay."""

    def read_twice(x):
        y = conv(3)(x)
        return [y, conv(1)(x), layers.Activation("sigmoid")(y)]

    return {
        "an activation": lambda x: [conv(3, activation="relu")(x), conv(1)(x)],
        "another source": lambda x: [conv(3)(x), conv(3)(layers.Activation("tanh")(x))],
        "another stride": lambda x: [conv(2, 2)(x), layers.Conv2D(4, 5)(x)],
        "dilation": lambda x: [conv(3, dilation_rate=2)(x), conv(3)(x)],
        "precision": lambda x: [conv(3)(x), conv(1, dtype="mixed_float16")(x)],
        "a branch is read elsewhere": read_twice,
        "costlier": lambda x: [conv((1, 7))(x), conv((7, 1))(x)],
        "costlier than depthwise": lambda x: [
            conv(1)(x),
            layers.DepthwiseConv2D(3, padding="same")(x),
        ],
        "no convolution": lambda x: [x, layers.BatchNormalization()(x)],
        "one value per channel": lambda x: [
            conv(1)(x),
            conv(1)(layers.GlobalAveragePooling2D(keepdims=True)(x)),
        ],
    }


@pytest.mark.parametrize("kind", left_alone())
def test_what_would_not_be_exact_or_costs_more_stays(kind, shaken, difference):
    model = shaken(summed(left_alone()[kind]))
    left = reparameterize(model)
    assert kinds(left)["Add"] == 1
    assert difference(model, left) < 1e-6


def test_a_residual_network_stays_one():
    model = build("resnet8", seed=0)
    assert kinds(reparameterize(model))["Add"] == kinds(model)["Add"]
