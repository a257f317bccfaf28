"""A file may be damaged in any way: what reads or runs it gives a result or one of our errors.

A thousand damaged files take minutes where each has a fresh process for each part. Here one child
serves all of them, as it would serve one after another, and is replaced when a file kills it.
"""

from __future__ import annotations

import functools
import importlib
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kzoo
from kzoo.child import Worker
from kzoo.cli import cli
from kzoo.errors import BadInputError, KzooError
from kzoo.lite import flatbuffer
from kzoo.lite.interpret import kernel_agreement, lite_outputs
from kzoo.lite.metadata import ENTRY
from kzoo.lite.snippet import LANGUAGES, snippet
from kzoo.measure.deploy import deploy_file
from kzoo.measure.profile import profile
from kzoo.network.model_file import save_model

LIMIT = 20
"""Seconds for a call of the child."""
MEMORY = 8 << 30
"""Bytes of address space more than this process has now; a damaged shape may ask for anything."""
CLASSES = [f"class {i}" for i in range(10)]
SPECIAL = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Numbers at which lengths, offsets and indices go wrong."""

MEASURE = """
import argparse, importlib.util
from kzoo.errors import BadInputError

def measure(file, script):
    spec = importlib.util.spec_from_file_location("benchmark", script)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.WARMUP_SECONDS = 0.0
    options = argparse.Namespace(
        model=file, threads=1, min_runs=2, min_seconds=0.0, max_seconds=1.0, max_runs=2, seed=0,
        warm_up=0.05, delegate=None,
    )
    interpreter, _ = benchmark.load_runtime("ai-edge-litert")
    try:
        benchmark.peak_memory(interpreter, options)
        return benchmark.latency(interpreter, options)["stopped_by"]
    except Exception as error:  # as the script's own main
        raise BadInputError(str(error)) from error
"""
"""What `kzoo profile` runs on a device, without a process and a second of warm-up for each file."""


def bits(rng, data: bytearray, model) -> None:  # noqa: ARG001
    """One to eight bits, half of the files in the tables at the start."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 2000)
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(8, end)] ^= 1 << rng.integers(8)


def cut(rng, data, model):  # noqa: ARG001
    del data[int(rng.integers(0, len(data))) :]


