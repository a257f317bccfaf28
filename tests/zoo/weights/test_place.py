"""Weights of every library land where that library has them."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import random
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.learn.evaluate import softmax
from kzoo.lite.interpret import lite_outputs
from kzoo.lite.saved_model import read_saved_model
from kzoo.network.model_file import save_model
from kzoo.registry import entry, list_models, pair
from kzoo.zoo.build import affine, build, drawn
from kzoo.zoo.weights.load import located, pretrained
from kzoo.zoo.weights.place import place
from kzoo.zoo.weights.read import read_checkpoint
from kzoo.zoo.weights.table import find, weights_of
from tests.zoo.conftest import DEEP
from tests.zoo.test_parity import APPLICATIONS, parity_cases, random_weights, weights_by_graph


def flipped(model: keras.Model) -> keras.Model:
    """Takes blue first."""
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    first.kernel.assign(first.kernel[:, :, ::-1])
    return model


FILES = {
    "convnext_tiny", "efficientnet_b0", "mobilenet_v1_025", "mobilenet_v2_035",
    "mobilenet_v3_small_075",
}  # fmt: skip
"""Files of keras.applications of different kinds of layers; the others are slow."""


def odd_parity_cases():
    for case in parity_cases():
        name, size = case.values
        if size % 32 == 11:
            yield pytest.param(name, size, marks=[] if name in FILES else [pytest.mark.slow])


@pytest.mark.parametrize(("name", "size"), list(odd_parity_cases()))
def test_a_file_of_keras_applications_is_loaded(name, size, tmp_path):
    function, arguments = APPLICATIONS[name]
    size = max(size, find(name, "keras_in1k").size) if name.startswith("vgg") else size
    theirs = of_keras(function, size, **arguments)
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    found = pretrained(name, tmp_path / "theirs.h5", classes=10, size=size)
    assert found.source.tag == "keras_in1k"
    assert_same_weights(flipped(found.model) if found.source.bgr else found.model, theirs)


@pytest.mark.parametrize(
    ("name", "anew"),
    [
        ("mobilenet_v2_035", ["head"]),
        ("mobilenet_v3_small_075", ["head_hidden_conv", "head"]),
        pytest.param("vgg16", ["head_fc1", "head_fc2", "head"], marks=pytest.mark.slow),
    ],
)
def test_a_file_without_top_gets_a_new_classifier(name, anew, tmp_path):
    function, arguments = APPLICATIONS[name]
    theirs = of_keras(function, 64, include_top=False, **arguments)
    with h5py.File(tmp_path / "notop.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    found = pretrained(name, tmp_path / "notop.h5", classes=7, size=64, seed=0)
    assert f"the file has no classifier: {', '.join(anew)} drawn anew" in found.notes
    assert (found.complete, found.classes, found.model.outputs[0].shape) == (False, (), (None, 7))
    model = flipped(found.model) if found.source.bgr else found.model
    drawn_weights = build(name, flavour=found.flavour, classes=7, size=64, seed=0).get_weights()
    head = {id(weight) for layer in anew for weight in model.get_layer(layer).weights}
    for weight, value in zip(model.weights, drawn_weights, strict=True):
        assert id(weight) not in head or np.array_equal(weight, value), weight.path
    trunk = [weight for weight in weights_by_graph(model) if id(weight) not in head]
    for weight, reference in zip(trunk, weights_by_graph(theirs), strict=True):
        np.testing.assert_array_equal(weight, reference, err_msg=weight.path)


def of_keras(function: str, size: int, **arguments) -> keras.Model:
    """A network of keras.applications with random weights, for 10 classes."""
    theirs = getattr(keras.applications, function)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None,
        **arguments,
    )  # fmt: skip
    weights = weights_by_graph(theirs)
    for weight, value in zip(weights, random_weights(weights, seed=size), strict=True):
        weight.assign(value)
    return theirs


def assert_same_weights(ours: keras.Model, theirs: keras.Model) -> None:
    for weight, reference in zip(weights_by_graph(ours), weights_by_graph(theirs), strict=True):
        expected = np.asarray(reference).reshape(weight.shape)
        np.testing.assert_array_equal(np.asarray(weight), expected, err_msg=weight.path)


@pytest.mark.parametrize(
    ("name", "suffix", "said"),
    [
        ("mobilenet_v2_035", "keras", ""),
        ("mobilenet_v2_035", "h5", ""),
        ("mobilenet_v2_035", "weights.h5", ""),
        ("xception", "weights.h5", "no order between"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("xception", "keras", ""),
                ("inception_v3", "weights.h5", "does not name"),
                ("nasnet_mobile", "weights.h5", "no order between"),
                ("convnext_tiny", "weights.h5", "no order between"),
            )
        ),
    ],
)
def test_a_file_of_keras_3_is_placed_right_or_refused(name, suffix, said, tmp_path):
    """A ``.weights.h5`` groups layers by class, and numbers their variables."""
    function, arguments = APPLICATIONS[name]
    theirs = of_keras(function, 96, **arguments)
    file = tmp_path / f"theirs.{suffix}"
    (theirs.save_weights if suffix == "weights.h5" else theirs.save)(file)
    if said:
        with pytest.raises(BadInputError, match=f"{said}.*save the whole model"):
            pretrained(name, file, classes=10, size=96)
    else:
        assert_same_weights(pretrained(name, file, classes=10, size=96).model, theirs)


@pytest.fixture(scope="module")
def transferred():
    """As users have it: a normalization, a base that is frozen in part, a head."""
    layers = keras.layers
    base = keras.applications.MobileNetV2(
        weights=None, alpha=0.35, input_shape=(96, 96, 3), include_top=False, pooling="avg"
    )
    for layer in base.layers[:100]:
        layer.trainable = False
    adapted = layers.Normalization(name="adapted")
    adapted.adapt(np.random.default_rng(0).normal([0.5, 0.4, 0.3], 0.2, (4, 96, 96, 3)))
    image = keras.Input((96, 96, 3))
    x = adapted(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Dense(7)(base(x)))
    weights = [weight for weight in model.weights if "adapted" not in weight.path]
    for weight, value in zip(weights, random_weights(weights, seed=1), strict=True):
        weight.assign(value)
    return model


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_model_of_a_user_gives_its_logits_from_pixels(transferred, suffix, tmp_path):
    file = tmp_path / f"theirs.{suffix}"
    transferred.save(file)
    found = pretrained("mobilenet_v2_035", file, classes=7, size=96)
    assert found.notes == [f"{file.name} is no published file: its crop is taken from keras_in1k"]
    images = smooth_images(96).astype(np.float32)
    expected = np.asarray(transferred(images))
    assert np.abs(np.asarray(found.model(images)) - expected).max() <= 1e-4 * expected.std()


def test_a_normalization_that_cannot_be_used_is_told(transferred, tmp_path):
    """Weights alone do not tell what stands before it."""
    transferred.save_weights(tmp_path / "theirs.weights.h5")
    found = pretrained("mobilenet_v2_035", tmp_path / "theirs.weights.h5", classes=7, size=96)
    assert "the normalization of its layer adapted is not used" in found.notes


@pytest.mark.slow
@pytest.mark.parametrize("how", ["export", "save"])
def test_a_saved_model_is_placed_right(transferred, how, tmp_path):
    import tensorflow as tf

    if how == "export":
        transferred.export(tmp_path / "saved", verbose=False)
    else:
        tf.saved_model.save(transferred, tmp_path / "saved")
    weights = read_saved_model(tmp_path / "saved")
    found = pretrained("mobilenet_v2_035", weights, classes=7, size=96)
    assert found.file is None
    assert any("adapted is not used" in note for note in found.notes)
    # Entered behind the normalization, which is in the graph of a SavedModel alone.
    images = np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 3)).astype(np.float32)
    theirs = keras.Model(transferred.get_layer("adapted").output, transferred.output)
    ours = keras.Model(found.model.get_layer("preprocess").output, found.model.output)
    expected = np.asarray(theirs(images))
    assert np.abs(np.asarray(ours(images)) - expected).max() <= 1e-4 * expected.std()
    with pytest.raises(UsageError, match="is a TensorFlow SavedModel; type kzoo build"):
        pretrained("mobilenet_v2_035", tmp_path / "saved")


@functools.cache
def torch_networks() -> dict:
    """Of networks of torchvision and timm: the shapes of their tensors, and which layer is which.

    The pairs were found by walking both graphs, and confirmed on logits.
    """
    file = Path(__file__).parent / "torch_layers.json.gz"
    return json.loads(gzip.decompress(file.read_bytes()))["networks"]


def torch_cases():
    """All names; slow but for the smallest of each builder, and of those the deep and large."""
    smallest = {}
    for name in sorted(torch_networks(), key=lambda n: -entry(n).macs):
        smallest[entry(name).builder] = name
    for name in torch_networks():
        fast = name in smallest.values() and name not in DEEP | {"vgg11_bn", "efficientnet_v2_s"}
        yield pytest.param(name, marks=[] if fast else [pytest.mark.slow])


def in_keras_layout(layer: keras.Layer, kernel: np.ndarray) -> np.ndarray:
    if kernel.ndim == 4:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        return kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return kernel.T if kernel.ndim == 2 else kernel


def of_torch(name: str, prefix: str = "", **options):
    """Places random weights under torch's names, in any order: a file of safetensors is sorted by
    other rules than a pickle. Returns the model, what was said, and the weights."""
    values = {}
    for i, (key, shape) in enumerate(torch_networks()[name]["shapes"].items()):
        values[key] = np.random.default_rng(i).random(shape, np.float32)
        if len(shape) > 1:  # of the variance 2 / inputs
            values[key] = (values[key] - 0.5) * np.float32((24 / np.prod(shape[1:])) ** 0.5)
    keys = [*values]
    random.Random(0).shuffle(keys)
    row = dataclasses.replace(entry(name), mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    model, made = drawn(row, None, flavour="torch", **options)
    state = {prefix + key: values[key] for key in keys}
    placed = place(
        model, made, state, family=row.family, torch=True, normalization=affine(row)
    )  # fmt: skip
    return model, placed, values


def check(name: str, model: keras.Model, values: dict, but: tuple[str, ...] = ()) -> None:
    """Every layer has what its counterpart had, but those named."""
    parts = {
        "beta": "bias", "bias": "bias", "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }  # fmt: skip
    for layer, theirs in torch_networks()[name]["layers"].items():
        layer = model.get_layer(layer)
        if isinstance(layer, keras.layers.Dense) and name.startswith(("alexnet", "vgg")):
            continue  # what is flattened: below
        kernel = in_keras_layout(layer, values.get(f"{theirs}.weight", values.get(theirs)))
        for weight in layer.weights:
            part = parts.get(weight.name)
            expected = values[f"{theirs}.{part}"] if part else kernel
            found = np.asarray(weight)
            if layer.name not in but:
                np.testing.assert_array_equal(
                    found, expected.reshape(found.shape), err_msg=weight.path
                )


@pytest.mark.parametrize("name", list(torch_cases()))
def test_a_state_dict_of_torch_is_loaded(name):
    model, placed, values = of_torch(name)
    assert not placed.anew
    assert all("auxiliary" in note for note in placed.notes)
    check(name, model, values)


def rest_slow(first: str, *others: str) -> list:
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


@pytest.mark.parametrize("prefix", ["model.", "_orig_mod.backbone."])
@pytest.mark.parametrize(
    "name", rest_slow("efficientnet_lite0", "mobilenet_v4_conv_small", "ghostnet", "repvgg_a0")
)
def test_what_wrappers_put_before_the_names_is_of_no_account(name, prefix):
    model, _, values = of_torch(name, prefix)
    check(name, model, values)


@pytest.mark.parametrize(
    "name", ["googlenet_tv", pytest.param("inception_v3", marks=pytest.mark.slow)]
)
def test_auxiliary_classifiers_are_loaded_beside_the_trunk(name):
    model, placed, values = of_torch(name, auxiliary=True)
    assert placed.notes == []
    check(name, model, values)
    used = sum(int(np.prod(weight.shape)) for weight in model.weights)
    assert used == sum(value.size for key, value in values.items())


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mobilenet_v2", ["stem_conv"]),
        ("mnasnet0_5", ["stem_conv"]),
        ("shufflenet_v2_x0_5", ["stem_conv"]),
        ("repvgg_a0", ["stem_3x3_conv", "stem_1x1_conv"]),
    ],
)
@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_change_the_first_layers_alone(name, first, channels):
    model, placed, values = of_torch(name, channels=channels, size=64)
    reference, _, _ = of_torch(name, size=64)
    assert len(placed.notes) == 1
    norms = [layer.replace("conv", "bn") for layer in first]
    check(name, model, values, but=(*first, *norms))
    gray = smooth_images(64)[..., :1].astype(np.float32)
    for layer in norms:
        ours, expected = (
            np.asarray(keras.Model(net.input, net.get_layer(layer).output)(gray.repeat(n, axis=-1)))
            for net, n in ((model, channels), (reference, 3))
        )
        # At the borders the zeros that are padded stand for the means of the channels.
        inside = np.s_[:, 1:-1, 1:-1]
        assert np.abs(ours - expected)[inside].max() <= 1e-5 * expected.std()


def test_a_gray_image_gives_the_logits_of_its_three_channels():
    """Where no zeros are padded: the first convolution of SqueezeNet is a "valid" one."""
    gray = smooth_images(64)[..., :1].astype(np.float32)
    model, _, _ = of_torch("squeezenet1_1", channels=1, size=64)
    reference, _, _ = of_torch("squeezenet1_1", size=64)
    expected = np.asarray(reference(gray.repeat(3, axis=-1)))
    assert np.abs(np.asarray(model(gray)) - expected).max() <= 1e-4 * expected.std()


@pytest.mark.parametrize(
    ("name", "anew"),
    [("squeezenet1_1", "head_conv"), ("mobilenet_v2", "head"), ("alexnet", "head")],
)
def test_other_classes_change_the_classifier_alone(name, anew):
    model, placed, values = of_torch(name, classes=7)
    assert placed.anew == [anew]
    assert "7 are asked" in placed.notes[0]
    check(name, model, values, but=(anew,))


def test_a_flattened_image_is_turned_channels_last():
    """torch flattens (c, h, w): the rows of the first dense kernel have another order there."""
    row = entry("lenet5")
    model, made = drawn(row, 0, flavour="torch")
    flat = next(layer for layer in model.layers if isinstance(layer, keras.layers.Flatten))
    h, w, c = flat.input.shape[1:]
    dense = flat._outbound_nodes[0].operation
    state = {}
    for layer in (la for la in model.layers if la.weights):
        kernel, bias = (np.asarray(weight) for weight in layer.weights)
        if layer is dense:
            kernel = kernel.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        state[f"{layer.name}.weight"] = kernel.transpose(
            (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        )
        state[f"{layer.name}.bias"] = bias
    expected = model.get_weights()
    model.set_weights([np.zeros_like(weight) for weight in expected])
    place(model, made, state, family="lenet", torch=True)
    for found, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def smooth_images(size: int) -> np.ndarray:
    """Random pixels, and random patches, which networks tell apart better."""
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    step = size // 4
    images[:4] = np.kron(images[:4, ::step, ::step], np.ones((step, step, 1), np.uint8))
    return images


@pytest.mark.parametrize(
    ("name", "file", "oracle", "factor"),
    [
        ("resnet8", "pretrainedResnet.h5", "pretrainedResnet.tflite", 1.0),
        ("vww_mobilenet", "vww_96.h5", "vww_96_float.tflite", 1 / 255),
    ],
)
def test_mlperf_tinys_files_agree_with_their_tflite(name, file, oracle, factor, shared, tmp_path):
    found = pretrained(name, shared / "mlperf-tiny" / file)
    assert found.source.tag == "mlperf_tiny"
    assert not found.notes
    assert len(found.classes) == entry(name).classes
    images = smooth_images(entry(name).size)
    np.save(tmp_path / "images.npy", images * np.float32(factor) if factor != 1 else images)
    expected, _ = lite_outputs(
        shared / "mlperf-tiny" / oracle, tmp_path / "images.npy", np.arange(8)
    )
    probabilities = softmax(np.asarray(found.model(images.astype(np.float32))))
    assert np.ptp(expected[:, 0]) > 0.05
    assert np.abs(probabilities - expected).max() <= 1e-4


@pytest.mark.parametrize(("depth", "digest"), [(20, "12fca82f"), (56, "4bfd9763")])
def test_cifar_checkpoints_agree_with_their_network_in_numpy(depth, digest, shared):
    """He et al. 2015, section 4.2, with option A, written here on arrays (c, h, w)."""
    file = shared / "cifar-resnet" / f"resnet{depth}-{digest}.th"
    state = read_checkpoint(file).arrays

    def convolved(x, name, stride=1):
        kernel = state[f"{name}.weight"].astype(np.float64)
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        return np.einsum("ihwab,oiab->ohw", windows[:, ::stride, ::stride], kernel, optimize=True)

    def normalized(x, name):
        weight, bias, mean, variance = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def logits(image):
        mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        x = ((image / 255 - mean) / std).transpose(2, 0, 1)
        x = np.maximum(normalized(convolved(x, "conv1"), "bn1"), 0)
        for stage in (1, 2, 3):
            for block in range((depth - 2) // 6):
                name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = np.maximum(normalized(convolved(x, f"{name}.conv1", stride), f"{name}.bn1"), 0)
                y = normalized(convolved(y, f"{name}.conv2"), f"{name}.bn2")
                if stride == 2:
                    more = x.shape[0] // 2
                    x = np.pad(x[:, ::2, ::2], ((more, more), (0, 0), (0, 0)))
                x = np.maximum(x + y, 0)
        return x.mean(axis=(1, 2)) @ state["linear.weight"].T + state["linear.bias"]

    found = pretrained(f"resnet{depth}", file)
    assert (found.source.tag, found.notes) == ("cifar10", [])
    assert found.classes[3] == "cat"
    images = smooth_images(32)
    expected = np.stack([logits(image.astype(np.float64)) for image in images])
    ours = np.asarray(found.model(images.astype(np.float32)))
    assert np.abs(ours - expected).max() <= 1e-4 * expected.std()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A .keras file of MobileNetV2 for RGB images and 10 classes."""
    model = build("mobilenet_v2_035", classes=10, size=32, seed=0)
    return save_model(model, tmp_path_factory.mktemp("own") / "own.keras"), model


