"""Features by LiteRT are those by Keras, for any number of images, and in a cache of their own."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from kzoo.errors import BadInputError
from kzoo.files import cache_folder
from kzoo.learn.features import features
from kzoo.lite.extract import BATCH, CHUNK, litert_engine
from kzoo.network.features import stage_features
from kzoo.zoo.build import build

L = keras.layers


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """An empty cache of features; the datasets' stores stay where they are."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "store").symlink_to(cache_folder() / "store")
    monkeypatch.setenv("KZOO_HOME", str(tmp_path / "home"))


def classifier(x, image, **dense) -> keras.Model:
    return keras.Model(image, L.Dense(4, name="head", **dense)(x))


def first(data, count: int):
    return dataclasses.replace(data, images=data.images[:count])


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_v1_025", "row_rnn"])
def test_features_are_those_of_keras(name, digits):
    """ResNet-8's last stage, averaged, is what enters its classifier: two outputs, one value."""
    model = build(name, size=32, channels=1, classes=10, seed=0)
    stages = [] if name == "row_rnn" else list(stage_features(model).output)
    cuts = [*stages, "head", "logits"]
    data = first(digits, CHUNK + BATCH + 3)
    found, expected = (features(model, data, cuts, engine=e) for e in (litert_engine(), None))
    for cut in cuts:
        assert found[cut].filename != expected[cut].filename
        assert len(found[cut]) == CHUNK + BATCH + 3
        assert np.abs(found[cut] - expected[cut]).max() < 1e-4 * expected[cut].std()


def test_probabilities_and_fewer_images_than_a_batch(digits):
    image = keras.Input((32, 32, 1))
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, 2, name="stage1_1")(L.Rescaling(1 / 9)(image)))
    model, data = classifier(x, image, activation="softmax"), first(digits, 3)
    found, expected = (
        features(model, data, ["stage1", "logits"], engine=e) for e in (litert_engine(), None)
    )
    for cut in found:
        assert np.allclose(found[cut], expected[cut], atol=1e-4 * expected[cut].std())


def test_what_litert_has_no_operator_for_is_told(digits):
    image = keras.Input((32, 32, 1))
    model = classifier(keras.ops.tan(L.GlobalAveragePooling2D()(image)), image)
    with pytest.raises(BadInputError, match=r"LiteRT cannot run .*extract its features with Keras"):
        features(model, first(digits, 3), ["head"], engine=litert_engine())


def test_nan_in_the_weights_is_told(digits):
    image = keras.Input((32, 32, 1))
    model = classifier(L.GlobalAveragePooling2D()(image), image)
    model.get_layer("head").bias.assign([0, np.nan, 0, 0])
    with pytest.raises(BadInputError, match="NaN in its weights"):
        features(model, first(digits, 20), ["logits"], engine=litert_engine())
