"""Of several files the one is kept that was asked for, and what was tried is told."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from kzoo.cli import cli
from kzoo.errors import UsageError
from kzoo.lite.check import check
from kzoo.lite.classify import spread
from kzoo.lite.inspect import inspect
from kzoo.lite.localize import localize
from kzoo.lite.quantize import quantize
from kzoo.lite.trials import BY_BITS, ENOUGH, SMALL, cured, mixed, smallest

SPOILT = ("batch norm", "swish", "gate")


@pytest.mark.parametrize(
    "what", ["bgr", *(pytest.param(name, marks=pytest.mark.slow) for name in SPOILT)]
)
def test_the_cheapest_cure_that_is_enough_is_written(what, spoilt, tinted, tmp_path):
    model, file = spoilt(what)
    found = localize(file, against=model, data=tinted)
    tried = cured(found, tmp_path / "cured.tflite", against=model, data=tinted)
    assert tried[-1].written, tried
    assert not any(each.written for each in tried[:-1])
    before = check(file, against=model, data=tinted).agreement
    after = check(tmp_path / "cured.tflite", against=model, data=tinted).agreement
    assert after >= max(ENOUGH, before)


@pytest.mark.parametrize("budget", [0.0, 100.0])
def test_the_smallest_within_a_budget_is_written(budget, trained, digits, tmp_path):
    tried = smallest(trained, tmp_path / "a.tflite", calibrate=digits, budget_drop=budget)
    assert [each.name for each in tried] == [*BY_BITS[: len(tried)]]
    assert [each.written for each in tried] == [False] * (len(tried) - 1) + [True]
    assert all(each.drop > budget for each in tried[:-1])
    if budget == 100:
        assert len(tried) == 1
    checked = check(tmp_path / "a.tflite", against=trained, data=digits)
    drop = 100 * (checked.keras.accuracy - checked.lite.accuracy)
    assert drop == pytest.approx(tried[-1].drop)
    assert drop <= budget
    assert checked.agreement == pytest.approx(tried[-1].agreement)
    assert inspect(tmp_path / "a.tflite").bytes == tried[-1].bytes


def test_what_int8_spoils_stays_in_float(spoilt, tinted, tmp_path):
    model, _ = spoilt("swish")
    plain, *others = tried = mixed(model, tmp_path / "mixed.tflite", calibrate=tinted)
    (kept,) = (each for each in tried if each.written)
    assert kept in others
    assert kept.divergence < plain.divergence / 2
    assert kept.agreement >= plain.agreement
    assert inspect(tmp_path / "mixed.tflite").float_islands
    assert kept.made.output == str(tmp_path / "mixed.tflite")


def test_what_costs_too_much_is_not_kept(spoilt, tinted, tmp_path):
    model, file = spoilt("swish")

    def cost(own, whole) -> float:
        assert inspect(whole).float_islands == []
        assert inspect(own).float_islands
        return 1.2

    tried = mixed(model, tmp_path / "mixed.tflite", calibrate=tinted, cost=cost)
    assert tried[0].written
    assert len(tried) > 1
    assert inspect(tmp_path / "mixed.tflite").operators == inspect(file).operators


def test_quantize_takes_both_and_tells_what_was_tried(spoilt, trained, tinted, digits, tmp_path):
    model, _ = spoilt("swish")
    found = quantize(model, tmp_path / "a.tflite", calibrate=tinted, recipe="mixed")
    assert found.quantization == "mixed"
    assert sum(row["written"] for row in found.to_dict()["tried"]) == 1
    found = quantize(trained, tmp_path / "b.tflite", calibrate=digits, budget_drop=100)
    assert found.quantization == found.tried[-1]["name"] == "int4"


def test_a_budget_is_no_recipe_and_needs_images(trained, digits, tmp_path):
    with pytest.raises(UsageError, match="a budget chooses the recipe"):
        quantize(trained, tmp_path / "a.tflite", calibrate=digits, recipe="fp16", budget_drop=1)
    for options in ({"recipe": "mixed"}, {"budget_drop": 1}):
        with pytest.raises(UsageError, match="needs images to compare on"):
            quantize(trained, tmp_path / "a.tflite", **options)
    with pytest.raises(UsageError, match="0 points"):
        quantize(trained, tmp_path / "a.tflite", calibrate=digits, budget_drop=-1)
    assert not list(tmp_path.iterdir())


def test_the_command_shows_a_line_for_each(trained, tmp_path):
    args = ["--calibrate", "digits", "-o", str(tmp_path / "a.tflite"), "--budget-drop", "100"]
    shown = CliRunner().invoke(cli, ["quantize", str(trained), *args])
    assert shown.exit_code == 0, shown.output
    assert "points lost" in shown.output
    assert "int4" in shown.output


def test_what_is_compared_is_of_all_classes(digits):
    """A folder's images stand in the order of its classes."""
    found = spread(np.arange(1000), 100)
    assert len(np.unique(found)) == 100
    assert (found.min(), found.max()) == (0, 999)
    assert np.diff(found).max() <= 11
    assert spread(digits.splits["test"], 10**6) is digits.splits["test"]


def test_int8_that_loses_nothing_stays_int8(trained, digits, tmp_path):
    tried = mixed(trained, tmp_path / "a.tflite", calibrate=digits)
    assert tried[0].written
    assert len(tried) == 1 or tried[0].divergence > SMALL


def test_a_recipe_that_is_refused_ends_no_search(trained, digits, tmp_path, monkeypatch):
    from kzoo.errors import BadInputError
    from kzoo.lite import trials

    def refusing(*args, recipe, **options):
        if recipe in ("int4", "int8"):
            raise BadInputError("not this one")
        return quantize(*args, recipe=recipe, **options)

    monkeypatch.setattr(trials, "quantize", refusing)
    tried = smallest(trained, tmp_path / "a.tflite", calibrate=digits, budget_drop=100)
    assert [each.refused for each in tried] == ["not this one", "not this one", ""]
    assert tried[-1].written
