"""What is made of a float .tflite is what would have been made of its network."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.errors import BadInputError, UsageError
from kzoo.lite.check import check
from kzoo.lite.convert import convert
from kzoo.lite.inspect import inspect
from kzoo.lite.interpret import infer
from kzoo.lite.localize import localize
from kzoo.lite.quantize import quantize
from kzoo.lite.recipes import RECIPES
from kzoo.lite.source import source
from kzoo.network.model_file import load_model

ENCODED = {"one": (127.5, 127.5), "channels": ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4])}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """elsewhere(kind, head): a file of TensorFlow's converter, 16 x 16 x 3 to 10, any batch."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("elsewhere")

    def make(head: str = "softmax", inputs: int = 1):
        path = folder / f"{head}{inputs}.tflite"
        if path.exists():
            return path
        keras.utils.set_random_seed(0)
        images = [keras.Input((16, 16, 3), name=f"in{i}") for i in range(inputs)]
        x = images[0] if inputs == 1 else keras.layers.Add()(images)
        x = keras.layers.Conv2D(8, 3, 2, activation="relu", name="first")(x)
        x = keras.layers.Conv2D(8, 3, 2, activation="relu", name="second")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dense(10, name="last")(x)
        if head == "softmax":
            x = keras.layers.Softmax()(x)
        elif head == "normalized":  # probabilities, and no softmax made them
            x = keras.ops.sigmoid(x) / keras.ops.sum(keras.ops.sigmoid(x), axis=-1, keepdims=True)
        net = keras.Model(images, x)
        path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(net).convert())
        return path

    return make


@pytest.fixture(scope="module")
def photos():
    """uint8 (32, 16, 16, 3) of two kinds."""
    from kzoo.data.load import load_data

    return load_data("digits", channels=3, size=16)


