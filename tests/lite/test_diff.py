"""A file has no difference to itself; one thing that was changed is the one that is told."""

from __future__ import annotations

import pytest

from kzoo.errors import BadInputError, MissingError
from kzoo.lite import flatbuffer
from kzoo.lite.diff import diff, matched
from kzoo.lite.inspect import inspect

LISTS = ("added", "removed", "changed", "dtypes", "scales", "ports", "notes", "metadata")


def test_a_file_has_no_difference_to_itself(lite_float, lite_int8, shared):
    elsewhere = shared / "mlperf-tiny" / "tflm_person_detect.tflite"
    for path in (lite_float, lite_int8, elsewhere):
        found = diff(path, path)
        assert found.same
        assert not any(getattr(found, name) for name in LISTS)
        assert len(found.weights) in (5, 28)
        assert all(row["equal"] == 1 for row in found.weights)
        assert all(first == second for first, second in found.sizes.values())


def test_int8_changes_the_dtype_of_each_kernel(lite_float, lite_int8):
    found = diff(lite_float, lite_int8)
    assert not found.same
    kernels = ("CONV_2D", "FULLY_CONNECTED")
    told = [row for row in found.dtypes if row["operator"] in kernels]
    assert [row["layer"] for row in told] == [
        row["layer"]
        for row in inspect(lite_float, tensors=True).tensors
        if row["operator"] in kernels
    ]
    assert all(row["dtype"] == ["float32", "int8"] for row in told)
    assert [row["equal"] for row in found.weights] == [None] * 5
    assert [row["operator"] for row in found.removed] == ["CAST"]
    assert [row["operator"] for row in found.added] == ["QUANTIZE", "QUANTIZE"]
    assert found.changed == []
    assert found.sizes["bytes"] == [lite_float.stat().st_size, lite_int8.stat().st_size]
    assert found.sizes["weights float32"][1] == found.sizes["weights int8"][0] == 0
    assert found.notes["quantization"][1] == "int8"


def test_the_other_way_round_is_the_mirror(lite_float, lite_int8):
    there, back = diff(lite_float, lite_int8), diff(lite_int8, lite_float)
    assert (there.added, there.removed) == (back.removed, back.added)
    assert {key: pair[::-1] for key, pair in there.sizes.items()} == back.sizes
    for name in ("ports", "notes", "metadata"):
        mirrored = {key: pair[::-1] for key, pair in getattr(there, name).items()}
        assert mirrored == getattr(back, name)


def test_what_was_changed_is_what_is_told(lite_int8, tmp_path):
    model = flatbuffer.parse(lite_int8.read_bytes())
    graph = model.subgraphs[0]
    first, second = (op for op in graph.operators if flatbuffer.operator(model, op) == "CONV_2D")
    graph.tensors[first.outputs[0]].quantization.scale[0] *= 1.02
    graph.tensors[second.outputs[0]].quantization.scale[0] *= 1.005  # too little to be told
    weights = model.buffers[graph.tensors[second.inputs[1]].buffer]
    weights.data = [*weights.data]
    weights.data[:600] = [int(value) ^ 1 for value in weights.data[:600]]  # of 2400
    path = tmp_path / "changed.tflite"
    path.write_bytes(flatbuffer.serialize(model))
    found = diff(lite_int8, path)
    (row,) = found.scales
    assert (row["operator"], row["layer"]) == ("CONV_2D", "stage1_1_conv")
    assert row["scale"][1] / row["scale"][0] == pytest.approx(1.02)
    assert [row["equal"] for row in found.weights] == [1, 0.75, 1, 1, 1]
    # The class names stood behind the flatbuffer, where `serialize` drops them.
    assert set(found.metadata) == {"labels"}
    assert not any(getattr(found, name) for name in LISTS if name not in ("scales", "metadata"))


def rows(*names: str) -> list[dict]:
    return [dict(zip(("operator", "layer"), name.split(), strict=True)) for name in names]


def test_operators_are_matched_in_order():
    first = rows("CONV_2D a", "RELU b", "CONV_2D c", "ADD d")
    assert matched(first, first) == ([(i, i) for i in range(4)], [])
    second = rows("QUANTIZE in", "CONV_2D a", "LOGISTIC b", "CONV_2D c", "MUL e")
    assert matched(first, second) == ([(0, 1), (2, 3)], [(1, 2)])
    assert matched(first, []) == ([], [])
    # The name of the output goes to the operator that rounds it.
    end = rows("SOFTMAX Identity1", "QUANTIZE Identity")
    assert matched(rows("SOFTMAX Identity"), end) == ([(0, 0)], [])


def test_a_file_that_is_none_is_named(lite_int8, tmp_path):
    with pytest.raises(MissingError, match=r"gone\.tflite"):
        diff(lite_int8, tmp_path / "gone.tflite")
    data = lite_int8.read_bytes()
    for size in (20, 9000, len(data) // 2):
        cut = tmp_path / "cut.tflite"
        cut.write_bytes(data[:size])
        for pair in ((lite_int8, cut), (cut, lite_int8)):
            with pytest.raises(BadInputError, match=r"cut\.tflite"):
                diff(*pair)
