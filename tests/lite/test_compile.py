"""Coral's compiler: its log is read, its failures are told. The compiler itself is not run here.

It is nowhere to be had for a test. `STAND_IN`, a script of its name, takes its place where the law
is of processes and files alone: exit codes, silence, a hang. What it writes is a real compilation
of the same file, by Coral.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.lite import edgetpu
from kzoo.lite.compile import COMPILER, compile, read_log
from kzoo.lite.lint import lint

HEAD = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1379 ms.

Input model: model.tflite
Input size: 4.41MiB
Output model: model_edgetpu.tflite
Output size: 5.49MiB
On-chip memory used for caching model parameters: 1.92MiB
On-chip memory remaining for caching model parameters: 1.75KiB
Off-chip memory used for streaming uncached model parameters: {off}
Number of Edge TPU subgraphs: 1
Total number of operations: 136
Operation log: model_edgetpu.log
"""
"""The form and the numbers of https://github.com/google-coral/edgetpu/issues/427."""
TABLE = """
Operator                       Count      Status

{rows}
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def table(rows: list[tuple[str, int, str]]) -> str:
    lines = [f"{name:<30} {count:<10} {status}" for name, count, status in rows]
    return TABLE.format(rows="\n".join(lines))


ROWS = [
    ("CONV_2D", 63, "Mapped to Edge TPU"),
    ("CONV_2D", 1, "More than one subgraph is not supported"),
    ("CUSTOM", 1, "Operation is working on an unsupported data type"),
    ("RESHAPE", 12, "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"),
]
REASONS = (
    "Operation is otherwise supported, but not mapped due to some unspecified limitation",
    "Operation version not supported",
)


def test_a_log_is_read():
    told = read_log(HEAD.format(off="3.23MiB") + table(ROWS))
    assert told["compiler"] == "16.0.384591198"
    assert told["on_chip_used"] == round(1.92 * 2**20)
    assert told["on_chip_left"] == 1792
    assert told["off_chip"] == round(3.23 * 2**20)
    assert told["subgraphs"] == 1
    assert [tuple(row.values()) for row in told["operators"]] == ROWS


@pytest.mark.parametrize("status", REASONS)
def test_a_log_of_few_lines_is_read(status):
    """Versions before 2.1 print no memory, and other ends of lines."""
    text = table([("QUANTIZE", 2, status)]).replace("\n", "\r\n")
    told = read_log(f"Edge TPU Compiler version 1.0.249710469\r\nInput: m.tflite\r\n{text}")
    assert told["compiler"] == "1.0.249710469"
    assert told["operators"] == [{"operator": "QUANTIZE", "count": 2, "status": status}]
    assert told["on_chip_used"] is told["on_chip_left"] is told["off_chip"] is None
    assert read_log(HEAD.format(off="0.00B"))["off_chip"] == 0
    assert read_log("")["operators"] == []


STAND_IN = """\
#!{python}
import json, os, shutil, sys, time
given = json.load(open({given!r}))
folder = sys.argv[sys.argv.index("-o") + 1]
open({seen!r}, "w").write(json.dumps(sys.argv[1:]))
print(given["log"], flush=True)
if given["file"]:
    stem = os.path.basename(sys.argv[-1]).removesuffix(".tflite")
    shutil.copy(given["file"], os.path.join(folder, stem + "_edgetpu.tflite"))
if given["hang"]:
    if os.fork() == 0:
        open({child!r}, "w").write(str(os.getpid()))
    time.sleep(600)
if given["signal"]:
    os.kill(os.getpid(), given["signal"])
sys.exit(given["code"])
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """stand_in(log=..., file=..., code=..., hang=..., signal=...): what the stand-in is to do."""
    folder = tmp_path / "bin"
    folder.mkdir()
    names = {name: str(tmp_path / name) for name in ("given", "seen", "child")}
    program = folder / COMPILER
    program.write_text(STAND_IN.format(python=sys.executable, **names))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def given(log="", file=None, code=0, hang=False, signal=0):
        values = {"log": log, "file": file and str(file), "code": code}
        Path(names["given"]).write_text(json.dumps({**values, "hang": hang, "signal": signal}))

    return given


PAIRS = ("mobilenet_v1_0.25_128_quant", "deeplabv3_mnv2_dm05_pascal_quant")


