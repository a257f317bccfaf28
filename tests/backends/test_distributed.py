"""Training together equals training alone: the same weights, also after a kill."""

from __future__ import annotations

import re
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from kzoo.network.model_file import load_model, save_model
from kzoo.zoo.build import build

pytestmark = pytest.mark.slow

TRAINING = ("--batch-size", 128, "--optimizer", "sgd", "--seed", 3)
# Where rounding switches a ReLU the gradient jumps, and trainings drift apart: few and small steps.
SMOOTH, FEW = ("--epochs", 6, "--lr", 0.05), ("--epochs", 1, "--lr", 0.001)
MORE = ("--augment", "random_flip", "--augment", "mix_up", "--class-weights", "balanced")


def dropout() -> keras.Model:
    image = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    x = keras.layers.Conv2D(16, 3, 2, name="stage1_1_conv")(x)
    x = keras.layers.BatchNormalization(name="stage1_1_bn")(x)
    x = keras.layers.Activation("relu", name="stage1_1_act")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dropout(0.5, name="head_dropout")(x)
    return keras.Model(image, keras.layers.Dense(10, name="head")(x), name="dropout")


NETWORKS = {
    "lenet5": lambda: build("lenet5", seed=0),
    "resnet8": lambda: build("resnet8", size=16, channels=1, classes=10, seed=0),
    "dropout": dropout,
}


@pytest.fixture
def command(tmp_path):
    """command("lenet5", "one.keras", ...): what is typed to train that network into that file."""

    def make(name: str, output: str, *options: object) -> tuple:
        if not (tmp_path / f"{name}.keras").exists():
            save_model(NETWORKS[name](), tmp_path / f"{name}.keras")
        return ("finetune", f"{name}.keras", "digits", "-o", output, *TRAINING,
                *(SMOOTH if name == "lenet5" else FEW), *options)  # fmt: skip

    return make


def weights(file: Path) -> list[np.ndarray]:
    return load_model(file).get_weights()


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The largest difference of two models' weights."""
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_end_with_the_weights_of_one(
    name, command, start, together, finished, tmp_path
):
    alone = command(name, "one.keras", *MORE)
    finished(start(*alone))
    both = together(*command(name, "two.keras", *MORE), "--distributed")
    (said, _), (unsaid, _) = [finished(process) for process in both]
    assert "two.keras" in said
    assert unsaid == ""
    before, one, two = (weights(tmp_path / f"{file}.keras") for file in (name, "one", "two"))
    assert distance(one, two) < min(1e-5, 1e-3 * distance(before, one))


def test_one_process_with_two_devices_ends_with_the_weights_of_one(
    command, start, finished, tmp_path
):
    finished(start(*command("resnet8", "one.keras")))
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    finished(start(*command("resnet8", "two.keras"), "--distributed", **devices))
    assert distance(weights(tmp_path / "one.keras"), weights(tmp_path / "two.keras")) < 1e-5


def test_killed_and_run_again_equals_never_killed(command, together, finished, tmp_path):
    options = ("--distributed", "--checkpoint-seconds", 0)
    for process in together(*command("resnet8", "whole.keras", *options)):
        finished(process)
    first, second = together(*command("resnet8", "killed.keras", *options))
    deadline = time.monotonic() + 120
    while not any(step > 3 for step in steps(tmp_path / "killed.keras.checkpoints")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    assert second.wait(timeout=300) != 0  # JAX ends it, by a signal where it notices first
    assert not (tmp_path / "killed.keras").exists()
    for process in together(*command("resnet8", "killed.keras", *options)):
        finished(process)
    whole, killed = (weights(tmp_path / f"{name}.keras") for name in ("whole", "killed"))
    assert all(map(np.array_equal, whole, killed))


def steps(folder: Path) -> list[int]:
    return [int(re.match(r"step-(\d+)", path.name)[1]) for path in folder.glob("*/step-*.npz")]


def test_a_batch_that_cannot_be_shared_is_refused(command, together, finished):
    for process in together(*command("lenet5", "two.keras"), "--distributed", "--batch-size", 33):
        said = finished(process, 2)[1]
        assert "33 images is not shared evenly by 2 devices" in said
        assert "batch size of 32" in said


def test_processes_that_are_given_different_things_are_refused(command, together, finished):
    both = together(*command("lenet5", "two.keras"), "--distributed", different=("--seed", 4))
    for process in both:
        assert "process 1 is not given what process 0 is" in finished(process, 2)[1]


def test_one_device_has_nothing_to_share(command, start, finished):
    said = finished(start(*command("lenet5", "one.keras"), "--distributed"), 2)[1]
    assert "KERAS_DISTRIBUTION_JOB_ADDRESSES=FIRST_MACHINE:PORT" in said


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="is the backend that can")
def test_another_backend_is_told_what_to_type(command, kzoo_command, tmp_path):
    done = kzoo_command(*command("lenet5", "one.keras"), "--distributed", cwd=tmp_path)
    assert done.returncode == 2
    assert "type KERAS_BACKEND=jax before the command" in done.stderr
