"""Training of pretrained networks: the classifier alone, BatchNorm, precision, rates, logs."""

from __future__ import annotations

import csv
import dataclasses

import keras
import numpy as np
import pytest

from kzoo.data.load import load_data
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.batch_norm import recalibrate
from kzoo.learn.finetune import evaluate, finetune
from kzoo.learn.phase import TRANSFER, as_phase, recipe_phases
from kzoo.learn.rate_finder import HIGHEST, LOWEST, find_learning_rate
from kzoo.network.model_file import load_model, read_notes, save_model
from kzoo.zoo.build import build


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: np.array(variable) for variable in model.weights}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("lenet5", 16),
        ("resnet8", 16),
        ("squeezenet1_1", 32),
        pytest.param("mobilenet_v2_035", 32, marks=pytest.mark.slow),
    ],
)
def test_the_classifier_on_cached_features_learns_what_it_does_in_the_frozen_network(
    name, size, digits_folder
):
    data = load_data(digits_folder, channels=1, size=size, validation=0.2, test=0.2)
    phase = {"epochs": 2, "trainable": "classifier", "optimizer": "sgd", "schedule": "constant"}
    model, oracle, start = (
        build(name, size=size, channels=1, classes=10, seed=0) for _ in range(3)
    )
    rows = finetune(model, data, phases=[phase | {"learning_rate": 0.01}]).history

    last = [layer for layer in oracle.layers if layer.weights][-1]
    for layer in oracle.layers:
        layer.trainable = layer is last
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # it plays no part on cached features
    oracle.compile(keras.optimizers.SGD(0.01), keras.losses.CategoricalCrossentropy(True))
    for epoch in range(2):
        order = data.order("train", 0, epoch)
        losses = []
        for begin in range(0, len(order) // 32 * 32, 32):
            chosen = np.sort(order[begin : begin + 32])
            images = data.images[chosen].astype(np.float32)
            oracle.reset_metrics()
            losses.append(float(oracle.train_on_batch(images, np.eye(10)[data.labels[chosen]])))
        assert rows[epoch]["objective"] == pytest.approx(np.mean(losses), rel=1e-4)
        found = evaluate(oracle, data, split="validation")
        assert rows[epoch]["val_loss"] == pytest.approx(found.log_loss, rel=1e-4)
    wanted, began = weights(oracle), weights(start)
    for path, value in weights(model).items():
        assert np.array_equal(value, began[path]) != path.startswith(f"{last.name}/"), path
        np.testing.assert_allclose(value, wanted[path], rtol=1e-3, atol=1e-5, err_msg=path)


def test_a_file_with_pretrained_weights_gets_the_recipe_for_them(few_digits, tiny, tmp_path):
    path = save_model(tiny(), tmp_path / "tiny.keras", notes={"weights": "some_in1k"})
    output = tmp_path / "out.keras"
    training = finetune(path, few_digits, output=output)
    assert training.recipe["phases"] == [dataclasses.asdict(phase) for phase in TRANSFER]
    assert [row["phase"] for row in training.history] == [1] * 20 + [2] * 8
    assert read_notes(output)["weights"] == "some_in1k"
    plain = save_model(tiny(), tmp_path / "plain.keras")
    assert len(finetune(plain, few_digits).recipe["phases"]) == 1


@pytest.mark.parametrize("pretrained", [True, False])
def test_changes_go_to_the_last_phase_and_trainable_leaves_one(pretrained):
    *first, last = recipe_phases("auto", pretrained, {"epochs": 2})
    assert (len(first), last.epochs) == (int(pretrained), 2)
    (only,) = recipe_phases("auto", pretrained, {"trainable": ("head",)})
    assert only.trainable == "head"
    with pytest.raises(UsageError, match="scratch"):
        recipe_phases("scrach", pretrained)


def test_a_network_without_a_classifying_layer_says_so(few_digits):
    image = keras.Input((16, 16, 1))
    inner = keras.Sequential(
        [keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    with pytest.raises(BadInputError, match="classifier of outer is unknown"):
        finetune(
            keras.Model(image, inner(image), name="outer"),
            few_digits,
            phases=[{"trainable": "classifier"}],
        )


def test_recalibrated_statistics_are_those_of_the_images(few_digits, tiny):
    model = tiny()
    indices = few_digits.splits["train"]
    recalibrate(model, few_digits.images, indices)
    bn = model.get_layer("stage1_1_bn")
    before = keras.Model(model.inputs[0], bn.input)
    found = np.asarray(before(few_digits.images[indices[:128]].astype(np.float32)))
    np.testing.assert_allclose(bn.moving_mean, found.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    # A batch's variance is about its own mean, so their mean is a little below that of all.
    np.testing.assert_allclose(bn.moving_variance, found.var(axis=(0, 1, 2)), rtol=0.05)
    assert bn.momentum == 0.8


def test_recalibration_leaves_frozen_batch_norm_and_all_that_is_trained_alone(few_digits, tiny):
    model = tiny()
    model.get_layer("stage1_1_bn").trainable = False
    before = weights(model)
    recalibrate(model, few_digits.images, few_digits.splits["train"])
    moved = {
        path for path, value in weights(model).items() if not np.array_equal(value, before[path])
    }
    assert moved == {"stage2_1_bn/moving_mean", "stage2_1_bn/moving_variance"}


def test_recalibration_mends_statistics_that_lag(few_digits):
    def trained(batch_norm: str) -> float:
        model = build("resnet8", size=16, channels=1, seed=0)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.999
        phase = {"epochs": 6, "learning_rate": 3e-3, "batch_norm": batch_norm}
        finetune(model, few_digits, phases=[phase])
        return evaluate(model, few_digits).accuracy

    assert trained("recalibrate") > trained("batch") + 0.2


def test_mixed_precision_trains_alike_and_leaves_a_float32_model(few_digits, tiny, tmp_path):
    phase = {"epochs": 2, "learning_rate": 0.01}
    models = tiny(), tiny()
    losses = [
        finetune(model, few_digits, phases=[phase], precision=precision).history[-1]["loss"]
        for model, precision in zip(models, ("float32", "mixed_bfloat16"), strict=True)
    ]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    for layer in models[1].layers:
        assert layer.dtype_policy.name == "float32"
    assert {variable.dtype for variable in models[1].weights} == {"float32"}
    file = save_model(models[1], tmp_path / "mixed.keras")
    assert load_model(file).to_json() == tiny().to_json()


def test_logs_have_every_epoch_and_go_on(few_digits, tiny, tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    training = finetune(tiny(), few_digits, phases=[{"epochs": 3}], logs=tmp_path / "logs")
    with open(tmp_path / "logs" / "history.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [{key: float(value) for key, value in row.items()} for row in rows] == training.history
    (events,) = (tmp_path / "logs").glob("events*")
    data, found = events.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        data = data[16 + length :]
    for row in training.history:
        for name in ("loss", "val_macro_f1"):
            assert (name, row["epoch"], pytest.approx(row[name])) in found


@pytest.mark.parametrize("trainable", ["all", "classifier"])
def test_the_rate_test_changes_nothing(trainable, few_digits, tiny):
    model = tiny(dropout=0.5)
    before = [np.array(variable) for variable in model.variables]
    phase = {"decay": 0.9 if trainable == "all" else 1, "trainable": trainable}
    found = find_learning_rate(model, few_digits, phase=phase, augment="light")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))
    assert LOWEST < found.steepest <= found.lowest <= HIGHEST
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    steps = np.diff(np.log(found.rates))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_the_rate_test_finds_a_rate_that_trains(few_digits):
    model = build("lenet5", size=16, channels=1, seed=0)
    rate = find_learning_rate(model, few_digits).steepest
    first, *_, last = finetune(model, few_digits, phases=[{"learning_rate": rate}]).history
    assert last["loss"] < 0.9 * first["loss"]


def test_macro_f1_can_be_watched(few_digits, tiny):
    wild = as_phase({"epochs": 30, "learning_rate": 0.05, "schedule": "constant"})
    model = tiny()
    training = finetune(model, few_digits, phases=[wild], early_stopping=2, monitor="val_macro_f1")
    values = [row["val_macro_f1"] for row in training.history]
    best = evaluate(model, few_digits, split="validation").macro_f1
    assert best == pytest.approx(max(values), abs=1e-6)
