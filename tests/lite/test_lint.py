"""Rules name what exists and where they are from; predictions agree with real compilations."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import yaml
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

import kzoo
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.lite import edgetpu, flatbuffer
from kzoo.lite.lint import TARGETS, lint
from kzoo.lite.lint.checks import CHECKS
from kzoo.lite.lint.operators import operators
from kzoo.lite.lint.predict import ABOUT, predict, rules

PAIRS = (
    "deeplabv3_mnv2_dm05_pascal_quant",
    "keras_lstm_mnist_ptq",
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v1_0.5_160_quant",
)


def entries(table: dict):
    """Every rule of a target with its operator's name."""
    for kind in ("operators", "custom", "refused"):
        for name, rule in (table.get(kind) or {}).items():
            yield kind, name, rule or {}


@pytest.mark.parametrize("target", TARGETS)
def test_every_operator_in_the_rules_is_in_the_schema(target):
    known = set(flatbuffer.OPERATORS.values())
    table = rules(target)
    assert set(table["operators"]) <= known
    assert not set(table.get("custom", ())) & known
    assert not set(table["operators"]) & set(table.get("refused", ()))


@pytest.mark.parametrize("target", TARGETS)
def test_every_rule_has_a_source_and_every_constraint_an_advice(target):
    table = rules(target)
    assert all(text.startswith(("https://", "measured: ")) for text in table["sources"].values())
    sources = {table["source"], *table.get("check_sources", {}).values()}
    checks = set(table.get("all", ()))
    for _, _, rule in entries(table):
        sources.add(rule.get("source", table["source"]))
        if "advice" not in rule:
            checks |= set(rule) - {*ABOUT, "reason"}
    assert sources <= set(table["sources"])
    assert checks | {"unsupported"} <= set(table["advice"])
    assert checks <= set(CHECKS)
    assert table["runs"] in ("whole", "first", "largest", "any")


def test_the_targets_are_the_files():
    from importlib import resources

    found = {path.name for path in resources.files("kzoo.lite.lint.rules").iterdir()}
    assert {f"{target}.yaml" for target in TARGETS} <= found
    for name in found & {f"{target}.yaml" for target in TARGETS}:
        text = resources.files("kzoo.lite.lint.rules").joinpath(name).read_text()
        assert yaml.safe_load(text)["title"]


def by_target(file) -> dict:
    return {each.target: each for each in lint(file).predictions}


def test_an_int8_file_of_kzoo_runs_whole(lite_int8):
    found = by_target(lite_int8)
    for target in ("edgetpu", "micro", "gpu", "nnapi", "litert-2.14"):
        assert found[target].operator_share == found[target].mac_share == 1.0
        assert found[target].blocker is None
        assert found[target].left == {}
        assert found[target].kind == "predicted"


def test_a_resnet_in_int8_runs_whole(tmp_path):
    model = kzoo.build("resnet8", seed=0)
    images = kzoo.load_data("digits", size=32)
    kzoo.quantize(model, tmp_path / "m.tflite", calibrate=images, samples=10)
    for each in lint(tmp_path / "m.tflite", ["edgetpu", "micro"]).predictions:
        assert each.mac_share == each.operator_share == 1.0


def test_a_float_file_is_refused_by_the_edge_tpu(lite_float):
    (found,) = lint(lite_float, ["edgetpu"]).predictions
    assert found.operators_run == found.macs_run == 0
    assert len(found.findings) == found.operators == sum(found.left.values())
    convolutions = [each for each in found.findings if each.operator == "CONV_2D"]
    assert all("float32" in each.reason and "kzoo quantize" in each.advice for each in convolutions)
    assert all(each.source.startswith("https://coral.ai/") for each in convolutions)


def test_the_multiply_accumulates_are_those_of_the_network(trained, lite_float, lite_int8):
    import keras

    from kzoo.network.count import macs

    expected = macs(keras.models.load_model(trained))
    for file in (lite_float, lite_int8):
        assert lint(file, ["gpu"]).predictions[0].macs == expected


def test_blockers_are_named_by_their_layer(foreign, gray, tmp_path):
    kzoo.quantize(foreign("layer norm"), tmp_path / "m.tflite", calibrate=gray, samples=10)
    (found,) = lint(tmp_path / "m.tflite", ["edgetpu"]).predictions
    assert found.blocker.layer == "ln"
    assert 0 < found.operators_run < found.operators
    assert 0 < found.mac_share < 1
    assert any("one part" in note for note in found.notes)


@pytest.mark.parametrize("name", PAIRS)
def test_the_prediction_is_what_the_compiler_did(shared, name):
    """Of each type as many operators stay on the CPU as in the real compilation."""
    file, compiled = (shared / "coral" / f"{name}{end}.tflite" for end in ("", "_edgetpu"))
    if not (file.is_file() and compiled.is_file()):
        pytest.skip(f"needs {file} and {compiled.name}")
    (found,) = lint(file, ["edgetpu"]).predictions
    assert found.left == edgetpu.compiled(compiled).left


