"""Every test has a cache of its own, and folders of small photos made on the fly."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def photo():
    """photo(path, seed): writes 12 x 10 noise, another for each seed."""

    def write(path: Path, seed: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def photos(tmp_path, photo):
    """photos({"cat": 4, "train/dog": 3}): a folder with that many different photos in each."""

    def make(counts: dict[str, int], name: str = "photos", first_seed: int = 0) -> Path:
        seed = first_seed
        for folder, count in counts.items():
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                photo(tmp_path / name / folder / f"{i}.png", seed)
                seed += 1
        return tmp_path / name

    return make


@pytest.fixture
def png():
    """png(width, height, bits, colour, pixels): a PNG from its raw bytes, the header as told."""

    def make(width: int, height: int, bits: int, colour: int, pixels: bytes = b"") -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            check = struct.pack(">I", zlib.crc32(kind + data))
            return struct.pack(">I", len(data)) + kind + data + check

        step = len(pixels) // height
        rows = b"".join(
            b"\0" + pixels[i * step : (i + 1) * step] for i in range(height if step else 0)
        )
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b"")
        )

    return make
