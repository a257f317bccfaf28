"""A file that cannot be used has one outcome, told with its name and its reason."""

from __future__ import annotations

import io
import os
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from kzoo.data.load import load_data
from kzoo.errors import BadInputError, UsageError


def load(source, **options):
    return load_data(source, size=8, **options)


def encoded(kind: str, **options) -> bytes:
    pixels = np.random.default_rng(9).integers(0, 256, (64, 64, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


BAD = {
    "empty.jpg": (lambda _: b"", "empty"),
    "half.jpg": (lambda _: encoded("JPEG")[:1500], "truncated"),
    "half.png": (lambda _: encoded("PNG")[:1500], "truncated"),
    "half.webp": (lambda _: encoded("WEBP")[:1500], ""),
    "header.jpg": (lambda _: encoded("JPEG")[:30], ""),
    "text.jpg": (lambda _: b"hello" * 100, "not an image"),
    "notes.txt": (lambda _: b"a list of things", "not an image"),
    "vector.eps": (lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "phone.heic": (lambda _: b"\0\0\0\x18ftypheic" + b"\0" * 50, "convert it to JPEG"),
    "limit.png": (lambda png: png(8001, 8000, 8, 2), "8001 x 8000"),
    "warns.png": (lambda png: png(10000, 10000, 8, 2), "64 megapixels"),
    "bomb.png": (lambda png: png(50000, 50000, 8, 2), "64 megapixels"),
    "float.tif": (lambda _: float_tiff(), "32-bit"),
}


def float_tiff() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(data, "TIFF")
    return data.getvalue()


@pytest.fixture
def folder(photos):
    return photos({"cat": 10, "dog": 10})


@pytest.mark.parametrize("name", BAD)
def test_each_kind_of_bad_file(folder, png, name):
    make, reason = BAD[name]
    (folder / "cat" / name).write_bytes(make(png))
    with pytest.raises(BadInputError) as caught:
        load(folder)
    assert f"cat/{name}: " in str(caught.value)
    assert reason in str(caught.value)
    assert "--bad skip" in str(caught.value)
    dataset = load(folder, bad="skip")
    assert len(dataset.images) == len(dataset.labels) == len(dataset.paths) == 20
    assert f"cat/{name}" not in dataset.paths
    assert [(p.path, p.outcome) for p in dataset.problems] == [(f"cat/{name}", "left out")]
    assert reason in dataset.problems[0].reason


def test_no_pixel_of_a_bomb_is_decoded_and_pillow_does_not_warn(folder, png, monkeypatch):
    for name in ("limit.png", "warns.png", "bomb.png"):
        (folder / "cat" / name).write_bytes(BAD[name][0](png))
    loaded = []
    original = ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda image: loaded.append(image.size) or original(image)
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        dataset = load(folder, bad="skip", max_bad=0.2)
    assert set(loaded) == {(12, 10)}
    assert told == []
    assert len(dataset.problems) == 3


def test_a_photo_of_exactly_64_megapixels_is_not_refused_by_its_header(folder, png):
    (folder / "cat" / "large.png").write_bytes(png(8000, 8000, 8, 0))
    with pytest.raises(BadInputError, match="truncated"):  # and not "64 megapixels"
        load(folder)


def test_links_to_nowhere_and_pipes(folder):
    (folder / "cat" / "link.png").symlink_to(folder / "gone.png")
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.raises(BadInputError) as caught:
        load(folder)
    assert "cat/link.png: does not exist" in str(caught.value)
    assert "cat/pipe.png: not a file" in str(caught.value)


def test_fail_lists_all_of_them_up_to_twenty(folder):
    for i in range(3):
        (folder / "dog" / f"bad{i}.jpg").write_bytes(b"")
    with pytest.raises(BadInputError) as caught:
        load(folder)
    assert all(f"dog/bad{i}.jpg" in str(caught.value) for i in range(3))
    assert str(caught.value).startswith("3 of 23 files")
    for i in range(25):
        (folder / "dog" / f"bad{i}.jpg").write_bytes(b"")
    with pytest.raises(BadInputError, match="and 5 more"):
        load(folder)


def test_the_cap_on_what_is_skipped(folder):
    for i in range(2):
        (folder / "dog" / f"bad{i}.jpg").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"2 of 22 .*(\n.*)*max-bad 0\.05"):
        load(folder, bad="skip")
    assert len(load(folder, bad="skip", max_bad=2 / 22).images) == 20


def test_a_class_of_bad_files_alone(folder):
    (folder / "emu").mkdir()
    for i in range(3):
        (folder / "emu" / f"{i}.jpg").write_text("x")
    with pytest.raises(BadInputError, match="'emu' has no image that can be used"):
        load(folder, bad="skip", max_bad=1)


def test_all_files_bad(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "all" / name / f"{i}.jpg").write_text("x")
    with pytest.raises(BadInputError, match="6 of 6"):
        load(tmp_path / "all")
    with pytest.raises(BadInputError, match="'a' has no image"):
        load(tmp_path / "all", bad="skip", max_bad=1)


def test_too_few_are_left_of_a_class(photos):
    folder = photos({"cat": 10, "dog": 2})
    (folder / "dog" / "bad.jpg").write_bytes(b"")
    with pytest.raises(BadInputError, match="'dog' has 2 different images"):
        load(folder, bad="skip", max_bad=0.5)


def test_an_unknown_policy(folder):
    with pytest.raises(UsageError, match="did you mean skip"):
        load(folder, bad="skipp")
