"""A normalization costs nothing where the first kernels can do it, and the answers stay."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.data.load import load_data
from kzoo.lite import flatbuffer
from kzoo.lite.convert import convert
from kzoo.lite.interpret import infer
from kzoo.lite.normalization import in_first_kernels, without_normalization
from kzoo.lite.quantize import quantize

NORMALIZED = {
    "one": (1 / 64, -1.25),
    "channels": ([1 / 64, 1 / 48, 1 / 80], [-2.0, -1.25, 0.0]),
    "product": (1 / 255, 0.0),
}
STEMS = ("same", "padded", "valid", "two", "large", "dense", "pooled", "shared")


@pytest.fixture(scope="module")
def network():
    """network(stem, normalized): untrained, 16 x 16 x 3 to 10 logits."""
    import keras

    layers = keras.layers

    def make(stem: str, normalized: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        image = keras.Input((16, 16, 3), name="image")
        x = layers.Rescaling(*NORMALIZED[normalized], name="preprocess")(image)
        if stem == "padded":
            x = layers.ZeroPadding2D(1)(x)
        if stem == "pooled":  # a maximum is no product with a kernel
            x = layers.MaxPooling2D()(x)
        first = layers.Conv2D(
            8, 3, padding="valid" if stem in ("padded", "valid") else "same",
            bias_initializer="normal", name="first",
        )  # fmt: skip
        if stem == "dense":
            x = layers.Flatten()(x)
        elif stem == "two":
            x = layers.Concatenate()([first(x), layers.Conv2D(4, 5, padding="same")(x)])
        elif stem == "large":  # its kernel goes around the converter
            x = layers.Conv2D(64, 11, padding="valid", name="first")(layers.ZeroPadding2D(5)(x))
        elif stem == "shared":
            x = layers.Add()([first(x), first(layers.ReLU()(x))])
        else:
            x = first(x)
        return keras.Model(image, layers.Dense(10, name="head")(layers.Flatten()(x)))

    return make


def front(data: bytes) -> list[str]:
    """What comes before the first kernel."""
    model = flatbuffer.parse(data)
    names = [flatbuffer.operator(model, op) for op in model.subgraphs[0].operators]
    return names[: next(i for i, name in enumerate(names) if "CONV" in name or "FULLY" in name)]


def expected(stem: str, normalized: str) -> set[str]:
    if stem in ("pooled", "shared") or (stem, normalized) == ("dense", "channels"):
        if (stem, normalized) == ("shared", "product"):  # the converter's doing
            return set()
        return {"MUL"} if normalized == "product" else {"MUL", "ADD"}
    padded = stem in ("same", "padded", "two", "large")
    return {"ADD"} if padded and normalized != "product" else set()


@pytest.mark.parametrize("normalized", NORMALIZED)
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_what_is_left_of_it_is_what_padded_zeros_ask_for(stem, normalized, io, network, tmp_path):
    net, output = network(stem, normalized), tmp_path / "net.tflite"
    convert(net, output, io=io, head="logits")
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    wanted = np.asarray(net(images.astype(np.float32)))
    found = infer(output.read_bytes(), images.astype(io), 1)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert {*front(output.read_bytes())} & {"MUL", "ADD", "SUB"} == expected(stem, normalized)


@pytest.mark.parametrize("normalized", ["channels", "one"])
def test_int8_is_no_further_from_the_network(normalized, network, tmp_path):
    """Of pixels in whole numbers, minus whole numbers, no rounding is left."""
    net, output = network("same", normalized), tmp_path / "net.tflite"
    photos = load_data("digits", channels=3, size=16)
    images = photos.images[:64]
    quantize(net, output, calibrate=photos, head="logits")
    wanted = np.asarray(net(images.astype(np.float32)))
    found = infer(output.read_bytes(), images, 1)[0]
    assert np.abs(found - wanted).mean() < 0.02 * wanted.std()
    left = {*front(output.read_bytes())} & {"MUL", "ADD", "SUB"}
    assert left == ({"ADD"} if normalized == "channels" else set())


def test_what_differs_by_place_is_no_kernel_s(tmp_path):
    """As many columns as channels."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((3, 3, 3), name="image")
    by_column = np.array([1.0, 2.0, 3.0], np.float32).reshape(1, 1, 3, 1)
    x = keras.layers.Conv2D(4, 3, padding="same")(image * by_column)
    net = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    convert(net, tmp_path / "net.tflite", io="float32", head="logits")
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 3, 3)).astype(np.float32)
    found = infer((tmp_path / "net.tflite").read_bytes(), images, 1)[0]
    np.testing.assert_allclose(found, np.asarray(net(images)), rtol=1e-4, atol=1e-3)


def test_a_file_without_a_normalization_is_left_as_it_is(network, tmp_path):
    convert(network("valid", "one"), tmp_path / "net.tflite", io="float32")
    data = (tmp_path / "net.tflite").read_bytes()
    assert in_first_kernels(data) == (data, {})
    assert without_normalization(data) == (data, None)
