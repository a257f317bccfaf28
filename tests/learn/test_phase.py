"""Phases as users write them."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest

from kzoo.errors import UsageError
from kzoo.learn.optimizer import learning_rate, make_optimizer
from kzoo.learn.phase import Phase, as_phase, layer_groups, parse_phase, set_trainable


@pytest.mark.parametrize(
    "text",
    [
        "epochs: 5, trainable: [head, stage4], learning_rate: 1e-3",
        "epochs=5, trainable=[head, stage4], learning_rate=0.001",
    ],
)
def test_a_phase_is_written_with_colons_or_equals(text):
    expected = Phase(epochs=5, trainable=["head", "stage4"], learning_rate=1e-3)
    assert parse_phase(text) == expected
    assert as_phase({"epochs": 5, "trainable": ["head", "stage4"]}) == expected
    assert as_phase(expected) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 5", "did you mean epochs"),
        ("epochs", "epochs is a whole number"),
        ("epochs: five", "'five' was given"),
        ("epochs: 0", "whole number from 1"),
        ("learning_rate: fast", "'fast' was given"),
        ("learning_rate: 0", "above 0"),
        ("epochs: [", "'epochs: 5, trainable: head'"),
    ],
)
def test_a_wrong_phase_says_what_is_wrong(text, message):
    with pytest.raises(UsageError, match=message):
        parse_phase(text)


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_a_learning_rate_is_a_number_above_zero(rate):
    with pytest.raises(UsageError, match="learning rate"):
        Phase(learning_rate=rate)


@pytest.mark.parametrize(
    ("prefixes", "trained"),
    [
        ("all", {"stage1", "stage2", "head"}),
        ("head", {"head"}),
        (("head", "stage2"), {"stage2", "head"}),
    ],
)
def test_prefixes_choose_the_layers(prefixes, trained, tiny):
    model = tiny()
    set_trainable(model, prefixes)
    assert {v.path.split("_")[0].split("/")[0] for v in model.trainable_variables} == trained


@pytest.mark.parametrize(
    ("prefix", "message"), [("haed", "did you mean head"), ("preprocess", "nothing to train")]
)
def test_a_prefix_that_trains_nothing_is_refused(prefix, message, tiny):
    with pytest.raises(UsageError, match=message):
        set_trainable(tiny(), prefix)


def test_frozen_batch_norm_stays_frozen_where_its_layers_are_trained(tiny):
    model = tiny()
    set_trainable(model, "stage2", "frozen")
    assert [la.name for la in model.layers if la.trainable and la.weights] == ["stage2_1_conv"]
    set_trainable(model, "all", "batch")
    assert all(layer.trainable for layer in model.layers)


def test_every_trainable_variable_is_in_one_group(tiny):
    model = tiny()
    groups = layer_groups(model)
    assert [group.split("(")[0] for group in groups] == ["head", "stage2", "stage1"]
    for variable in model.trainable_variables:
        assert sum(bool(re.fullmatch(group, variable.path)) for group in groups) == 1


def test_layer_wise_decay_lowers_the_step_of_the_first_layers(tiny):
    """Adam's first step is the learning rate, whatever the gradient."""
    model = tiny()
    optimizer = make_optimizer("adam", 0.01, "constant", 10, layer_groups(model), 0.5)
    optimizer.build(model.trainable_variables)
    before = [np.array(variable) for variable in model.trainable_variables]
    gradients = [keras.ops.ones(variable.shape) for variable in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        stage = re.split("[_/]", variable.path)[0]
        expected = 0.01 * {"head": 1, "stage2": 0.5, "stage1": 0.25}[stage]
        np.testing.assert_allclose(old - np.asarray(variable), expected, rtol=1e-3)
    assert learning_rate(optimizer) == pytest.approx(0.01)


def test_layer_wise_decay_needs_stages():
    image = keras.Input((8, 8, 1))
    plain = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    with pytest.raises(UsageError, match="stage1_1"):
        layer_groups(plain)
