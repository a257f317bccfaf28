"""A network spoilt on purpose: what spoils it is the first finding, and the cure helps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

from kzoo.cli import cli
from kzoo.errors import BadInputError, UsageError
from kzoo.lite.check import check
from kzoo.lite.localize import ENOUGH, cured, localize
from kzoo.lite.quantize import quantize
from kzoo.network.model_file import save_model


@pytest.fixture(scope="module")
def tinted(tmp_path_factory):
    """The digits in orange, so that the order of their channels matters."""
    from kzoo.data.load import load_data

    data = load_data("digits", channels=3, size=16)
    images = (data.images * np.array([1.0, 0.55, 0.15])).astype(np.uint8)
    return of(data, images, tmp_path_factory.mktemp("tinted"))


def of(data, images, folder):
    """The dataset with other images; a child process reads them from their file."""
    np.save(folder / "images.npy", images)
    images = np.load(folder / "images.npy", mmap_mode="r")
    return dataclasses.replace(data, images=images, images_file=folder / "images.npy")


@pytest.fixture(scope="module")
def whole(tinted):
    """A network with BatchNorm, a swish and a gate, trained for a moment."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = x = keras.Input((16, 16, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="preprocess")(x)
    for name, strides in (("stem", 2), ("stage1_1", 1), ("stage2_1", 2)):
        x = layers.Conv2D(24, 3, strides, "same", use_bias=False, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(momentum=0.8, name=f"{name}_bn")(x)
        x = layers.Activation("silu" if name == "stage1_1" else "relu", name=f"{name}_act")(x)
        if name == "stage2_1":
            gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_se_pool")(x)
            gate = layers.Conv2D(8, 1, activation="relu", name=f"{name}_se_reduce")(gate)
            gate = layers.Conv2D(24, 1, activation="sigmoid", name=f"{name}_se_expand")(gate)
            x = layers.Multiply(name=f"{name}_se_scale")([x, gate])
    x = layers.Conv2D(32, 3, 2, "same", name="stage3_1_conv")(x)
    x = layers.ReLU(name="stage3_1_act")(x)
    x = layers.Dense(10, name="head")(layers.GlobalAveragePooling2D(name="head_pool")(x))
    model = keras.Model(image, x, name="spoilt")
    train = tinted.splits["train"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    model.fit(tinted.images[train].astype(np.float32), tinted.labels[train], 64, 12, verbose=0)
    return model


def widen(model, what: str) -> None:
    """One channel has 100 times the values, and is read with a hundredth of the weights."""
    if what == "gate":
        # All gates but one nearly shut, and what they let through is read the louder.
        layer, reads = model.get_layer("stage2_1_se_expand"), model.get_layer("stage3_1_conv")
        kernel, bias = (np.array(values) for values in layer.get_weights())
        kernel[..., 1:] = 0
        bias[1:] = -6.0
        layer.set_weights([kernel, bias])
        kernel, bias = (np.array(values) for values in reads.get_weights())
        kernel[:, :, 1:] *= 0.5 * (1 + np.exp(6.0))  # a gate is about a half
        reads.set_weights([kernel, bias])
        return
    norm = model.get_layer("stem_bn" if what == "batch norm" else "stage1_1_bn")
    gamma, beta, *rest = (np.array(values) for values in norm.get_weights())
    gamma[0] *= 100
    beta[0] *= 100
    norm.set_weights([gamma, beta, *rest])
    reads = model.get_layer("stage1_1_conv" if what == "batch norm" else "stage2_1_conv")
    kernel, *rest = (np.array(values) for values in reads.get_weights())
    kernel[:, :, 0] /= 100
    reads.set_weights([kernel, *rest])


NAMED = {"batch norm": "stem_bn", "swish": "stage1_1_act", "gate": "stage2_1_se_scale"}
CAUSES = {
    "batch norm": ["outlier channel"],
    "swish": ["swish", "outlier channel"],  # what enters it is as wide
    "gate": ["gate"],
}


@pytest.fixture(scope="module")
def spoilt(whole, tinted, tmp_path_factory):
    """spoilt(what): (the Keras file, its int8 file)."""
    import keras

    folder, kept = tmp_path_factory.mktemp("spoilt"), {}

    def make(what: str):
        if what not in kept:
            model = keras.models.clone_model(whole)
            model.set_weights(whole.get_weights())
            if what in NAMED:
                widen(model, what)
            name = what.replace(" ", "_")
            path, file = folder / f"{name}.keras", folder / f"{name}.tflite"
            save_model(model, path)
            data = tinted
            if what == "bgr":
                data = of(tinted, tinted.images[..., ::-1], folder)
            quantize(path, file, calibrate=data)
            kept[what] = path, file
        return kept[what]

    return make


@pytest.mark.parametrize("what", NAMED)
def test_what_spoils_a_network_is_the_first_finding(what, spoilt, tinted):
    model, file = spoilt(what)
    found = localize(file, against=model, data=tinted)
    first = found.findings[0]
    assert NAMED[what] in first["layers"] + first["affected"], found.findings
    assert first["cause"] in CAUSES[what]
    row = max(found.layers, key=lambda row: row.get("alone", 0))
    # What it costs alone is most of what the file loses, and without it less is lost.
    assert row["without"] < found.divergence


def test_calibration_in_another_order_of_channels_is_the_first_finding(spoilt, tinted):
    model, file = spoilt("bgr")
    first = localize(file, against=model, data=tinted, alone=False).findings[0]
    assert (first["layer"], first["cause"]) == ("image", "calibration images")
    assert "BGR" in first["text"]


def test_a_sound_file_has_no_finding_of_its_calibration(spoilt, tinted):
    model, file = spoilt("sound")
    found = localize(file, against=model, data=tinted)
    assert not [each for each in found.findings if each["cause"] == "calibration images"]
    assert found.agreement >= 0.95
    kernels = [row for row in found.layers if row["weights_db"] is not None]
    assert len(kernels) == 7
    assert all(row["weights_db"] > 30 and row["sqnr_db"] > 15 for row in kernels)


@pytest.mark.parametrize(
    "what", ["bgr", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMED)]
)
def test_the_cheapest_cure_that_is_enough_is_written(what, spoilt, tinted, tmp_path):
    model, file = spoilt(what)
    found = localize(file, against=model, data=tinted)
    tried = cured(found, tmp_path / "cured.tflite", against=model, data=tinted)
    assert tried[-1]["written"], tried
    assert not any(each["written"] for each in tried[:-1])
    before = check(file, against=model, data=tinted).agreement
    after = check(tmp_path / "cured.tflite", against=model, data=tinted).agreement
    assert after >= max(ENOUGH, before)


def test_a_file_of_another_converter_is_matched_by_its_operators(spoilt, tinted, tmp_path):
    import keras
    import tensorflow as tf

    model, _ = spoilt("swish")
    net = keras.saving.load_model(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    train = tinted.splits["train"][:40]
    converter.representative_dataset = lambda: (
        [tinted.images[i : i + 1].astype(np.float32)] for i in train
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    (tmp_path / "foreign.tflite").write_bytes(converter.convert())
    found = localize(tmp_path / "foreign.tflite", against=model, data=tinted)
    assert NAMED["swish"] in found.findings[0]["affected"]


def test_what_cannot_be_is_said(trained, lite_float, lite_int8, digits, spoilt):
    with pytest.raises(BadInputError, match="nothing to find"):
        localize(lite_float, against=trained, data=digits)
    with pytest.raises(UsageError, match="limit"):
        localize(lite_int8, against=trained, data=digits, limit=0)
    with pytest.raises(BadInputError, match="not made from this model"):
        localize(spoilt("sound")[1], against=trained, data=digits)


def test_the_command_tells(spoilt):
    model, file = spoilt("bgr")
    command = ["localize", str(file), "--against", str(model), "--data", "digits"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert "same top-1" in done.output
