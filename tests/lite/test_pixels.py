"""A file that takes a camera's frames sees in them what the network would be given."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kzoo.child import call
from kzoo.cli import cli
from kzoo.errors import BadInputError, UsageError
from kzoo.lite.check import check
from kzoo.lite.convert import convert
from kzoo.lite.inspect import inspect
from kzoo.lite.interpret import infer
from kzoo.lite.pixels import prepared, with_frame
from kzoo.lite.predict import predict
from kzoo.lite.quantize import quantize
from kzoo.measure.cost import preprocessing_share

KINDS = {
    "int8": {"recipe": "int8"},
    "int8 taking int8": {"recipe": "int8", "io": "int8"},
    "int8 taking float32": {"recipe": "int8", "io": "float32"},
    "float taking uint8": {},
    "float taking float32": {"io": "float32"},
    "dynamic": {"recipe": "dynamic"},
}


@pytest.fixture(scope="module")
def made(trained, digits, tmp_path_factory):
    """made(kind, frame): (its record, the file's bytes)."""
    folder, kept = tmp_path_factory.mktemp("frames"), {}

    def make(kind: str, frame=None):
        if (kind, frame) not in kept:
            path, options = folder / f"{len(kept)}.tflite", KINDS[kind]
            if "recipe" in options:
                images = digits if options["recipe"] == "int8" else None
                done = quantize(trained, path, calibrate=images, frame=frame, **options)
            else:
                done = convert(trained, path, frame=frame, **options)
            kept[kind, frame] = done, path.read_bytes()
        return kept[kind, frame]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_of_pixels_in_blocks_it_sees_the_pixels(kind, made, digits):
    """Each pixel of 32 x 32 is 4 x 4 of the frame, at whose sides is what it does not look at."""
    images = digits.images[:20]
    middle = images.repeat(4, axis=1).repeat(4, axis=2)
    frames = np.full((20, 128, 200, 1), 255, np.uint8)
    frames[:, :, 36:164] = middle
    plain, framed = (infer(made(kind, frame)[1], given, 1)[0]
                     for frame, given in ((None, images), ((128, 200), frames)))  # fmt: skip
    np.testing.assert_allclose(framed, plain, atol=1e-6)
    assert made(kind, (128, 200))[0].contents.input["shape"] == [1, 128, 200, 1]


@pytest.mark.parametrize("frame", [(32, 32), (33, 33), (96, 50), (480, 640), (20, 24)])
def test_a_frame_is_scaled_as_a_photo_is(frame, made):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 8), np.uint8)
    frames = np.array([Image.fromarray(each).resize(frame[::-1]) for each in coarse])[..., None]
    data = with_frame(made("float taking uint8")[1], frame)
    seen = prepared(data, frames)
    height = min(frame)
    top, left = ((side - height) // 2 for side in frame)
    for image, given in zip(seen, frames[..., 0], strict=True):
        square = Image.fromarray(given[top : top + height, left : left + height])
        expected = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR), np.float32)
        assert np.abs(image[..., 0] - expected).mean() < 2.5
    assert seen.shape == (6, 32, 32, 1)


def test_lines_do_not_alias(made):
    """Black and white lines of one pixel are gray, whatever their phase."""
    frames = np.zeros((2, 256, 256, 1), np.uint8)
    frames[0, ::2], frames[1, :, 1::2] = 255, 255
    seen = prepared(with_frame(made("float taking uint8")[1], (256, 256)), frames)
    assert np.abs(seen - 127.5).max() <= 1


def test_crop_is_of_the_largest_square(made):
    frames = np.zeros((1, 128, 128, 1), np.uint8)
    frames[:, 16:112, 16:112] = 200
    seen = prepared(with_frame(made("float taking uint8")[1], (128, 128), 0.75), frames)
    assert (seen == 200).all()


def test_the_commands_take_it_as_it_is(trained, digits, tmp_path):
    path = tmp_path / "framed.tflite"
    args = ["--calibrate", "digits", "-o", str(path), "--frame", "64x96"]
    shown = CliRunner().invoke(cli, ["quantize", str(trained), *args])
    assert shown.exit_code == 0, shown.output
    assert "% of the latency" in shown.output
    contents = inspect(path)
    assert contents.notes["frame"] == [64, 96]
    assert contents.notes["crop"] == 1.0
    photo = np.zeros((64, 96), np.uint8)
    photo[:, 16:80] = digits.images[0, ..., 0].repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    found, own = (predict(model, [tmp_path / "photo.png"])[0]["top"] for model in (path, trained))
    assert found[0]["class"] == own[0]["class"]
    with pytest.raises(BadInputError, match="takes frames"):
        check(path, against=trained, data=digits)
    assert 0 <= preprocessing_share(path) < 1


def test_what_is_left_without_it_is_the_network(made, tmp_path):
    record, data = made("int8", (128, 200))
    assert record.preprocessing["operators"][:2] == ["QUANTIZE", "SLICE"]
    (tmp_path / "framed.tflite").write_bytes(data)
    files = {"file": str(tmp_path / "framed.tflite"), "output": str(tmp_path / "rest.tflite")}
    assert call("kzoo.lite.pixels:without_front", **files) == record.preprocessing["operators"]
    rest, plain = inspect(tmp_path / "rest.tflite").operators, made("int8")[0].contents.operators
    # QUANTIZE of the pixels goes, too
    assert sum(rest.values()) == sum(plain.values()) - 1
    assert made("int8")[0].preprocessing == {}


def test_a_frame_has_pixels(trained, digits, tmp_path):
    with pytest.raises(UsageError, match="a frame is HxW"):
        convert(trained, tmp_path / "a.tflite", frame=(0, 10))
    with pytest.raises(UsageError, match="no frame"):
        quantize(trained, tmp_path / "a.tflite", calibrate=digits, recipe="mixed", frame=(64, 64))
    assert not list(tmp_path.iterdir())
    one = convert(trained, tmp_path / "a.tflite", frame=64)
    assert one.contents.input["shape"][1:3] == [64, 64]


def test_a_frame_is_compared_with_an_image_in_its_middle(made):
    for kind in ("int8", "float taking uint8"):
        for frame in ((64, 64), (64, 96), (100, 40)):
            done = made(kind, frame)[0]
            assert done.max_logit_error < (0.4 if kind == "int8" else 1e-4)
            assert done.agreement > 0.9


def test_the_size_of_the_network_is_no_frame(made):
    record = made("int8", (32, 32))[0]
    assert "frame" not in record.contents.notes
    assert record.contents.operators == made("int8")[0].contents.operators
