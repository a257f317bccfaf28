"""The real tflite-micro: what it runs, in how much memory, and what `kzoo lint` predicted of it."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils

import kzoo
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.lite.inspect import inspect
from kzoo.lite.lint import lint
from kzoo.lite.recipes import RECIPES, WITH_IO
from kzoo.measure.deploy import deploy_file
from kzoo.measure.profile import profile
from kzoo.measure.target import Setting, open_target

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="needs the package tflite-micro (pip install 'kzoo[micro]')",
)
QUICK = Setting(min_runs=1, min_seconds=0)
TINY = ("pretrainedResnet", "pretrainedResnet_quant", "tflm_person_detect", "vww_96_int8")
IN_ARENA = """
import sys
sys.path.insert(0, sys.argv[1])
from benchmark_micro import Interpreter
content = open(sys.argv[2], "rb").read()
for size in sys.argv[3:]:
    try:
        Interpreter(content).allocate_tensors(int(size))
        print("runs")
    except RuntimeError:
        print("does not")
"""


@pytest.fixture(scope="module")
def micro():
    with open_target("micro") as target:
        yield target


@pytest.mark.parametrize("name", TINY)
def test_the_arena_is_the_smallest_that_does(name, micro, shared):
    file = shared / "mlperf-tiny" / f"{name}.tflite"
    found = micro.peak_memory(file, QUICK)
    assert found["source"] == "arena"
    least = found["peak_bytes"]
    assert found["head_bytes"] >= inspect(file).peak_bytes
    script = deploy_file("micro/benchmark_micro.py")
    command = [sys.executable, "-c", IN_ARENA, script.parent, file, least, least - 16]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["runs", "does not"]


def test_the_record_is_of_an_emulation_and_has_the_arena(shared):
    file = shared / "mlperf-tiny" / "pretrainedResnet_quant.tflite"
    record = profile(file, on="micro", warm_up=0, min_runs=2, min_seconds=0).to_dict()
    assert (record["runs"][0]["warmup_runs"], record["runs"][0]["steady"]) == (0, None)
    assert (record["kind"], record["runtime"], record["delegate"]) == (
        "emulated",
        "tflite-micro",
        "none",
    )
    assert record["memory"]["source"] == "arena"
    assert record["memory"]["peak_bytes"] < record["model_bytes"] == file.stat().st_size
    assert [each["dtype"] for each in record["inputs"] + record["outputs"]] == ["int8", "int8"]
    assert any("a microcontroller's are others" in note for note in record["notes"])
    assert any(f"{file.stat().st_size:,} of flash" in note for note in record["notes"])


@pytest.mark.parametrize(("name", "close"), [("pretrainedResnet", 1e-5), (TINY[1], 4)])
def test_its_outputs_are_those_of_the_reference_kernels(name, close, micro, shared):
    """Of LiteRT's, that is: float but for the order of sums, int8 but for a few steps."""
    content = (shared / "mlperf-tiny" / f"{name}.tflite").read_bytes()
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    images = np.random.default_rng(0).integers(0, 256, (6, *given["shape"]))
    images = (images - 128 * (given["dtype"] == np.int8)).astype(given["dtype"])
    expected = []
    for image in images:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        expected.append(interpreter.get_tensor(made["index"]))
    raw = micro.outputs(shared / "mlperf-tiny" / f"{name}.tflite", images.tobytes(), QUICK)
    found = np.frombuffer(raw["outputs"], made["dtype"]).reshape(6, 1, 10)
    assert raw["images"] == 6
    assert np.abs(found.astype(float) - np.stack(expected)).max() <= close
    assert len(np.unique(found)) > 6


def foretold(file, target) -> bool:
    """Asserts that lint predicts what happens; whether the file runs."""
    (predicted,) = lint(file, ["micro"]).predictions
    try:
        found = bool(target.time_runs(file, QUICK)["samples_ns"])
    except BadInputError:
        found = False
    assert predicted.operator_share == found, (file.name, predicted.findings)
    return found


@pytest.mark.parametrize(
    ("path", "does"),
    [
        *((f"mlperf-tiny/{name}", True) for name in TINY),
        ("coral/keras_lstm_mnist_ptq", True),
        ("coral/keras_lstm_mnist_ptq_edgetpu", False),
        ("coral/mobilenet_v1_0.25_128_quant", False),
    ],
)
def test_lint_foretells_what_runs(path, does, micro, shared):
    assert foretold(shared / f"{path}.tflite", micro) == does


