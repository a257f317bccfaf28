"""The reliability diagram shows where confidence and accuracy differ."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kzoo.report import accuracy_plots


def judged(accuracy: float) -> dict:
    """All images with the confidence 0.75."""
    empty = {"count": 0, "confidence": None, "accuracy": None}
    full = {"count": 40, "confidence": 0.75, "accuracy": accuracy}
    bins = [full if i == 11 else empty for i in range(15)]
    return {"count": 40, "accuracy": accuracy, "ece": abs(0.75 - accuracy), "reliability": bins}


def pixels(path, colour: tuple[int, int, int]) -> int:
    with Image.open(path) as image:
        return int((np.asarray(image.convert("RGB")) == colour).all(axis=2).sum())


@pytest.mark.parametrize("names", [("Keras model",), ("Keras model", "int8 file $x^{")])
def test_a_panel_per_model(tmp_path, names):
    accuracy_plots.reliability(dict.fromkeys(names, judged(0.5)), tmp_path / "r.png", "title")
    with Image.open(tmp_path / "r.png") as image:
        assert image.format == "PNG"
        assert image.size[0] > 450
    assert [path.name for path in tmp_path.iterdir()] == ["r.png"]


def test_the_bar_ends_at_the_accuracy(tmp_path):
    blue = (0x00, 0x72, 0xB2)
    for name, accuracy in (("low", 0.2), ("high", 0.6)):
        accuracy_plots.reliability({"m": judged(accuracy)}, tmp_path / f"{name}.png")
    low, high = (pixels(tmp_path / f"{name}.png", blue) for name in ("low", "high"))
    assert high > 2 * low