def test_a_file_of_kzoo_is_loaded_by_its_names(own):
    file, model = own
    found = pretrained("mobilenet_v2_035", file, classes=10, size=64, seed=1)
    assert (found.source, found.notes) == (None, [])
    for ours, reference in zip(found.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, reference)


def test_a_file_of_kzoo_keeps_normalization_classes_and_flavour(shared, tmp_path):
    file = shared / "cifar-resnet" / "resnet20-12fca82f.th"
    first = pretrained("resnet20", file)
    notes = {"classes": list(first.classes), "crop": 0.9}
    again = pretrained("resnet20", save_model(first.model, tmp_path / "a.keras", notes=notes))
    assert (again.notes, again.crop, list(again.classes)) == ([], 0.9, list(first.classes))
    images = smooth_images(32).astype(np.float32)
    np.testing.assert_allclose(again.model(images), first.model(images), rtol=1e-4, atol=1e-4)
    biased = save_model(
        build("resnet50", flavour="keras", size=32, classes=4), tmp_path / "b.keras"
    )
    found = pretrained("resnet50", biased, size=32, classes=4)
    assert found.model.get_layer("stem_conv").use_bias


def test_the_classes_that_a_file_names_are_those_of_the_network(tmp_path):
    model = build("resnet8", classes=3)
    file = save_model(model, tmp_path / "a.keras", notes={"classes": ["cat", "dog", "owl"]})
    found = pretrained("resnet8", file)
    assert (list(found.classes), found.complete) == (["cat", "dog", "owl"], True)
    assert found.model.outputs[0].shape[-1] == 3
    assert pretrained("resnet8", file, classes=4).classes == ()
    assert pretrained("resnet8", save_model(model, tmp_path / "b.keras")).classes == ()


