"""Every recipe makes what it says, and what it computes is what was asked to be computed."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.errors import UsageError
from kzoo.lite import flatbuffer
from kzoo.lite.check import check
from kzoo.lite.inspect import inspect
from kzoo.lite.quantize import quantize
from kzoo.lite.recipes import RECIPES
from kzoo.lite.tensors import kernel
from kzoo.network.model_file import save_model
from kzoo.zoo.build import build

WEIGHTS = {
    "int8": ("int8", 0.3),
    "int16x8": ("int8", 0.3),
    "dynamic": ("int8", 0.3),
    "weights8": ("int8", 0.3),
    "int4": ("int4", 0.2),
    "fp16": ("float16", 0.55),
}
"""The dtype of the kernels, and the most of the float file's bytes that is left."""
KERNELS = {"int8": "int8", "int16x8": "int16"}
"""The dtype that kernels compute in, where it is not float32."""


@pytest.fixture(scope="module")
def made(trained, digits, tmp_path_factory):
    """made(recipe): (its record, its file)."""
    folder, kept = tmp_path_factory.mktemp("recipes"), {}

    def make(recipe: str, **options):
        key = (recipe, str(options))
        if key not in kept:
            path = folder / f"{len(kept)}.tflite"
            images = digits if RECIPES[recipe].activations else None
            kept[key] = quantize(trained, path, recipe=recipe, calibrate=images, **options), path
        return kept[key]

    return make


@pytest.mark.parametrize("recipe", WEIGHTS)
def test_weights_have_the_bits_of_the_recipe(recipe, made, lite_float):
    done, path = made(recipe)
    model = flatbuffer.parse(path.read_bytes())
    dtype, share = WEIGHTS[recipe]
    kernels = {
        flatbuffer.DTYPES[model.subgraphs[0].tensors[op.inputs[1]].type]
        for op in model.subgraphs[0].operators
        if flatbuffer.operator(model, op) in ("CONV_2D", "FULLY_CONNECTED")
    }
    stored = {kind.split()[1] for kind in done.contents.bytes_by_kind if kind != "structure"}
    assert dtype in stored
    assert kernels == {dtype} or recipe in ("weights8", "fp16")  # dequantized as the file is read
    assert path.stat().st_size < share * lite_float.stat().st_size
    computed = KERNELS.get(recipe, "float32")
    assert done.contents.operators[f"CONV_2D {computed}"] == 2
    assert done.contents.operators[f"FULLY_CONNECTED {computed}"] == 3


