"""Operators' times add up, and are of the operators that the file has."""

import copy
import json
import statistics

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from kzoo.child import call
from kzoo.cli.profile import SLOWEST, _operators
from kzoo.errors import BadInputError, UsageError
from kzoo.lite import flatbuffer
from kzoo.lite.inspect import inspect
from kzoo.measure import xnnpack
from kzoo.measure.operators import operator_times
from kzoo.measure.profile import profile, profile_all
from kzoo.report.operators import by_layer
from tests.measure.conftest import add_model


@pytest.fixture(scope="module")
def models(mlperf_tiny) -> list:
    """Float: over a millisecond by the runtime's own kernels."""
    return [mlperf_tiny / name for name in ("pretrainedResnet.tflite", "vww_96_float.tflite")]


@pytest.fixture(scope="module")
def by_node(models):
    return profile_all(models, ops="node", rounds=2, min_runs=60, min_seconds=0.1).records


@pytest.fixture(scope="module")
def by_delegate(models):
    return profile_all(models, ops="delegate", rounds=1, min_runs=60, min_seconds=0.1).records


def test_the_sum_of_the_operators_is_the_whole_in_node_mode(by_node):
    for record in by_node:
        found = record.operators
        assert 0.9 <= found.coverage <= 1
        assert found.sum_us == pytest.approx(sum(each.us for each in found.operators))
        assert sum(each.share for each in found.operators) == pytest.approx(1)


def test_a_delegate_s_operators_are_within_the_whole(by_delegate):
    for record in by_delegate:
        assert 0 < record.operators.coverage <= 1


def test_node_mode_tells_each_operator_of_the_file_once_and_in_order(by_node, models):
    for record, model in zip(by_node, models, strict=True):
        rows = inspect(model, tensors=True, packed=False).tensors
        assert [(each.node, each.name) for each in record.operators.operators] == [
            (row["index"], row["operator"]) for row in rows
        ]


def test_a_delegate_s_operators_are_those_of_the_file(by_delegate, models):
    for record, model in zip(by_delegate, models, strict=True):
        rows = call("kzoo.lite.work:read", file=str(model))
        nodes = [each.node for each in record.operators.operators]
        assert None not in nodes
        assert nodes == sorted(nodes)
        # What is counted twice would be a rate that nothing has.
        for key in ("macs", "weight_bytes", "read_bytes", "written_bytes"):
            told = sum(getattr(each, key) or 0 for each in record.operators.operators)
            assert told == sum(row[key] for row in rows if row["index"] in nodes)


def test_both_modes_count_the_same_work(by_node, by_delegate):
    for one, other in zip(by_node, by_delegate, strict=True):
        macs = [sum(each.macs or 0 for each in r.operators.operators) for r in (one, other)]
        assert macs[0] == macs[1] > 1e6


def test_the_layers_are_those_of_keras(by_delegate):
    record = by_delegate[0]
    layers = [each.layer for each in record.operators.operators]
    assert layers[0] == "conv2d"
    assert layers[-2:] == ["dense", "output"]
    assert "batch_normalization" in record.operators.operators[0].layers


def test_parts_of_a_delegate_are_told_apart(mlperf_tiny):
    """XNNPACK leaves AVERAGE_POOL_2D aside: what comes behind it begins at 0 again."""
    model = mlperf_tiny / "pretrainedResnet_quant.tflite"
    found = profile(model, ops="delegate", rounds=1, min_runs=5, min_seconds=0).operators
    nodes = [each.node for each in found.operators]
    assert None not in nodes
    assert nodes == sorted(nodes)
    assert {"AVERAGE_POOL_2D", "FULLY_CONNECTED"} <= {each.kind for each in found.operators}


def test_the_headline_is_not_of_profiled_runs(by_node):
    for record in by_node:
        found = record.operators
        assert found.runs == 120
        assert len(record.runs) == 2
        assert found.unprofiled_ms > found.usual_ms  # slower kernels
        samples = [sample for run in record.runs for sample in run.samples_ms]
        assert found.usual_ms == pytest.approx(statistics.median(samples))
        assert all(each["reason"] for each in found.dropped)


def test_the_record_survives_json(by_delegate):
    record = by_delegate[0].to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def answers(operators, runs=8, **changes) -> list[dict]:
    """What a runner would tell of operators, each ``(name, type, index, us)``."""
    keys = ("name", "type", "index")
    rows = [dict(zip(keys, each, strict=False)) | {"us": [each[3]] * runs} for each in operators]
    told = {"samples_ns": [100_000] * runs, "threads": 1, "operators": rows}
    return [told | changes]


