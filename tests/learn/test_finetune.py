"""Training: what is frozen stays, what is weighted counts, what is best is kept, a seed decides."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.learn.evaluate import softmax
from kzoo.learn.finetune import evaluate, finetune
from kzoo.network.model_file import load_model, read_notes, save_model
from kzoo.zoo.build import build

ROW = {
    "phase", "epoch", "objective", "loss", "accuracy", "val_loss", "val_accuracy",
    "val_macro_f1", "learning_rate", "seconds",
}  # fmt: skip


def linear() -> keras.Model:
    """One dense layer on 16 x 16 gray pixels: compiles in no time."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Rescaling(1 / 255, name="preprocess")(image)
    x = keras.layers.Flatten(name="head_flatten")(x)
    return keras.Model(image, keras.layers.Dense(10, name="head")(x), name="linear")


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def two_phases(few_digits, tmp_path_factory):
    """A head-only phase of two epochs and one of all layers, written to a file."""
    output = tmp_path_factory.mktemp("two") / "model.keras"
    seen = []
    phases = [
        {"epochs": 2, "trainable": "head", "schedule": "constant", "learning_rate": 0.25},
        {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.5},
    ]
    training = finetune(
        linear(), few_digits, phases=phases, output=output,
        progress=lambda *event: seen.append(event),
    )  # fmt: skip
    return training, seen


def test_every_epoch_has_a_complete_row(two_phases):
    history = two_phases[0].history
    assert [(row["phase"], row["epoch"]) for row in history] == [(1, 1), (1, 2), (2, 3)]
    for row in history:
        assert set(row) == ROW
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["val_accuracy"] <= 1
        assert row["loss"] > 0
        assert row["seconds"] >= 0
    assert [row["learning_rate"] for row in history] == [0.25, 0.25, pytest.approx(0, abs=1e-8)]


def test_a_schedule_lasts_its_whole_phase(few_digits):
    phases = [{"epochs": 4, "trainable": "classifier"}, {"epochs": 2, "learning_rate": 0.1}]
    rates = [row["learning_rate"] for row in finetune(linear(), few_digits, phases=phases).history]
    cosine = [1e-3 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in (1, 2, 3, 4)]
    assert rates == pytest.approx([*cosine, 0.05, 0], rel=1e-3, abs=1e-7)


def test_progress_counts_every_step_of_all_phases(two_phases):
    steps = [event[1:] for event in two_phases[1] if event[0].startswith("train")]
    assert steps == [(step, 15) for step in range(1, 16)]


def test_the_file_is_the_model_with_its_classes_and_no_checkpoints_left(two_phases, few_digits):
    training = two_phases[0]
    output = Path(training.output)
    assert hashlib.sha256(output.read_bytes()).hexdigest() == training.sha256
    assert read_notes(training.output) == {
        "classes": list(few_digits.classes),
        "split": few_digits.split_settings,
        "crop": 1.0,
        "weights": "",
        "licence": "",
        "ranges": {},
        "whole": [],
    }
    assert training.classes == few_digits.classes
    assert same(load_model(training.output).get_weights(), training.model.get_weights())
    assert list(output.parent.iterdir()) == [output]


def test_the_record_is_json_and_the_evaluation_is_on_the_test_split(two_phases, few_digits):
    training = two_phases[0]
    record = json.loads(json.dumps(training.to_dict(), allow_nan=False))
    assert record["history"] == training.history
    assert record["evaluation"]["confusion"] == training.evaluation.confusion
    assert training.evaluation.split == "test"
    assert training.evaluation.count == len(few_digits.splits["test"])
    assert training.evaluation == evaluate(training.model, few_digits)
    assert not training.stopped_early


def test_a_head_only_phase_moves_nothing_else_nor_batch_norm_s_statistics(few_digits, tiny):
    model = tiny(dropout=0.5)
    before = {v.path: np.asarray(v) for v in model.weights}
    finetune(model, few_digits, phases=[{"epochs": 1, "trainable": "head"}])
    for variable in model.weights:
        moved = not np.array_equal(before[variable.path], variable)
        assert moved == variable.path.startswith("head/"), variable.path
    assert all(layer.trainable for layer in model.layers)


