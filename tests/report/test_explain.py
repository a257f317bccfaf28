"""The page of an explanation stands alone and says what was explained; the picture is whole."""

from __future__ import annotations

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from kzoo.errors import MissingError, UsageError
from kzoo.learn.explain import Activations, Explanation, Filters, Seen
from kzoo.report import explain_plots as plots
from kzoo.report.explain import write_explanation

HOSTILE = "<script>alert(1)</script> $\\frac{"
ABOUT = {
    "date": "2026-11-22T07:22:06+00:00",
    "environment": {"python": "3.11.7", "packages": {"kzoo": "0.1.0"}, "machine": {"cores": 2}},
}


def seen(size=(32, 48, 3), **changes) -> Seen:
    rng = np.random.default_rng(0)
    top = [
        {"class": HOSTILE, "index": 0, "probability": 0.7},
        {"class": "cat", "index": 1, "probability": 0.2},
        {"class": "an animal with a very long name", "index": 2, "probability": 1e-5},
    ]  # fmt: skip
    maps = rng.normal(size=(8, 12, 16)).astype(np.float32)
    activations = [
        Activations("stage1", "stage1_1_conv", "stage1_1_act", maps, tuple(range(16)), 32),
        Activations("stage2", "stage2_1_conv", "stage2_1_conv", maps[..., :5], tuple(range(5)), 5),
        Activations("stage2", "stage2_2_conv", "stage2_2_bn", maps, tuple(range(16)), 64),
    ]
    values = {
        "image": "photos/cat.png",
        "pixels": rng.integers(0, 256, size, np.uint8),
        "top": top,
        "index": 0,
        "name": HOSTILE,
        "probability": 0.7,
        "grad_cam": {"stage1": rng.random((8, 12)), "stage2": rng.random((4, 6))},
        "activations": tuple(activations),
        "occlusion": rng.normal(0, 0.1, (16, 24)),
    }
    return Seen(**values | changes)


def explanation(*images: Seen, kernels=(16, 3, 3, 3)) -> Explanation:
    filters = Filters("stem_conv", np.random.default_rng(1).normal(size=kernels).astype(np.float32))
    return Explanation("net", 3, filters, images or (seen(),), 6, 2)


def pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'<img src="data:image/png;base64,([^"]*)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("page") / "why.html"
    assert write_explanation(explanation(), path, ABOUT) == path
    return path.read_text()


def test_the_page_stands_alone_and_trusts_no_text(page):
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', page)


def test_the_page_says_what_was_explained(page):
    for said in (
        "net on cat.png", "70.0 %", "the last map, stage2,", "a grey square of 6 pixels",
        "steps of 2", "each stage", "red, green and blue", "2026-11-22 07:22 UTC", "kzoo 0.1.0",
    ):  # fmt: skip
        assert said in page, said


def test_every_picture_of_the_page_decodes(page):
    found = pictures(page)
    assert len(found) == 4
    for image in found:
        assert min(image.size) > 100
        assert len(image.convert("RGB").getcolors(1 << 22)) > 20


def test_the_picture_has_all_figures_below_each_other(page, tmp_path):
    write_explanation(explanation(), tmp_path / "why.png", ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["why.png"]
    with Image.open(tmp_path / "why.png") as image:
        assert image.width == max(each.width for each in pictures(page))
        # Nearly: titles stand above them here.
        total = sum(each.height for each in pictures(page))
        assert total <= image.height < 1.2 * total


def test_the_same_explanation_gives_the_same_bytes(page, tmp_path):
    write_explanation(explanation(), tmp_path / "why.html", ABOUT)
    assert (tmp_path / "why.html").read_text() == page


def test_several_images_are_told_apart(tmp_path):
    small = {"activations": (), "grad_cam": {"last": np.ones((2, 2))}}
    other = seen(image="dog.png", name="cat", index=1, probability=0.2, **small)
    write_explanation(explanation(seen(**small), other), tmp_path / "why.html", ABOUT)
    page = (tmp_path / "why.html").read_text()
    assert "<h2>cat.png</h2>" in page
    assert "<h2>dog.png</h2>" in page
    assert "explained is cat, 20.0 %" in page
    assert len(pictures(page)) == 1 + 1 + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (49, 10, 1)},
        {"size": (10, 90, 3)},
        {"grad_cam": {"last": np.zeros((4, 4))}},
        {"occlusion": np.zeros((3, 3)), "size": (28, 28, 1)},
        {"occlusion": np.full((2, 5), -1e-8)},
        {"name": "last of all", "index": 7, "probability": 1e-9},
        {"name": "\u732b", "image": "\u732b.png"},
    ],
    ids=str,
)
def test_whatever_there_is_to_see_is_drawn(changes, tmp_path):
    image = seen(**changes)
    plots.decisive(image, 6, 2, tmp_path / "decisive.png", HOSTILE)
    plots.stages(image, tmp_path / "stages.png", HOSTILE)
    for file in tmp_path.iterdir():
        with Image.open(file) as drawn:
            assert drawn.width < 1800
            assert drawn.height < 900


@pytest.mark.parametrize("kernels", [(6, 5, 5, 1), (1, 1, 1, 1), (512, 3, 3, 3), (64, 11, 11, 3)])
def test_filters_of_any_number_are_drawn(kernels, tmp_path):
    plots.filters(explanation(kernels=kernels).filters, tmp_path / "filters.png")
    with Image.open(tmp_path / "filters.png") as image:
        assert image.width == 1650
        assert image.height < 1200


def test_a_network_without_convolutions_is_told_plainly(tmp_path):
    bare = seen(grad_cam={}, activations=())
    whole = dataclasses.replace(explanation(bare), filters=None)
    write_explanation(whole, tmp_path / "why.html", ABOUT)
    write_explanation(whole, tmp_path / "why.png", ABOUT)
    page = (tmp_path / "why.html").read_text()
    assert "net has no convolution" in page
    assert len(pictures(page)) == 1


def test_another_ending_and_a_missing_folder_are_told(tmp_path):
    with pytest.raises(UsageError, match=r"\.html or \.png.*why\.pdf"):
        write_explanation(explanation(), tmp_path / "why.pdf", ABOUT)
    with pytest.raises((MissingError, FileNotFoundError)):
        write_explanation(
            dataclasses.replace(explanation(), images=()), tmp_path / "no" / "why.png", ABOUT
        )