def test_lint_foretells_what_runs_of_lenet5(lite_float, lite_int8, micro):
    """The float file takes uint8 pixels, for which there is no kernel of CAST."""
    assert not foretold(lite_float, micro)
    assert foretold(lite_int8, micro)
    with pytest.raises(BadInputError, match=r"refuses CAST in .* \(Input type UINT8"):
        micro.time_runs(lite_float, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "ds_cnn", "vww_mobilenet"])
def test_lint_foretells_what_runs_of_the_zoo(name, micro, tmp_path):
    network = kzoo.build(name, seed=0)
    height, width, channels = network.inputs[0].shape[1:]
    images = kzoo.load_data("digits", size=(height, width), channels=channels)
    found = []
    for recipe in (*RECIPES, *WITH_IO):
        file = tmp_path / f"{recipe}.tflite"
        kzoo.quantize(network, file, calibrate=images, recipe=recipe, samples=4)
        if foretold(file, micro):
            found.append(recipe)
    # The logits of vww_mobilenet, which is deep, hardly differ before it is trained.
    assert found == ([] if name == "vww_mobilenet" else ["int8", *WITH_IO])


@pytest.fixture(scope="module")
def gelu(tmp_path_factory):
    """A float file with an operator that has no kernel there, in the layers act and head_act."""
    import keras

    layers = keras.layers
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="stem")(image)
    x = layers.Activation("gelu", name="act")(x)
    x = layers.Activation("gelu", name="head_act")(layers.Conv2D(4, 3, name="conv")(x))
    x = layers.Dense(3, name="head")(layers.Flatten()(x))
    file = tmp_path_factory.mktemp("micro") / "it's.tflite"
    kzoo.convert(keras.Model(image, x), file)
    return file


def test_an_operator_without_a_kernel_is_named_by_its_layers(gelu, micro):
    with pytest.raises(BadInputError, match="no kernel for GELU in act, GELU in head_act; use"):
        micro.time_runs(gelu, QUICK)


def test_a_custom_operator_has_no_kernel(micro, shared):
    file = shared / "coral" / "keras_lstm_mnist_ptq_edgetpu.tflite"
    with pytest.raises(BadInputError, match="no kernel for edgetpu-custom-op in"):
        micro.peak_memory(file, QUICK)


def test_a_refused_operator_is_named_by_its_layer(micro, shared):
    file = shared / "coral" / "mobilenet_v1_0.25_128_quant.tflite"
    with pytest.raises(BadInputError, match=r"refuses CONV_2D in Conv2d_1_depthwise \(Hybrid .*11"):
        micro.time_runs(file, QUICK)


def test_a_model_that_aborts_it_is_a_line(lite_int8, tmp_path, micro):
    """Logits that hardly differ: their scale is below what the kernel of SOFTMAX takes."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(lite_int8.read_bytes()))
    codes = [code.builtinCode for code in model.operatorCodes]
    graph = model.subgraphs[0]
    wanted = codes.index(schema.BuiltinOperator.SOFTMAX)
    (softmax,) = (op for op in graph.operators if op.opcodeIndex == wanted)
    quantization = graph.tensors[softmax.inputs[0]].quantization
    file = tmp_path / "scaled.tflite"
    for scale, does in ((1.5e-8, True), (1.49e-8, False)):
        quantization.scale = [scale]
        file.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
        assert foretold(file, micro) == does
    with pytest.raises(BadInputError, match=r"SIGABRT\), probably SOFTMAX in .*; its values"):
        micro.time_runs(file, QUICK)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"threads": 2}, "one thread; 2"),
        ({"delegate": "gpu"}, "no delegates; 'gpu'"),
        ({"runtime": "litert-c"}, "runtime of micro 'litert-c' is none of tflite-micro"),
    ],
)
def test_what_a_microcontroller_has_not_is_wrong_use(setting, said, micro):
    with pytest.raises(UsageError, match=said):
        micro.time_runs(Path("m.tflite"), dataclasses.replace(QUICK, **setting))


def test_it_has_no_address():
    with pytest.raises(UsageError, match="no address"), open_target("micro:pico"):
        pass


def test_a_missing_package_says_what_to_install(micro, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"pip install 'kzoo\[micro\]'"):
        micro.time_runs(Path("m.tflite"), QUICK)