def test_whole_microseconds_are_told_finer_by_many_runs(small):
    told = answers([("ADD", 2, 0, 0)], runs=8)
    told[0]["operators"][0]["us"] = [0, 1, 0, 1, 1, 0, 1, 0]
    (found,) = operator_times(str(small), "node", told, told, told).operators
    assert found.us == 0.5


def test_what_another_program_took_is_in_no_operator(small):
    told = answers([("ADD", 2, 0, 10)])
    told[0]["operators"][0]["us"][3] = 4000
    (found,) = operator_times(str(small), "node", told, told, told).operators
    assert found.us == 10


def test_runs_that_were_shared_with_others_are_noted(small):
    calm = answers([("ADD", 2, 0, 40), ("ADD", 2, 1, 40)])
    shared = copy.deepcopy(calm)
    # In each run another program takes its time inside one of the two.
    for place, each in enumerate(shared[0]["operators"]):
        each["us"] = [4040 if run % 4 == place else 40 for run in range(8)]
    shared[0]["samples_ns"] = [4_100_000 if run % 4 < 2 else 100_000 for run in range(8)]
    for told, noted in ((calm, False), (shared, True)):
        found = operator_times(str(small), "node", told, calm, calm)
        assert found.sum_us == 80
        assert any("other programs ran beside it" in note for note in found.notes) is noted


def test_events_that_are_no_operators_are_dropped_with_a_reason(small):
    events = [("Invoke", 1, 0, 90), ("ADD", 2, 0, 80), ("Invoke", 32, 2**64 - 1, 2**32)]
    told = answers(events)
    found = operator_times(str(small), "node", told, told, told)
    assert [each.name for each in found.operators] == ["ADD"]
    assert [each["name"] for each in found.dropped] == ["Invoke", "Invoke"]
    assert found.coverage == pytest.approx(0.8)


def test_an_event_of_another_name_is_not_mapped(small):
    told = answers([("MUL", 2, 0, 10)])
    (found,) = operator_times(str(small), "node", told, told, told).operators
    assert (found.node, found.macs, found.layer, found.kind) == (None, None, "", "MUL")


def test_parts_that_are_not_understood_are_not_mapped(small):
    told = answers([("Add (ND)", 8, 0, 10), ("Add (ND)", 8, 0, 10)])
    found = operator_times(str(small), "delegate", told, told, told)
    assert [each.node for each in found.operators] == [None, None]
    assert "2 parts, and 1 were expected" in found.notes[0]


def test_operators_that_change_from_time_to_time_are_refused(small):
    told = [*answers([("ADD", 2, 0, 1)]), *answers([("MUL", 2, 0, 1)])]
    with pytest.raises(BadInputError, match="from time to time"):
        operator_times(str(small), "node", told, told, told)


def rows(*operators: str, inputs=None, **others) -> list[dict]:
    """A chain of operators, or with the inputs of each."""
    return [
        {
            "index": i, "operator": name, "inputs": inputs[i] if inputs else [i - 1],
            "dtype": "float32", "weight_dtype": "float32", "kernel": [], "activation": False,
            **others,
        }
        for i, name in enumerate(operators)
    ]  # fmt: skip


def test_in_order_is_exact():
    names = ["Convolution (NHWC, F32) IGEMM", "Add (ND)", "Convolution (NHWC, F32) IGEMM"]
    assert xnnpack.assigned(names, rows("CONV_2D", "ADD", "CONV_2D")) == [0, 1, 2]


def test_what_is_fused_is_passed_over():
    names = ["Convolution (NHWC, F32) IGEMM", "Softmax (NC, F32)"]
    assert xnnpack.assigned(names, rows("PAD", "CONV_2D", "RELU", "SOFTMAX")) == [1, 3]


def test_two_places_are_none():
    assert xnnpack.assigned(["Add (ND)"], rows("ADD", "ADD")) == [None]
    assert xnnpack.assigned(["Add (ND)", "Multiply (ND)"], rows("ADD", "ADD", "MUL")) == [None, 2]


def test_an_operator_of_the_delegate_alone_stays_its_own():
    assert xnnpack.assigned(["Unheard Of (ND)", "Add (ND)"], rows("ADD")) == [None, 0]


