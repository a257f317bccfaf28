"""Ranges are those of the values that the network has; their choice does what it is named for."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.lite import calibration, flatbuffer
from kzoo.lite.calibration import BINS, calibrated
from kzoo.lite.interpret import infer
from kzoo.lite.quantize import quantize, stratified
from kzoo.lite.recipes import RANGES


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A float file with a residual addition, and a Keras model that gives what enters it."""
    import keras

    from kzoo.lite.convert import convert

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(8, 3, padding="same", name="first")(image)
    second = keras.layers.Conv2D(8, 3, padding="same", name="second")(first)
    total = keras.layers.Add(name="total")([first, second])
    found = keras.layers.Dense(4, name="head")(
        keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.ReLU(name="relu")(total))
    )
    path = tmp_path_factory.mktemp("calibration") / "m.tflite"
    convert(keras.Model(image, found), path, io="float32", head="logits")
    inner = keras.Model(image, {"first": first, "second": second, "head": found})
    return path.read_bytes(), inner


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)


def feed(image):
    return image.astype(np.float32)


def by_layer(data, ranges):
    names = flatbuffer.layer_names(flatbuffer.parse(data).subgraphs[0])
    return {names[index][0]: pair for index, pair in ranges.items()}


def test_extremes_are_those_of_keras_also_in_front_of_an_addition(pair, images):
    data, inner = pair
    found, told = calibrated(data, images, feed, samples=40)
    assert told["images"] == 40
    rows = by_layer(data, found)
    for name, values in inner.predict(images.astype(np.float32), verbose=0).items():
        expected = min(values.min(), 0), max(values.max(), 0)
        np.testing.assert_allclose(rows[name], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", RANGES)
def test_no_range_is_wider_than_what_was_seen_and_all_hold_zero(method, pair, images):
    data, _ = pair
    widest, _ = calibrated(data, images, feed, samples=40)
    found, _ = calibrated(data, images, feed, method, samples=40)
    for index, (low, high) in found.items():
        assert widest[index][0] - 1e-5 <= low <= 0 <= high <= widest[index][1] + 1e-5
    if method != "minmax":
        assert found != widest


def test_as_many_images_as_it_takes(pair, images, monkeypatch):
    data, _ = pair
    monkeypatch.setattr(calibration, "FIRST", 4)
    brighter = (images * np.linspace(0.1, 1, 40)[:, None, None, None]).astype(np.uint8)
    told = [
        calibrated(data, brighter, feed, samples=None)[1],
        calibrated(data, np.repeat(images[:1], 40, 0), feed, samples=None)[1],
    ]
    assert told[0]["images"] > told[1]["images"] == 4
    assert told[1]["moved"] == 0
    assert told[0]["moved"] <= calibration.SETTLED or told[0]["images"] == 40


def histogram(values, low, high):
    return np.histogram(values, BINS, (low, high))[0]


def test_the_percentile_leaves_one_value_in_ten_thousand_outside():
    values = np.random.default_rng(0).normal(size=400_000)
    low, high = values.min(), values.max()
    found = calibration._percentile(histogram(values, low, high), low, high)
    outside = ((values < found[0]) | (values > found[1])).mean()
    assert outside == pytest.approx(1e-4, rel=0.3)


def rounding_error(values, low, high):
    step = (high - low) / 255
    return ((np.clip(np.rint((values - low) / step), 0, 255) * step + low - values) ** 2).mean()


@pytest.mark.parametrize("shape", ["normal", "heavy tails", "relu"])
def test_the_least_error_is_the_least(shape):
    rng = np.random.default_rng(0)
    values = {
        "normal": rng.normal(size=100_000),
        "heavy tails": rng.standard_t(3, size=100_000),
        "relu": np.maximum(rng.standard_t(4, size=100_000), 0),
    }[shape]
    low, high = min(values.min(), 0), max(values.max(), 0)
    found = calibration._least_error(histogram(values, low, high), low, high)
    least = rounding_error(values, *found)
    assert least <= rounding_error(values, low, high)
    for share in (0.6, 0.8, 0.9, 1.1, 1.25):
        assert least <= 1.05 * rounding_error(values, found[0] * share, found[1] * share)
    if shape == "heavy tails":
        assert least < 0.85 * rounding_error(values, low, high)


def test_divergence_cuts_off_an_outlier_and_keeps_a_flat_range():
    flat = np.random.default_rng(0).uniform(-1, 1, 100_000)
    found = calibration._least_divergence(histogram(flat, -1, 1), -1.0, 1.0)
    assert found[1] > 0.9
    far = np.append(np.random.default_rng(0).normal(size=100_000), 30.0)
    low, high = far.min(), far.max()
    found = calibration._least_divergence(histogram(far, low, high), low, high)
    assert found[1] < 0.3 * high


def test_images_are_of_all_classes_alike(digits):
    count = 3 * len(digits.classes)
    found = stratified(digits, count, 0)
    train = digits.splits["train"]
    labels = [
        digits.labels[train][(digits.images[train] == image).all((1, 2, 3))][0] for image in found
    ]
    assert np.bincount(labels).tolist() == [3] * len(digits.classes)
    assert (found == stratified(digits, count, 0)).all()
    assert (found != stratified(digits, count, 1)).any()


@pytest.mark.parametrize("method", RANGES)
def test_any_method_makes_a_file_that_agrees(method, trained, digits, tmp_path):
    done = quantize(trained, tmp_path / "m.tflite", calibrate=digits, ranges=method, samples=64)
    assert done.calibration["ranges"] == method
    assert done.calibration["images"] == 64
    assert done.agreement >= 0.95


@pytest.mark.parametrize("hardly", [0.0, 1e-6])
@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D", "Dense", "mean"])
def test_what_hardly_any_image_excites_runs(kind, hardly, digits, tmp_path):
    """XNNPACK refuses files of steps too far apart."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 1), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first")(image)
    options = {"bias_initializer": keras.initializers.Constant(-1e5), "name": "dead"}
    if kind == "Dense":
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dense(8, activation="relu", **options)(x)
    elif kind != "mean":
        size = (8, 3) if kind == "Conv2D" else (3,)
        x = getattr(keras.layers, kind)(*size, activation="relu", **options)(x)
    if hardly:
        x = keras.layers.Rescaling(1.0, hardly)(x)
    if kind != "Dense":
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(10, bias_initializer="normal", name="head")(x))
    quantize(model, tmp_path / "m.tflite", calibrate=digits, head="logits")
    expected = model.predict(digits.images[:8].astype(np.float32), verbose=0)
    (found,) = infer((tmp_path / "m.tflite").read_bytes(), digits.images[:8], 1)
    # Where a step may not be as fine as the logits are: two in a row that nothing excites.
    share = 0.15 if kind == "Dense" else 0.05
    assert np.abs(found - expected).max() < share * np.abs(expected).max()
