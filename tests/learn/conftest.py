"""Networks small enough to train in a second, and digits with few of them to train on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kzoo.files import cache_folder


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


@pytest.fixture
def plain():
    """plain((12, 24), size=16): convolutions of these widths without BatchNorm, on gray digits."""
    import keras

    def make(widths=(12, 24), size: int = 16, head: str = "logits") -> keras.Model:
        keras.utils.set_random_seed(1)
        image = keras.Input((size, size, 1))
        x = keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
        for i, width in enumerate(widths, start=1):
            x = keras.layers.Conv2D(width, 3, 2, name=f"stage{i}_1_conv")(x)
            x = keras.layers.ReLU(name=f"stage{i}_1_act")(x)
        x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
        act = "softmax" if head == "softmax" else None
        return keras.Model(image, keras.layers.Dense(10, act, name="head")(x), name="plain")

    return make


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache; the datasets' stores stay where they are."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "store").symlink_to(cache_folder() / "store")
    monkeypatch.setenv("KZOO_HOME", str(home))
    return home


@pytest.fixture
def small_disk(tmp_path) -> Path:
    """A disk of 128 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        done = False
    if not done:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
