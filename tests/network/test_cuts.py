"""Where networks are cut, and what of them the cache's key knows."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kzoo.errors import BadInputError, UsageError
from kzoo.network.features import cut_tensors, stage_features
from kzoo.network.identity import tensor_digests
from kzoo.network.model_file import load_model, save_model
from kzoo.zoo.build import build, skeleton

L = keras.layers


def network(classes: int = 3, name: str = "stage1_1_conv", **changed) -> keras.Model:
    """Two branches and their sum, and a classifier; the weights are those of a seed."""
    keras.utils.set_random_seed(1)
    settings = {"strides": 2, "padding": "same"} | changed
    image = keras.Input((8, 8, 1))
    x = L.Rescaling(1 / 255)(image)
    x = L.Conv2D(4, 3, name=name, **settings)(x)
    x = x + L.Conv2D(4, 1, name="stage2_1_conv")(x)
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(image, L.Dense(classes)(x))


def digests(model: keras.Model, *cuts: str) -> list[str]:
    return tensor_digests(model, [*cut_tensors(model, cuts).values()])


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("lenet5", 84), ("resnet8", 64), ("vgg16", 4096), ("squeezenet1_1", 512), ("nin", 1024),
        ("mobilenet_v3_small", 1024), ("row_rnn", 128), ("densenet121", 1024), ("mlp", 512),
    ],
)  # fmt: skip
def test_the_head_is_cut_before_the_last_layer_with_weights(name, width):
    assert cut_tensors(skeleton(name), ["head"])["head"].shape[-1] == width


def test_cuts_of_stages_are_the_stage_features():
    model = skeleton("resnet8")
    stages = stage_features(model).output
    cuts = cut_tensors(model, ["stage3", "stage1"])
    assert list(cuts) == ["stage3", "stage1"]
    assert all(cuts[name] is stages[name] for name in cuts)


def test_an_unknown_cut_is_told_with_those_there_are():
    with pytest.raises(UsageError, match=r"did you mean stage1.*stage1, stage2, head, logits"):
        cut_tensors(network(), ["stage11"])


def test_a_classifier_of_two_branches_has_no_head():
    image = keras.Input((4,))
    model = keras.Model(image, L.Dense(2)(image) + L.Dense(2)(image))
    assert list(cut_tensors(model, ["logits"])) == ["logits"]
    with pytest.raises(BadInputError, match="classifier"):
        cut_tensors(model, ["head"])


def test_a_classifier_inside_a_model_has_no_head():
    image = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), L.Dense(2)], name="top")
    with pytest.raises(BadInputError, match="'top'"):
        cut_tensors(keras.Model(image, inner(image)), ["head"])


def test_names_freezing_and_what_comes_behind_do_not_count():
    before = digests(network(), "stage1", "stage2", "head")
    assert digests(network(), "stage1", "stage2", "head") == before
    assert digests(network(classes=5), "stage1", "stage2", "head") == before
    assert digests(network(name="stage1_1_other"), "stage1", "stage2", "head") == before
    frozen = network()
    frozen.trainable = False
    assert digests(frozen, "stage1", "stage2", "head") == before
    assert len(set(before)) == 3


def test_a_file_has_the_digests_of_its_model(tmp_path):
    model = build("resnet8", seed=0)
    cuts = [*stage_features(model).output, "head", "logits"]
    loaded = load_model(save_model(model, tmp_path / "m.keras"))
    assert digests(loaded, *cuts) == digests(model, *cuts)


@pytest.mark.parametrize("layer", ["stage1_1_conv", "stage2_1_conv"])
def test_one_weight_counts_where_it_is_used(layer):
    model = network()
    cuts = ("stage1", "stage2", "head", "logits")
    before = digests(model, *cuts)
    kernel = model.get_layer(layer).kernel
    value = np.array(kernel)
    value.flat[-1] = np.nextafter(value.flat[-1], np.float32(9))
    kernel.assign(value)
    same = [a == b for a, b in zip(digests(model, *cuts), before, strict=True)]
    assert same == ([False] * 4 if layer == "stage1_1_conv" else [True, False, False, False])


@pytest.mark.parametrize(
    "changed", [{"padding": "valid"}, {"strides": 1}, {"activation": "relu"}, {"use_bias": False}]
)
def test_settings_count(changed):
    assert digests(network(**changed), "stage1") != digests(network(), "stage1")


def test_preprocessing_counts():
    def scaled(scale: float) -> keras.Model:
        image = keras.Input((4,))
        return keras.Model(image, L.Rescaling(scale)(image))

    first, second = (tensor_digests(m := scaled(s), m.outputs) for s in (1 / 255, 1 / 127.5))
    assert first != second


def test_connections_count():
    """x - y is not y - x, though the layers are the same."""
    image = keras.Input((4,))
    first, second = L.Dense(3, kernel_initializer="ones"), L.Dense(3, kernel_initializer="zeros")
    a, b = first(image), second(image)
    model = keras.Model(image, [a - b, b - a, a - b])
    found = tensor_digests(model, model.outputs)
    assert found[0] == found[2] != found[1]
