"""Full-integer int8: no float is left, and the normalization costs nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kzoo.errors import UsageError
from kzoo.lite.check import check
from kzoo.lite.inspect import inspect
from kzoo.lite.interpret import lite_outputs
from kzoo.lite.quantize import quantize
from kzoo.registry import entry
from kzoo.zoo.build import build


def test_every_operator_is_integer_and_pixels_go_in(lite_int8):
    contents = inspect(lite_int8)
    assert contents.float_islands == []
    assert {name.split()[1] for name in contents.operators} <= {"int8", "uint8"}
    assert contents.input["dtype"] == contents.output["dtype"] == "uint8"
    assert (contents.output["scale"], contents.output["zero_point"]) == (1 / 256, 0)


def test_the_normalization_is_the_input_s_quantization(lite_int8):
    row, found = entry("lenet5"), inspect(lite_int8).input
    assert found["scale"] == pytest.approx(1 / row.std, rel=1e-4)
    assert abs(found["zero_point"] - row.mean) <= 1
    assert not any(name.startswith(("MUL", "ADD", "SUB")) for name in inspect(lite_int8).operators)


def test_int8_is_within_a_point_of_keras(trained, lite_int8, digits):
    found = check(lite_int8, against=trained, data=digits)
    assert found.keras.accuracy > 0.8
    assert abs(found.keras.accuracy - found.lite.accuracy) <= 0.01
    assert found.agreement >= 0.98


def test_float_input_and_output_keep_integer_insides(trained, lite_int8, digits, tmp_path):
    quantize(trained, tmp_path / "m.tflite", calibrate=digits, io="float32")
    contents = inspect(tmp_path / "m.tflite")
    assert contents.input["dtype"] == contents.output["dtype"] == "float32"
    assert contents.float_islands == []
    pixels, reals = (
        lite_outputs(path, digits.images_file, digits.splits["test"])[0]
        for path in (lite_int8, tmp_path / "m.tflite")
    )
    assert (pixels.argmax(1) == reals.argmax(1)).mean() >= 0.98


@pytest.mark.parametrize("kind", ["no preprocess", "per channel", "softmax inside"])
def test_what_cannot_be_folded_takes_pixels_as_they_are(kind, foreign, gray, tmp_path):
    done = quantize(foreign(kind), tmp_path / "m.tflite", calibrate=gray, samples=50)
    assert done.contents.input["dtype"] == "uint8"
    assert done.contents.input["scale"] == pytest.approx(1, rel=1e-4)
    assert done.contents.input["zero_point"] == 0
    assert done.contents.float_islands == []
    assert done.agreement >= 0.8


def test_only_training_images_calibrate_and_the_bytes_repeat(gray, tmp_path):
    model = build("lenet5", size=16, seed=0)
    images = np.array(gray.images)
    for split in ("validation", "test"):
        images[gray.splits[split]] = 255 - images[gray.splits[split]]
    spoilt = dataclasses.replace(gray, images=images)
    images = np.array(gray.images)
    images[gray.splits["train"]] = images[gray.splits["train"]] // 4
    darker = dataclasses.replace(gray, images=images)
    found = []
    for number, data in enumerate((gray, spoilt, darker)):
        quantize(model, tmp_path / f"{number}.tflite", calibrate=data, samples=20)
        found.append((tmp_path / f"{number}.tflite").read_bytes())
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"io": "int16"}, {"head": "softmax"}], ids=str)
def test_a_wrong_argument_is_the_user_s_error(wrong, trained, digits, tmp_path):
    with pytest.raises(UsageError):
        quantize(trained, tmp_path / "m.tflite", calibrate=digits, **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", [("equalize",), ("adaround", "equalize")])
def test_what_was_done_before_is_told_and_it_is_compared_with_the_model_given(
    asked, trained, digits, tmp_path
):
    done = quantize(
        trained, tmp_path / "m.tflite", calibrate=digits, samples=40, **dict.fromkeys(asked, True)
    )
    assert [*done.prepared] == sorted(asked, key=["equalize", "adaround"].index)
    assert done.agreement >= 0.95
    found = check(tmp_path / "m.tflite", against=trained, data=digits)
    assert found.agreement >= 0.98
    assert found.contents.float_islands == []
    # Compared with what was given, and not with what was made of it.
    assert done.max_logit_error > 1e-4
    assert found.contents.notes["model"] == "lenet5"
