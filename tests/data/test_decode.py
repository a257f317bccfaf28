"""Pixels come out as a person sees the photo, and each change is told."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from kzoo.data.decode import decode
from kzoo.data.load import load_data

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def flat(mode: str, colour, size=(8, 8)) -> Image.Image:
    return Image.new(mode, size, colour)


def test_plain_images_come_through_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        decoded, changes = decode(saved(Image.fromarray(pixels), kind), 8, 8, 3)
        assert np.array_equal(decoded, pixels), kind
        assert changes == []


def test_gray_and_colour():
    gray, changes = decode(saved(flat("L", 77), "PNG"), 8, 8, 3)
    assert gray.shape == (8, 8, 3)
    assert np.all(gray == 77)
    assert changes == []
    one, _ = decode(saved(flat("RGB", (77, 77, 77)), "PNG"), 8, 8, 1)
    assert one.shape == (8, 8, 1)
    assert np.all(one == 77)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk(kind):
    pixels, changes = decode(saved(flat("CMYK", (0, 255, 255, 0)), kind), 8, 8, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 3
    assert changes == ["CMYK converted to RGB"]


@pytest.mark.parametrize(("sixteen", "eight"), [(0, 0), (257, 1), (32768, 128), (65535, 255)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_gray(sixteen, eight, kind):
    image = Image.fromarray(np.full((8, 8), sixteen, np.uint16))
    pixels, changes = decode(saved(image, kind), 8, 8, 3)
    assert np.all(pixels == eight)
    assert changes == ["16 bits scaled to 8"]


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bit_colour_and_alpha(png, colour, channels):
    values = np.full((8, 8, channels), 65535, ">u2")
    values[:, :, 0] = 32768
    pixels, changes = decode(png(8, 8, 16, colour, values.tobytes()), 8, 8, 3)
    assert np.all(pixels == ((128, 255, 255) if channels > 2 else (128, 128, 128)))
    assert changes == ["16 bits scaled to 8"]


# EXIF 2.32, 4.6.4: where the stored row 0 and column 0 are seen; the stored image has red at its
# top left and green at its top right.
SEEN = {
    1: ("top left", "top right"),
    2: ("top right", "top left"),
    3: ("bottom right", "bottom left"),
    4: ("bottom left", "bottom right"),
    5: ("top left", "bottom left"),
    6: ("top right", "bottom right"),
    7: ("bottom right", "top right"),
    8: ("bottom left", "top left"),
}


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize(
    ("kind", "side"),  # 512: by the JPEG decoder's own scaling. A TIFF is turned by Pillow itself
    [("JPEG", 16), ("JPEG", 512), ("PNG", 16), ("TIFF", 16), ("WEBP", 16)],
)
def test_a_rotated_photo_is_turned_upright(orientation, kind, side):
    stored = flat("RGB", BLUE, (2 * side, side))
    stored.paste(RED, (0, 0, side, side // 2))
    stored.paste(GREEN, (side, 0, 2 * side, side // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    data = saved(stored, kind, exif=exif, **options.get(kind, {}))
    height, width = (16, 32) if orientation < 5 else (32, 16)
    pixels, changes = decode(data, height, width, 3)
    corners = {"top": 1, "left": 1, "bottom": height - 2, "right": width - 2}
    for place, colour in zip(SEEN[orientation], (RED, GREEN), strict=True):
        y, x = (corners[word] for word in place.split())
        assert np.abs(pixels[y, x].astype(int) - colour).max() < 12, place
    assert bool(changes) == (orientation != 1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = [flat("RGB", GREEN), flat("RGB", BLUE)]
    data = saved(flat("RGB", RED), kind, save_all=True, append_images=frames, **options)
    pixels, changes = decode(data, 8, 8, 3)
    assert np.all(pixels == RED)
    assert changes == ["first frame of several taken"]


def test_transparency_is_put_over_white():
    image = flat("RGBA", (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        pixels, changes = decode(saved(image, kind, **options), 8, 8, 3)
        assert np.all(pixels[:, :4] == WHITE), kind
        assert np.all(pixels[:, 4:] == RED), kind
        assert changes == ["transparency put over white"]
    half, _ = decode(saved(flat("RGBA", (0, 0, 0, 128)), "PNG"), 8, 8, 3)
    assert np.all(half == 127)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour(kind):
    image = flat("P", 0)
    image.putpalette([*BLUE, *RED])
    image.paste(1, (4, 0, 8, 8))
    pixels, changes = decode(saved(image, kind, transparency=0), 8, 8, 3)
    assert np.all(pixels[:, :4] == WHITE)
    assert np.all(pixels[:, 4:] == RED)
    assert changes == ["transparency put over white"]


def test_transparent_gray_of_sixteen_bits():
    data = saved(Image.fromarray(np.full((8, 8), 1000, np.uint16)), "PNG", transparency=1000)
    pixels, changes = decode(data, 8, 8, 1)
    assert np.all(pixels == 255)
    assert len(changes) == 2


def test_an_opaque_alpha_channel_changes_nothing():
    pixels, changes = decode(saved(flat("RGBA", (9, 8, 7, 255)), "PNG"), 8, 8, 3)
    assert np.all(pixels == (9, 8, 7))
    assert changes == []


def test_the_size_is_covered_and_the_centre_kept():
    wide = flat("RGB", RED, (64, 16))
    wide.paste(BLUE, (24, 0, 40, 16))
    pixels, _ = decode(saved(wide, "PNG"), 16, 16, 3)
    assert np.all(pixels == BLUE)
    pixels, _ = decode(saved(wide, "PNG"), 8, 32, 3)
    assert pixels.shape == (8, 32, 3)
    assert np.all(pixels[:, :7] == RED)
    assert np.all(pixels[:, 13:19] == BLUE)


def test_scaling_down_is_antialiased():
    stripes = np.zeros((128, 128), np.uint8)
    stripes[:, ::2] = 255
    pixels, _ = decode(saved(Image.fromarray(stripes), "PNG"), 8, 8, 1)
    assert np.all(np.abs(pixels.astype(int) - 127.5) < 3)


def test_the_faster_jpeg_decoding_gives_nearly_the_same():
    y, x = np.mgrid[:1200, :1600]
    waves = np.stack([np.sin(x / 60), np.cos(y / 45), np.sin((x + y) / 80)], axis=-1)
    image = Image.fromarray((127.5 + 127 * waves).astype(np.uint8))
    fast, _ = decode(saved(image, "JPEG", quality=95), 64, 64, 3)
    exact, _ = decode(saved(image, "PNG"), 64, 64, 3)
    difference = np.abs(fast.astype(int) - exact)
    assert difference.mean() < 1.5
    assert difference.max() < 16


def test_changes_are_told_of_the_dataset_and_again_from_the_store(photos):
    folder = photos({"cat": 3, "dog": 3})
    page = flat("CMYK", (0, 0, 0, 0))
    page.paste((0, 255, 255, 0), (0, 0, 8, 4))
    (folder / "cat" / "print.jpg").write_bytes(saved(page, "JPEG"))
    for _ in range(2):
        dataset = load_data(folder, size=8)
        (problem,) = dataset.problems
        assert (problem.path, problem.outcome) == ("cat/print.jpg", "converted")
        assert "CMYK" in problem.reason
        assert "cat/print.jpg" in dataset.paths
