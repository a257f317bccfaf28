"""A float file computes what the Keras model does, takes pixels, and tells its names."""

from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.learn.evaluate import softmax
from kzoo.lite.convert import convert
from kzoo.lite.inspect import inspect
from kzoo.lite.interpret import infer, lite_outputs
from kzoo.network.model_file import load_model, save_model
from kzoo.zoo.build import build

ACCURACY = 1e-4
"""Largest error of a float file, in standard deviations of the logits."""


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """noise(shape): a .npy of five random uint8 images, and the images."""

    def make(shape):
        images = np.random.default_rng(5).integers(0, 256, (5, *shape), np.uint8)
        path = tmp_path_factory.mktemp("noise") / "images.npy"
        np.save(path, images)
        return path, images

    return make


@pytest.mark.parametrize(
    ("name", "io", "head"),
    [
        ("lenet5", "uint8", "probabilities"),
        ("resnet8", "uint8", "logits"),
        pytest.param("mobilenet_v2_035", "float32", "probabilities", marks=pytest.mark.slow),
    ],
)
def test_a_float_file_agrees_with_keras(name, io, head, noise, tmp_path):
    model = build(name, size=32, channels=1, classes=7, seed=0)
    done = convert(model, tmp_path / "m.tflite", io=io, head=head)
    path, images = noise((32, 32, 1))
    expected = np.asarray(model(images.astype(np.float32)))
    found, logits = lite_outputs(tmp_path / "m.tflite", path, np.arange(5))
    assert (logits is None) == (head == "logits")
    compared = found if logits is None else logits
    assert np.abs(compared - expected).max() <= ACCURACY * expected.std()
    if head == "probabilities":
        assert np.allclose(found, softmax(expected), atol=1e-5)
    assert done.max_logit_error <= ACCURACY
    assert done.contents.input["dtype"] == io
    assert done.contents.output["dtype"] == "float32"
    assert done.contents.file == done.output == str(tmp_path / "m.tflite")
    signature = Interpreter(str(tmp_path / "m.tflite")).get_signature_list()
    assert signature == {"serving_default": {"inputs": ["image"], "outputs": [head]}}


def test_the_classes_are_in_the_file(lite_float, lite_int8, digits):
    for path in (lite_float, lite_int8):
        assert inspect(path).notes["classes"] == list(digits.classes)


@pytest.mark.parametrize(
    ("kind", "probabilities"),
    [("sequential", False), ("nested softmax", True)],
)
def test_a_network_from_elsewhere_is_converted(kind, probabilities, foreign, noise, tmp_path):
    model = foreign(kind)
    convert(model, tmp_path / "m.tflite")
    path, images = noise((16, 16, 1))
    expected = np.asarray(model(images.astype(np.float32)))
    found, _ = lite_outputs(tmp_path / "m.tflite", path, np.arange(5))
    assert np.allclose(found, expected if probabilities else softmax(expected), atol=1e-5)


def two_inputs() -> keras.Model:
    first, second = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Add()([first, second]))
    return keras.Model([first, second], keras.layers.Dense(2)(x))


class Subclassed(keras.Model):
    def call(self, image):
        return image


def test_what_is_no_functional_classifier_is_refused(tmp_path):
    output = tmp_path / "m.tflite"
    with pytest.raises(BadInputError, match="2 inputs"):
        convert(two_inputs(), output)
    with pytest.raises(BadInputError, match="Subclassed; a functional"):
        convert(Subclassed(), output)
    with pytest.raises(BadInputError, match=r"begin it with keras\.Input"):
        convert(keras.Sequential([keras.layers.Dense(2)]), output)
    assert not output.exists()


def test_a_lambda_is_refused_by_name_and_never_run(tmp_path):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda x: x * 2)(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"m{suffix}"
        model.save(path)
        with pytest.raises(BadInputError, match="Lambda"):
            convert(path, tmp_path / "m.tflite")
        with pytest.raises(BadInputError, match="Lambda"):
            load_model(path)
    assert not (tmp_path / "m.tflite").exists()


def test_nan_in_the_weights_is_found_and_nothing_is_left(tmp_path):
    model = build("lenet5", size=16)
    model.get_layer("head").bias.assign(np.full(10, np.nan, np.float32))
    with pytest.raises(BadInputError, match="NaN"):
        convert(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "zip"])
def test_a_damaged_model_file_is_refused(kind, trained, tmp_path):
    path = tmp_path / "m.keras"
    data = trained.read_bytes()
    path.write_bytes(
        {"text": b"hello", "empty": b"", "truncated": data[: len(data) // 2]}.get(kind, b"")
    )
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
    with pytest.raises(BadInputError, match=r"damaged or not a Keras model|custom class"):
        convert(path, tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


def test_an_existing_output_is_kept_without_force(trained, tmp_path):
    output = tmp_path / "m.tflite"
    output.write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        convert(trained, output)
    with pytest.raises(BadInputError):
        convert(Subclassed(), output, force=True)
    assert output.read_text() == "mine"
    convert(trained, output, force=True)
    assert inspect(output).bytes > 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"io": "int8"}, "uint8"),
        ({"head": "softmax"}, "neither"),
        ({"output": "m.lite"}, r"ends in \.tflite"),
    ],
)
def test_a_wrong_argument_is_the_user_s_error(wrong, message, trained, tmp_path):
    with pytest.raises(UsageError, match=message):
        convert(trained, **{"output": tmp_path / "m.tflite", **wrong})


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(MissingError, match=r"gone\.keras"):
        convert(tmp_path / "gone.keras", tmp_path / "m.tflite")


