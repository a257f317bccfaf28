"""Networks small enough to train in a second, and digits with few of them to train on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kzoo.files import cache_folder


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
