"""All of Keras' optimizers and schedules, by their names."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from kzoo.errors import UsageError
from kzoo.learn.optimizer import WRAPPERS, make_optimizer


def classes(module, base) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    )


OPTIMIZERS = [
    name for name in classes(keras.optimizers, keras.optimizers.Optimizer) if name not in WRAPPERS
]
SCHEDULES = classes(keras.optimizers.schedules, keras.optimizers.schedules.LearningRateSchedule)
PIECES = {"boundaries": [10], "values": [0.5, 0.1]}


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name).lower()


def rates(optimizer: keras.optimizers.Optimizer, steps: int) -> np.ndarray:
    """The learning rate that each of ``steps`` updates uses, and the one after them."""
    found = []
    for step in range(steps + 1):
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    return np.array(found)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_found_by_its_class_and_in_snake_case(name):
    for given in (name, snake(name), {"name": name}):
        made = make_optimizer(given, 0.125, "constant", 10)
        assert type(made) is getattr(keras.optimizers, name)
        assert float(made.learning_rate) == 0.125


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_found_by_its_class_and_by_its_short_name(name):
    found = []
    for given in (name, snake(name), snake(name).replace("_decay", "")):
        schedule = {"name": given, **(PIECES if name.startswith("Piecewise") else {})}
        found.append(rates(make_optimizer("sgd", 0.5, schedule, 20), 20))
    assert found[0][0] == 0.5
    assert found[0][19] < 0.4
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_arguments_reach_the_class():
    made = make_optimizer({"name": "sgd", "momentum": 0.75, "nesterov": True}, 0.1, "constant", 1)
    assert (made.momentum, made.nesterov) == (0.75, True)


def test_constant_stays_and_cosine_ends_at_zero():
    assert set(rates(make_optimizer("sgd", 0.25, "constant", 10), 10)) == {0.25}
    falling = rates(make_optimizer("sgd", 0.25, "cosine", 10), 10)
    assert falling[0] == 0.25
    assert falling[5] == pytest.approx(0.125)
    assert falling[10] == pytest.approx(0, abs=1e-9)
    assert (np.diff(falling) < 0).all()


@pytest.mark.parametrize("name", ["cosine", "CosineDecay"])
def test_cosine_with_warm_up_peaks_at_the_rate_and_ends_at_zero(name):
    found = rates(make_optimizer("sgd", 0.25, {"name": name, "warmup_steps": 20}, 100), 100)
    assert found[0] == 0
    assert found.argmax() == 20
    assert found[20] == pytest.approx(0.25)
    assert found[10] == pytest.approx(0.125)
    assert found[100] == pytest.approx(0, abs=1e-8)
    assert found[99] > 0


@pytest.mark.parametrize(
    ("optimizer", "schedule", "message"),
    [
        ("adamm", "cosine", "did you mean adam"),
        ({"name": "rms_prop"}, "cosine", "did you mean rmsprop"),
        ("", "cosine", "known: adadelta"),
        ("adam", "cosin", "did you mean cosine"),
        ("adam", "constent", "did you mean constant"),
        ("adam", {"warmup_steps": 3}, "no schedule"),
        ({"name": "sgd", "momentun": 0.9}, "cosine", "momentun"),
        ("adam", {"name": "cosine", "alhpa": 0}, "alhpa"),
        ("adam", "piecewise_constant", "boundaries"),
        ("LossScaleOptimizer", "cosine", "no optimizer"),
    ],
)
def test_an_unknown_name_or_argument_is_the_user_s_error(optimizer, schedule, message):
    with pytest.raises(UsageError, match=message):
        make_optimizer(optimizer, 0.1, schedule, 10)


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing():
    found = rates(make_optimizer("adam", 0.5, "one_cycle", 100), 100)
    assert found[0] == pytest.approx(0.5 / 25)
    assert found.argmax() == 30
    assert found.max() == pytest.approx(0.5)
    assert found[99] < 1e-3 * 0.5
    assert (np.diff(found[:31]) > 0).all()
    assert (np.diff(found[31:]) < 0).all()


@pytest.mark.parametrize(
    ("clip", "first", "second"),
    [
        ({}, [3, 4], [0, 12]),
        ({"clipnorm": 1.0}, [0.6, 0.8], [0, 1]),
        ({"clipvalue": 3.5}, [3, 3.5], [0, 3.5]),
        ({"global_clipnorm": 1.0}, [3 / 13, 4 / 13], [0, 12 / 13]),
    ],
)
def test_gradients_are_clipped_by_tensor_by_value_or_all_together(clip, first, second):
    variables = [keras.Variable(np.zeros(2, np.float32)) for _ in range(2)]
    gradients = [keras.ops.convert_to_tensor(np.float32(values)) for values in ([3, 4], [0, 12])]
    optimizer = make_optimizer({"name": "sgd", **clip}, 0.5, "constant", 10)
    optimizer.apply(gradients, variables)
    for variable, moved in zip(variables, (first, second), strict=True):
        assert np.asarray(variable) == pytest.approx(-0.5 * np.array(moved), abs=1e-6)
