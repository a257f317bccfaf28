"""Where networks keep maps: the first and the last of a stage, and what the classifier pools."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kzoo.network.features import stage_features
from kzoo.network.graph import calls, run
from kzoo.network.maps import convolutions, last_maps
from kzoo.zoo.build import build, skeleton

L = keras.layers
ARCHITECTURES = ("lenet5", "resnet8", "resnet18", "squeezenet1_1", "vgg11", "nin")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_stage_ends_where_its_features_are_taken(name):
    model = skeleton(name)
    ends = last_maps(model)
    for stage, tensor in stage_features(model).output.items():
        assert ends[stage].outputs[0] is tensor


@pytest.mark.parametrize(
    ("name", "last", "shape"),
    [
        ("lenet5", "stage2", (5, 5, 16)),
        ("resnet8", "stage3", (8, 8, 64)),
        ("resnet18", "stage4", (7, 7, 512)),
        ("mobilenet_v3_small", "head_expand_act", (7, 7, 576)),
    ],
)
def test_the_last_map_is_what_the_classifier_pools_or_flattens(name, last, shape):
    *_, (found, node) = last_maps(skeleton(name)).items()
    assert (found, tuple(node.outputs[0].shape[1:])) == (last, shape)


def test_a_map_of_one_pixel_is_none():
    """At 32 pixels the last stages of this network are 1 x 1."""
    model = skeleton("mobilenet_v2_035", size=32)
    *_, node = last_maps(model).values()
    assert stage_features(model).output["stage4"].shape[1:3] == (1, 1)
    assert node.outputs[0].shape[1:3] == (2, 2)


@pytest.mark.parametrize(
    ("name", "stage", "first", "last", "behind"),
    [
        ("lenet5", "stage1", "stage1_1_conv", "stage1_1_conv", "stage1_1_conv"),
        ("resnet8", "stage1", "stage1_1_1_conv", "stage1_1_2_conv", "stage1_1_2_bn"),
        # The shortcut is as deep as the branch's first convolution, and smaller.
        ("resnet8", "stage2", "stage2_1_1_conv", "stage2_1_2_conv", "stage2_1_2_bn"),
        ("vgg11", "stage2", "stage2_1_conv", "stage2_2_conv", "stage2_2_act"),
    ],
)
def test_a_stage_has_a_first_and_a_last_convolution(name, stage, first, last, behind):
    inside = [each for each in convolutions(skeleton(name)) if each.part == stage]
    assert (inside[0].layer.name, inside[-1].layer.name) == (first, last)
    assert inside[-1].node.operation.name == behind


def test_of_parallel_convolutions_the_larger_comes_first():
    first, second, *_ = convolutions(skeleton("repvgg_a0", size=32))
    assert (first.depth, second.depth) == (1, 1)
    assert (first.layer.kernel_size, second.layer.kernel_size) == ((3, 3), (1, 1))


@pytest.mark.parametrize("name", ["mlp", "perceptron", "row_lstm"])
def test_networks_without_convolutions_have_no_maps(name):
    assert convolutions(skeleton(name)) == []
    assert last_maps(skeleton(name)) == {}


def test_layers_of_any_name_are_one_part():
    image = keras.Input((8, 8, 1))
    x = L.Conv2D(4, 3)(image)
    y = L.ReLU()(L.DepthwiseConv2D(3, padding="same")(x))
    model = keras.Model(image, L.Dense(3)(L.Flatten()(x + y)))
    found = convolutions(model)
    assert [type(each.layer).__name__ for each in found] == ["Conv2D", "DepthwiseConv2D"]
    assert {each.part for each in found} == {"network"}
    assert [type(each.node.operation).__name__ for each in found] == ["Conv2D", "ReLU"]
    (last,) = last_maps(model).values()
    assert type(last.operation).__name__ == "Add"


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "squeezenet1_1"])
def test_a_model_run_call_by_call_gives_what_it_gives_whole(name):
    model = build(name, classes=5, size=48, seed=1)
    inner = keras.Input(model.inputs[0].shape[1:])
    nested = keras.Model(inner, model(inner, training=False))
    pixels = keras.random.uniform((2, *inner.shape[1:]), 0, 255, seed=2)
    wanted, seen = model(pixels), []

    def visit(node, *args, **kwargs):
        seen.append(node)
        return node.operation(*args, **kwargs)

    for whole in (model, nested):
        seen.clear()
        (found,) = run(whole, [pixels], visit)
        np.testing.assert_array_equal(found, wanted)
        assert seen == calls(model)