def word(rng, data, model):  # noqa: ARG001
    """A length or an offset, as all of them are aligned words."""
    place = 4 * int(rng.integers(2, len(data) // 4))
    data[place : place + 4] = int(rng.choice(SPECIAL)).to_bytes(4, "little")


def piece(rng, data, model):  # noqa: ARG001
    """A part is gone, zero, or there twice."""
    start, size = int(rng.integers(8, len(data))), int(rng.integers(1, 256))
    part = data[start : start + size]
    data[start : start + size] = (b"", bytes(len(part)), part * 2)[rng.integers(3)]


def wild(rng, count: int) -> int:
    """An index that is none of so many, or is."""
    return int(rng.choice([-2, -1, 0, count, count + 1, 2**31 - 1, -(2**31), rng.integers(count)]))


def some(rng, things):
    return things[int(rng.integers(len(things)))]


def buffer_index(rng, data, model):  # noqa: ARG001
    index = wild(rng, len(model.buffers)) % 2**32
    some(rng, model.subgraphs[0].tensors).buffer = index


def operator_input(rng, data, model):  # noqa: ARG001
    graph = model.subgraphs[0]
    op = some(rng, graph.operators)
    op.inputs = [int(i) for i in op.inputs]
    op.inputs[int(rng.integers(len(op.inputs)))] = wild(rng, len(graph.tensors))


def operator_output(rng, data, model):  # noqa: ARG001
    graph = model.subgraphs[0]
    some(rng, graph.operators).outputs = some(rng, ([], [wild(rng, len(graph.tensors))], None))


def operator_inputs_missing(rng, data, model):  # noqa: ARG001
    op = some(rng, model.subgraphs[0].operators)
    op.inputs = some(rng, ([], None, [int(i) for i in op.inputs][:1], [-1] * len(op.inputs)))


def cycle(rng, data, model):  # noqa: ARG001
    graph = model.subgraphs[0]
    first, last = sorted(rng.integers(0, len(graph.operators), 2))
    graph.operators[first].inputs = [
        int(graph.operators[last].outputs[0]),
        *map(int, graph.operators[first].inputs[1:]),
    ]


def opcode(rng, data, model):  # noqa: ARG001
    some(rng, model.subgraphs[0].operators).opcodeIndex = (
        wild(rng, len(model.operatorCodes)) % 2**32
    )


def wrong_operator(rng, data, model):  # noqa: ARG001
    code = some(rng, model.operatorCodes)
    code.builtinCode = int(rng.integers(0, 230))
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = int(rng.choice([0, 1, 2, 99, -1]))


def options(rng, data, model):  # noqa: ARG001
    """Numbers of the options become others, or the options those of another operator."""
    op = some(rng, model.subgraphs[0].operators)
    if op.builtinOptions is None or rng.random() < 0.3:
        op.builtinOptions, op.builtinOptionsType = schema.Conv2DOptionsT(), 1
    for name, value in vars(op.builtinOptions).items():
        if isinstance(value, int) and not isinstance(value, bool):
            setattr(op.builtinOptions, name, int(rng.choice([0, 1, 2, 100])))


def ends(rng, data, model):  # noqa: ARG001
    graph = model.subgraphs[0]
    found = some(rng, ([], None, [wild(rng, len(graph.tensors))], [0, 0], [0, 1, 2]))
    setattr(graph, some(rng, ("inputs", "outputs")), found)


def shapes(rng, data, model):  # noqa: ARG001
    tensor = some(rng, model.subgraphs[0].tensors)
    tensor.shape = some(
        rng,
        (
            [2**31 - 1],
            [1, 2**31 - 1, 2**31 - 1, 3],
            [1, 60000, 60000, 3],
            [-5, 4],
            [0, 16, 16, 1],
            [1] * 20,
            [],
            None,
            [2] * 5,
        ),
    )


def dtypes(rng, data, model):  # noqa: ARG001
    some(rng, model.subgraphs[0].tensors).type = int(rng.integers(0, 30))


def scales(rng, data, model):  # noqa: ARG001
    found = schema.QuantizationParametersT()
    found.scale = some(rng, ([0.0], [-1.0], [float("nan")], [float("inf")], [], [1e-38], [0.5] * 7))
    found.zeroPoint = some(rng, ([0], [2**40], [-(2**63)], [], None, [0] * 7))
    found.quantizedDimension = int(rng.choice([0, 1, 9, -3]))
    some(rng, model.subgraphs[0].tensors).quantization = some(rng, (found, found, None))


def contents(rng, data, model):  # noqa: ARG001
    """A constant's bytes are fewer, more, none, others, or behind the end."""
    buffer = some(rng, [each for each in model.buffers if each.data is not None and len(each.data)])
    values = bytes(buffer.data)
    buffer.data = np.frombuffer(
        some(rng, (values[:-1], values[:1], values * 3, b"\xff" * len(values))), np.uint8
    )
    if rng.random() < 0.3:
        buffer.data, buffer.offset, buffer.size = None, int(rng.choice([2, 2**40])), 2**32


def names(rng, data, model):  # noqa: ARG001
    found = some(rng, (None, b"", b"\xff\xfe", b";;;", b"/" * 5000, b"a\0b", b"x:\n" * 9))
    some(rng, model.subgraphs[0].tensors).name = found
    if rng.random() < 0.3:
        some(rng, model.operatorCodes).customCode = found


def told(rng, data, model):  # noqa: ARG001
    """Notes, metadata, signatures."""
    for entry in model.metadata or []:
        if entry.name == flatbuffer.NOTES.encode():
            text = some(
                rng,
                (
                    b"[1, 2]",
                    b"7",
                    b"null",
                    b"{",
                    b"\xff",
                    b"[" * 9000,
                    b'{"classes": 3, "crop": "x"}',
                    b'{"classes": ["a", 1], "crop": 1e99, "split": []}',
                    b'{"classes": ["\\ud800", "\\n", "\\u0000", "a", "a", "", "b", "c", "d", "e"]}',
                    b'{"model": {"a": []}, "input": null, "crop": 0.5}',
                ),
            )
            model.buffers[entry.buffer].data = np.frombuffer(text, np.uint8)
        elif rng.random() < 0.3:
            entry.buffer = wild(rng, len(model.buffers)) % 2**32
    if model.signatureDefs and rng.random() < 0.3:
        signature = model.signatureDefs[0]
        signature.inputs[0].tensorIndex = wild(rng, 20) % 2**32
        signature.signatureKey = some(rng, (None, b"\xff"))
        signature.subgraphIndex = int(rng.choice([0, 5]))


def graphs(rng, data, model):  # noqa: ARG001
    graph = model.subgraphs[0]
    match int(rng.integers(5)):
        case 0:
            graph.operators = []
        case 1:
            model.subgraphs = []
        case 2:
            model.subgraphs = [graph] * 3
        case 3:
            graph.operators = graph.operators[::-1]
        case 4:
            graph.tensors = graph.tensors[: int(rng.integers(len(graph.tensors)))]


BYTES = (bits, cut, word, piece)
"""Damage to the file's bytes."""
STRUCTURE = (
    buffer_index, operator_input, operator_output, operator_inputs_missing, cycle, opcode,
    wrong_operator, options, ends, shapes, dtypes, scales, contents, names, told, graphs,
)  # fmt: skip
"""Damage to what the bytes say."""


def damaged(number: int, files: list[Path]) -> tuple[str, bytes]:
    """The kind and the bytes of the damaged file of a number: two in five have damaged bytes."""
    rng = np.random.default_rng(number)
    data = bytearray(files[number % len(files)].read_bytes())
    if number % 5 < 2:
        harm = BYTES[number // 5 % len(BYTES)]
        harm(rng, data, None)
        return harm.__name__, bytes(data)
    harm = STRUCTURE[number // 5 * 3 % len(STRUCTURE) - number % 5]
    model = flatbuffer.parse(bytes(data))
    harm(rng, data, model)
    return harm.__name__, flatbuffer.serialize(model)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """A float file, an int8 one, and that without metadata."""
    import keras

    folder = tmp_path_factory.mktemp("sound")
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    x = keras.layers.Conv2D(8, 3, 2, activation="relu", name="stage1_conv")(x)
    y = keras.layers.DepthwiseConv2D(3, padding="same", name="stage2_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(keras.layers.Add()([x, y]))
    network = keras.Model(image, keras.layers.Dense(10, name="head")(x))
    save_model(network, folder / "m.keras", notes={"classes": CLASSES, "crop": 0.9})
    kzoo.convert(folder / "m.keras", folder / "float.tflite")
    images = kzoo.load_data("digits", channels=1, size=16)
    kzoo.quantize(folder / "m.keras", folder / "int8.tflite", calibrate=images, samples=20)
    model = flatbuffer.parse((folder / "int8.tflite").read_bytes())
    model.metadata = [each for each in model.metadata if each.name not in (ENTRY, b"kzoo")]
    (folder / "bare.tflite").write_bytes(flatbuffer.serialize(model))
    return [folder / f"{name}.tflite" for name in ("float", "int8", "bare")]


class Kept(Worker):
    """A worker that answers all calls of a test, each within LIMIT."""

    def call(self, function, *, timeout=LIMIT, **arguments):
        return super().call(function, timeout=min(timeout, LIMIT), **arguments)

    def close(self):
        """Not after one call."""


@pytest.fixture
def kept(monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measure")
    (folder / "damaged_measure.py").write_text(MEASURE)
    monkeypatch.syspath_prepend(str(folder))
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, before[1]))
    worker = Kept()
    for name in ("inspect", "lint", "snippet"):
        monkeypatch.setattr(importlib.import_module(f"kzoo.lite.{name}"), "call", worker.call)
    for name in ("interpret", "diff"):
        monkeypatch.setattr(f"kzoo.lite.{name}.Worker", lambda: worker)
    yield worker
    Worker.close(worker)
    resource.setrlimit(resource.RLIMIT_AS, before)


def printed(*arguments: object) -> None:
    """A command, with all that it makes of the record."""
    cli([*map(str, arguments)], standalone_mode=False)


def parts(file: Path, sound: Path, images: Path, folder: Path, kept: Kept) -> dict:
    """What is done with a file, by name."""
    indices = np.arange(2)
    return {
        "inspect": lambda: printed("inspect", file, "--tensors"),
        "lint": lambda: printed("lint", file),
        "diff": lambda: printed("diff", sound, file),
        **{
            language: functools.partial(snippet, file, language, output=folder / language)
            for language in LANGUAGES
        },
        "run": lambda: lite_outputs(file, images, indices, threads=1),
        "kernels": lambda: kernel_agreement(file, images, indices),
        "measure": lambda: kept.call(
            "damaged_measure:measure", file=str(file), script=str(deploy_file("linux/benchmark.py"))
        ),
    }


def outcomes(numbers, files, kept, folder) -> tuple[Counter, list[str]]:
    """How often each part of the work ended how, and what was against the law."""
    images = folder / "images.npy"
    np.save(images, np.zeros((2, 16, 16, 1), np.uint8))
    counts, faults = Counter(), []
    for number in numbers:
        kind, data = damaged(number, files)
        path = folder / f"{number}.tflite"
        path.write_bytes(data)
        before = set(folder.iterdir())
        for part, work in parts(path, files[0], images, folder, kept).items():
            started = time.monotonic()
            try:
                work()
                outcome = "result"
            except KzooError as error:
                outcome, text = type(error).__name__, str(error)
                if "Traceback" in text:
                    faults.append(f"{number} {kind} {part}: {text}")
                    outcome = "fault"
                elif "child process ended with" in text:
                    outcome = f"runtime ended by {text.split('ended with ')[1].split()[0]}"
                elif "no answer" in text:
                    outcome = "no answer"
            except Exception as error:
                outcome = "fault"
                faults.append(f"{number} {kind} {part}: {type(error).__name__} {error}")
            counts[part, outcome] += 1
            if time.monotonic() - started > LIMIT + 10:
                faults.append(f"{number} {kind} {part}: {time.monotonic() - started:.0f} s")
            for written in set(folder.iterdir()) - before:
                if written.name != part or outcome != "result":
                    faults.append(f"{number} {kind} {part}: it left {written.name}")
                elif part == "python":
                    compile(written.read_text(), "program", "exec")
                written.unlink()
        path.unlink()
    return counts, faults


def test_what_reads_or_runs_damaged_files_answers(files, kept, tmp_path):
    counts, faults = outcomes(range(0, 1000, 23), files, kept, tmp_path)
    assert not faults, "\n".join(faults)
    assert {"result", "BadInputError"} <= {outcome for _, outcome in counts}


@pytest.mark.slow
def test_what_reads_or_runs_a_thousand_damaged_files_answers(files, kept, tmp_path):
    counts, faults = outcomes(range(1000), files, kept, tmp_path)
    assert not faults, "\n".join(faults)
    assert "no answer" not in {outcome for _, outcome in counts}


@pytest.mark.slow
def test_damaged_files_are_measured_or_refused(files, tmp_path):
    """By `kzoo.profile` itself, with its fresh processes."""
    for number in range(3, 1000, 50):
        _, data = damaged(number, files)
        (tmp_path / "m.tflite").write_bytes(data)
        try:
            found = str(profile(tmp_path / "m.tflite", min_runs=1, min_seconds=0).runs)
        except BadInputError as error:
            found = str(error)
        assert "Traceback" not in found


def test_sound_files_pass_and_the_damage_is_the_same_each_time(files, kept, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 16, 16, 1), np.uint8))
    for file in files:
        for work in parts(file, file, tmp_path / "images.npy", tmp_path, kept).values():
            work()
        for language in LANGUAGES:
            (tmp_path / language).unlink()
    kinds = [damaged(number, files) for number in range(200)]
    assert kinds == [damaged(number, files) for number in range(200)]
    assert {kind for kind, _ in kinds} == {harm.__name__ for harm in (*BYTES, *STRUCTURE)}
