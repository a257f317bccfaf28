"""Images on a device beside this machine: equal where the same kernels compute, seen where not."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils

import kzoo
from kzoo.cli import cli
from kzoo.errors import BadInputError, UsageError
from kzoo.lite.classify import spread
from kzoo.measure import on_device as module
from kzoo.measure.on_device import on_device
from kzoo.measure.runtimes import C_RUNTIME
from kzoo.measure.target import Setting, open_target
from kzoo.measure.targets.device import Device

RESNETS = ("pretrainedResnet_quant.tflite", "pretrainedResnet.tflite")


@pytest.mark.parametrize("name", RESNETS)
def test_the_c_runner_is_bit_equal(name, mlperf_tiny):
    found = on_device(mlperf_tiny / name, "digits", on="host", runtime=C_RUNTIME, limit=24)
    assert found.bit_equal == found.images == found.accuracy["count"] == 24
    assert (found.agreement, found.max_difference) == (1, 0)
    assert found.max_steps == (0 if "quant" in name else None)
    assert found.accuracy == found.host_accuracy
    assert (found.target, found.kind, found.runner) == ("host", "measured", C_RUNTIME)


def test_other_kernels_differ_by_some_steps(mlperf_tiny):
    if importlib.util.find_spec("tflite_micro") is None:
        pytest.skip("needs the package tflite-micro (pip install 'kzoo[micro]')")
    file = mlperf_tiny / RESNETS[0]
    data = kzoo.load_data("digits", size=32, channels=3)
    found = on_device(file, data, on="micro", limit=24, min_agreement=1)
    pixels = data.images[spread(data.splits["test"], 24)]
    raw = (pixels.astype(np.int16) - 128).astype(np.int8).tobytes()
    with open_target("micro") as micro, open_target("host") as host:
        there, here = (
            np.frombuffer(each.outputs(file, raw, Setting())["outputs"], np.int8).reshape(24, 10)
            for each in (micro, host)
        )
    assert found.max_steps == np.abs(there.astype(int) - here).max() > 0
    assert found.max_difference == found.max_steps / 256
    assert found.bit_equal == (there == here).all(axis=1).sum() < 24
    assert 1 > found.agreement == (there.argmax(1) == here.argmax(1)).mean() > 0.5
    assert found.kind == "emulated"
    assert len(found.failures) == 1
    assert found.failures[0].startswith("micro: top-1 agreement with this machine")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


def test_the_accuracy_is_that_of_evaluate(lite_int8, digits):
    found = on_device(lite_int8, digits, on="host", runtime=C_RUNTIME)
    expected = kzoo.evaluate(lite_int8, digits).evaluation
    for each in (found.accuracy, found.host_accuracy):
        assert each == {
            "count": expected.count,
            "accuracy": expected.accuracy,
            "interval": list(expected.interval),
        }
    assert found.accuracy["accuracy"] > 0.8


def test_many_images_go_in_pieces_of_bounded_size(mlperf_tiny, monkeypatch):
    sent = []
    outputs = Device.outputs

    def spy(self, model, inputs, setting):
        sent.append(len(inputs))
        return outputs(self, model, inputs, setting)

    monkeypatch.setattr(Device, "outputs", spy)
    monkeypatch.setattr(module, "FIRST", 2)
    monkeypatch.setattr(module, "PIECE", 5 * 3072 + 1)
    events = []
    found = on_device(
        mlperf_tiny / RESNETS[0],
        "digits",
        on="host",
        limit=13,
        progress=lambda *event: events.append(event),
    )
    assert sent[::2] == sent[1::2] == [3072 * count for count in (2, 4, 5, 2)]
    assert [event[1:] for event in events[-4:]] == [(2, 13), (6, 13), (11, 13), (13, 13)]
    assert found.images == found.bit_equal == 13


def test_nan_from_a_device_is_told(mlperf_tiny, tmp_path):
    model = flatbuffer_utils.read_model(str(mlperf_tiny / RESNETS[1]))
    graph = model.subgraphs[0]
    bias = next(tensor for tensor in graph.tensors if list(tensor.shape) == [10])
    model.buffers[bias.buffer].data = np.frombuffer(np.full(10, np.nan, "<f4").tobytes(), np.uint8)
    file = tmp_path / "nan.tflite"
    file.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    with pytest.raises(BadInputError, match="NaN or infinity on 3 of 3 images"):
        on_device(file, "digits", on="host", limit=3)


def test_check_has_the_device_in_its_record(lite_int8, trained, capsys):
    given = ["check", lite_int8, "--against", trained, "--data", "digits", "--limit", 20]
    given += ["--on", "host", "--runtime", C_RUNTIME]
    assert not cli([*map(str, given), "--json"], standalone_mode=False)
    record = json.loads(capsys.readouterr().out)
    assert record["device"]["bit_equal"] == record["device"]["images"] == 20
    assert record["device"]["accuracy"]["accuracy"] == record["lite"]["accuracy"]
    assert record["device"]["min_agreement"] is None
    given += ["--min-agreement", "0.5"]
    assert cli([*map(str, given), "--max-drop", "-100"], standalone_mode=False) == 1
    assert "20 of 20 images are bit-equal" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"min_agreement is from 0 to 1; 1\.01 was given"):
        on_device(lite_int8, "digits", on="host", min_agreement=1.01)


def test_a_device_that_cannot_be_is_told_before_the_check(lite_int8, trained, monkeypatch):
    monkeypatch.setattr("kzoo.lite.check.check", lambda *_, **__: pytest.fail("it was checked"))
    given = ["check", str(lite_int8), "--against", str(trained), "--data", "digits", "--on", "host"]
    with pytest.raises(UsageError, match="no delegate 'nnapi'"):
        cli([*given, "--delegate", "nnapi"], standalone_mode=False)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"on": "hots"}, UsageError, "did you mean host"),
        ({"limit": 0}, UsageError, "limit is at least 1"),
        ({"split": "tset"}, UsageError, "no split 'tset'"),
        ({"delegate": "gpx"}, UsageError, "no delegate 'gpx'"),
    ],
)
def test_wrong_options_say_what_is_expected(options, error, said, mlperf_tiny):
    with pytest.raises(error, match=said):
        on_device(mlperf_tiny / RESNETS[0], "digits", **{"on": "host", "limit": 2, **options})


def test_a_keras_file_is_no_device_s(trained):
    with pytest.raises(UsageError, match=r"a device runs \.tflite files"):
        on_device(trained, "digits", on="host")
