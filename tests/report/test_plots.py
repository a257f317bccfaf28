"""Figures are whole PNGs at the sizes people have, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from kzoo.report import plots


def drawn(path) -> np.ndarray:
    """The pixels of a PNG, which must not be one colour."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.astype(int) @ [65536, 256, 1])) > 10
    return pixels


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def history(epochs: int, **changes) -> list[dict]:
    return [
        {
            "phase": 1 + (epoch >= 3),
            "epoch": epoch + 1,
            "loss": 2 / (epoch + 1),
            "accuracy": 1 - 0.5 / (epoch + 1),
            "val_loss": 2.2 / (epoch + 1),
            "val_accuracy": 1 - 0.6 / (epoch + 1),
            "learning_rate": 0.001,
        }
        | changes
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize("epochs", [1, 60])
def test_curves(tmp_path, epochs):
    plots.curves(history(epochs), tmp_path / "c.png", "resnet8 $\\frac{")
    drawn(tmp_path / "c.png")
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]


def test_curves_without_validation_lack_its_line(tmp_path):
    blue = np.array([0x00, 0x72, 0xB2])
    for name, changes in (("with", {}), ("without", {"val_loss": None, "val_accuracy": None})):
        plots.curves(history(4, **changes), tmp_path / name, "")
    assert (drawn(tmp_path / "with") == blue).all(axis=2).sum() > 500
    assert (drawn(tmp_path / "without") == blue).all(axis=2).sum() == 0


def test_a_rate_test_marks_the_rates_that_it_tells(tmp_path):
    green = np.array([0x00, 0x9E, 0x73])
    rates = [1e-6 * 10 ** (step / 20) for step in range(120)]
    losses = [2.3 - 2 / (1 + 1e-3 / rate) + 9 * max(0, rate - 0.1) for rate in rates]
    record = {"rates": rates, "losses": losses, "smoothed": losses, "lowest": rates[100]}
    lines = []
    for steepest in (rates[40], rates[70]):
        plots.rate_test(record | {"steepest": steepest}, tmp_path / "r.png")
        marked = (drawn(tmp_path / "r.png") == green).all(axis=2).sum(axis=0)
        lines.append(np.flatnonzero(marked > 0.5 * marked.max()))
    (first, *_, lowest), (second, *_, same) = lines
    assert lowest == same
    # On a logarithmic axis: 1.5 of 6 decades from line to line, and from the second to the lowest.
    assert second - first == pytest.approx(same - second, abs=4)
    assert second - first > 100


@pytest.mark.parametrize("classes", [2, 40, 120])
def test_confusion(tmp_path, classes):
    matrix = 10 * np.eye(classes, dtype=int)
    matrix[1] = 0  # a class without images must not divide by zero
    names = ["$x^{", "猫\ud800", *(f"class number {i} of many" for i in range(2, classes))]
    plots.confusion(matrix.tolist(), names, tmp_path / "c.png", "t")
    drawn(tmp_path / "c.png")


def test_confusion_shows_a_mistake(tmp_path):
    for name, matrix in (("right", [[10, 0], [0, 10]]), ("wrong", [[10, 0], [10, 0]])):
        plots.confusion(matrix, ["a", "b"], tmp_path / name)
    right, wrong = drawn(tmp_path / "right"), drawn(tmp_path / "wrong")
    assert right.shape == wrong.shape
    assert (right != wrong).any(axis=2).mean() > 0.1


@pytest.mark.parametrize("count", [1, 500])
def test_latency(tmp_path, count):
    samples = np.random.default_rng(0).lognormal(size=count).tolist()
    summary = {"p50_ms": samples[0], "p90_ms": samples[0] if count > 63 else None}
    runs = [
        {"threads": n, "samples_ms": samples, "latency": summary | {"valid": count > 63}}
        for n in (1, 2)
    ]
    profiles = {kind: {"kind": "measured", "runs": runs} for kind in ("float32", "int8")}
    plots.latency(profiles, tmp_path / "l.png", "t")
    drawn(tmp_path / "l.png")


def test_sizes_are_to_scale(tmp_path):
    contents = {
        kind: {"bytes": size, "gzip_bytes": size, "bytes_by_kind": {f"weights {kind}": size}}
        for kind, size in (("float32", 400_000), ("int8", 100_000))
    }
    plots.sizes(contents, tmp_path / "s.png")
    blue = (drawn(tmp_path / "s.png") == [0x00, 0x72, 0xB2]).all(axis=2)
    widths = blue.sum(axis=1)
    long, short = widths.max(), widths[blue.shape[0] // 2 : -40].max()
    assert 3.8 < long / short < 4.2


def test_a_figure_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "c.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        plots.curves([{"epoch": 1}, {}], path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["c.png"]


def test_the_room_imports_no_other_and_no_pyplot(tmp_path):
    code = (
        "import sys, kzoo.report.html, kzoo.report.plots as p\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"p.confusion([[1, 0], [0, 1]], ['a', 'b'], {str(tmp_path / 'c.png')!r})\n"
        "rooms = {m.split('.')[1] for m in sys.modules if m.startswith('kzoo.')}\n"
        "assert rooms <= {'report', 'errors', 'files', 'environment'}, rooms\n"
        "assert not {'matplotlib.pyplot', 'keras', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_accuracy_against_latency(tmp_path):
    points = [
        {"name": f"net_{i}", "top1": 60.0 + i % 7, "float32": 1.5**i, "int8": 1.4**i}
        for i in range(12)
    ]
    plots.accuracy_against_latency(points, tmp_path / "zoo.png", "All")
    assert drawn(tmp_path / "zoo.png").shape[0] > 1000