def test_another_flavour_than_that_of_the_weights_is_refused_or_told(shared, tmp_path):
    with pytest.raises(UsageError, match=r"'keras' was asked.* tv_in1k are of flavour 'torch'"):
        pretrained("resnet50", "tv_in1k", flavour="keras", offline=True)
    with pytest.raises(UsageError, match="weights cifar10 are of flavour 'torch'"):
        pretrained("resnet20", shared / "cifar-resnet" / "resnet20-12fca82f.th", flavour="keras")
    theirs = of_keras("MobileNetV2", 96, alpha=0.35)
    theirs.save(tmp_path / "theirs.keras")
    found = pretrained("mobilenet_v2_035", tmp_path / "theirs.keras", flavour="torch", size=96)
    assert "flavour torch is taken as asked; keras_in1k is of keras" in found.notes
    assert found.flavour == "torch"


def test_variables_that_no_layer_has_are_all_named():
    model = build("lenet5", seed=0)
    weights = {weight.path: np.asarray(weight) for weight in model.weights}
    layer = next(iter(weights)).rpartition("/")[0]
    strange = {f"{layer}/{name}": np.ones(3, np.float32) for name in ("twist", "turn")}
    with pytest.raises(BadInputError, match=f"{layer}/twist, {layer}/turn"):
        pretrained("lenet5", weights | strange)


