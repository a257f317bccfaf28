"""Models built by the flatbuffer schema alone: no TensorFlow is imported for these tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

SHARED = Path(__file__).parents[2].parent / "shared"


def add_model(path: Path, shape: tuple[int, ...], kind: str = "float32") -> Path:
    """Writes a model of one ADD with a constant of ``shape``, at scale 1 and zero point 0."""
    types = {"float32": 0, "uint8": 3, "int8": 9}
    constant = schema.BufferT()
    constant.data = np.frombuffer(np.ones(shape, kind).tobytes(), np.uint8)
    graph = schema.SubGraphT()
    graph.tensors = []
    for name, buffer in (("pixels", 0), ("constant", 1), ("sum", 0)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = (
            name,
            list(shape),
            types[kind],
            buffer,
        )
        if kind != "float32":
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [1.0], [0]
        graph.tensors.append(tensor)
    node = schema.OperatorT()
    node.opcodeIndex, node.inputs, node.outputs = 0, [0, 1], [2]
    node.builtinOptionsType = schema.BuiltinOptions.AddOptions
    node.builtinOptions = schema.AddOptionsT()
    graph.operators, graph.inputs, graph.outputs = [node], [0], [2]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1 if kind == "float32" else 2
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT(), constant]
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A float model of about 20 to 100 us: a second of it stays under the cap of 100,000 runs."""
    return add_model(tmp_path_factory.mktemp("models") / "tiny.tflite", (1, 224, 224, 3))


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """An int8 model of 3 kB, to damage."""
    return add_model(tmp_path_factory.mktemp("models") / "small.tflite", (1, 16, 16, 3), "int8")


@pytest.fixture(scope="session")
def mlperf_tiny() -> Path:
    folder = SHARED / "data" / "mlperf-tiny"
    if not folder.is_dir():
        pytest.skip(f"the MLPerf Tiny models are not here ({folder})")
    return folder
