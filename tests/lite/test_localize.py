"""A network spoilt on purpose: what spoils it is the first finding, and the cure helps."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from kzoo.cli import cli
from kzoo.errors import BadInputError, UsageError
from kzoo.lite import flatbuffer
from kzoo.lite.localize import localize
from kzoo.lite.quantize import quantize

NAMED = {"batch norm": "stem_bn", "swish": "stage1_1_act", "gate": "stage2_1_se_scale"}
CAUSES = {
    "batch norm": ["outlier channel"],
    "swish": ["swish", "outlier channel"],  # what enters it is as wide
    "gate": ["gate"],
}


@pytest.mark.parametrize("what", NAMED)
def test_what_spoils_a_network_is_the_first_finding(what, spoilt, tinted):
    model, file = spoilt(what)
    found = localize(file, against=model, data=tinted)
    first = found.findings[0]
    assert NAMED[what] in first["layers"] + first["affected"], found.findings
    assert first["cause"] in CAUSES[what]
    row = max(found.layers, key=lambda row: row.get("alone", 0))
    # What it costs alone is most of what the file loses, and without it less is lost.
    assert row["without"] < found.divergence


def test_calibration_in_another_order_of_channels_is_the_first_finding(spoilt, tinted):
    model, file = spoilt("bgr")
    first = localize(file, against=model, data=tinted, alone=False).findings[0]
    assert (first["layer"], first["cause"]) == ("image", "calibration images")
    assert "BGR" in first["text"]


def test_a_sound_file_has_no_finding_of_its_calibration(spoilt, tinted):
    model, file = spoilt("sound")
    found = localize(file, against=model, data=tinted)
    assert not [each for each in found.findings if each["cause"] == "calibration images"]
    assert found.agreement >= 0.95
    kernels = [row for row in found.layers if row["weights_db"] is not None]
    assert len(kernels) == 7
    assert all(row["weights_db"] > 30 and row["sqnr_db"] > 15 for row in kernels)


def test_biases_are_the_files(spoilt, tinted, tmp_path):
    model, file = spoilt("sound")
    content = flatbuffer.parse(file.read_bytes())
    graph = content.subgraphs[0]
    (name,) = {
        str(graph.tensors[op.outputs[0]].name, "utf8")
        for op in graph.operators
        if flatbuffer.operator(content, op) == "FULLY_CONNECTED"
    }
    before = {row["tensor"]: row["alone"] for row in _rows(file, model, tinted)}
    for op in graph.operators:
        if flatbuffer.operator(content, op) == "FULLY_CONNECTED":
            bias = graph.tensors[op.inputs[2]]
            values = np.frombuffer(bytes(content.buffers[bias.buffer].data), np.int32).copy()
            values[0] += int(2 / bias.quantization.scale[0])
            content.buffers[bias.buffer].data = values.view(np.uint8)
    (tmp_path / "moved.tflite").write_bytes(flatbuffer.serialize(content))
    after = {row["tensor"]: row["alone"] for row in _rows(tmp_path / "moved.tflite", model, tinted)}
    assert after.pop(name) > 10 * before.pop(name)  # its bias is off
    assert after == before


def _rows(file, model, data) -> list[dict]:
    return [row for row in localize(file, against=model, data=data).layers if "alone" in row]


def test_a_file_of_another_converter_is_matched_by_its_operators(spoilt, tinted, tmp_path):
    import keras
    import tensorflow as tf

    model, _ = spoilt("swish")
    net = keras.saving.load_model(model)
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    train = tinted.splits["train"][:40]
    converter.representative_dataset = lambda: (
        [tinted.images[i : i + 1].astype(np.float32)] for i in train
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    (tmp_path / "foreign.tflite").write_bytes(converter.convert())
    found = localize(tmp_path / "foreign.tflite", against=model, data=tinted)
    assert NAMED["swish"] in found.findings[0]["affected"]


def test_what_cannot_be_is_said(trained, lite_float, lite_int8, digits, spoilt):
    with pytest.raises(BadInputError, match="nothing to find"):
        localize(lite_float, against=trained, data=digits)
    with pytest.raises(UsageError, match="limit"):
        localize(lite_int8, against=trained, data=digits, limit=0)
    with pytest.raises(BadInputError, match="not made from this model"):
        localize(spoilt("sound")[1], against=trained, data=digits)


def test_the_command_tells(spoilt):
    model, file = spoilt("bgr")
    command = ["localize", str(file), "--against", str(model), "--data", "digits"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert "same top-1" in done.output


def test_an_equalized_file_has_other_tensors_than_its_network(trained, digits, tmp_path):
    quantize(trained, tmp_path / "a.tflite", calibrate=digits, equalize=True)
    with pytest.raises(BadInputError, match="without --equalize"):
        localize(tmp_path / "a.tflite", against=trained, data=digits)
