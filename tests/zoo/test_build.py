"""What every registered architecture does with weights: logits, gradients, files, heads.

Asked of one name of almost every builder here, and of all names under the ``slow`` mark.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kzoo.errors import UsageError
from kzoo.network.count import parameters
from kzoo.network.model_file import gives_probabilities, load_model, read_notes, save_model
from kzoo.registry import entry
from kzoo.zoo.build import build, skeleton

CLASSES = list("abcdefg")


@pytest.fixture(scope="module")
def odd(case) -> keras.Model:
    """Each network with seven classes, one channel, an odd size; its tests run in a row."""
    return build(case.name, classes=7, channels=1, size=case.odd_size, seed=0, **case.variant)


def pixels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def test_an_image_gives_finite_logits_for_the_classes_asked(odd):
    found = odd(pixels((2, *odd.input_shape[1:])))
    assert found.shape == (2, 7)
    assert np.isfinite(found).all()


def test_every_weight_gets_a_finite_gradient(odd):
    before = [np.array(weight) for weight in odd.non_trainable_variables]
    with tf.GradientTape() as tape:
        logits = odd(pixels((4, *odd.input_shape[1:])), training=True)
        loss = tf.reduce_mean(tf.nn.log_softmax(logits)[:, 0])
    found = tape.gradient(loss, [variable.value for variable in odd.trainable_variables])
    for variable, gradient in zip(odd.trainable_variables, found, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
    for weight, value in zip(odd.non_trainable_variables, before, strict=True):
        weight.assign(value)  # BatchNorm's statistics moved


def test_a_file_gives_the_same_logits_and_class_names(odd, tmp_path):
    images = pixels((2, *odd.input_shape[1:]))
    path = save_model(odd, tmp_path / "model.keras", notes={"classes": CLASSES})
    again = load_model(path)
    assert np.array_equal(odd(images), again(images))
    assert read_notes(path)["classes"] == CLASSES
    assert {type(each).__module__.split(".")[0] for each in again.operations} == {"keras"}


def test_without_a_head_it_gives_what_enters_the_head(case, odd):
    none = skeleton(
        case.name, head="none", classes=7, channels=1, size=case.odd_size, **case.variant
    )
    names = [layer.name for layer in odd.layers]
    assert len(none.output_shape) == 2
    assert {layer.name for layer in none.layers} < set(names)
    if "head" in names:  # else it ends in a convolution and pooling
        entering = odd.get_layer("head").input._keras_history.operation.name
        last = none.layers[-1].name
        assert last == entering or entering == "head_dropout"
        assert none.output_shape == odd.get_layer("head").input.shape


@pytest.mark.slow
def test_images_give_finite_logits_in_half_precision(case):
    """In training: BatchNorm's first statistics let 54 residual blocks grow past float16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build(case.name, classes=7, size=case.odd_size, channels=1, seed=0, **case.variant)
    finally:
        keras.config.set_dtype_policy(before)
    logits = model(pixels((4, *model.input_shape[1:])), training=True)
    assert np.isfinite(np.asarray(logits, np.float32)).all()


def test_the_softmax_head_gives_the_probabilities_of_the_logits():
    logits, softmax = (build("resnet8", head=head, seed=0) for head in ("logits", "softmax"))
    images = pixels((2, 32, 32, 3))
    assert np.allclose(softmax(images), keras.ops.softmax(logits(images)), atol=1e-6)
    assert gives_probabilities(softmax)
    assert not gives_probabilities(logits)


def test_the_seed_decides_the_weights():
    first, same, other = (build("lenet5", seed=seed).get_weights() for seed in (0, 0, 1))
    assert all(map(np.array_equal, first, same))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1)


def test_an_unknown_name_brings_the_nearest():
    with pytest.raises(UsageError, match="mobilenet_v2_035"):
        build("mobilenetv2_035")


def test_an_unknown_head_brings_the_nearest():
    with pytest.raises(UsageError, match="did you mean softmax"):
        build("lenet5", head="sotfmax")


def test_an_unknown_argument_brings_the_nearest():
    with pytest.raises(UsageError, match="alhpa; it takes alpha; did you mean alpha"):
        build("mobilenet_v2", alhpa=0.5)


