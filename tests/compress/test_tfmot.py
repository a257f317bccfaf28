"""TFMOT as the other engine, and as the oracle: same images, same schedule, same result."""

from __future__ import annotations

import importlib.util
import os

import keras
import numpy as np
import pytest
from keras import layers

import kzoo
from kzoo.errors import BadInputError, UsageError
from kzoo.network.model_file import read_notes

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("tensorflow_model_optimization"), reason="needs kzoo[tfmot]"
)
PHASE = {"epochs": 2, "learning_rate": 1e-3, "batch_norm": "recalibrate"}


def both(verb: str, model, data, phase=PHASE, **options) -> list:
    function = getattr(kzoo, verb)
    return [
        function(model, data, phases=[PHASE | phase], engine=engine, **options)
        for engine in (None, "tfmot")
    ]


def accuracies(pair) -> np.ndarray:
    return np.array([each.training.evaluation.accuracy for each in pair])


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 0.6, "pruning_schedule": "one_shot"},
        pytest.param({"pattern": "2:4", "exclude": ["head"]}, marks=pytest.mark.slow),
        pytest.param({"sparsity": {"stage2": 0.7}, "frequency": 1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_both_engines_prune_to_the_same_weights(options, small, few_digits):
    optimizer = {"name": "sgd", "momentum": 0.9}
    ours, theirs = both("prune", small, few_digits, {"optimizer": optimizer}, **options)
    zeros = [[row["zeros"] for row in each.kernels] for each in (ours, theirs)]
    assert zeros[0] == zeros[1]
    assert sum(zeros[0])
    pairs = zip(ours.training.model.weights, theirs.training.model.weights, strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-4)
    assert ours.training.history[-1]["loss"] == pytest.approx(
        theirs.training.history[-1]["loss"], rel=1e-3
    )
    assert theirs.training.recipe["engine"] == "tfmot"
    assert "TF_USE_LEGACY_KERAS" not in os.environ


def constructs():
    """What Keras 2 calls by another name, or computes as Keras 3 does, 16 x 16 x 1 -> 10."""
    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 1), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    x = layers.Conv2D(8, 3, padding="same", kernel_regularizer="l2", name="stem_conv")(x)
    x = skip = layers.LeakyReLU(negative_slope=0.3, name="stem_act")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="stage1_1_conv")(x)
    x = layers.BatchNormalization(momentum=0.8, name="stage1_1_bn")(x)
    x = layers.ReLU(6.0, name="stage1_1_act")(x)
    x = layers.Concatenate(name="stage1_1_concat")([x, layers.Multiply(name="square")([x, skip])])
    x = layers.Dropout(0.1, name="head_dropout")(layers.GlobalMaxPooling2D(name="head_pool")(x))
    return keras.Model(image, layers.Dense(10, "softmax", name="head")(x), name="constructs")


@pytest.mark.slow
def test_a_network_is_the_same_in_keras_2(few_digits):
    model = constructs()
    before = [np.array(weight) for weight in model.weights]
    found = kzoo.prune(
        model, few_digits, sparsity=0.5, phases=[PHASE], engine="tfmot", class_weights="balanced"
    )
    assert found.training.history[-1]["loss"] < found.training.history[0]["loss"]
    after = {weight.path: np.array(weight) for weight in found.training.model.weights}
    assert [value.shape for value in before] == [value.shape for value in after.values()]


@pytest.mark.slow
def test_both_engines_cluster(small, few_digits):
    pair = both("cluster", small, few_digits, clusters=8)
    for each in pair:
        assert all(row["values"] <= 8 for row in each.kernels)
    assert np.ptp(accuracies(pair)) <= 0.1


@pytest.mark.parametrize(
    "sparsity", [0.0, pytest.param(0.6, marks=pytest.mark.slow)], ids=["plain", "sparse"]
)
def test_the_lite_file_computes_what_tfmot_trained(sparsity, small, few_digits, tmp_path):
    if sparsity:
        file = tmp_path / "sparse.keras"
        kzoo.prune(small, few_digits, sparsity=sparsity, phases=[PHASE], output=file)
        small = file
    aware = tmp_path / "aware.keras"
    options = {"phases": [PHASE], "engine": "tfmot", "output": aware}
    found = kzoo.qat(small, few_digits, **options)
    assert found.sparsity >= sparsity
    notes = read_notes(aware)
    assert {*notes["whole"]} == {"head"}  # TFMOT has one step for a dense kernel
    assert all(low <= 0 < high for low, high in notes["ranges"].values())
    ours = kzoo.qat(small, few_digits, phases=[PHASE])
    assert np.ptp(accuracies([ours, found])) <= 0.1
    lite = tmp_path / "aware.tflite"
    kzoo.quantize(aware, lite, calibrate=few_digits)
    checked = kzoo.check(lite, against=aware, data=few_digits)
    assert checked.agreement >= 0.99
    assert np.abs(checked.keras_probabilities - checked.lite_probabilities).mean() <= 0.002
    assert not checked.contents.float_islands


@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        ("prune", {"teacher": "self"}, "no teacher"),
        ("prune", {"augment": "light"}, "no augment"),
        ("prune", {"early_stopping": 2}, "no early_stopping"),
        ("prune", {"scope": "global"}, "layer by layer"),
        ("prune", {"pattern": "filter"}, "layer by layer"),
        ("prune", {"phases": [PHASE, PHASE]}, "one phase; 2 were given"),
        ("prune", {"phases": [{"schedule": "one_cycle"}]}, "schedule constant or cosine"),
        ("prune", {"phases": [{"trainable": "head"}]}, "trainable all; 'head' was given"),
        ("qat", {"ranges": "learned"}, "'learned' was given"),
    ],
)
def test_what_tfmot_is_not_asked_is_told(verb, options, said, small, few_digits):
    if "teacher" in options:
        options = {"teacher": small}
    with pytest.raises(UsageError, match=said):
        getattr(kzoo, verb)(small, few_digits, engine="tfmot", **{"phases": [PHASE], **options})


def normalized(norm):
    image = keras.Input((16, 16, 1))
    x = norm(layers.Conv2D(8, 3, name="conv")(image))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, name="head")(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "layer", "said"),
    [
        ("qat", layers.LayerNormalization(), "TFMOT does not qat this network"),
        ("prune", layers.Activation("hard_silu"), "Keras 2, which cannot make"),
        ("prune", layers.RMSNormalization(), "Keras 2, which has no RMSNormalization"),
        ("prune", keras.ops.relu, "Keras 2, which has no Relu"),
    ],
)
def test_what_tfmot_cannot_do_is_told_before_the_first_step(verb, layer, said, few_digits):
    steps = []

    def progress(task, done, total):  # noqa: ARG001
        steps.append(task)

    options = {"phases": [PHASE], "engine": "tfmot", "progress": progress}
    with pytest.raises(BadInputError, match=said):
        getattr(kzoo, verb)(normalized(layer), few_digits, **options)
    assert not [task for task in steps if task.startswith("train")]
