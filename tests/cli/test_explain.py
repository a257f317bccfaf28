"""`kzoo explain` writes a page or a picture, keeps what is there, and tells what was wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.cli import cli
from kzoo.errors import KzooError
from kzoo.network.model_file import save_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two small networks, a photo and what is none."""
    folder = tmp_path_factory.mktemp("explain")
    for name in ("lenet5", "row_lstm"):
        model = kzoo.build(name, classes=4, seed=0)
        save_model(model, folder / f"{name}.keras", notes={"classes": ["cat", "cow", "dog", "pig"]})
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(folder / "photo.png")
    (folder / "text.png").write_text("no image")
    (folder / "kept.html").write_text("of great worth")
    return folder


@pytest.fixture
def command(place, monkeypatch, capfd):
    monkeypatch.chdir(place)

    def run(*arguments: str) -> str:
        capfd.readouterr()
        cli(["explain", *arguments], standalone_mode=False)
        return capfd.readouterr().out

    return run


def test_a_page_and_a_picture_are_written(kzoo_command, place, command):
    done = kzoo_command("explain", "lenet5.keras", "photo.png", "-o", "why.html", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for said in ("photo.png", "stage1, stage2", "less probable", "why.html"):
        assert said in done.stdout
    page = (place / "why.html").read_text()
    assert "lenet5 on photo.png" in page
    assert page.count("data:image/png;base64,") == 4
    record = json.loads(command("lenet5.keras", "photo.png", "-o", "why.png", "--json"))
    assert record["output"] == "why.png"
    with Image.open(place / "why.png") as image:
        assert image.format == "PNG"
        assert np.asarray(image).std() > 10
    (seen,) = record["images"]
    assert seen["explained"]["class"] == seen["top"][0]["class"]
    assert sum(row["probability"] for row in seen["top"]) == pytest.approx(1, abs=1e-4)
    assert record["occlusion"] == {"patch": 6, "stride": 2, "gray": 127.5}


def test_the_class_the_patch_and_the_stride_are_asked(command):
    asked = ("--class", "cow", "--patch", "8", "--stride", "8")
    record = json.loads(
        command("lenet5.keras", "photo.png", "photo.png", "-o", "cow.html", *asked, "--json")
    )
    assert [seen["explained"]["class"] for seen in record["images"]] == ["cow", "cow"]
    assert record["occlusion"] == {"patch": 8, "stride": 8, "gray": 127.5}
    assert record["images"][0]["occlusion"]["shape"] == [4, 4]


def test_a_network_without_convolutions_says_so(command, place):
    printed = command("row_lstm.keras", "photo.png", "-o", "rows.html", "--stride", "7")
    assert "row_lstm has no convolution" in printed
    assert "row_lstm has no convolution" in (place / "rows.html").read_text()


def test_what_is_there_is_kept_unless_forced(command, place):
    with pytest.raises(KzooError, match=r"kept\.html.*--force") as caught:
        command("lenet5.keras", "photo.png", "-o", "kept.html")
    assert caught.value.exit_code == 2
    assert (place / "kept.html").read_text() == "of great worth"
    command("lenet5.keras", "photo.png", "-o", "kept.html", "--stride", "16", "--force")
    assert "lenet5 on photo.png" in (place / "kept.html").read_text()


@pytest.mark.parametrize(
    ("code", "said", "arguments"),
    [
        (2, r"\.html or \.png; 'x\.jpg'", ["lenet5.keras", "photo.png", "-o", "x.jpg"]),
        (2, "did you mean dog", ["lenet5.keras", "photo.png", "-o", "x.png", "--class", "dgo"]),
        (2, "patch is from 1", ["lenet5.keras", "photo.png", "-o", "x.png", "--patch", "99"]),
        (2, r"the \.keras that it was made from", ["net.tflite", "photo.png", "-o", "x.png"]),
        (2, "weights of its own", ["lenet5.keras", "photo.png", "-o", "x.png", "--weights", "a"]),
        (2, "did you mean lenet5", ["lenet", "photo.png", "-o", "x.png"]),
        (3, r"'no\.keras' does not exist", ["no.keras", "photo.png", "-o", "x.png"]),
        (3, r"'no\.png' does not exist", ["lenet5.keras", "no.png", "-o", "x.png"]),
        (3, "make it first", ["lenet5.keras", "photo.png", "-o", "no/x.png"]),
        (4, r"text\.png.*not an image", ["lenet5.keras", "text.png", "-o", "x.png"]),
    ],
)
def test_mistakes_end_in_one_message_and_nothing_is_written(code, said, arguments, command, place):
    before = sorted(place.iterdir())
    with pytest.raises(KzooError, match=said) as caught:
        command(*arguments)
    assert caught.value.exit_code == code
    assert sorted(place.iterdir()) == before