def test_a_compiled_file_runs_in_its_compiled_operator(shared):
    compiled = shared / "coral" / "deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite"
    tpu, micro = lint(compiled, ["edgetpu", "micro"]).predictions
    assert tpu.operators_run == 1
    assert tpu.left == edgetpu.compiled(compiled).left
    assert micro.operators_run == 0


def test_what_the_micro_interpreter_loads_and_refuses(shared):
    """As measured with tflite_micro: the int8 and float files run, the uint8 one is refused."""
    for path, share in (
        ("mlperf-tiny/pretrainedResnet.tflite", 1.0),
        ("mlperf-tiny/pretrainedResnet_quant.tflite", 1.0),
        ("mlperf-tiny/tflm_person_detect.tflite", 1.0),
        ("coral/keras_lstm_mnist_ptq.tflite", 1.0),
        ("coral/mobilenet_v1_0.25_128_quant.tflite", 0.0),
    ):
        (found,) = lint(shared / path, ["micro"]).predictions
        assert found.operator_share == share, path


@pytest.fixture
def made(tmp_path):
    """made(("SOFTMAX", shape, shape), ...): a chain of int8 operators, as `operators` reads it.

    An operator may have a dict as a fourth: ``constants`` (values of further inputs), ``options``
    (a flatbuffer object), ``dtype`` of its output, and ``version``.
    """

    def make(*chain, dtype: str = "INT8"):
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.buffers, model.operatorCodes = 3, [schema.BufferT()], []
        graph.tensors, graph.operators, graph.name = [], [], b"main"

        def tensor(shape, kind, data=None):
            one = schema.TensorT()
            one.shape, one.type = list(shape), getattr(schema.TensorType, kind)
            one.name, one.buffer = b"net/layer%d/x" % len(graph.tensors), 0
            if data is not None:
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(data.tobytes(), np.uint8)
                model.buffers.append(buffer)
                one.buffer = len(model.buffers) - 1
            graph.tensors.append(one)
            return len(graph.tensors) - 1

        last = tensor(chain[0][1], dtype)
        graph.inputs = [last]
        for name, _, shape, *rest in chain:
            more = rest[0] if rest else {}
            code, op = schema.OperatorCodeT(), schema.OperatorT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = more.get("version", 1)
            model.operatorCodes.append(code)
            constants = [
                tensor(np.shape(each), np.asarray(each).dtype.name.upper(), np.asarray(each))
                for each in more.get("constants", ())
            ]
            inputs = [last, *constants]
            op.inputs = inputs[::-1] if name == "SPLIT" else inputs
            if "options" in more:
                op.builtinOptions = more["options"]
                kind = type(op.builtinOptions).__name__.removesuffix("T")
                op.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            last = tensor(shape, more.get("dtype", dtype))
            op.outputs, op.opcodeIndex = [last], len(model.operatorCodes) - 1
            graph.operators.append(op)
        graph.outputs, model.subgraphs = [last], [graph]
        path = tmp_path / "chain.tflite"
        path.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
        return operators(str(path))

    return make


def ints(*values):
    return np.array(values, np.int32)


def pool(activation: int):
    options = schema.Pool2DOptionsT()
    options.filterHeight = options.filterWidth = options.strideH = options.strideW = 2
    options.fusedActivationFunction = activation
    return options


IMAGE, ROW = (1, 8, 8, 6), (1, 10)
STILL, MORE = [0, 0], [0, 1]
ONES, ZEROS = np.ones((1, 2), np.int8), np.zeros((1, 2), np.int8)
CASES = {
    "softmax": (True, "SOFTMAX", (1, 16000), (1, 16000)),
    "a long softmax": (False, "SOFTMAX", (1, 16001), (1, 16001)),
    "softmax over an image": (False, "SOFTMAX", IMAGE, IMAGE),
    "pooling": (True, "MAX_POOL_2D", IMAGE, (1, 4, 4, 6), pool(0)),
    "pooling with relu": (False, "MAX_POOL_2D", IMAGE, (1, 4, 4, 6), pool(1)),
    "mean of an image": (True, "MEAN", IMAGE, (1, 6), ints(1, 2)),
    "mean of 6 channels": (False, "MEAN", IMAGE, (1, 8, 8), ints(3)),
    "mean of 8 channels": (True, "MEAN", (1, 2, 2, 8), (1, 2, 2), ints(-1)),
    "mean of the batch": (False, "MEAN", IMAGE, (8, 8, 6), ints(0)),
    "padding": (True, "PAD", IMAGE, (1, 9, 9, 6), ints(STILL, MORE, MORE, STILL)),
    "padding the batch": (False, "PAD", IMAGE, (2, 8, 8, 6), ints(MORE, STILL, STILL, STILL)),
    "a batch of 2": (False, "RELU", (2, 8, 8, 6), (2, 8, 8, 6)),
    "splitting channels": (True, "SPLIT", IMAGE, (1, 8, 8, 3), ints(3)[0]),
    "splitting the batch": (False, "SPLIT", IMAGE, IMAGE, ints(0)[0]),
    "doubling": (True, "RESIZE_BILINEAR", IMAGE, (1, 16, 16, 6), ints(16, 16)),
    "a large image": (False, "RESIZE_BILINEAR", IMAGE, (1, 512, 512, 6), ints(512, 512)),
    "slicing": (True, "STRIDED_SLICE", ROW, (1, 5), ints(0, 0), ints(1, 5), ints(1, 1)),
    "slicing in steps": (False, "STRIDED_SLICE", ROW, (1, 5), ints(0, 0), ints(1, 10), ints(1, 2)),
    "concatenating zeros": (True, "CONCATENATION", ROW, (1, 12), ZEROS),
    "concatenating ones": (False, "CONCATENATION", ROW, (1, 12), ONES),
    "one slope a channel": (True, "PRELU", IMAGE, IMAGE, np.zeros((1, 1, 6), np.int8)),
    "one slope a pixel": (False, "PRELU", IMAGE, IMAGE, np.zeros((8, 8, 6), np.int8)),
    "hard swish": (False, "HARD_SWISH", IMAGE, IMAGE),
    "dequantizing": (False, "DEQUANTIZE", ROW, ROW, "FLOAT32"),
}
"""What the Edge TPU's documentation allows and what it excludes."""


