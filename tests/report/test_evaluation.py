"""The page of an evaluation stands alone and says what was judged."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from kzoo.errors import UsageError
from kzoo.learn.evaluate import score, softmax
from kzoo.lite.evaluate import Assessment
from kzoo.report.evaluation import write_evaluation
from kzoo.report.page import LARGEST_TILE, ending_of

HOSTILE = "<script>alert(1)</script> $\\frac{"
CLASSES = ("cat", HOSTILE, *(f"class {i}" for i in range(2, 8)))
ABOUT = {
    "date": "2026-11-22T07:22:06+00:00",
    "environment": {"python": "3.11.7", "packages": {"kzoo": "0.1.0"}, "machine": {"cores": 2}},
}


def assessment(image=(12, 10, 3), wrong: float = 0.3, model: str = "runs/net.keras") -> Assessment:
    """Of 80 images; ``wrong`` of them get another class than their label."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % len(CLASSES)
    said = np.where(np.arange(80) < 80 * wrong, (labels + 1) % len(CLASSES), labels)
    logits = rng.normal(size=(80, len(CLASSES)))
    logits[np.arange(80), said] += 6
    evaluation = score(softmax(logits).astype(np.float32), labels, "test")
    mistakes = [
        {
            "path": f"{HOSTILE}/{row['image']}.png",
            "label": CLASSES[row["label"]],
            "predicted": CLASSES[row["predicted"]],
            "probability": row["probability"],
        }
        for row in evaluation.worst
    ]
    pixels = rng.integers(0, 256, (len(mistakes), *image), np.uint8)
    return Assessment(model, "ab" * 32, HOSTILE, "cd" * 32, CLASSES, evaluation, mistakes, pixels)


def written(tmp_path, **options) -> str:
    path = tmp_path / "page.html"
    assert write_evaluation(assessment(**options), path, ABOUT) == path
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    return path.read_text()


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'<img src="data:image/png;base64,([^"]*)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return written(tmp_path_factory.mktemp("page"))


def test_it_stands_alone_and_trusts_no_text(page):
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', page)


def test_it_says_what_was_judged(page):
    found = assessment().evaluation
    low, high = (f"{100 * edge:.1f}" for edge in found.interval)
    assert found.accuracy == 0.7
    for said in (
        "net.keras on ", f"70.0 % of 80 test images are right (95 % interval: {low} to {high} %).",
        f"{low} to {high} %", f"{found.log_loss:.4f}", f"{100 * found.ece:.1f} %",
        f"{100 * found.macro_f1:.1f} %", f"{100 * found.top5_accuracy:.1f} %",
        "24 of 80 images wrong", "The Keras model is more confident than it is right by",
        "8 classes, the lowest F1 first", "Most frequent mistakes of the Keras model",
        "abababababababab…", "12 × 10 × 3", "2026-11-22 07:22 UTC", "kzoo 0.1.0",
    ):  # fmt: skip
        assert said in page, said


def test_the_worst_mistakes_are_shown_as_they_were_seen(page):
    found = assessment()
    confusion, reliability, *tiles = pictures(page)
    for figure in (confusion, reliability):
        assert min(figure.shape[:2]) > 300
        assert len(np.unique(figure[..., :3] @ [65536, 256, 1])) > 20
    assert len(tiles) == len(found.images) == 12
    for tile, pixels in zip(tiles, found.images, strict=True):
        assert np.array_equal(tile, pixels)
    # The most confident first, as they are printed.
    shown = re.findall(r"answer ([\d.]+) %", page)
    assert shown == [f"{100 * row['probability']:.1f}" for row in found.mistakes]
    assert '<ul class="samples pixelated">' in page


def test_large_and_gray_photos_are_scaled_down(tmp_path):
    page = written(tmp_path, image=(300, 400, 1))
    assert {tile.shape for tile in pictures(page)[2:]} == {(144, LARGEST_TILE)}
    assert '<ul class="samples">' in page


def test_a_model_without_mistakes_says_so(tmp_path):
    page = written(tmp_path, wrong=0, model="net_int8.tflite")
    assert "There are none." in page
    assert len(pictures(page)) == 2
    assert "Confusion matrix, .tflite file" in page


def test_the_same_evaluation_gives_the_same_bytes(page, tmp_path):
    assert written(tmp_path) == page


@pytest.mark.parametrize("name", ["report.htm", "report", "net.keras", ".html"])
def test_a_page_is_html(name):
    with pytest.raises(UsageError, match=r"an evaluation is written as \.html"):
        ending_of(name, "an evaluation")
    assert ending_of("a.HTML", "an evaluation") == ".html"