@pytest.mark.parametrize(
    ("weights", "smoothing"), [(None, 0.2), ({"3": 5.0, "7": 0.0}, 0.0), ("balanced", 0.1)]
)
def test_the_first_step_s_loss_is_that_of_the_formula(weights, smoothing, few_digits):
    model = linear()
    train = few_digits.splits["train"]
    labels = few_digits.labels[train]
    logits = np.asarray(model(few_digits.images[train].astype(np.float32)))
    training = finetune(
        model, few_digits, phases=[{"epochs": 1}], batch_size=10_000,
        class_weights=weights, label_smoothing=smoothing,
    )  # fmt: skip
    counts = np.bincount(labels, minlength=10)
    of_class = np.ones(10)
    if weights == "balanced":
        of_class = len(labels) / (10 * counts)
    elif weights:
        of_class[[3, 7]] = 5, 0
    target = np.eye(10)[labels] * (1 - smoothing) + smoothing / 10
    losses = -(target * np.log(softmax(logits))).sum(axis=1)
    row = training.history[0]
    assert row["objective"] == pytest.approx((of_class[labels] * losses).mean(), rel=1e-5)
    of_label = softmax(logits)[np.arange(len(labels)), labels]
    assert row["loss"] == pytest.approx(-np.log(of_label).mean(), rel=1e-5)


def test_early_stopping_returns_to_the_best_epoch(few_digits):
    model = linear()
    wild = {"epochs": 40, "optimizer": "sgd", "learning_rate": 4.0, "schedule": "constant"}
    training = finetune(model, few_digits, phases=[wild], early_stopping=2)
    losses = [row["val_loss"] for row in training.history]
    best = int(np.argmin(losses))
    assert training.stopped_early
    assert best == len(losses) - 3
    found = evaluate(model, few_digits, split="validation")
    assert found.log_loss == pytest.approx(losses[best], rel=1e-6)
    assert found.accuracy == training.history[best]["val_accuracy"]


def test_the_seed_decides_the_order(few_digits):
    phase = [{"epochs": 1, "optimizer": "sgd", "learning_rate": 0.1}]
    found = [
        finetune(linear(), few_digits, phases=phase, seed=seed).model.get_weights()
        for seed in (1, 1, 2)
    ]
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "resnet8"])
def test_two_trainings_of_a_registered_network_are_equal(name, digits):
    def trained():
        model = build(name, channels=1, seed=0)
        training = finetune(model, digits, phases=[{"epochs": 2}])
        return model.get_weights(), [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in training.history
        ]

    (weights, history), (again, history_again) = trained(), trained()
    assert same(weights, again)
    assert history == history_again


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_that_diverges_says_so_and_writes_nothing(optimizer, few_digits, tmp_path):
    phase = {"epochs": 3, "optimizer": optimizer, "learning_rate": 1e6}
    with pytest.raises(BadInputError, match="diverged; lower the learning rate"):
        finetune(build("lenet5", size=16, seed=0), few_digits, phases=[phase],
                 output=tmp_path / "model.keras")  # fmt: skip
    assert not (tmp_path / "model.keras").exists()


def test_nan_in_the_weights_is_found_at_the_first_step(few_digits):
    model = linear()
    model.get_layer("head").bias.assign(np.full(10, np.nan, np.float32))
    with pytest.raises(BadInputError, match="step 1"):
        finetune(model, few_digits)