def test_class_names_survive_from_keras_to_lite(tmp_path):
    names = ("ö", "two words", "3")
    path = save_model(
        build("lenet5", size=16, classes=3), tmp_path / "m.keras", notes={"classes": list(names)}
    )
    assert convert(path, tmp_path / "m.tflite").contents.notes["classes"] == list(names)


def test_auxiliary_heads_stay_behind(tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Flatten(name="stem")(image)
    heads = [keras.layers.Dense(3, name=name)(x) for name in ("head", "head_aux1")]
    path = save_model(keras.Model(image, heads, name="net"), tmp_path / "m.keras")
    assert convert(path, tmp_path / "m.tflite", head="logits").max_logit_error <= ACCURACY
    file = Interpreter(str(tmp_path / "m.tflite"))
    assert file.get_signature_list()["serving_default"]["outputs"] == ["logits"]
    shapes = [tensor["shape"].tolist() for tensor in file.get_tensor_details()]
    assert shapes.count([3, 64]) == 1  # the kernel of one head


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory):
    """Kernels that can go around the converter, and others that it must fold something in."""
    layers = keras.layers

    def conv(x, **options):
        return layers.Conv2D(8, 3, **{"padding": "same", **options})(x)

    def norm(x, **options):
        return layers.BatchNormalization(**options)(x)

    image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 64, -1.5)(image)
    x = layers.ReLU()(norm(conv(x)))
    x = norm(conv(x, use_bias=False))
    x = layers.Add()([x, norm(conv(x, activation="relu"))])
    x = layers.ReLU()(norm(conv(x), scale=False))
    x = norm(conv(x), center=False, epsilon=0.1)
    both = norm(conv(x))
    x = layers.Concatenate()([both, layers.ReLU()(both), conv(both)])
    x = layers.Rescaling(0.5)(conv(norm(x), groups=4))
    x = layers.ReLU()(norm(conv(x, dilation_rate=2)))
    shared, one, other = layers.Conv2D(8, 1), layers.BatchNormalization(), layers.Conv2D(8, 1)
    x = layers.Add()([one(shared(x)), layers.ReLU()(one(shared(x))), one(other(x))])
    x = layers.ReLU()(norm(layers.DepthwiseConv2D(3, strides=2)(x)))
    read_twice = conv(x)
    x = layers.Add()([norm(read_twice), read_twice])
    inside = keras.Input(x.shape[1:])
    x = keras.Model(inside, layers.ReLU()(norm(conv(inside))), name="inside")(x)
    x = layers.Dense(16)(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    x = layers.Dropout(0.5)(layers.ReLU()(layers.Dense(24)(x)))
    x = layers.Rescaling(2.0)(layers.Dropout(0.5)(layers.Dense(24)(x)))
    net = keras.Model(image, layers.Dense(4)(x))
    dice = np.random.default_rng(0)
    for variable in net.variables:
        low = 0.5 if variable.name in ("gamma", "moving_variance") else -0.5
        variable.assign(dice.uniform(low, low + 1, variable.shape))
    file = tmp_path_factory.mktemp("kinds") / "all.keras"
    net.save(file)
    return file


@pytest.mark.parametrize("recipe", [None, "dynamic", "int8"])
@pytest.mark.parametrize(
    ("kind", "frame"), [("all", None), ("trained", None), ("trained", (64, 64))]
)
def test_large_kernels_that_go_around_the_converter_arrive(
    recipe, kind, frame, trained, all_kinds, digits, tmp_path, monkeypatch
):
    from kzoo.lite import apart, translate

    net = {"all": all_kinds, "trained": trained}[kind]
    size = (16, 16, 3) if kind == "all" else digits.images.shape[1:]
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (16, *size), np.uint8) if kind == "all" else digits.images[:16]
    np.save(tmp_path / "calibration.npy", images)
    given = {"recipe": recipe, "io": "uint8", "head": "logits", "frame": frame}
    files, around = [], []
    find = translate.apart
    monkeypatch.setattr(translate, "apart", lambda net: around.append(find(net)) or around[-1])
    for least in (1 << 40, 1):
        monkeypatch.setattr(apart, "LARGE", least)
        file = tmp_path / f"{least}.tflite"
        notes = {"classes": list(digits.classes)}
        translate.translate(str(net), str(file), notes=notes, work=str(tmp_path), **given)
        files.append(file)
    assert [len(each) for each in around] == [0, {"all": 7, "trained": 4}[kind]]
    images = np.load(tmp_path / "images.npy")
    plain, filled = (infer(file.read_bytes(), images, 1)[0] for file in files)
    contents = [inspect(file) for file in files]
    close = {None: 1e-5, "dynamic": 0.01}.get(recipe, 4 / 256)  # of all that the file can tell
    np.testing.assert_allclose(plain, filled, atol=close * np.ptp(plain))
    assert contents[0].operators == contents[1].operators
    assert contents[1].metadata.get("labels", 0) == contents[0].metadata.get("labels", 0)


def test_sparse_kernels_take_their_other_weights_alone(trained, lite_float, digits, tmp_path):
    net = load_model(trained)
    for layer in net.layers:
        for variable in layer.trainable_variables:
            if variable.name == "kernel":
                kernel = np.array(variable)
                variable.assign(
                    np.where(np.abs(kernel) < np.quantile(np.abs(kernel), 0.8), 0, kernel)
                )
    files = {sparse: tmp_path / f"{sparse}.tflite" for sparse in (False, True)}
    for sparse, file in files.items():
        convert(net, file, sparse=sparse)
    assert files[True].stat().st_size < 0.6 * files[False].stat().st_size
    images = digits.images[:20]
    found = [infer(file.read_bytes(), images, 1)[0] for file in files.values()]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    with pytest.raises(UsageError, match="of a Keras network"):
        convert(lite_float, tmp_path / "other.tflite", sparse=True)
