"""Auxiliary heads add their losses to training, and nothing else is any different."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kzoo.learn.evaluate import softmax
from kzoo.learn.finetune import evaluate, finetune
from kzoo.network.model_file import load_model, save_model

PHASE = {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.1}


def network(heads: int = 1) -> keras.Model:
    """A shared layer, a classifier on it, and auxiliary heads with dropout on it."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Rescaling(1 / 255, name="preprocess")(image)
    x = keras.layers.Flatten(name="stem_flatten")(x)
    x = keras.layers.Dense(8, "relu", name="stage1_1")(x)
    outputs = [keras.layers.Dense(10, name="head")(x)]
    for i in range(1, heads + 1):
        y = keras.layers.Dropout(0.5, name=f"head_aux{i}_dropout")(x)
        outputs.append(keras.layers.Dense(10, name=f"head_aux{i}")(y))
    # A user's own model may have any name: that of a network in the zoo is nothing special.
    return keras.Model(image, outputs if heads else outputs[0], name="inception_v3")


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: np.array(weight) for weight in model.weights}


def without_times(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def log_loss(logits, labels, smoothing: float = 0.0) -> np.ndarray:
    target = np.eye(10)[labels] * (1 - smoothing) + smoothing / 10
    return -(target * np.log(softmax(np.asarray(logits)))).sum(axis=1)


def test_the_result_has_the_classifier_alone(few_digits, tmp_path):
    model = save_model(network(2), tmp_path / "model.keras")
    training = finetune(model, few_digits, phases=[PHASE], output=tmp_path / "out.keras")
    found = load_model(tmp_path / "out.keras", auxiliary=True)
    assert found.output_names == training.model.output_names == ["head"]
    assert not [layer for layer in found.layers if layer.name.startswith("head_aux")]
    assert training.evaluation == evaluate(found, few_digits)
    assert set(training.history[0]) == set(finetune(network(0), few_digits).history[0])


def test_all_heads_learn_and_the_shared_layers_from_all(few_digits):
    one, two = network(0), network(2)
    before = weights(two)
    for model in (one, two):
        finetune(model, few_digits, phases=[PHASE])
    after = weights(two)
    assert [path for path in before if np.array_equal(before[path], after[path])] == []
    assert not np.allclose(after["stage1_1/kernel"], weights(one)["stage1_1/kernel"], atol=1e-6)


def test_with_weight_0_the_trunk_is_that_of_a_training_without(few_digits):
    one, two = network(0), network(1)
    rows = [
        finetune(model, few_digits, phases=[PHASE], auxiliary_weight=0).history
        for model in (one, two)
    ]
    after = weights(two)
    for path, weight in weights(one).items():
        assert np.allclose(weight, after[path], atol=1e-6)
    for key in ("objective", "loss", "accuracy", "val_loss", "val_accuracy"):
        assert rows[0][0][key] == pytest.approx(rows[1][0][key], rel=1e-5)


@pytest.mark.parametrize(("given", "weight"), [({}, 0.3), ({"auxiliary_weight": 0.7}, 0.7)])
def test_the_objective_is_the_sum_and_the_other_figures_are_the_classifier_s(
    given, weight, few_digits
):
    model = network(2)
    for layer in model.layers:  # without dropout, so that the formula has one value
        layer.rate = 0.0
    train = few_digits.splits["train"]
    labels = few_digits.labels[train]
    logits, *others = model(few_digits.images[train].astype(np.float32))
    of_class = {"3": 5.0, "7": 0.0}
    row = finetune(
        model, few_digits, phases=[{"epochs": 1}], batch_size=10_000,
        class_weights=of_class, label_smoothing=0.1, **given,
    ).history[0]  # fmt: skip
    of_image = np.array([of_class.get(few_digits.classes[label], 1.0) for label in labels])
    main, *further = ((of_image * log_loss(x, labels, 0.1)).mean() for x in (logits, *others))
    assert row["objective"] == pytest.approx(main + weight * sum(further), rel=1e-5)
    assert row["loss"] == pytest.approx(log_loss(logits, labels).mean(), rel=1e-5)
    assert row["accuracy"] == pytest.approx((np.argmax(logits, axis=1) == labels).mean())


class Interrupted(BaseException):
    """As Ctrl-C, which is no Exception either."""


@pytest.mark.slow
def test_an_interrupted_training_ends_as_one_that_was_not(few_digits, tmp_path):
    path = save_model(network(1), tmp_path / "model.keras")
    settings = {
        "phases": [{"epochs": 2}],
        "early_stopping": 1,
        "checkpoint_seconds": 0.0,
    }
    whole = finetune(path, few_digits, output=tmp_path / "whole.keras", **settings)
    settings["output"] = tmp_path / "stopped.keras"
    steps = []

    def interrupt(label: str, done: int, _total: int) -> None:
        if label.startswith("train") and done == 7:
            raise Interrupted

    with pytest.raises(Interrupted):
        finetune(path, few_digits, progress=interrupt, **settings)
    resumed = finetune(path, few_digits, progress=lambda *step: steps.append(step), **settings)
    assert next(done for label, done, _ in steps if label.startswith("train")) == 7
    assert without_times(resumed.history) == without_times(whole.history)
    for one, other in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        assert np.array_equal(one, other)
