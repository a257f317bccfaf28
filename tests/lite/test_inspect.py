"""What is in a file, to the byte; and no file, however damaged, brings the caller down."""

from __future__ import annotations

import gzip
import lzma
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from kzoo.compress.coding import coded_bits
from kzoo.errors import BadInputError, MissingError
from kzoo.lite import flatbuffer
from kzoo.lite.inspect import Contents, inspect
from kzoo.lite.interpret import lite_outputs
from kzoo.lite.quantize import quantize


def test_the_counts_are_those_of_the_network(lite_float, lite_int8):
    for path, dtype in ((lite_float, "float32"), (lite_int8, "int8")):
        operators = inspect(path).operators
        assert operators[f"CONV_2D {dtype}"] == 2
        assert operators[f"AVERAGE_POOL_2D {dtype}"] == 2
        assert operators[f"FULLY_CONNECTED {dtype}"] == 3


def test_the_bytes_by_kind_are_the_file(lite_float, lite_int8):
    weights = 61_706 - 6 - 16 - 120 - 84 - 10
    for path, kind, size in ((lite_float, "weights float32", 4), (lite_int8, "weights int8", 1)):
        contents = inspect(path)
        assert sum(contents.bytes_by_kind.values()) == contents.bytes == path.stat().st_size
        assert contents.bytes_by_kind[kind] == weights * size
        assert 0 < contents.gzip_bytes < contents.bytes
    assert inspect(lite_int8).bytes_by_kind["bias int32"] == 4 * (6 + 16 + 120 + 84 + 10)


def test_the_sizes_are_those_of_the_compressors(lite_float, lite_int8):
    for path, bits in ((lite_float, 32), (lite_int8, 8)):
        data, contents = path.read_bytes(), inspect(path)
        assert contents.gzip_bytes == len(gzip.compress(data, 9, mtime=0))
        assert contents.lzma_bytes == len(lzma.compress(data))
        model = flatbuffer.parse(data)
        kinds, coded = contents.bytes_by_kind, 0
        for op in model.subgraphs[0].operators:
            if flatbuffer.operator(model, op) in ("CONV_2D", "FULLY_CONNECTED"):
                buffer = model.subgraphs[0].tensors[op.inputs[1]].buffer
                values = np.asarray(model.buffers[buffer].data, np.uint8).tobytes()
                values = np.frombuffer(values, "int8" if bits == 8 else "float32")
                coded += -(-coded_bits(values, bits) // 8)
        others = sum(size for kind, size in kinds.items() if "weights" not in kind)
        assert contents.huffman_bytes == coded + others - kinds["structure"]
        assert contents.huffman_bytes <= contents.bytes - kinds["structure"]
    assert inspect(lite_int8, packed=False).lzma_bytes is None


def made(tensors: list, operators: list, inputs: list[int], outputs: list[int]) -> bytes:
    """A file of ADDs by hand.

    Args:
        tensors: (shape, dtype, bytes of a constant or None) of each.
        operators: (inputs, outputs) of each.
    """
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    graph.tensors, graph.operators, model.operatorCodes = [], [], []
    for number, (shape, dtype, data) in enumerate(tensors):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{number}".encode(), shape, 0
        tensor.type = getattr(schema.TensorType, dtype.upper())
        if data is not None:
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = list(data)
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    code = flatbuffer.add_operator_code(model, "ADD")
    for read, written in operators:
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = code, read, written
        graph.operators.append(op)
    graph.inputs, graph.outputs = inputs, outputs
    return flatbuffer.serialize(model)


def test_the_peak_of_a_chain_is_the_sum_by_hand(tmp_path):
    """t0 is read again by the last operator, t4 by nobody; t5 is a constant."""
    tensors = [
        ([1, 10], "float32", None),  # 40 bytes
        ([-1, 100], "float32", None),  # 400: a size that is not known is 1
        ([1, 30], "int16", None),  # 60
        ([1, 7], "int8", None),  # 7
        ([3], "int4", None),  # 2
        ([1, 10], "float32", bytes(40)),
        ([1, 9], "bool", None),  # 9
    ]
    operators = [([0, 5], [1]), ([1, -1], [2]), ([2], [3, 4]), ([3, 0], [6])]
    path = tmp_path / "chain.tflite"
    path.write_bytes(made(tensors, operators, [0], [6]))
    contents = inspect(path, tensors=True)
    alive = [row["live_bytes"] for row in contents.tensors]
    assert alive == [40 + 400, 40 + 400 + 60, 40 + 60 + 7 + 2, 40 + 7 + 9]
    assert (contents.peak_bytes, contents.peak_layer) == (500, "ADD in t2")
    assert [row["weight_bytes"] for row in contents.tensors] == [40, 0, 0, 0]
    assert contents.huffman_bytes is None
    assert contents.signatures == []

    path.write_bytes(made(tensors, operators, [0], [1, 6]))  # an output stays to the end
    alive = [row["live_bytes"] for row in inspect(path, tensors=True).tensors]
    assert alive == [440, 500, 509, 456]


def test_the_peak_holds_what_any_operator_reads_and_writes(lite_float, lite_int8, shared):
    tiny = shared / "mlperf-tiny"
    for path in (lite_float, lite_int8, *sorted(tiny.glob("*.tflite"))):
        model = flatbuffer.parse(path.read_bytes())
        tensors, largest = model.subgraphs[0].tensors, 0
        for op in model.subgraphs[0].operators:
            used = {int(i) for i in (*op.inputs, *op.outputs) if i >= 0}
            moving = [tensors[i] for i in used if model.buffers[tensors[i].buffer].data is None]
            sizes = {"float32": 4, "int32": 4, "int8": 1, "uint8": 1}
            largest = max(
                largest,
                sum(int(np.prod(t.shape)) * sizes[flatbuffer.DTYPES[t.type]] for t in moving),
            )
        contents = inspect(path, tensors=True, packed=False)
        assert 0 < largest <= contents.peak_bytes
        assert contents.peak_bytes == max(row["live_bytes"] for row in contents.tensors)
        assert len(contents.tensors) == sum(contents.operators.values())


def test_the_rows_are_the_network_in_order(lite_int8):
    contents = inspect(lite_int8, tensors=True)
    assert contents.tensors[-1]["shape"] == contents.output["shape"] == [1, 10]
    assert [row["index"] for row in contents.tensors] == list(range(len(contents.tensors)))
    kernels = [row for row in contents.tensors if row["operator"] == "CONV_2D"]
    assert [row["layer"] for row in kernels] == ["stage1_1_conv", "stage2_1_conv"]
    assert kernels[0]["weight_bytes"] == 5 * 5 * 6 + 4 * 6
    assert all(row["scale"] > 0 for row in kernels)
    assert contents.signatures == [
        {"name": "serving_default", "inputs": ["image"], "outputs": ["probabilities"]}
    ]
    assert contents.min_runtime.count(".") == 2
    assert inspect(lite_int8).tensors == []


def test_float_islands_are_named_by_their_layer(foreign, gray, lite_float, tmp_path):
    assert inspect(lite_float).float_islands == []
    done = quantize(foreign("layer norm"), tmp_path / "m.tflite", calibrate=gray, samples=20)
    assert any(" in ln" in island for island in done.contents.float_islands)
    assert not any("body_conv" in island for island in done.contents.float_islands)


def damaged(data: bytes) -> dict[str, bytes]:
    """Bit flips are half in the first kilobyte and half anywhere: structure and weights."""
    rng = np.random.default_rng(0)
    found = {"empty": b"", "text": b"a text, no model\n" * 20, "zip": b"PK\3\4" + bytes(200)}
    for share in (0.001, 0.1, 0.5, 0.9, 0.9999):
        found[f"first {share:g}"] = data[: max(9, int(share * len(data)))]
    for number in range(20):
        flipped = bytearray(data)
        place = rng.integers(8, 1024 if number % 2 else len(data))
        flipped[place] ^= 1 << rng.integers(8)
        found[f"bit {place}"] = bytes(flipped)
    return found


def outcome(path, images) -> str:
    """The contents and outputs, or a BadInputError; anything else is raised."""
    try:
        assert isinstance(inspect(path), Contents)
        found, _ = lite_outputs(path, images, np.arange(2))
        assert found.shape == (2, 10)
    except BadInputError as error:
        return str(error)
    return "fine"


def check_damage(lite, digits, folder, chosen) -> dict[str, str]:
    files = {}
    for number, (kind, data) in enumerate(damaged(lite.read_bytes()).items()):
        if chosen(number, kind):
            files[kind] = folder / f"{number}.tflite"
            files[kind].write_bytes(data)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda path: outcome(path, digits.images_file), files.values())
        return dict(zip(files, found, strict=True))


