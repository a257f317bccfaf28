"""Augmentation by Keras' layers."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.errors import UsageError
from kzoo.learn.augment import PRESETS, Augmenter, augmentation, parse_augment

LAYERS = [
    "random_flip",
    {"name": "random_translation", "height_factor": 0.2, "width_factor": 0.2},
    {"name": "random_rotation", "factor": 0.1},
    {"name": "mix_up", "alpha": 0.4},
    {"name": "cut_mix", "factor": 1.0},
    {"name": "random_erasing", "factor": 1.0},
    {"name": "rand_augment", "factor": 0.3, "num_ops": 1},
]


def batch(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 24, 24, channels)).astype(np.float32)
    return images, np.eye(4, dtype=np.float32)[random.integers(0, 4, 8)]


def name_of(layer) -> str:
    return layer if isinstance(layer, str) else layer["name"]


@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_a_layer_changes_pixels_and_keeps_shapes_and_the_labels_mass(layer):
    images, labels = batch()
    found, mixed = Augmenter([layer], 0)(images, labels)
    assert found.shape == images.shape
    assert found.dtype == np.float32
    assert np.abs(found - images).max() > 1
    assert found.min() >= 0
    assert found.max() <= 255 + 1e-4
    np.testing.assert_allclose(mixed.sum(axis=1), 1, rtol=1e-6)
    mixes = name_of(layer) in ("mix_up", "cut_mix")
    assert (np.abs(mixed - labels).max() > 0.01) == mixes


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_presets_fit_gray_and_colour(preset, channels):
    images, labels = batch(channels)
    found, _ = Augmenter(augmentation(preset), 0)(images, labels)
    assert found.shape == images.shape
    assert np.isfinite(found).all()


def test_the_seed_decides_and_its_variables_are_all_its_state():
    images, labels = batch()
    first, same, other = (Augmenter(augmentation("strong"), seed) for seed in (1, 1, 2))
    one = [first(images, labels) for _ in range(3)]
    for wanted in one:
        for a, b in zip(wanted, same(images, labels), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[0][0], other(images, labels)[0])
    assert not np.array_equal(one[0][0], one[1][0])
    resumed = Augmenter(augmentation("strong"), 9)
    for variable, state in zip(resumed.variables, first.variables, strict=True):
        variable.assign(state)
    np.testing.assert_array_equal(resumed(images, labels)[0], first(images, labels)[0])


@pytest.mark.parametrize(
    ("texts", "layers"),
    [
        ([], "none"),
        (["strong"], "strong"),
        (["random_flip"], ["random_flip"]),
        (["RandomFlip", "mix_up: {alpha: 0.2}"], ["RandomFlip", {"name": "mix_up", "alpha": 0.2}]),
    ],
)
def test_what_is_typed_is_parsed(texts, layers):
    assert parse_augment(texts) == layers
    augmentation(parse_augment(texts))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("lihgt", "did you mean light"),
        (["random_flop"], "did you mean random_flip"),
        (["resizing"], "no augmentation layer of Keras is called 'resizing'"),
        (["dense"], "no augmentation layer"),
    ],
)
def test_an_unknown_layer_is_refused(chosen, said):
    with pytest.raises(UsageError, match=said):
        augmentation(chosen)


@pytest.mark.parametrize("text", ["mix_up: 0.2", "a: {b: 1}, c", "[1, 2]", "{"])
def test_what_is_no_layer_is_refused(text):
    with pytest.raises(UsageError, match=r"'mix_up: \{alpha: 0.2\}'"):
        parse_augment([text])


def test_a_wrong_argument_and_images_that_do_not_fit_are_told():
    with pytest.raises(UsageError, match="augmentation layer 'mix_up'"):
        Augmenter([{"name": "mix_up", "alfa": 1}], 0)
    with pytest.raises(UsageError, match="does not fit images of"):
        Augmenter(["random_grayscale"], 0)(*batch(2))