def given(path, images, mean, std) -> np.ndarray:
    """What a file from elsewhere gives, fed by hand."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path))
    runner.allocate_tensors()
    found = []
    for image in images:
        normalized = ((image[None] - np.asarray(mean)) / np.asarray(std)).astype(np.float32)
        runner.set_tensor(runner.get_input_details()[0]["index"], normalized)
        runner.invoke()
        found.append(runner.get_tensor(runner.get_output_details()[0]["index"])[0])
    return np.array(found)


@pytest.mark.parametrize("recipe", RECIPES)
def test_of_a_file_it_is_what_it_is_of_its_network(recipe, trained, lite_float, digits, tmp_path):
    files = {name: tmp_path / f"{name}.tflite" for name in ("network", "file")}
    images = digits if RECIPES[recipe].activations else None
    for model, path in zip((trained, lite_float), files.values(), strict=True):
        quantize(model, path, recipe=recipe, calibrate=images)
    kept = [inspect(path) for path in files.values()]
    assert kept[0].operators == kept[1].operators
    # Before a convolution without padding the converter moves the normalization into it.
    own = {"model": "", "folded_normalization": None}
    assert kept[0].notes | own == kept[1].notes | own
    pixels = digits.images[:50]
    found = [infer(path.read_bytes(), pixels, 1)[0] for path in files.values()]
    assert np.abs(found[0] - found[1]).max() < (0.05 if images else 1e-5)
    assert np.abs(found[0] - found[1]).mean() < 1e-3


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_a_file_from_elsewhere_becomes_one_that_takes_pixels(kind, io, elsewhere, photos, tmp_path):
    mean, std = ENCODED[kind]
    normalize = (np.atleast_1d(mean).tolist(), np.atleast_1d(std).tolist())
    done = convert(elsewhere(), tmp_path / "pixels.tflite", normalize=normalize, io=io)
    assert done.contents.input["dtype"] == io
    found = infer((tmp_path / "pixels.tflite").read_bytes(), photos.images[:20], 1)[0]
    np.testing.assert_allclose(found, given(elsewhere(), photos.images[:20], mean, std), atol=1e-5)


@pytest.mark.parametrize("kind", ENCODED)
def test_in_int8_one_scale_and_offset_cost_no_operator(kind, elsewhere, photos, tmp_path):
    mean, std = ENCODED[kind]
    normalize = (np.atleast_1d(mean).tolist(), np.atleast_1d(std).tolist())
    done = quantize(elsewhere(), tmp_path / "int8.tflite", calibrate=photos, normalize=normalize)
    assert not done.contents.float_islands
    if kind == "one":
        assert {"MUL int8", "ADD int8"}.isdisjoint(done.contents.operators)
        assert done.contents.input["scale"] == pytest.approx(1 / 127.5)
    found = infer((tmp_path / "int8.tflite").read_bytes(), photos.images[:50], 1)[0]
    expected = given(elsewhere(), photos.images[:50], mean, std)
    assert np.abs(found - expected).mean() < 0.02


@pytest.mark.parametrize("head", ["none", "softmax", "normalized"])
def test_probabilities_are_given_whatever_it_ends_in(head, elsewhere, photos, tmp_path):
    for asked in ("probabilities", "logits"):
        path = tmp_path / f"{asked}.tflite"
        convert(elsewhere(head), path, normalize=([0.0], [255.0]), head=asked)
        found = infer(path.read_bytes(), photos.images[:20], 1)[0]
        expected = given(elsewhere(head), photos.images[:20], 0, 255)
        if asked == "probabilities" and head == "none":
            expected = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
        if asked == "logits" and head == "softmax":
            expected, found = (np.log(expected), found - np.log(np.exp(found).sum(1))[:, None])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_probabilities_under_a_step_of_the_output_are_no_error(photos, tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, 2, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    sure = keras.initializers.RandomNormal(0, 30)
    net = keras.Model(image, keras.layers.Dense(10, "softmax", kernel_initializer=sure)(x))
    net.save(tmp_path / "sure.keras")
    done = quantize(
        tmp_path / "sure.keras",
        tmp_path / "sure.tflite",
        calibrate=photos,
        normalize=([0.0], [255.0]),
    )
    assert net.predict(photos.images[:8] / 255, verbose=0).min() < 1e-5
    assert done.max_logit_error < 1


def test_check_and_localize_compare_with_the_file(elsewhere, photos, tmp_path):
    path, normalize = tmp_path / "int8.tflite", ([127.5], [127.5])
    quantize(elsewhere(), path, calibrate=photos, normalize=normalize)
    checked = check(path, against=elsewhere(), data=photos, normalize=normalize)
    assert checked.mean_logit_error < 0.1 * checked.logit_std
    found = localize(path, against=elsewhere(), data=photos, normalize=normalize, alone=False)
    assert {"CONV_2D", "FULLY_CONNECTED"} <= {row["operator"] for row in found.layers}
    assert min(row["sqnr_db"] for row in found.layers) > 10


def test_a_file_that_does_not_tell_its_normalization_is_asked_about(elsewhere, photos, tmp_path):
    with pytest.raises(UsageError, match="--normalize MEAN/STD"):
        quantize(elsewhere(), tmp_path / "a.tflite", calibrate=photos)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("normalize", "told"),
    [(([1.0, 2.0], [1.0]), "1 or 3 numbers"), (([0.0], [0.0]), "above 0")],
)
def test_a_normalization_fits_the_channels(normalize, told, elsewhere, tmp_path):
    with pytest.raises(UsageError, match=told):
        convert(elsewhere(), tmp_path / "a.tflite", normalize=normalize)


def test_what_cannot_be_quantized_is_refused(elsewhere, lite_int8, digits, trained, tmp_path):
    with pytest.raises(BadInputError, match="quantized already"):
        quantize(lite_int8, tmp_path / "a.tflite", calibrate=digits)
    with pytest.raises(BadInputError, match="2 inputs"):
        convert(elsewhere(inputs=2), tmp_path / "a.tflite", normalize=([0.0], [1.0]))
    with pytest.raises(UsageError, match="normalizes pixels itself, in its layer 'preprocess'"):
        convert(trained, tmp_path / "a.tflite", normalize=([0.0], [1.0]))
    with pytest.raises(UsageError, match="the Keras network"):
        quantize(elsewhere(), tmp_path / "a.tflite", calibrate=digits, equalize=True)
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(elsewhere().read_bytes()[:2000])
    with pytest.raises(BadInputError):
        convert(damaged, tmp_path / "a.tflite", normalize=([0.0], [1.0]))


# MLPerf Tiny's reference models: of each its int8 file, and what its network takes.
REFERENCES = {
    "pretrainedResnet": ("pretrainedResnet_quant", None),
    "vww_96": ("vww_96_int8", ([0.0], [255.0])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_int8_is_closer_to_the_network_than_the_published_file_and_no_larger(
    name, shared, tmp_path
):
    """On photos that neither was calibrated on."""
    from kzoo.data.load import load_data

    published, normalize = REFERENCES[name]
    published = shared / "mlperf-tiny" / f"{published}.tflite"
    network, own = shared / "mlperf-tiny" / f"{name}.h5", tmp_path / "own.tflite"
    size = inspect(published).input["shape"][1]
    photos = load_data(shared / "clothing10", size=(size, size), bad="skip")
    quantize(network, own, calibrate=photos, normalize=normalize)
    assert own.stat().st_size <= published.stat().st_size
    images = np.asarray(photos.images[photos.splits["validation"]])
    expected = source(network, normalize).outputs(images, np.arange(len(images)))
    errors = [
        np.abs(infer(file.read_bytes(), images, 1)[0] - expected).mean()
        for file in (own, published)
    ]
    assert errors[0] <= errors[1], errors


def test_a_network_from_elsewhere_is_normalized_for(tmp_path, photos):
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, 2, "same", activation="relu", name="first")(image)
    x = keras.layers.Dense(10, name="last")(keras.layers.Flatten()(x))
    net = keras.Model(image, x)
    for kind, (mean, std) in ENCODED.items():
        normalize = (np.atleast_1d(mean).tolist(), np.atleast_1d(std).tolist())
        path = tmp_path / f"{kind}.tflite"
        done = convert(net, path, normalize=normalize, head="logits")
        images = photos.images[:20]
        given = (images - np.asarray(mean)) / np.asarray(std)
        expected = np.asarray(net(given.astype(np.float32)))
        np.testing.assert_allclose(infer(path.read_bytes(), images, 1)[0], expected, atol=1e-4)
        assert done.contents.operators["CONV_2D float32"] == 1
    done = quantize(net, tmp_path / "int8.tflite", calibrate=photos, normalize=([0.0], [255.0]))
    assert done.contents.input["scale"] == pytest.approx(1 / 255)
    assert not done.contents.float_islands


def test_what_is_done_before_is_done_to_the_network_that_takes_pixels(tmp_path, photos):
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, 2, "same", activation="relu", name="first")(image)
    net = keras.Model(image, keras.layers.Dense(10, name="last")(keras.layers.Flatten()(x)))
    normalize = ([127.5], [127.5])
    path = tmp_path / "m.tflite"
    done = quantize(net, path, calibrate=photos, normalize=normalize, equalize=True)
    assert done.max_logit_error < 0.5
    assert check(path, against=net, data=photos, normalize=normalize).mean_logit_error < 0.05


def test_what_tells_what_it_takes_is_not_told_otherwise(lite_float, tmp_path):
    with pytest.raises(UsageError, match="leave out normalize"):
        convert(lite_float, tmp_path / "a.tflite", normalize=([127.5], [127.5]))


@pytest.mark.parametrize(("made", "kind"), [({"sparse": True}, "sparse"), (None, "float16")])
def test_weights_that_are_less_already_are_not_quantized(made, kind, trained, tmp_path):
    if made:
        net = load_model(trained)
        for layer in net.layers:
            if hasattr(layer, "kernel"):
                kernel = np.array(layer.kernel)
                small = np.abs(kernel) < np.quantile(np.abs(kernel), 0.9)
                layer.kernel.assign(np.where(small, 0, kernel))
        convert(net, tmp_path / "a.tflite", **made)
    else:
        quantize(trained, tmp_path / "a.tflite", recipe="fp16")
    with pytest.raises(BadInputError, match=f"are {kind} already"):
        quantize(tmp_path / "a.tflite", tmp_path / "b.tflite", recipe="dynamic")
    convert(tmp_path / "a.tflite", tmp_path / "c.tflite")
