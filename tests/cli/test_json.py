"""``--json`` prints the record, and nothing else to stdout; gates decide the exit code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.cli import COMMANDS, cli

SMALL = [
    "steps=[build]", "models=[lenet5]", "data.size=32",
]  # fmt: skip
CASES = {
    "list": ["list", "lenet*"],
    "info": ["info", "lenet5"],
    "compare": ["compare", "lenet5", "resnet8"],
    "build": ["build", "lenet5", "-o", "new.keras"],
    "data": ["data", "digits", "--channels", "1"],
    "finetune": ["finetune", "good.keras", "digits", "--epochs", "1", "-o", "trained.keras"],
    "fewshot": [
        "fewshot",
        "good.keras",
        "digits",
        "--shots",
        "1",
        "2",
        "--seeds",
        "2",
        "-o",
        "study",
    ],
    "distill": [
        "distill",
        "good.keras",
        "digits",
        "--teacher",
        "teacher.keras",
        "--epochs",
        "1",
        "-o",
        "taught.keras",
    ],
    "prune": ["prune", "good.keras", "digits", "--epochs", "1", "-o", "sparse.keras"],
    "cluster": ["cluster", "good.keras", "digits", "--epochs", "1", "-o", "shared.keras"],
    "slim": ["slim", "good.keras", "digits", "--macs", ".5", "--epochs", "1", "-o", "slim.keras"],
    "qat": ["qat", "good.keras", "digits", "--epochs", "1", "-o", "aware.keras"],
    "recipe": ["recipe", "small", "good.keras", "digits", "steps=[build]", "-o", "new_recipe"],
    "convert": ["convert", "good.keras", "-o", "new.tflite"],
    "quantize": ["quantize", "good.keras", "--calibrate", "digits", "-o", "int8.tflite"],
    "predict": ["predict", "digit.png", "--model", "good.tflite"],
    "explain": ["explain", "good.keras", "digit.png", "-o", "digit.html"],
    "evaluate": ["evaluate", "good.tflite", "digits"],
    "check": ["check", "good.tflite", "--against", "good.keras", "--data", "digits"],
    "localize": [
        "localize",
        "good_int8.tflite",
        "--against",
        "good.keras",
        "--data",
        "digits",
        "--limit",
        "4",
        "--no-alone",
    ],
    "lint": ["lint", "good.tflite", "--target", "edgetpu", "micro"],
    "compile": ["compile", "good_int8.tflite", "-o", "compiled.tflite"],
    "inspect": ["inspect", "good.tflite", "--tensors"],
    "diff": ["diff", "good.tflite", "good.tflite"],
    "snippet": ["snippet", "good.tflite", "--language", "kotlin"],
    "profile": ["profile", "good.tflite", "--min-seconds", "0.1"],
    "devices": ["devices"],
    "serve": ["serve", "good_int8.tflite", "--results", "0"],
    "run": ["run", "quickstart", *SMALL, "-o", "new_run"],
    "report": ["report", "run"],
    "doctor": ["doctor"],
}
KEYS = {
    "info": {"name", "params", "macs", "weight_bytes"},
    "compare": {"cards", "best"},
    "build": {"output", "sha256", "params", "macs"},
    "data": {"classes"},
    "finetune": {"output", "sha256", "evaluation", "history", "recipe"},
    "fewshot": {"model", "split", "rows", "means", "recipe"},
    "distill": {"output", "sha256", "evaluation", "history", "teacher", "alone", "table"},
    "prune": {"output", "sha256", "evaluation", "before", "kernels", "sparsity", "gain"},
    "cluster": {"output", "sha256", "evaluation", "before", "kernels", "coded_bytes", "gain"},
    "slim": {"output", "sha256", "evaluation", "before", "groups", "rounds", "gain"},
    "qat": {"output", "sha256", "evaluation", "before", "kernels", "gain"},
    "sensitivity": {"model", "split", "accuracy", "layers", "shares"},
    "recipe": {"folder", "rows", "ran", "kept", "failures"},
    "convert": {"output", "contents", "max_logit_error"},
    "quantize": {"output", "contents", "agreement"},
    "predict": {"predictions"},
    "explain": {"output", "model", "filters", "images", "occlusion"},
    "evaluate": {"model", "sha256", "data", "classes", "evaluation", "mistakes"},
    "check": {"agreement", "keras", "lite", "failures"},
    "localize": {"file", "against", "agreement", "findings", "layers", "calibration"},
    "lint": {"file", "sha256", "predictions"},
    "compile": {"output", "compiler", "operators", "on_tpu", "as_predicted"},
    "inspect": {"file", "sha256", "bytes", "peak_bytes", "tensors"},
    "diff": {"files", "same", "sizes", "added", "dtypes", "weights"},
    "snippet": {"file", "sha256", "language", "program"},
    "profile": {"model_sha256", "runs", "memory", "environment"},
    "devices": {"devices", "notes"},
    "serve": {"url", "models", "records", "files"},
    "run": {"folder", "rows", "ran", "kept", "failures"},
    "report": {"report"},
    "doctor": {"ready", "items"},
}


@pytest.fixture(scope="module")
def place(trained, lite_float, lite_int8, tmp_path_factory) -> Path:
    """A folder in which the commands are called."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(trained, folder / "good.keras")
    shutil.copy(trained, folder / "teacher.keras")
    shutil.copy(lite_float, folder / "good.tflite")
    shutil.copy(lite_int8, folder / "good_int8.tflite")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "digit.png")
    kzoo.run("quickstart", SMALL, output=folder / "run")
    return folder


