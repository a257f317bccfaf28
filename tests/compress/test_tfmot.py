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
from kzoo.network.model_file import load_model, read_notes

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


def within_noise(pair) -> bool:
    """Whether the intervals of both accuracies overlap."""
    lows, highs = zip(*(each.training.evaluation.interval for each in pair), strict=True)
    return max(lows) <= min(highs)


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 0.6, "pruning_schedule": "one_shot"},
        pytest.param({"pattern": "1:4", "sparsity": {"stage2": 0.5}}, marks=pytest.mark.slow),
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
@pytest.mark.parametrize("trainable", [True, False], ids=["free", "frozen"])
def test_a_network_of_many_layers_learns_in_keras_2(trainable, few_digits):
    model = constructs()
    for layer in model.layers:
        layer.trainable = trainable  # "all" layers of a phase are those that came frozen, too
    before = {weight.path: np.array(weight) for weight in model.weights}
    options = {"phases": [PHASE | {"epochs": 6, "learning_rate": 5e-3}], "engine": "tfmot"}
    average = {"name": "adam", "use_ema": True}
    options["phases"][0]["optimizer"] = average
    found = kzoo.prune(model, few_digits, sparsity=0.5, class_weights="balanced", **options)
    assert found.training.history[-1]["loss"] < 0.9 * found.training.history[0]["loss"]
    pruned = [row for row in found.kernels if "depthwise" not in row["name"]]
    assert [row["zeros"] for row in pruned] == [round(0.5 * row["count"]) for row in pruned]
    for weight in found.training.model.weights:
        assert not np.array_equal(np.array(weight), before[weight.path]), weight.path


@pytest.mark.slow
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_both_engines_cluster(per, small, few_digits):
    pair = both("cluster", small, few_digits, clusters=8, per=per, exclude=["head"])
    for each in pair:
        chosen = [row for row in each.kernels if row["name"] != "head"]
        most = [8 * (row["shape"][-1] if per == "channel" else 1) for row in chosen]
        assert all(row["values"] <= count for row, count in zip(chosen, most, strict=True))
        assert not sum(row["zeros"] for row in chosen)  # none came, and none is made
    assert within_noise(pair)


def sparse(file, data, output):
    kzoo.prune(file, data, sparsity=0.6, phases=[PHASE], output=output)
    return output


def clustered(file, data, output):
    kzoo.cluster(file, data, clusters=12, phases=[PHASE], output=output)
    return output


@pytest.mark.parametrize(
    "before",
    [None, *(pytest.param(each, marks=pytest.mark.slow) for each in (sparse, clustered))],
)
def test_the_lite_file_computes_what_tfmot_trained(before, small, few_digits, tmp_path):
    if before:
        small = before(small, few_digits, tmp_path / "before.keras")
    aware = tmp_path / "aware.keras"
    options = {"phases": [PHASE], "engine": "tfmot", "output": aware}
    found = kzoo.qat(small, few_digits, **options)
    assert found.sparsity >= (0.6 if before is sparse else 0)
    notes = read_notes(aware)
    assert {*notes["whole"]} == {"head"}  # TFMOT has one step for a dense kernel
    assert all(low <= 0 < high for low, high in notes["ranges"].values())
    ours = kzoo.qat(small, few_digits, phases=[PHASE])
    assert within_noise([ours, found])
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
        ("prune", {"pattern": "2:4", "begin": 0.5}, "leave out begin"),
        (
            "prune",
            {"sparsity": {"stage2": 0.7}, "zeros": 0.5},
            "zeros that stage1_1",
        ),
        ("prune", {"phases": [{"optimizer": "adma"}]}, "did you mean adam"),
        ("slim", {"macs": 0.5}, "removes no channels"),
        ("qat", {"ranges": "learned"}, "'learned' was given"),
        ("qat", {"freeze": 0.9}, "leave out freeze"),
    ],
)
def test_what_tfmot_is_not_asked_is_told(verb, options, said, small, few_digits):
    options = dict(options)
    if "teacher" in options:
        options = {"teacher": small}
    if share := options.pop("zeros", 0):
        small = load_model(small)
        for layer in small.layers:
            values = layer.get_weights()
            if values:
                values[0].ravel()[: int(share * values[0].size)] = 0
                layer.set_weights(values)
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
        ("prune", keras.ops.relu, "no operations such as keras.ops' Relu"),
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