@pytest.mark.parametrize("case", CASES)
def test_the_documented_constraints_of_the_edge_tpu(made, case):
    allowed, name, given, shape, *rest = CASES[case]
    more = {"constants": [each for each in rest if isinstance(each, np.ndarray | np.generic)]}
    for each in rest:
        if isinstance(each, str):
            more["dtype"] = each
        elif isinstance(each, schema.Pool2DOptionsT):
            more["options"] = each
    found = predict(made((name, given, shape, more)), "edgetpu")
    assert found["operators_run"] == allowed, found["findings"]
    assert len(found["findings"]) == (not allowed)


def test_the_edge_tpu_runs_one_part(made):
    """A refused operator at the entry ends nothing; one between takes all behind it along."""
    relu = ("RELU", ROW, ROW)
    swish = ("HARD_SWISH", ROW, ROW)
    found = predict(made(swish, relu, relu, swish, relu, relu, relu), "edgetpu")
    assert found["operators_run"] == 2
    assert found["left"] == Counter(RELU=3, HARD_SWISH=2)


def test_the_gpu_runs_the_largest_part(made):
    relu, squeeze = ("RELU", ROW, ROW), ("SQUEEZE", ROW, ROW)
    found = predict(made(relu, relu, squeeze, relu, relu, relu), "gpu")
    assert (found["operators_run"], found["left"]) == (3, {"RELU": 2, "SQUEEZE": 1})
    assert predict(made(relu, squeeze, relu, relu), "nnapi")["operators_run"] == 4


def test_one_unknown_version_makes_the_old_runtime_refuse_the_file(made):
    relu = ("RELU", ROW, ROW)
    dense = ("FULLY_CONNECTED", ROW, ROW, {"constants": [np.zeros((10, 10), np.int8)]})
    newer = (*dense[:3], {**dense[3], "version": 12})
    assert predict(made(relu, dense), "litert-2.14")["operator_share"] == 1.0
    found = predict(made(relu, newer), "litert-2.14")
    assert (found["operators_run"], len(found["findings"])) == (0, 1)
    assert "version 12" in found["findings"][0]["reason"]
    assert found["macs"] == 100


def test_damaged_files_are_refused_or_answered(lite_int8, tmp_path):
    """In one line, whichever bit is wrong."""
    data, chance = lite_int8.read_bytes(), random.Random(0)
    path = tmp_path / "m.tflite"
    cut = [data[: int(share * len(data))] for share in (0.001, 0.1, 0.5, 0.9999)]
    flipped = []
    for number in range(200):
        one = bytearray(data)
        one[chance.randrange(8, 2000 if number % 2 else len(data))] ^= 1 << chance.randrange(8)
        flipped.append(bytes(one))
    for damaged in (*cut, *flipped):
        path.write_bytes(damaged)
        told = ""
        try:
            for target in TARGETS:
                predict(operators(str(path)), target)
        except BadInputError as error:
            told = str(error)
        assert "\n" not in told
    path.write_bytes(cut[2])
    with pytest.raises(BadInputError, match=r"m\.tflite") as caught:
        lint(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInputError, match=r"m\.tflite"):
        edgetpu.compiled(path)


def test_wrong_use_is_told(lite_int8, tmp_path):
    with pytest.raises(UsageError, match="edgetpu"):
        lint(lite_int8, ["edgtpu"])
    with pytest.raises(MissingError, match=r"gone\.tflite"):
        lint(tmp_path / "gone.tflite")
