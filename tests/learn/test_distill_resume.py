"""A distillation that is killed and run again equals one that never was, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kzoo.learn.distill import Distilled, distill
from kzoo.learn.lessons import LOSSES
from kzoo.network.model_file import save_model

pytestmark = pytest.mark.usefixtures("empty_cache")


class Interrupted(BaseException):
    """As Ctrl-C, which is no Exception either."""


def kept(found: Distilled) -> tuple:
    rows = [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in [*found.history, *found.alone.history]
    ]
    return [*found.model.get_weights(), *found.alone.model.get_weights()], rows


def arguments_of(folder: Path, data: str, output: str) -> dict:
    return {
        "student": str(folder / "student.keras"),
        "data": data,
        "teacher": str(folder / "teacher.keras"),
        "losses": dict.fromkeys(LOSSES, 1.0),
        "phases": [
            {"epochs": 1, "trainable": "classifier"},
            {"epochs": 2, "learning_rate": 0.001, "optimizer": "sgd", "batch_norm": "recalibrate"},
        ],
        "augment": ["random_flip", "mix_up"],
        "augment_seeds": 3,
        "early_stopping": 2,
        "seed": 3,
        "data_options": {"validation": 0.2, "test": 0.2},
        "output": str(folder / output),
        "checkpoint_seconds": 0.0,
    }


@pytest.fixture
def networks(tiny, plain, tmp_path) -> Path:
    save_model(tiny(dropout=0.5), tmp_path / "student.keras")
    save_model(plain(size=32), tmp_path / "teacher.keras")
    return tmp_path


def stopped_at(arguments: dict, task: str, step: int) -> None:
    def progress(label: str, done: int, _total: int) -> None:
        if label.startswith(task) and done == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        distill(**arguments, progress=progress)


@pytest.mark.slow
def test_stopped_and_run_again_equals_never_stopped(networks, digits_folder):
    arguments = arguments_of(networks, str(digits_folder), "whole.keras")
    last = {"phases": arguments["phases"][-1:]}
    weights, rows = kept(distill(**arguments | last))
    arguments = arguments_of(networks, str(digits_folder), "stopped.keras") | last
    for task, step in (("train alone", 4), ("train:", 7)):
        stopped_at(arguments, task, step)
        assert not Path(arguments["output"]).exists()
    steps = []
    found = distill(**arguments, progress=lambda label, done, _: steps.append((label, done)))
    assert next(done for label, done in steps if label.startswith("train")) == 7
    assert not any(label.startswith(("train alone", "extract")) for label, _ in steps)
    weights_again, rows_again = kept(found)
    assert rows_again == rows
    for one, other in zip(weights, weights_again, strict=True):
        assert np.array_equal(one, other)
    assert not Path(arguments["output"] + ".checkpoints").exists()


RUN = """
import json, sys, time
from kzoo.learn.distill import distill

def slowly(label, done, total):
    time.sleep(0.1 * label.startswith("train"))

distill(**json.loads(sys.argv[1]), progress=slowly)
"""


@pytest.mark.slow
def test_killed_and_run_again_equals_never_killed(networks, digits_folder):
    arguments = arguments_of(networks, str(digits_folder), "whole.keras")
    # What is trained in the first phase has to outlast one in which it plays no part.
    phases = [{"epochs": 1, "learning_rate": 0.003}, *arguments["phases"]]
    weights, rows = kept(distill(**{**arguments, "phases": phases}))
    arguments = arguments_of(networks, str(digits_folder), "killed.keras") | {"phases": phases}
    child = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(arguments)])
    folders = Path(arguments["output"] + ".checkpoints")
    try:
        deadline = time.monotonic() + 120
        while not (len([*folders.glob("*")]) > 1 and len([*folders.glob("*/step-00000001*")]) > 1):
            assert child.poll() is None, "the child ended before it could be killed"
            assert time.monotonic() < deadline, "the child is too slow"
            time.sleep(0.01)
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    weights_again, rows_again = kept(distill(**arguments))
    assert rows_again == rows
    assert all(map(np.array_equal, weights, weights_again))
