"""A config with a few-shot section: the study of `kzoo.fewshot`, in a run's ledger and report."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kzoo
from kzoo.errors import BadInputError
from kzoo.files import read_json, sha256

CONFIG = """\
name: study
models: [lenet5]
data: {path: digits, channels: 1}
fewshot: {shots: [1, 2], seeds: 2, at: [head], head: [ridge, logits-T], temperature: [1, 4]}
"""
ALL = ["dataset.data", "lenet5.build", "lenet5.fewshot", "run.report"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("config") / "study.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture(scope="module")
def done(config, tmp_path_factory) -> Path:
    """The folder of a finished study."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    run = kzoo.run(config, output=folder)
    assert run.ran == ALL
    return folder


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "run")


def result(folder: Path) -> dict:
    return read_json(folder / "ledger" / "lenet5.fewshot.json")["result"]


def test_the_record_is_that_of_the_function(done, digits):
    found = kzoo.fewshot(
        done / "models" / "lenet5.init.keras",
        digits,
        shots=(1, 2),
        seeds=2,
        at=["head"],
        head=("ridge", "logits-T"),
        temperature=(1, 4),
    )
    # Another engine extracted the features here: the same to rounding.
    for row, mean in zip(found.means, result(done)["means"], strict=True):
        assert {**row, "accuracy": 0, "log_loss": 0}.keys() == mean.keys()
        assert mean["accuracy"] == pytest.approx(row["accuracy"], abs=0.01)
    assert result(done)["recipe"]["data"] == digits.fingerprint


def test_report_and_table_say_what_was_found(done):
    page = (done / "report.html").read_text()
    best = kzoo.run(done / "config.yaml", output=done).rows[0]["fewshot"]
    assert best in result(done)["means"]
    assert f"{100 * best['accuracy']:.1f} ± " in page
    assert "Few images per class" in page
    assert "not done" not in page
    with open(done / "tables" / "lenet5.fewshot.csv", newline="") as file:
        assert len([*csv.DictReader(file)]) == len(result(done)["rows"])


def test_it_is_neither_trained_nor_converted(done):
    assert [file.name for file in (done / "models").iterdir()] == ["lenet5.init.keras"]
    build = read_json(done / "ledger" / "lenet5.build.json")
    assert build["settings"]["classes"] is None
    assert build["result"]["classes"] == 10


def test_a_second_run_keeps_all(done, config):
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    run = kzoo.run(config, output=done)
    assert (run.ran, run.kept) == ([], ALL)
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before
    json.dumps(run.to_dict())


def test_another_setting_repeats_the_study_alone(copy, config):
    assert kzoo.run(config, ["fewshot.seeds=1"], output=copy).ran == ALL[2:]
    assert len(result(copy)["rows"]) == 2 * 3


def test_a_table_that_was_removed_is_written_again(copy, config):
    file = copy / "tables" / "lenet5.fewshot.csv"
    known = file.read_bytes()
    file.unlink()
    assert kzoo.run(config, output=copy).ran == ["run.report"]
    assert file.read_bytes() == known


def test_what_was_done_before_a_failure_is_kept(config, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise BadInputError("it gives NaN")

    monkeypatch.setattr("kzoo.runs.steps.fewshot", fail)
    with pytest.raises(BadInputError, match="NaN"):
        kzoo.run(config, output=tmp_path / "run")
    monkeypatch.undo()
    run = kzoo.run(config, output=tmp_path / "run")
    assert (run.kept, run.ran) == (ALL[:2], ALL[2:])


def test_the_network_that_is_trained_later_has_the_classes_of_the_data(copy, config):
    run = kzoo.run(config, ["fewshot.head=[ridge]", "steps=[build, finetune]",
                            "train.epochs=1"], output=copy)  # fmt: skip
    assert run.ran[:2] == ["lenet5.build", "lenet5.finetune"]
    assert read_json(copy / "ledger" / "lenet5.build.json")["settings"]["classes"] == 10


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_the_same(done, config, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "kzoo", "run", str(config), "-o", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and not (folder / "ledger" / "lenet5.build.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    run = kzoo.run(config, output=folder)
    assert "lenet5.build" in run.kept
    assert result(folder)["means"] == result(done)["means"]
    assert sha256(folder / "models" / "lenet5.init.keras") == sha256(
        done / "models" / "lenet5.init.keras"
    )