def test_a_package_with_another_file_than_published_is_refused(tmp_path, monkeypatch):
    (tmp_path / "carrier").mkdir()
    (tmp_path / "carrier" / "__init__.py").touch()
    (tmp_path / "carrier" / "w.pth").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    row = dataclasses.replace(find("efficientnet_lite0", "lite_in1k"), package="carrier/w.pth")
    with pytest.raises(BadInputError, match=r"w\.pth' is not what was published"):
        located(row)


def test_no_weights_at_all_are_refused():
    with pytest.raises(BadInputError, match="no weights of lenet5"):
        pretrained("lenet5", {})


def test_other_classes_get_a_new_head(own):
    file, model = own
    found = pretrained("mobilenet_v2_035", file, classes=7, size=32, seed=1)
    assert found.notes == ["the file has 10 classes, 7 are asked: head is drawn anew"]
    for layer in model.layers[:-1]:
        for ours, reference in zip(
            found.model.get_layer(layer.name).weights, layer.weights, strict=True
        ):
            np.testing.assert_array_equal(ours, reference)


def test_without_a_head_the_classifier_is_left_out(own):
    file, model = own
    found = pretrained("mobilenet_v2_035", file, head="none", size=32)
    assert found.notes == ["the classifier is left out (head)"]
    features = keras.Model(model.input, model.get_layer("head").input)
    image = smooth_images(32).astype(np.float32)
    np.testing.assert_allclose(found.model(image), features(image), rtol=1e-5, atol=1e-6)