@pytest.fixture
def command(place, monkeypatch, capfd):
    """command(*arguments) -> (exit code, stdout), what C code writes to it included."""
    monkeypatch.chdir(place)

    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = cli(list(arguments), standalone_mode=False)
        return code or 0, capfd.readouterr().out

    return run


LIKE_PRUNE = ("cluster", "slim", "qat", "sensitivity", "distill")
"""They train, and begin and end alike."""


@pytest.mark.parametrize(
    "verb",
    [pytest.param(verb, marks=pytest.mark.slow if verb in LIKE_PRUNE else ()) for verb in COMMANDS],
)
def test_the_record_is_all_that_is_printed(verb, command, monkeypatch):
    if verb == "devices":  # adb would start a server that stays
        monkeypatch.setattr(shutil, "which", lambda _: None)
    if verb == "compile" and not shutil.which("edgetpu_compiler"):
        pytest.skip("needs Coral's edgetpu_compiler")
    if verb == "serve" and not shutil.which("npm"):
        pytest.skip("needs npm, which fetches LiteRT.js; install Node.js")
    code, printed = command(*CASES[verb], "--json")
    assert code == 0
    record = json.loads(printed)
    assert (isinstance(record, list) and record) or KEYS[verb] <= set(record)


def test_a_distillation_sets_three_networks_side_by_side(command, place):
    """The record that the verb's own case wrote."""
    if not (place / "taught.keras.json").exists():
        command(*CASES["distill"], "--json")
    rows = json.loads((place / "taught.keras.json").read_text())["result"]["table"]
    assert [row["name"] for row in rows] == ["teacher", "student, alone", "student, distilled"]
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        figures = ("log_loss", "params", "macs", "int8_bytes", "p50_ms")
        assert min(row[figure] for figure in figures) > 0
    assert [row["seconds"] is None for row in rows] == [True, False, False]


def test_a_record_stands_beside_an_artifact(command, place):
    _, printed = command("convert", "good.keras", "-o", "with_record.tflite", "--json")
    record = json.loads((place / "with_record.tflite.json").read_text())
    assert record["result"] == json.loads(printed)
    assert record["environment"]["packages"]["kzoo"]


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        (["--max-drop", "0.5"], 0),
        (["--max-drop", "-100"], 1),
        (["--min-agreement", "0.99"], 0),
        (["--max-float-ops", "0"], 1),  # a float file never meets it
    ],
)
def test_a_gate_that_is_not_met_is_exit_code_1(command, gate, code):
    ended, printed = command(*CASES["check"], "--limit", "20", *gate)
    assert ended == code
    assert ("gates not met" in printed) == bool(code)


def test_what_is_printed_for_people_fits_its_columns(command):
    _, printed = command("list")
    lines = printed.split("\n\n")[0].splitlines()
    assert len({line.rfind("  ") for line in lines[:1]}) == 1
    assert max(map(len, lines)) <= 100


def test_an_evaluation_shows_each_class_and_the_files_it_is_most_wrong_on(command):
    _, record = command(*CASES["evaluate"], "--json")
    code, printed = command(*CASES["evaluate"])
    found = json.loads(record)
    assert code == 0
    classes, mistakes, figures = (part.splitlines() for part in printed.split("\n\n"))
    assert [line.split()[:2] for line in classes[2:]] == [
        [name, str(row["count"])]
        for name, row in zip(found["classes"], found["evaluation"]["per_class"], strict=True)
    ]
    assert [line.split()[:3] for line in mistakes[2:]] == [
        [row["path"], row["label"], row["predicted"]] for row in found["mistakes"]
    ]
    names = [line.split()[0] for line in figures]
    assert names == ["accuracy", "top-5", "log-loss", "ECE", "macro-F1"]


def test_in_a_process_logs_go_to_stderr(kzoo_command, place, tmp_path):
    done = kzoo_command("convert", place / "good.keras", "-o", "x.tflite", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["output"] == "x.tflite"
    first, *later = done.stderr.splitlines()
    assert first == "convert to float32 (0/3)"
    # A line every ten seconds, should the machine be that busy.
    known = r"convert to float32 \([123]/3\)|latency \([0-3]/3\)"
    assert all(re.fullmatch(known, line) for line in later)
