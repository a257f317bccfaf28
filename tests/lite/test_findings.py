"""What is put into a file for nothing is found, and changes no output; clean files have none."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kzoo.errors import BadInputError
from kzoo.lite.convert import convert
from kzoo.lite.findings import ADVICE, findings
from kzoo.lite.interpret import infer
from kzoo.lite.quantize import quantize

CHANNELS = 8
"""Of the first convolution."""


@pytest.fixture
def spoilt(whole, edited):
    """spoilt(case): a float file that computes the same, with more than it needs."""

    def make(case: str):
        file = edited(whole.float32)
        shape = list(file.made().shape)
        ones, zeros = np.ones(CHANNELS, np.float32), np.zeros(CHANNELS, np.float32)
        still = np.zeros(shape, np.float32)
        to, back = np.int32([0, 3, 1, 2]), np.int32([0, 2, 3, 1])
        match case:
            case "unfolded":
                file.without_activation().put("MUL", ones, layer="stem_bn").put("ADD", zeros)
                return file.put("RELU")
            case "unfolded scalar":
                return file.without_activation().put("MUL", np.float32(1)).put("RELU")
            case "unfused":
                return file.without_activation().put("RELU", layer="stem_act")
            case "transposes":
                file.put("TRANSPOSE", to, shape=[shape[i] for i in to]).put("RELU")
                return file.put("TRANSPOSE", back, shape=shape)
            case "duplicates":
                return file.put("ADD", still).put("ADD", still, layer="again")
        raise KeyError(case)

    return make


@pytest.fixture
def told(tmp_path):
    """told(file): its findings."""

    def found(file) -> list[dict]:
        path = tmp_path / "m.tflite"
        path.write_bytes(file.bytes())
        return findings(str(path))

    return found


def same_output(file, data: bytes, digits) -> bool:
    found, expected = (infer(each, digits.images[:4], 1)[0] for each in (file.bytes(), data))
    return np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "kind", "layer"),
    [
        ("unfused", "unfused activation", "stem_act"),
        ("transposes", "cancelling transposes", "added"),
        ("duplicates", "duplicate constants", "again"),
    ],
)
def test_what_is_put_in_for_nothing_is_found(case, kind, layer, spoilt, told, whole, digits):
    file = spoilt(case)
    assert same_output(file, whole.float32, digits)
    (found,) = told(file)
    assert (found["kind"], found["layer"]) == (kind, layer)
    assert found["index"] == file.place
    assert found["advice"] == ADVICE[found["kind"]]
    wasted = 15 * 15 * CHANNELS * 4 if case == "duplicates" else 0
    assert found["bytes"] == wasted


@pytest.mark.parametrize("case", ["unfolded", "unfolded scalar"])
def test_a_batchnorm_is_one_finding_whatever_it_is_made_of(case, spoilt, told, whole, digits):
    file = spoilt(case)
    assert same_output(file, whole.float32, digits)
    norm, act = told(file)
    assert (norm["kind"], norm["operator"]) == ("unfolded BatchNorm", "MUL")
    assert "CONV_2D in stage1_conv" in norm["reason"]
    assert act["kind"] == "unfused activation"
    assert case != "unfolded" or (norm["layer"] == "stem_bn" and "MUL and ADD" in norm["reason"])


def test_conversions_there_and_back_are_found(whole, edited, told, digits):
    plain = edited(whole.int8).made().quantization
    wide = edited(whole.int8).made().quantization
    wide.scale = [2 * float(plain.scale[0])]
    for names, said in (
        (("DEQUANTIZE", "QUANTIZE"), "and back"),
        (("QUANTIZE",), "to the same"),
    ):
        file = edited(whole.int8)
        for name in names:
            dtype = "float32" if name == "DEQUANTIZE" else "int8"
            file.put(name, dtype=dtype, scale=plain if dtype == "int8" else None)
        assert same_output(file, whole.int8, digits)
        (found,) = told(file)
        assert found["kind"] == "redundant conversion"
        assert (found["operator"], found["index"]) == ("QUANTIZE", file.place)
        assert said in found["reason"]
    there = edited(whole.int8).put("QUANTIZE", scale=wide)
    assert told(there) == []  # another scale is another type
    (found,) = told(there.put("QUANTIZE", scale=plain))
    assert "and back" in found["reason"]
    (found,) = told(
        edited(whole.int8).put("QUANTIZE", scale=wide).put("DEQUANTIZE", dtype="float32")
    )
    assert "one can do it" in found["reason"]


def test_what_others_read_too_is_no_finding(spoilt, told, whole, edited):
    assert told(spoilt("unfused").returned()) == []
    (act,) = told(spoilt("unfolded").returned())
    assert act["kind"] == "unfused activation"  # of the ADD, which could have it
    ones = np.ones(CHANNELS, np.float32)
    assert told(edited(whole.float32).put("MUL", ones)) == []  # behind the activation
    by_place = np.ones((1, 15, 15, 1), np.float32)
    assert told(edited(whole.float32).without_activation().put("MUL", by_place)) == []


def test_a_shared_buffer_and_a_tiny_one_are_no_duplicates(spoilt, told, whole, edited):
    file = spoilt("duplicates")
    one, other = (
        file.graph.tensors[file.graph.operators[file.place - i].inputs[1]] for i in (1, 0)
    )
    other.buffer = one.buffer
    assert told(file) == []
    zeros = np.zeros(CHANNELS, np.float32)
    assert told(edited(whole.float32).put("ADD", zeros).put("ADD", zeros)) == []


def test_transposes_that_do_not_cancel_are_left(whole, edited, told):
    turn, (_, height, width, channels) = np.int32([0, 2, 3, 1]), edited(whole.float32).made().shape
    file = edited(whole.float32).put("TRANSPOSE", turn, shape=[1, width, channels, height])
    assert told(file.put("TRANSPOSE", turn, shape=[1, channels, height, width])) == []


def test_clean_files_have_none(whole, lite_float, lite_int8, trained, digits, tmp_path):
    for data in (whole.float32, whole.int8):
        (tmp_path / "m.tflite").write_bytes(data)
        assert findings(str(tmp_path / "m.tflite")) == []
    mixed = tmp_path / "mixed.tflite"
    quantize(trained, mixed, calibrate=digits, samples=20, exclude=["stage2", "head_fc2"])
    for path in (lite_float, lite_int8, mixed):
        assert findings(str(path)) == []


def test_an_output_with_two_readers_stays_unfused_for_a_reason(tmp_path):
    """Of a real conversion: the activation and the normalization have the convolution beside."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 1))
    conv = keras.layers.Conv2D(8, 3, 2, name="body_conv")(image)
    norm = keras.layers.BatchNormalization(name="body_bn")
    x = keras.layers.Concatenate()([conv, keras.layers.ReLU(name="body_act")(conv), norm(conv)])
    norm.set_weights([each + np.linspace(0, 1, 8, dtype=np.float32) for each in norm.get_weights()])
    x = keras.layers.GlobalAveragePooling2D()(x)
    path = tmp_path / "m.tflite"
    done = convert(keras.Model(image, keras.layers.Dense(10)(x)), path)
    assert {"RELU float32", "MUL float32"} <= set(done.contents.operators)
    assert findings(str(path)) == []


def test_real_files_have_none(shared):
    for path in sorted([*shared.glob("mlperf-tiny/*.tflite"), *shared.glob("coral/*.tflite")]):
        assert findings(str(path)) == [], path


def test_damaged_files_are_refused_or_answered(spoilt, tmp_path):
    """In one line, whichever bit is wrong."""
    data = spoilt("transposes").bytes()
    chance, path, refused = random.Random(0), tmp_path / "m.tflite", []
    damaged = [data[: int(share * len(data))] for share in (0.1, 0.5, 0.9999)]
    for number in range(300):
        one = bytearray(data)
        one[chance.randrange(8, 1500 if number % 2 else len(data))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(one))
    for each in damaged:
        path.write_bytes(each)
        try:
            findings(str(path))
        except BadInputError as error:
            refused.append(str(error))
    assert 0 < len(refused) < len(damaged)
    assert all("m.tflite" in text and "\n" not in text for text in refused)
