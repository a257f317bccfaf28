"""The verbs below ``lite`` on the JAX backend, in an environment without TensorFlow.

The laws of training themselves (resuming, layer-wise rates, BatchNorm, precision, the rate finder)
are those of tests/learn, which ``make test-jax`` runs on JAX, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest

from kzoo.network.model_file import save_model
from kzoo.zoo.build import build

pytestmark = pytest.mark.slow

NETWORKS = {
    "lenet5": 32, "resnet8": 32, "row_lstm": 28, "googlenet": 64, "densenet40_k12": 32,
    "mobilenet_v3_small": 64, "efficientnet_b0": 64, "shufflenet_v2_x0_5": 64, "convnext_tiny": 32,
}  # fmt: skip
"""With their sizes: every kind of layer in the zoo."""

LOGITS = """
import json, sys
import numpy as np
from kzoo.network.model_file import load_model
for name in json.loads(sys.argv[1]):
    pixels = np.load(f"{name}.pixels.npy")
    np.save(f"{name}.found.npy", load_model(f"{name}.keras").predict_on_batch(pixels))
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares JAX with TensorFlow")
def test_a_file_gives_the_logits_that_it_gives_on_tensorflow(jax_python, tmp_path):
    for name, size in NETWORKS.items():
        model = build(name, size=size, classes=10, seed=0)
        save_model(model, tmp_path / f"{name}.keras")
        shape = (4, *model.inputs[0].shape[1:])
        pixels = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        np.save(tmp_path / f"{name}.pixels.npy", pixels)
        np.save(tmp_path / f"{name}.expected.npy", model.predict_on_batch(pixels))
    done = subprocess.run(
        [jax_python, "-c", LOGITS, json.dumps([*NETWORKS])],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in NETWORKS:
        expected, found = (
            np.load(tmp_path / f"{name}.{kind}.npy") for kind in ("expected", "found")
        )
        assert np.abs(found - expected).max() < 1e-4 * expected.std(), name


def test_every_verb_below_lite_works(start, finished):
    def run(*arguments: object) -> dict:
        return json.loads(finished(start(*arguments, "--json"))[0])

    assert run("data", "digits", "--channels", 1)["images"] == 1797
    run("build", "lenet5", "-o", "net.keras")
    trained = run("finetune", "net.keras", "digits", "-o", "trained.keras", "--epochs", 2)
    assert trained["evaluation"]["accuracy"] > 0.85
    assert trained["recipe"]["computed_by"]["backend"] == "jax"
    evaluated = run("evaluate", "trained.keras", "digits")["evaluation"]
    assert evaluated["accuracy"] == trained["evaluation"]["accuracy"]
    study = run("fewshot", "trained.keras", "digits", "-o", "study", "--shots", 4, "--at", "head")
    assert all(mean["accuracy"] > 0.7 for mean in study["means"])
    run("build", "lenet5", "--seed", 1, "-o", "student.keras")
    taught = run(
        "distill", "student.keras", "digits", "--teacher", "trained.keras", "-o", "taught.keras",
        "--epochs", 1,
    )  # fmt: skip
    assert [row["name"] for row in taught["table"]] == [
        "teacher", "student, alone", "student, distilled",
    ]  # fmt: skip
    assert taught["evaluation"]["accuracy"] > 0.6
    if not find_spec("tensorflow"):
        assert all(row["int8_bytes"] is None for row in taught["table"])


def test_what_needs_tensorflow_says_so(jax_python, start, finished, tmp_path):
    if jax_python == sys.executable and find_spec("tensorflow"):
        pytest.skip("needs an environment without TensorFlow; make test-jax makes one")
    save_model(build("lenet5", seed=0), tmp_path / "net.keras")
    for verb in (
        ["convert", "net.keras", "-o", "net.tflite"],
        ["fewshot", "net.keras", "digits", "-o", "study", "--engine", "litert"],
    ):
        told = finished(start(*verb), 3)[1]
        assert re.search("the package '(tensorflow|ai_edge_litert)' is not installed", told)