def test_gray_images_get_the_sum_of_the_first_layers_channels(own):
    """So three equal channels and one give the same."""
    file, model = own
    found = pretrained("mobilenet_v2_035", file, classes=10, size=32, channels=1)
    assert found.notes == ["the first layer's 3 channels are summed for 1"]
    gray = smooth_images(32)[..., :1].astype(np.float32)
    np.testing.assert_allclose(
        found.model(gray), model(gray.repeat(3, axis=-1)), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("name", ["mobilenet_v2_050", "resnet8", "mobilenet_v1_025"])
def test_the_weights_of_another_network_are_refused(name, own):
    with pytest.raises(BadInputError, match=f"not of {name}: .* layers fit"):
        pretrained(name, own[0], classes=10, size=32)


def test_more_layers_of_the_same_shapes_are_refused(shared):
    """ResNet-56's weights have all the shapes of ResNet-20."""
    with pytest.raises(BadInputError, match="72 of the file's are left over"):
        pretrained("resnet20", shared / "cifar-resnet" / "resnet56-4bfd9763.th")


def test_a_nan_is_refused(tmp_path):
    model = build("mobilenet_v2_035", classes=10, size=32, seed=0)
    weight = model.get_layer("stage2_1_expand_conv").kernel
    weight.assign(np.full(weight.shape, np.nan))
    file = save_model(model, tmp_path / "diverged.keras")
    with pytest.raises(BadInputError, match=r"stage2_1_expand_conv/kernel with [0-9,]+ values"):
        pretrained("mobilenet_v2_035", file, classes=10, size=32)


@pytest.mark.parametrize(
    ("name", "tag", "said"),
    [
        ("resnet50", "tv_ink", "did you mean tv_in1k"),
        ("resnet50", "cifar10", "there are tv2_in1k, tv_in1k, keras_in1k"),
        ("perceptron", "imagenet", "kzoo knows none for it"),
    ],
)
def test_an_unknown_tag_is_refused(name, tag, said):
    with pytest.raises(UsageError, match=said):
        pretrained(name, tag)


def test_what_cannot_be_downloaded_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KZOO_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=f"resnet50-0676ba61.pth.*{tmp_path}"):
        pretrained("resnet50", "tv_in1k", offline=True)


@pytest.mark.parametrize("name", list_models(weights=True))
def test_every_row_of_the_table_fits_its_network(name):
    for row in weights_of(name):
        assert row.url.startswith("https://") or row.package
        assert row.url == "" or row.digest or row.tag == "timm_in1k" or "mobilenet" in row.url
        assert row.size >= max(pair(entry(name).min_size))
        assert 0.8 < row.crop <= 1
        assert len(row.mean) in (1, 3)
        assert len(row.classes) == entry(name).classes
        assert len(set(row.classes)) == len(row.classes)
        assert row.licence
    tops = [row.top1 or 0 for row in weights_of(name)]
    assert tops == sorted(tops, reverse=True)