@pytest.mark.parametrize(("recipe", "levels"), [("weights8", 127), ("int4", 7)])
def test_kernels_of_over_32_mib_are_rounded_as_others(recipe, levels, tmp_path):
    """litert-quantizer takes them in pieces."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((2, 2, 1024), name="image")
    wide = keras.layers.Conv2D(1024, 3, padding="same", use_bias=False, name="wide")
    x = keras.layers.GlobalAveragePooling2D()(wide(image))
    model = keras.Model(image, keras.layers.Dense(2, name="head")(x))
    quantize(model, tmp_path / "m.tflite", recipe=recipe)
    kept = flatbuffer.parse((tmp_path / "m.tflite").read_bytes())
    wanted = np.asarray(wide.kernel).transpose(3, 0, 1, 2)
    found = [kernel(kept, tensor) for tensor in kept.subgraphs[0].tensors
             if [*tensor.shape] == [*wanted.shape]]  # fmt: skip
    largest = np.abs(wanted).max(axis=(1, 2, 3), keepdims=True)
    assert any(np.all(np.abs(each - wanted) <= 0.51 * largest / levels)
               for each in found if each is not None)  # fmt: skip


@pytest.mark.parametrize("recipe", WEIGHTS)
def test_little_is_lost(recipe, made, trained, digits):
    found = check(made(recipe)[1], against=trained, data=digits)
    assert found.agreement >= (0.9 if recipe == "int4" else 0.98)
    if recipe in ("fp16", "weights8", "int16x8"):
        eight = check(made("int8")[1], against=trained, data=digits)
        assert found.mean_logit_error < eight.mean_logit_error


def test_other_tools_names_are_known(made):
    assert made("int8", io="float32")[0].contents.input["dtype"] == "float32"
    first, second = (made(name)[1].read_bytes() for name in ("int8", "int8"))
    assert first == second


@pytest.mark.parametrize("name", ["int8-float-io", "uint8-io"])
def test_a_name_with_its_input_is_the_recipe_with_that_input(name, trained, digits, tmp_path):
    io = {"int8-float-io": "float32", "uint8-io": "uint8"}[name]
    for number, asked in enumerate(({"recipe": name}, {"io": io})):
        quantize(trained, tmp_path / f"{number}.tflite", calibrate=digits, samples=40, **asked)
    assert (tmp_path / "0.tflite").read_bytes() == (tmp_path / "1.tflite").read_bytes()


def test_int8_pixels_are_uint8_ones_less_128(made):
    unsigned, signed = (made("int8", io=io)[0].contents for io in ("uint8", "int8"))
    assert signed.input["dtype"] == signed.output["dtype"] == "int8"
    assert signed.input["scale"] == unsigned.input["scale"]
    assert signed.input["zero_point"] == unsigned.input["zero_point"] - 128
    assert "QUANTIZE int8" not in signed.operators


@pytest.mark.parametrize("recipe", WEIGHTS)
def test_what_is_excluded_stays_float(recipe, made):
    done, path = made(recipe, exclude=["stage1"])
    model = flatbuffer.parse(path.read_bytes())
    graph = model.subgraphs[0]
    layers = flatbuffer.layer_names(graph)
    seen = 0
    for op in graph.operators:
        if not any(name.startswith("stage1") for name in layers[op.outputs[0]]):
            continue
        if flatbuffer.operator(model, op) in ("CONV_2D", "AVERAGE_POOL_2D", "MEAN"):
            seen += 1
            dtypes = [flatbuffer.DTYPES[graph.tensors[i].type] for i in (*op.inputs, *op.outputs)]
            assert set(dtypes) <= {"float32", "int32"}, layers[op.outputs[0]]
    assert seen
    assert done.agreement >= 0.85


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"recipe": "int9"}, "did you mean int8"),
        ({"ranges": "max"}, "minmax"),
        ({"recipe": "fp16", "io": "int8"}, "uint8 or float32"),
        ({"recipe": "uint8-io", "io": "float32"}, "takes uint8"),
        ({"exclude": ["satge1"]}, "begins with 'satge1'; did you mean stage"),
        ({"calibrate": None}, "needs images to calibrate on"),
        ({"calibrate": None, "recipe": "fp16", "adaround": True}, "adaround needs images"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(wrong, said, trained, digits, tmp_path):
    with pytest.raises(UsageError, match=said):
        quantize(trained, tmp_path / "m.tflite", **{"calibrate": digits} | wrong)
    assert list(tmp_path.iterdir()) == []


def test_tensors_are_called_by_their_layers(trained, made):
    import keras

    layers = {layer.name for layer in keras.saving.load_model(trained).layers}
    model = flatbuffer.parse(made("int8")[1].read_bytes())
    graph = model.subgraphs[0]
    written = {
        name
        for op in graph.operators
        if flatbuffer.operator(model, op) in ("CONV_2D", "FULLY_CONNECTED", "AVERAGE_POOL_2D")
        for name in flatbuffer.layer_names(graph)[op.outputs[0]]
    }
    assert written <= layers


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["net/a_conv/Conv2D;net/a_bn/Add", "net/head/MatMul"], [("a_conv", "a_bn"), ("head",)]),
        (["a_act/Relu;a_conv/convolution", "image"], [("a_conv", "a_act"), ("image",)]),
        (["m/inner/a/x", "m/inner/b/y", "m/inner/c/z"], [("a",), ("b",), ("c",)]),
    ],
)
def test_a_tensor_s_name_gives_its_layers(names, expected):
    graph = flatbuffer.schema.SubGraphT()
    graph.tensors = []
    for name in names:
        graph.tensors.append(flatbuffer.schema.TensorT())
        graph.tensors[-1].name = name.encode()
    assert flatbuffer.layer_names(graph) == expected


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WEIGHTS)
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "vit"])
def test_any_network_in_any_recipe(name, recipe, few_digits, tmp_path):
    from kzoo.registry import list_models

    if name not in list_models():
        pytest.skip(f"no {name} in the zoo")
    model = build(name, size=64, classes=10, seed=0)
    save_model(model, tmp_path / "m.keras")
    done = quantize(tmp_path / "m.keras", tmp_path / "m.tflite", recipe=recipe,
                    calibrate=few_digits, samples=8)  # fmt: skip
    assert np.isfinite(done.max_logit_error)
    assert inspect(tmp_path / "m.tflite").operators == done.contents.operators
