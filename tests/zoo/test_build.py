"""Every registered architecture passes the same list, the moment it is registered."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kzoo.errors import UsageError
from kzoo.registry import LAYER_NAME, entry, list_models
from kzoo.zoo.build import build
from kzoo.zoo.count import macs, parameters
from kzoo.zoo.model_file import gives_probabilities, load_model, read_notes, save_model

NAMES = list_models()
# Wider siblings run the same code, so what costs a build of its own is asked of the smallest of
# each builder, and of all that are small.
SMALLEST = {entry(n).builder: n for n in sorted(NAMES, key=lambda n: -entry(n).macs)}
CHEAP = sorted({*SMALLEST.values(), *(n for n in NAMES if entry(n).macs < 60_000_000)})

every = pytest.mark.parametrize("name", NAMES)
cheap = pytest.mark.parametrize("name", CHEAP)

CLASSES = list("abcdefg")


def odd_size(name: str) -> tuple[int, int]:
    """Not square, and no multiple of 32 or of any stride."""
    return entry(name).min_size + 3, entry(name).min_size + 9


@pytest.fixture(scope="module")
def default():
    """default(name): the architecture as its row has it; built once."""
    return functools.cache(build)


@pytest.fixture(scope="module")
def odd():
    """odd(name): seven classes, one channel, an odd size; built once."""

    def make(name: str) -> keras.Model:
        return build(name, classes=7, channels=1, size=odd_size(name), seed=0)

    return functools.cache(make)


def pixels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


@every
def test_the_numbers_are_those_of_the_row(name, default):
    row, model = entry(name), default(name)
    assert model.input_shape == (None, row.size, row.size, row.channels)
    assert model.output_shape == (None, row.classes)
    assert parameters(model) == (row.params, row.total_params)
    assert macs(model) == row.macs


@cheap
def test_an_image_gives_finite_logits_for_the_classes_asked(name, odd):
    found = odd(name)(pixels((2, *odd_size(name), 1)))
    assert found.shape == (2, 7)
    assert np.isfinite(found).all()


@every
def test_layers_are_named_by_the_rule(name, default):
    image, *others = [layer.name for layer in default(name).layers]
    assert image == "image"
    assert [layer for layer in others if not LAYER_NAME.fullmatch(layer)] == []
    assert others[0] == "preprocess"
    assert others[-1].startswith("head")
    assert len(set(others)) == len(others)


@cheap
def test_every_weight_gets_a_finite_gradient(name, odd):
    model = keras.models.clone_model(odd(name))
    with tf.GradientTape() as tape:
        logits = model(pixels((4, *odd_size(name), 1)), training=True)
        loss = tf.reduce_mean(tf.nn.log_softmax(logits)[:, 0])
    for variable, gradient in zip(
        model.trainable_variables,
        tape.gradient(loss, [v.value for v in model.trainable_variables]),
        strict=True,
    ):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path


@cheap
def test_a_file_gives_the_same_logits_and_class_names(name, odd, tmp_path):
    images = pixels((2, *odd_size(name), 1))
    path = save_model(odd(name), tmp_path / "model.keras", notes={"classes": CLASSES})
    again = load_model(path)
    assert np.array_equal(odd(name)(images), again(images))
    assert read_notes(path)["classes"] == CLASSES
    assert {type(layer).__module__.split(".")[0] for layer in again.layers} == {"keras"}


@cheap
def test_with_one_seed_the_features_are_what_enters_the_head(name, odd):
    images = pixels((2, *odd_size(name), 1))
    settings = {"classes": 7, "channels": 1, "size": odd_size(name), "seed": 0}
    logits = odd(name)(images)
    none = build(name, head="none", **settings)
    head = odd(name).get_layer("head")
    assert none.output_shape == (None, head.kernel.shape[0])
    assert np.allclose(head(none(images)), logits, atol=1e-5)


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


@pytest.mark.parametrize("name", sorted(SMALLEST.values()))
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_it_builds_in_mixed_precision(name, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build(name, classes=7, channels=1, size=odd_size(name))
    finally:
        keras.config.set_dtype_policy(before)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert model.compute_dtype == policy.removeprefix("mixed_")
    assert model.output_shape == (None, 7)


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


@every
def test_a_size_below_the_smallest_is_refused(name):
    smallest = entry(name).min_size
    with pytest.raises(UsageError, match=f"at least {smallest} x {smallest}"):
        build(name, size=(smallest, smallest - 1))


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"channels": 0}])
def test_no_classes_and_no_channels_are_refused(wrong):
    with pytest.raises(UsageError, match="at least 1"):
        build("lenet5", **wrong)