def test_a_known_argument_replaces_the_row_s():
    thin = build("mobilenet_v2", alpha=0.35)
    assert parameters(thin) == (
        entry("mobilenet_v2_035").params,
        entry("mobilenet_v2_035").total_params,
    )


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"classes": 1}, {"channels": 0}])
def test_no_classes_and_no_channels_are_refused(wrong):
    with pytest.raises(UsageError, match="at least"):
        build("lenet5", **wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"norm": "bacth"}, "did you mean batch"),
        ({"flavour": "tf"}, "none of keras, torch"),
        ({"norm": "group"}, "lenet5 has no BatchNorm"),
        ({"auxiliary": True}, "lenet5 has none"),
    ],
)
def test_what_a_network_does_not_have_is_refused(wrong, said):
    with pytest.raises(UsageError, match=said):
        build("lenet5", **wrong)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("mobilenet_v2", {"alpha": 0}, "alpha of mobilenet_v2 is above 0; 0 was given"),
        ("mobilenet_v2", {"alpha": -1.0}, "is above 0; -1.0 was given"),
        ("mobilenet_v2", {"alpha": float("inf")}, r"alpha=inf; its card has alpha=1.0: cannot"),
        ("efficientnet_b0", {"depth": 0}, "depth of efficientnet_b0 is above 0"),
        ("regnet_y_400mf", {"depth": 0}, "is above 0"),
        ("resnet20", {"depth": 0}, "is above 0"),
        ("mlp", {"depth": 0, "width": -1}, "width of mlp is at least 0; -1 was given"),
        ("mlp", {"activation": "rleu"}, "did you mean relu"),
        ("lenet5", {"pool": "Dense"}, "pool 'Dense' is none of AveragePooling2D, MaxPooling2D"),
        ("lenet5", {"pool": "MaxPool2D"}, "did you mean MaxPooling2D"),
        ("row_rnn", {"cell": "GRU"}, "cell 'GRU' is none of SimpleRNN, LSTM"),
        ("densenet40_k12", {"depth": 41}, "such as 40 or 43; 41 was given"),
        ("densenet40_k12", {"depth": 5}, "such as 7; 5 was given"),
        ("densenet40_k12", {"depth": 1}, "such as 7; 1 was given"),
        ("mobilenet_v4_conv_small", {"layout": "wide"},
         "built with layout=wide; its card has layout=small .its siblings large, medium.$"),
        ("resnet50", {"dephts": (1, 1, 1, 1)}, "groups, width .in Python also block, depths"),
        ("lenet5", {"seed": -1}, "a seed is from 0 to 4294967295; -1 was given"),
        ("lenet5", {"seed": 2**32}, "4294967296 was given"),
        ("vgg16", {"size": 20_000}, "vgg16 as asked needs more memory than there is: it has 819,"),
        ("lenet5", {"classes": 10**12}, "more memory than there is: it has 85,000,"),
        ("lenet5", {"classes": 10**17}, "more memory than there is"),
        ("lenet5", {"classes": 10**20}, "more memory than there is"),
        ("mobilenet_v2", {"alpha": 1e20}, "more memory than there is"),
    ],
)  # fmt: skip
def test_what_no_network_has_is_refused(name, wrong, said):
    with pytest.raises(UsageError, match=said):
        build(name, **wrong)
    build("lenet5", seed=0)  # nothing is left behind


@pytest.mark.parametrize("wrong", [{"classes": 10**20}, {"norm": "group", "alpha": -1}])
def test_a_skeleton_is_refused_likewise(wrong):
    try:
        skeleton("mobilenet_v2", **wrong)
    except UsageError:
        return
    assert "alpha" not in wrong  # shapes alone need no memory


@pytest.mark.parametrize("depth", [7, 10, 40])
def test_a_densenet_has_the_depth_asked(depth):
    """Convolutions and the classifier are what the paper counts."""
    net = skeleton("densenet40_k12", depth=depth)
    assert sum(type(layer).__name__ in ("Conv2D", "Dense") for layer in net.layers) == depth
