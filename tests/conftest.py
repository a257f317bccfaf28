"""What the tests of several rooms share: one small trained network and its exported files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A shell's background job ignores Ctrl-C, nohup's a hang-up; so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory):
    """Stores and downloads of the tests stay out of the user's cache."""
    before = os.environ.get("KZOO_HOME")
    os.environ["KZOO_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    os.environ.pop("KZOO_HOME")
    if before:
        os.environ["KZOO_HOME"] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and photos beside the checkout; absent elsewhere."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real models and photos in {folder}, which is absent")
    return folder


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits at 32 x 32 x 1."""
    from kzoo.data.load import load_data

    return load_data("digits", channels=1)


@pytest.fixture(scope="session")
def digits_folder(digits, tmp_path_factory) -> Path:
    """30 digits of each class as files."""
    folder = tmp_path_factory.mktemp("digits")
    for label, name in enumerate(digits.classes):
        (folder / name).mkdir()
        for index in np.flatnonzero(digits.labels == label)[:30]:
            Image.fromarray(digits.images[index, ..., 0]).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def few_digits(digits_folder):
    """180 digits for training, 60 for validation, 60 for test, 16 x 16 x 1."""
    from kzoo.data.load import load_data

    return load_data(digits_folder, channels=1, size=16, validation=0.2, test=0.2)


@pytest.fixture
def tiny():
    """tiny(head="logits"): two convolutions with BatchNorm and Dropout on 16 x 16 gray digits."""
    import keras

    def make(head: str = "logits", dropout: float = 0.0) -> keras.Model:
        keras.utils.set_random_seed(0)
        image = keras.Input((16, 16, 1), name="image")
        x = keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
        for i, filters in enumerate((8, 16), start=1):
            x = keras.layers.Conv2D(filters, 3, 2, name=f"stage{i}_1_conv")(x)
            x = keras.layers.BatchNormalization(momentum=0.8, name=f"stage{i}_1_bn")(x)
            x = keras.layers.Activation("relu", name=f"stage{i}_1_act")(x)
        x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name="head_dropout")(x)
        act = "softmax" if head == "softmax" else None
        return keras.Model(image, keras.layers.Dense(10, act, name="head")(x), name="tiny")

    return make


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory) -> Path:
    """A LeNet-5 after three epochs on the digits, as a .keras file."""
    import kzoo

    path = tmp_path_factory.mktemp("trained") / "lenet5.keras"
    model = kzoo.build("lenet5", seed=0)
    phase = {"epochs": 3, "learning_rate": 3e-3}
    kzoo.finetune(model, digits, phases=[phase], output=path)
    return path


@pytest.fixture(scope="session")
def lite_float(trained) -> Path:
    """`trained` as a float32 .tflite."""
    import kzoo

    path = trained.with_name("float.tflite")
    kzoo.convert(trained, path)
    return path


@pytest.fixture(scope="session")
def lite_int8(trained, digits) -> Path:
    """`trained` as an int8 .tflite with uint8 input and output."""
    import kzoo

    path = trained.with_name("int8.tflite")
    kzoo.quantize(trained, path, calibrate=digits)
    return path


@pytest.fixture(scope="session")
def kzoo_command():
    """Runs the command line in a process of its own: ``kzoo_command("list", "res*", cwd=...)``."""

    def run(*arguments: object, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "kzoo", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, **options
        )

    return run
