"""A file beside the model it came from: agreement is seen, and so is a wrong pairing."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kzoo
from kzoo.data.load import load_data
from kzoo.errors import BadInputError, UsageError
from kzoo.lite.check import check
from kzoo.lite.convert import convert
from kzoo.zoo.build import build


@pytest.fixture(scope="module")
def float_check(trained, lite_float, digits):
    return check(lite_float, against=trained, data=digits)


def test_a_float_file_is_its_model(float_check, digits):
    assert float_check.compared == "logits"
    assert float_check.max_logit_error <= 1e-4 * float_check.logit_std
    assert float_check.agreement == 1
    assert float_check.lite.confusion == float_check.keras.confusion
    assert np.array_equal(float_check.indices, digits.splits["test"])
    assert json.loads(json.dumps(float_check.to_dict(), allow_nan=False))["failures"] == []


def test_logits_read_through_the_softmax_are_the_logits(float_check, trained, digits, tmp_path):
    convert(trained, tmp_path / "logits.tflite", head="logits")
    direct = check(tmp_path / "logits.tflite", against=trained, data=digits)
    assert direct.compared == "logits"
    assert direct.max_logit_error == pytest.approx(float_check.max_logit_error, abs=1e-5)
    assert np.allclose(direct.lite_probabilities, float_check.lite_probabilities, atol=1e-6)


def test_another_model_of_the_same_shape_is_seen(lite_float, digits):
    found = check(
        lite_float, against=build("lenet5", seed=5), data=digits, min_agreement=0.9, limit=100
    )
    assert found.max_logit_error > found.logit_std
    assert found.agreement < 0.5
    assert len(found.failures) == 1
    assert "agreement" in found.failures[0]
    assert found.lite.count == 100


def test_a_model_of_another_size_is_refused(lite_float, gray):
    with pytest.raises(BadInputError, match="not made from this model"):
        check(lite_float, against=build("lenet5", size=16), data=gray)


def test_gates_stand_in_the_failures(lite_int8, trained, digits):
    met = check(lite_int8, against=trained, data=digits, limit=50,
                min_agreement=0.5, max_drop=50, max_float_ops=0)  # fmt: skip
    missed = check(lite_int8, against=trained, data=digits, limit=50, max_drop=-100)
    assert met.failures == []
    assert ["drops" in each for each in missed.failures] == [True]


@pytest.mark.parametrize("gate", [
    {"min_agreement": 2}, {"min_agreement": -0.1}, {"min_agreement": float("nan")},
    {"max_drop": 101}, {"max_drop": float("-inf")}, {"max_float_ops": -1},
    {"max_float_ops": float("inf")},
])  # fmt: skip
def test_a_gate_out_of_its_range_is_refused_before_anything_is_read(gate):
    (name,) = gate
    with pytest.raises(UsageError, match=f"{name} is .*was given"):
        check("absent.tflite", against="absent.keras", data="absent", **gate)


def test_the_changes_by_class_add_up_to_that_of_all(lite_float, trained, digits):
    found = check(lite_float, against=build("lenet5", seed=5), data=digits)
    rows, count = found.per_class, found.lite.count
    assert [row["change"] for row in rows] == sorted(row["change"] for row in rows)
    assert sorted(row["class"] for row in rows) == sorted(digits.classes)
    assert sum(row["count"] for row in rows) == count
    gained = sum(row["gained"] - row["lost"] for row in rows)
    assert gained == round(count * (found.lite.accuracy - found.keras.accuracy)) > 0
    for row in rows:
        label = digits.classes.index(row["class"])
        for model in ("keras", "lite"):
            assert row[model] == getattr(found, model).per_class[label]["recall"]
        assert row["change"] == pytest.approx(100 * (row["lite"] - row["keras"]))
    one = check(lite_float, against=trained, data=digits, limit=1)  # other classes have no image
    assert [row["change"] for row in one.per_class] == [0]


def test_the_usual_gates_are_those_of_the_kind_of_file(lite_float, lite_int8, trained, digits):
    exact = check(lite_float, against=trained, data=digits, gate=True)
    assert exact.gates == {"min_agreement": 0.999, "max_drop": 1, "min_kernels": 0.9}
    assert [*exact.kernels] == ["builtin", "reference", "threads", "batch"]
    eight = check(lite_int8, against=trained, data=digits, gate=True, max_drop=-100)
    assert eight.gates == {**exact.gates, "min_agreement": 0.97, "max_drop": -100,
                           "max_float_ops": 0}  # fmt: skip
    assert exact.failures == []
    assert len(eight.failures) == 1
    assert "drops" in eight.failures[0]
    assert exact.findings == eight.findings == []
    plain = check(lite_int8, against=trained, data=digits, limit=20, min_agreement=0.5)
    assert (plain.gates, plain.kernels) == ({"min_agreement": 0.5}, {})


def test_a_file_that_mixes_the_images_of_a_batch_misses_the_gate(whole, edited, digits, tmp_path):
    (tmp_path / "m.tflite").write_bytes(whole.float32)
    options = {"against": whole.model, "data": digits, "limit": 9, "gate": True}
    assert check(tmp_path / "m.tflite", **options).failures == []
    (tmp_path / "m.tflite").write_bytes(edited(whole.float32).put("CUMSUM", np.int32(0)).bytes())
    (failure,) = check(tmp_path / "m.tflite", **options).failures
    assert failure.startswith("batches of 4")


@pytest.mark.parametrize("wrong", [{"split": "tset"}, {"limit": 0}], ids=str)
def test_a_wrong_argument_is_the_user_s_error(wrong, lite_float, trained, digits):
    with pytest.raises(UsageError):
        check(lite_float, against=trained, data=digits, **wrong)


def test_a_float_file_never_meets_the_gate_on_float_operators(lite_float, trained, digits):
    found = check(lite_float, against=trained, data=digits, limit=20, max_float_ops=0)
    assert found.contents.integer_kernels == 0
    assert "no quantized file" in found.failures[0]


def test_the_split_is_the_one_the_model_was_trained_on(tmp_path):
    data = load_data("digits", channels=1, size=16, seed=3, validation=0.2, test=0.4)
    model = kzoo.build("lenet5", size=16, seed=0)
    phase = {"epochs": 1, "learning_rate": 3e-3}
    training = kzoo.finetune(model, data, phases=[phase], output=tmp_path / "m.keras")
    kzoo.convert(tmp_path / "m.keras", tmp_path / "m.tflite")
    found = check(tmp_path / "m.tflite", against=tmp_path / "m.keras", data="digits")
    assert found.keras.count == training.evaluation.count
    assert found.keras.accuracy == training.evaluation.accuracy
    assert np.array_equal(np.sort(found.indices), np.sort(data.splits["test"]))