def test_a_damaged_file_is_refused_or_answers(lite_int8, digits, tmp_path):
    found = check_damage(lite_int8, digits, tmp_path, lambda number, _: number < 10)
    assert "it is empty" in found["empty"]
    assert "TFL3" in found["text"]
    assert "zip archive" in found["zip"]
    for kind, text in found.items():
        assert kind.startswith("bit") or str(tmp_path) in text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingError, match=r"gone\.tflite"):
        inspect(tmp_path / "gone.tflite")


def test_files_from_elsewhere_are_read(shared):
    folder = shared / "mlperf-tiny"
    plain, quantized = (
        inspect(folder / f"pretrainedResnet{kind}.tflite") for kind in ("", "_quant")
    )
    assert plain.operators["CONV_2D float32"] == quantized.operators["CONV_2D int8"] == 9
    assert quantized.float_islands == []
    assert quantized.bytes < plain.bytes / 3
    assert plain.notes == quantized.notes == {}


def test_the_rows_tell_the_graph_and_the_weights(lite_float, lite_int8):
    for path, dtype in ((lite_float, "float32"), (lite_int8, "int8")):
        rows = inspect(path, tensors=True, packed=False).tensors
        assert [row["inputs"] for row in rows] == [[i - 1] for i in range(len(rows))]
        kernels = [row for row in rows if row["weight_dtype"] == dtype and row["weight_shape"][1:]]
        shapes = [[6, 5, 5, 1], [16, 5, 5, 6], [120, 400], [84, 120], [10, 84]]
        assert [each["weight_shape"] for each in kernels if each["operator"] != "MUL"] == shapes
        for row in rows:
            assert bool(row["weight_bytes"]) == bool(row["weight_dtype"])


def test_a_branch_is_told_by_the_operators_it_comes_from(tmp_path):
    path = tmp_path / "branch.tflite"
    tensors = [([1, 4], "float32", None) for _ in range(5)] + [([4], "float32", bytes(16))]
    path.write_bytes(made(tensors, [([0, 5], [1]), ([1, 0], [2]), ([2, 1], [3])], [0], [3]))
    rows = inspect(path, tensors=True).tensors
    assert [row["inputs"] for row in rows] == [[-1], [0, -1], [1, 0]]
    assert [row["weight_shape"] for row in rows] == [[4], [], []]