def test_a_model_that_does_not_fit_the_data_is_refused(few_digits, tmp_path):
    with pytest.raises(BadInputError, match="build the model with --classes 10"):
        finetune(build("lenet5", size=16, classes=9), few_digits)
    with pytest.raises(BadInputError, match=r"size=\(32, 32\)"):
        finetune(build("lenet5"), few_digits)
    with pytest.raises(BadInputError, match="3 images"):
        finetune(build("lenet5", size=16, channels=3), few_digits)
    path = save_model(linear(), tmp_path / "letters.keras", notes={"classes": list("abcdefghij")})
    with pytest.raises(BadInputError, match="output 'a' meets the folder's '0'"):
        finetune(path, few_digits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"label_smoothing": 1.0},
        {"auxiliary_weight": -0.1},
        {"auxiliary_weight": float("nan")},
        {"auxiliary_weight": float("inf")},
        {"early_stopping": 0},
        {"monitor": "loss"},
        {"precision": "mixed_float8"},
        {"phases": "transfre"},
        {"phases": []},
        {"phases": [{"optimizer": "adamm"}]},
        {"phases": [{"trainable": "haed"}]},
        {"class_weights": "balancd"},
        {"class_weights": {"ten": 2.0}},
        {"output": "model.h5"},
    ],
    ids=str,
)
def test_a_wrong_argument_is_the_user_s_error(wrong, few_digits):
    with pytest.raises(UsageError):
        finetune(linear(), few_digits, **wrong)


def test_nothing_is_trained_for_an_output_that_exists_or_a_model_that_does_not(
    few_digits, tmp_path
):
    output = tmp_path / "model.keras"
    output.write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        finetune(linear(), few_digits, output=output)
    assert output.read_text() == "mine"
    with pytest.raises(MissingError, match=r"gone\.keras"):
        finetune(tmp_path / "gone.keras", few_digits)


def test_splits_that_leave_nothing_to_judge_by_are_refused():
    options = {"validation": 0.0, "test": 0.0}
    with pytest.raises(UsageError, match="nothing is left to evaluate on"):
        finetune(linear(), "digits", data_options=options)
    options = {"validation": 0.0, "test": 0.9}
    with pytest.raises(UsageError, match="early stopping needs a validation split"):
        finetune(linear(), "digits", data_options=options, early_stopping=1)


def test_a_mistake_in_a_later_phase_is_told_before_the_first(few_digits):
    steps = []
    with pytest.raises(UsageError, match="adam"):
        finetune(
            linear(), few_digits, phases=[{"epochs": 1}, {"epochs": 1, "optimizer": "adma"}],
            progress=lambda *step: steps.append(step),
        )  # fmt: skip
    assert not [task for task, *_ in steps if task.startswith("train")]


def test_layers_that_came_frozen_stay_frozen_after_training(few_digits):
    model = build("lenet5", size=few_digits.size, seed=0)
    frozen = model.get_layer("stage1_1_conv")
    frozen.trainable = False
    finetune(model, few_digits, phases=[{"epochs": 1, "trainable": "head"}])
    assert not frozen.trainable
    assert model.get_layer("stage2_1_conv").trainable


def test_a_training_that_did_all_its_epochs_did_not_stop_early(few_digits):
    training = finetune(
        linear(), few_digits, phases=[{"epochs": 2, "learning_rate": 1e-12}], early_stopping=1,
        monitor="val_accuracy",
    )  # fmt: skip
    assert len(training.history) == 2
    assert not training.stopped_early


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_averaged_weights_of_the_optimizer_are_judged_and_are_the_result(few_digits, decay):
    def trained(use_ema=True, **options):
        model = build("lenet5", size=few_digits.size, seed=0)
        optimizer = {"name": "sgd", "use_ema": use_ema, "ema_momentum": 0.9}
        phase = {"epochs": 2, "optimizer": optimizer, "schedule": "constant", "decay": decay}
        return finetune(model, few_digits, phases=[phase | {"learning_rate": 0.05}], **options)

    whole, stopping = trained(), trained(early_stopping=5)
    for training in (whole, stopping):
        found = evaluate(training.model, few_digits, split="validation")
        assert found.log_loss == pytest.approx(training.history[-1]["val_loss"], rel=1e-5)
    # The best epoch was the last, and averaging is no part of the steps themselves.
    assert same(whole.model.get_weights(), stopping.model.get_weights())
    plain = trained(use_ema=False)
    assert not same(whole.model.get_weights(), plain.model.get_weights())
    rows = [[row["loss"] for row in found.history] for found in (whole, stopping, plain)]
    assert rows[0] == rows[1] == rows[2]