@pytest.mark.parametrize("name", PAIRS)
def test_what_the_compiler_left_is_set_beside_the_prediction(stand_in, name, shared, tmp_path):
    """The compiled file is Coral's own; the log around it is not."""
    file = Path(shutil.copy(shared / "coral" / f"{name}.tflite", tmp_path / "m.tflite"))
    compiled = shared / "coral" / f"{name}_edgetpu.tflite"
    left = edgetpu.compiled(compiled).left
    stand_in(HEAD.format(off="0.00B") + table(ROWS), compiled)
    done = compile(file)
    assert done.output == str(tmp_path / "m_edgetpu.tflite")
    assert (tmp_path / "m_edgetpu.tflite").read_bytes() == compiled.read_bytes()
    assert done.on_cpu == sum(left.values())
    (predicted,) = lint(file, ["edgetpu"]).predictions
    assert done.on_tpu + done.on_cpu == predicted.operators
    assert done.as_predicted
    assert {row["operator"]: row["compiled"] for row in done.compared} == left
    assert all(row["compiled"] == row["predicted"] for row in done.compared)
    assert json.loads((tmp_path / "seen").read_text())[0] == "-s"
    with pytest.raises(UsageError, match="--force"):
        compile(file)


def test_where_the_prediction_is_wrong_it_is_told(stand_in, lite_int8, shared, tmp_path):
    """A compilation of another file, in which a few operators are left."""
    compiled = shared / "coral" / "deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite"
    stand_in(HEAD.format(off="0.00B"), compiled)
    done = compile(lite_int8, output=tmp_path / "out.tflite")
    assert not done.as_predicted
    assert all(row["predicted"] == 0 < row["compiled"] for row in done.compared)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"log": "Invalid model: m.tflite\nModel not quantized"}, "Model not quantized"),
        ({"log": "Internal compiler error. Aborting!", "code": 1}, "Internal compiler error"),
        (
            {"log": "Compilation failed due to large activation tensors in model.\nERROR: x"},
            "large activation tensors",
        ),
        ({}, "it printed nothing"),
        ({"log": "a line that no version prints", "code": 3}, "a line that no version prints"),
        ({"signal": 11}, "SIGSEGV"),
    ],
)
def test_a_refusal_is_told_and_leaves_no_file(stand_in, given, said, lite_int8, tmp_path):
    stand_in(**given)
    with pytest.raises(BadInputError, match=said):
        compile(lite_int8, output=tmp_path / "out.tflite")
    assert not list(tmp_path.glob("*out*"))


def test_a_damaged_output_is_not_kept(stand_in, lite_int8, tmp_path):
    (tmp_path / "half").write_bytes(lite_int8.read_bytes()[:9000])
    stand_in(file=tmp_path / "half")
    with pytest.raises(BadInputError, match="wrote a damaged file"):
        compile(lite_int8, output=tmp_path / "out.tflite")
    stand_in(file=tmp_path / "half", code=1)  # nor one beside a failure
    with pytest.raises(BadInputError, match="refuses"):
        compile(lite_int8, output=tmp_path / "out.tflite")
    assert not list(tmp_path.glob("*out*"))


def test_a_compiler_that_hangs_is_stopped_with_its_children(
    stand_in, lite_int8, tmp_path, monkeypatch
):
    # Long enough for the stand-in to start on a machine that has other work.
    monkeypatch.setattr("kzoo.lite.compile.SPARE_SECONDS", 5)
    stand_in(hang=True)
    started = time.monotonic()
    with pytest.raises(BadInputError, match="no answer in 6 s"):
        compile(lite_int8, output=tmp_path / "out.tflite", timeout=1)
    assert time.monotonic() - started < 30
    assert json.loads((tmp_path / "seen").read_text())[1:3] == ["-t", "1"]
    state = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    assert not list(tmp_path.glob("*out*"))


def test_without_the_compiler_it_says_how_to_get_it(lite_int8, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"coral\.ai.*x86-64.*kzoo lint --target edgetpu"):
        compile(lite_int8, output=tmp_path / "out.tflite")


def test_wrong_use_is_told(lite_int8, tmp_path):
    with pytest.raises(UsageError, match="edgetpu"):
        compile(lite_int8, target="edgtpu")
    with pytest.raises(UsageError, match="timeout"):
        compile(lite_int8, timeout=0)
    with pytest.raises(UsageError, match="the model itself"):
        compile(lite_int8, output=lite_int8, force=True)
    with pytest.raises(MissingError, match="does not exist"):
        compile(tmp_path / "absent.tflite")
