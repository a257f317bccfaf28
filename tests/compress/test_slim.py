"""The laws of slimming: an ordinary smaller network within its target; exact resume; refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kzoo
from kzoo.errors import BadInputError, UsageError
from kzoo.network.count import macs, parameters
from kzoo.network.model_file import load_model, read_notes

PHASES = [{"epochs": 2, "learning_rate": 3e-3, "batch_norm": "recalibrate"}]


def test_a_slim_network_is_an_ordinary_file(small, few_digits, difference, tmp_path):
    output = tmp_path / "slim.keras"
    whole = load_model(small)
    found = kzoo.slim(small, few_digits, macs=0.5, phases=PHASES, output=output)
    again = load_model(output)
    assert difference(found.training.model, again) == 0
    assert macs(again) <= 0.5 * macs(whole)
    ((row,), counted) = found.rounds, {"params": parameters(again)[1], "macs": macs(again)}
    assert {name: row[name] for name in counted} == counted
    for group in found.groups:
        for name in group["layers"]:
            assert again.get_layer(name).filters == group["left"]
            assert whole.get_layer(name).filters == group["channels"]
    assert {type(layer).__module__.split(".")[0] for layer in again.layers} == {"keras"}
    assert read_notes(output)["classes"] == [*few_digits.classes]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slim.keras"]
    record = json.loads(json.dumps(found.to_dict()))
    assert record["before"]["count"] == record["evaluation"]["count"]
    assert record["recipe"]["slimming"]["asked"]["macs"] == 0.5


@pytest.mark.parametrize(
    ("importance", "asked"),
    [
        ("taylor", {"params": 0.5}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("geometric_median", {"ratio": {"stage2": 0.5}}),
                ("random", {"ratio": 0.4, "scope": "global"}),
                ("l1", {"duplicates": 0.5}),
            )
        ),
    ],
    ids=str,
)
def test_any_importance_and_any_target(importance, asked, small, few_digits):
    found = kzoo.slim(small, few_digits, importance=importance, phases=PHASES[:1], **asked)
    after = parameters(found.training.model)[1]
    assert after < parameters(load_model(small))[1]
    if "params" in asked:
        assert after <= 0.5 * parameters(load_model(small))[1]
    assert found.training.evaluation.count == found.before.count


def test_training_brings_back_what_slimming_took(trained, digits):
    phases = [{"epochs": 4, "learning_rate": 3e-3}]
    found = kzoo.slim(trained, digits, macs=0.4, rounds=2, phases=phases)
    first, last = found.rounds
    assert found.before.accuracy > 0.9
    assert last["evaluation"]["accuracy"] > found.before.accuracy - 0.05
    assert first["evaluation"]["accuracy"] > first["before"]["accuracy"]
    assert [row["epoch"] for row in found.training.history] == [1, 2, 3, 4]
    whole = macs(load_model(trained))
    assert last["macs"] <= 0.4 * whole < first["macs"] <= 0.4**0.5 * whole


def test_a_cost_is_met(small, few_digits):
    whole, asked = macs(load_model(small)), []

    def cost(network) -> float:
        asked.append(macs(network) / whole)
        return asked[-1]

    found = kzoo.slim(small, few_digits, latency=0.6, cost=cost, phases=PHASES)
    assert 0.4 < macs(found.training.model) / whole <= 0.6
    assert len(asked) <= 9


def test_the_model_may_be_its_own_teacher(small, few_digits):
    found = kzoo.slim(small, few_digits, macs=0.6, teacher=small, phases=PHASES)
    assert {"hard", "soft"} <= set(found.training.history[-1])
    assert found.training.teacher.accuracy == found.before.accuracy


def test_a_stopped_slimming_goes_on_to_the_same_network(small, few_digits, tmp_path):
    options = {
        "macs": 0.4, "rounds": 2, "importance": "random", "duplicates": 0.99,
        "phases": [{"epochs": 2, "learning_rate": 3e-3}], "checkpoint_seconds": 0.0,
    }  # fmt: skip
    told = []
    whole = kzoo.slim(
        small, few_digits, **options, output=tmp_path / "whole.keras",
        progress=lambda *now: told.append(now),
    )  # fmt: skip
    steps = [now for now in told if now[0].startswith("train")]
    output = tmp_path / "stopped.keras"
    for kept, (task, at) in enumerate(
        # Before the first round, in its training, in the last one's.
        [("evaluate", 1), ("train", 4), ("train", len(steps) - 6)]
    ):
        seen = 0

        def stop(name, *_, task=task, at=at):
            nonlocal seen
            seen += name.startswith(task)
            if seen == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            kzoo.slim(small, few_digits, **options, output=output, progress=stop)
        assert len(list(tmp_path.glob("*.rounds"))) == (kept > 0)
    again = kzoo.slim(small, few_digits, **options, output=output)
    for a, b in zip(
        whole.training.model.get_weights(), again.training.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert [r["macs"] for r in again.rounds] == [r["macs"] for r in whole.rounds]
    assert len(again.training.history) == len(whole.training.history)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped.keras", "whole.keras"]


def not_finite(model):
    layer = model.get_layer("stage1_1_conv")
    layer.kernel.assign(np.full(layer.kernel.shape, np.nan))
    return model


def subclassed():
    import keras

    class Own(keras.Model):
        def call(self, x):
            return x

    return Own()


def with_lambda():
    import keras

    image = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(8, 3, name="stage1_1_conv")(image)
    x = keras.layers.Lambda(lambda x: x * 2)(keras.layers.Conv2D(8, 3, name="b")(x))
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def linear():
    import keras

    image = keras.Input((16, 16, 1))
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(image)), name="line")


NO_MODEL = {
    "not finite": (BadInputError, "not finite", lambda small: not_finite(load_model(small))),
    "subclassed": (BadInputError, "functional or Sequential", lambda _: subclassed()),
    "a Lambda": (BadInputError, "Lambda", lambda _: with_lambda()),
    "nothing to remove": (BadInputError, "nothing of line can be removed", lambda _: linear()),
}
NO_ARGUMENT = {
    "all channels": (UsageError, "below 1; 1.0 was given", {"ratio": 1.0}),
    "a negative share": (UsageError, "-0.1 was given", {"ratio": {"stage1": -0.1}}),
    "all of the macs": (UsageError, "above 0 and below 1; 1.0", {"macs": 1.0}),
    "a percentage": (UsageError, "50 was given", {"params": 50}),
    "no share": (UsageError, "above 0 and below 1; True", {"macs": True}),
    "nothing": (UsageError, "none was given", {}),
    "two targets": (UsageError, "macs and params was given", {"macs": 0.5, "params": 0.5}),
    "too little": (UsageError, "macs 0.001 of small cannot be met", {"macs": 0.001}),
    "a prefix": (UsageError, "did you mean stage1", {"macs": 0.5, "exclude": ["stge1"]}),
    "a share by prefix": (UsageError, "did you mean stage1", {"ratio": {"stge1": 0.5}}),
    "shares by prefix of all": (
        UsageError, "local", {"ratio": {"stage1": 0.5}, "scope": "global"},
    ),
    "all excluded": (BadInputError, "exclude fewer", {"macs": 0.5, "exclude": ["stage"]}),
    "an importance": (UsageError, "did you mean taylor", {"macs": 0.5, "importance": "tailor"}),
    "no BatchNorm": (BadInputError, "take l2", {"macs": 0.5, "importance": "batch_norm"}),
    "no rounds": (UsageError, "rounds is a whole number from 1", {"macs": 0.5, "rounds": 0}),
    "too many rounds": (UsageError, "3 rounds need", {"macs": 0.5, "rounds": 3}),
    "no cost": (UsageError, "latency and cost go together", {"latency": 0.5}),
    "unlike": (UsageError, "at most 1, such as 0.98", {"duplicates": 1.5}),
    "no branches": (UsageError, "small has 0 residual branches", {"blocks": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", [*NO_MODEL, *NO_ARGUMENT])
def test_what_is_wrong_is_told_before_training(name, small, few_digits, tmp_path):
    error, message, given = (NO_MODEL | NO_ARGUMENT)[name]
    model = given(small) if name in NO_MODEL else small
    options = {"macs": 0.5} if name in NO_MODEL else given

    def untrained(task, *_):
        assert not task.startswith("train")

    with pytest.raises(error, match=message):
        kzoo.slim(
            model, few_digits, **options, phases=PHASES, output=tmp_path / "x.keras",
            progress=untrained,
        )  # fmt: skip
    assert not [*tmp_path.iterdir()]
