"""Phases as users write them."""

from __future__ import annotations

import math

import pytest

from kzoo.errors import UsageError
from kzoo.learn.phase import Phase, as_phase, parse_phase, set_trainable


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
