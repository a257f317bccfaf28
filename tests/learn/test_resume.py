"""The law of resuming: killed and run again equals never killed, bit for bit."""

from __future__ import annotations

import functools
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kzoo.learn.finetune import Training, finetune
from kzoo.network.model_file import save_model
from kzoo.zoo.build import build

STEPS = 5  # of an epoch: 180 images in batches of 32

RUN = """
import json, sys, time
from kzoo.learn.finetune import finetune

def slowly(label, done, total):
    time.sleep(0.1 * label.startswith("train"))

finetune(**json.loads(sys.argv[1]), progress=slowly)
"""


@pytest.fixture
def settings(digits_folder):
    return functools.partial(arguments_of, str(digits_folder))


def arguments_of(data: str, model: Path, output: Path) -> dict:
    """Four epochs in two phases, so that optimizers change too; a checkpoint after every step."""
    return {
        "model": str(model),
        "data": data,
        "data_options": {"validation": 0.2, "test": 0.2},
        "phases": [
            {"epochs": 2, "learning_rate": 0.003, "decay": 0.5},
            {"epochs": 2, "learning_rate": 0.01, "optimizer": {"name": "sgd", "momentum": 0.9}},
        ],
        "label_smoothing": 0.1,
        "augment": ["random_flip", {"name": "mix_up", "alpha": 0.4}],
        "early_stopping": 3,
        "seed": 3,
        "output": str(output),
        "checkpoint_seconds": 0.0,
    }


def kill_at(arguments: dict, step: int) -> int:
    """Trains in a child and kills it when ``step`` has its checkpoint; returns the last step."""

    def last() -> int:
        found = Path(arguments["output"] + ".checkpoints").glob("*/step-*.npz")
        return max((int(re.match(r"step-(\d+)", path.name)[1]) for path in found), default=0)

    child = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(arguments)])
    try:
        deadline = time.monotonic() + 120
        while last() < step:
            assert child.poll() is None, "the child ended before it could be killed"
            assert time.monotonic() < deadline, "the child is too slow"
            time.sleep(0.01)
    finally:
        child.kill()
    assert child.wait() == -signal.SIGKILL
    return last()


def kept(training: Training) -> tuple[list[np.ndarray], list[dict]]:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in training.history]
    return training.model.get_weights(), rows


@pytest.fixture
def network(tiny, tmp_path):
    """network(name): a file of an untrained network; "dropout" has Dropout and BatchNorm."""

    def make(name: str) -> Path:
        size = {"channels": 1, "size": 16, "classes": 10, "seed": 0}
        model = tiny(dropout=0.5) if name == "dropout" else build(name, **size)
        return save_model(model, tmp_path / f"{name}.keras")

    return make


@pytest.mark.parametrize(
    "name",
    ["lenet5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet8", "dropout"))],
)
def test_killed_and_run_again_equals_never_killed(name, network, settings, tmp_path):
    model = network(name)
    phase = {"phases": [{"epochs": 3, "learning_rate": 0.003}]}
    weights, history = kept(finetune(**{**settings(model, tmp_path / "whole.keras"), **phase}))
    arguments = {**settings(model, tmp_path / "killed.keras"), **phase}
    # Anywhere, but not at an epoch's end.
    chosen = random.choice([s for s in range(2, 3 * STEPS - 3) if s % STEPS])
    last = kill_at(arguments, chosen)
    assert not (tmp_path / "killed.keras").exists()

    steps = []
    resumed = finetune(**arguments, progress=lambda label, done, _: steps.append((label, done)))
    first = next(done for label, done in steps if label.startswith("train"))
    assert first == last + 1 > chosen, f"killed at {last}, went on at {first}"
    weights_resumed, history_resumed = kept(resumed)
    assert history_resumed == history
    for one, other in zip(weights, weights_resumed, strict=True):
        assert np.array_equal(one, other), f"killed at {last}"
    assert not Path(arguments["output"] + ".checkpoints").exists()


class Interrupted(BaseException):
    """As Ctrl-C, which is no Exception either."""


def interrupt_at(arguments: dict, step: int) -> None:
    def progress(label: str, done: int, _total: int) -> None:
        if label.startswith("train") and done == step + 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        finetune(**arguments, progress=progress)


ADAM = {"name": "adam", "use_ema": True, "ema_momentum": 0.9, "clipnorm": 0.5}
RECIPES = {
    "averages, clipping, one cycle, weighted classes, frozen BatchNorm, half precision": {
        "phases": [
            {
                "epochs": 3,
                "optimizer": ADAM,
                "schedule": "one_cycle",
                "decay": 0.5,
                "batch_norm": "frozen",
            },
        ],
        "class_weights": "balanced",
        "augment": ["cut_mix", {"name": "random_erasing", "factor": 0.5}],
        "precision": "mixed_bfloat16",
        "monitor": "val_macro_f1",
    },
    "classifier first, recalibrated BatchNorm, RandAugment": {
        "phases": [
            {"epochs": 1, "trainable": "classifier"},
            {"epochs": 2, "optimizer": "sgd", "batch_norm": "recalibrate"},
        ],
        "augment": ["rand_augment"],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("step", [STEPS + 2, 2 * STEPS + 3])
def test_all_that_a_recipe_keeps_is_in_its_checkpoint(recipe, step, network, settings, tmp_path):
    model = network("dropout")
    whole, stopped = (
        settings(model, tmp_path / f"{name}.keras") | recipe for name in ("whole", "stopped")
    )
    weights, history = kept(finetune(**whole))
    interrupt_at(stopped, step)
    weights_resumed, history_resumed = kept(finetune(**stopped))
    assert history_resumed == history
    assert all(map(np.array_equal, weights, weights_resumed))


@pytest.mark.slow
def test_dropout_goes_on_where_it_was_and_another_recipe_begins_anew(network, settings, tmp_path):
    model = network("dropout")
    weights, history = kept(finetune(**settings(model, tmp_path / "whole.keras")))
    arguments = settings(model, tmp_path / "stopped.keras")
    interrupt_at(arguments, 2 * STEPS + 2)
    firsts = []
    for changed in ({"seed": 4}, {}):
        steps = []
        found = finetune(
            **{**arguments, **changed, "force": True},
            progress=lambda label, done, _, steps=steps: steps.append((label, done)),
        )
        firsts.append(next(done for label, done in steps if label.startswith("train")))
    assert firsts == [1, 2 * STEPS + 3]
    assert kept(found)[1] == history
    assert all(map(np.array_equal, kept(found)[0], weights))