def test_a_layer_of_rounded_weights_is_two_operators():
    found = rows("CONV_2D", weight_dtype="int8")
    names = ["Convert (NC, F32, QD8)", "Convolution (NHWC, QD8, F32, QC8W) IGEMM"]
    assert xnnpack.assigned(names, found) == [0, 0]


def test_a_fused_activation_of_an_addition_is_a_clamp():
    names = ["Add (ND)", "Clamp (NC)"]
    assert xnnpack.assigned(names, rows("ADD", activation=True)) == [0, 0]
    assert xnnpack.assigned(names, rows("ADD")) == [0, None]


def test_only_a_one_by_one_convolution_is_fully_connected():
    names = ["Fully Connected (NC, F32) GEMM"]
    assert xnnpack.assigned(names, rows("CONV_2D", kernel=[8, 1, 1, 4])) == [0]
    assert xnnpack.assigned(names, rows("CONV_2D", kernel=[8, 3, 3, 4])) == [None]


def test_parts_run_when_they_can():
    """Both branches are given in one part where the second needs nothing of what is apart."""
    branches = rows("A", "B", "C", "D", "E", inputs=[[-1], [0], [1], [0], [2, 3]])
    assert xnnpack.parts(branches, apart={1}) == [[0, 3], [1], [2, 4]]
    assert xnnpack.parts(branches, apart=set()) == [[0, 1, 2, 3, 4]]
    assert xnnpack.parts(branches, apart={0, 1, 2, 3, 4}) == [[0, 1, 2, 3, 4]]


def test_groups_begin_where_numbers_do_not_rise():
    assert xnnpack.groups([0, 1, 2, 0, 0, 1]) == [[0, 1, 2], [3], [4, 5]]


def test_weights_are_the_constants_of_the_file(mlperf_tiny):
    model = mlperf_tiny / "vww_96_float.tflite"
    contents = inspect(model, packed=False).bytes_by_kind
    constants = sum(size for kind, size in contents.items() if kind != "structure")
    found = call("kzoo.lite.work:read", file=str(model))
    assert sum(row["weight_bytes"] for row in found) == constants


def test_weights_that_are_unpacked_first_are_weights(tmp_path):
    """Half floats, made whole ones by an operator of their own, are no activations."""
    file = add_model(tmp_path / "half.tflite", (1, 4, 4, 3))
    model = flatbuffer.parse(file.read_bytes())
    graph, op = model.subgraphs[0], schema.OperatorT()
    pixels, stored, _ = graph.tensors
    unpacked = copy.deepcopy(pixels)
    unpacked.name, unpacked.buffer = b"unpacked", 0
    graph.tensors.append(unpacked)
    stored.type = schema.TensorType.FLOAT16
    model.buffers[1].data = np.ones(48, np.float16).view(np.uint8)
    op.opcodeIndex = flatbuffer.add_operator_code(model, "DEQUANTIZE")
    op.inputs, op.outputs = [1], [3]
    graph.operators[0].inputs = [0, 3]
    graph.operators.insert(0, op)
    file.write_bytes(flatbuffer.serialize(model))
    unpack, add = call("kzoo.lite.work:read", file=str(file))
    assert (unpack["weight_bytes"], unpack["read_bytes"], unpack["written_bytes"]) == (96, 0, 192)
    assert (add["weight_bytes"], add["read_bytes"], add["written_bytes"]) == (192, 192, 192)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ops": "nodes"}, "did you mean node"),
        ({"ops": "node", "runtime": "tensorflow"}, "litert-c, not by tensorflow"),
        ({"ops": "node", "delegate": "xnnpack"}, "has no delegate"),
    ],
)
def test_what_cannot_be_asked_says_so(options, said, small):
    with pytest.raises(UsageError, match=said):
        profile(small, **options)


def test_the_terminal_says_how_many_layers_it_leaves_out(by_delegate):
    records = [record.to_dict() for record in by_delegate]
    few = copy.deepcopy(records[0])
    few["operators"]["operators"] = few["operators"]["operators"][:SLOWEST]
    layers = len(by_layer(records[1]["operators"]["operators"]))
    assert layers > SLOWEST
    assert f"\n{layers - SLOWEST} more, see --json or --html" in _operators([records[1]])[0]
    assert not any("more, see" in part for part in _operators([few]))
    assert " more, see --json or --html" in _operators(records)[0]  # side by side


def test_without_ops_there_are_none(small):
    assert profile(small, min_runs=1, min_seconds=0).operators is None
