"""From a file's bytes to upright 8-bit pixels of the size asked, and what was changed for it.

A photo arrives as JPEG with a rotation tag, CMYK from a printer, 16 bits from a microscope, a GIF
of 40 frames, a PNG with a hole in it; or as a bomb, half a file, a text. Each has its outcome.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kzoo.data.item import BadImage

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is tried. Not all that Pillow knows: its EPS reader runs Ghostscript on what it is given."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

Image.init()  # registers the readers; not left to the first of many threads


def decode(data: bytes, height: int, width: int, channels: int) -> tuple[np.ndarray, list[str]]:
    """Returns pixels, uint8 (height, width, channels), and the changes made to get them.

    The image is turned upright, put over white where it is transparent, scaled so that it covers
    the size (bilinear, antialiased) and cropped at the centre.

    Raises:
        BadImage: the bytes are no image, or part of one, or claim more than 64 megapixels.
    """
    image = _open(data)
    changes = []
    try:
        # Pillow reads 16-bit colour as its high bytes: at most one level from the rounded value.
        sixteen = any(re.search(";16[BLN]", str(tile.args)) for tile in image.tile)
        if sixteen and image.mode[0] != "I":
            changes.append("16 bits scaled to 8")
        # The second picture of a phone's MPO is a depth or gain map, and no frame.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            changes.append("first frame of several taken")
        turned_by_pillow = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1) in _UPRIGHT  # a TIFF
        # A JPEG is decoded at 1/2, 1/4 or 1/8 where that is still twice the size asked for: the
        # longer side counts for both, because the image may be about to be turned.
        image.draft(None, (2 * max(height, width),) * 2)
        image.load()
        orientation = _orientation(image)  # not before: a PNG's stands at its end
        image = _in_eight_bits(image, changes)
        image = _without_alpha(image, changes)
        if image.mode == "CMYK":
            changes.append("CMYK converted to RGB")
        if orientation in _UPRIGHT or turned_by_pillow:
            changes.append("turned upright by its EXIF orientation")
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
        image = image.convert("RGB" if channels == 3 else "L")
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow raises nearly every class there is on a damaged file
        raise BadImage(f"damaged or truncated ({error})") from error
    return np.asarray(image).reshape(height, width, channels), changes


def _open(data: bytes) -> Image.Image:
    """Reads the header only."""
    try:
        image = Image.open(
            io.BytesIO(data), formats=[each for each in FORMATS if each in Image.OPEN]
        )
    except Image.DecompressionBombError as error:
        raise BadImage("its header claims more than 64 megapixels") from error
    except UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"hevc"):
            raise BadImage("a HEIC photo; convert it to JPEG") from error
        raise BadImage(f"not an image (read are {', '.join(FORMATS)})") from error
    except Exception as error:  # as above
        raise BadImage(f"its header is damaged ({error})") from error
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise BadImage(
            f"its header claims {image.width} x {image.height} pixels; the limit is 64 megapixels"
        )
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF does not make the photo bad
        return 1


def _in_eight_bits(image: Image.Image, changes: list[str]) -> Image.Image:
    """Pillow would clip 16-bit gray at 255; here 65535 becomes 255, and 32768 becomes 128."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise BadImage("32-bit pixels, which have no defined white; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        transparent = image.info.get("transparency")
        if transparent is not None:
            values[values == transparent] = 65535
            changes.append("transparency put over white")
        changes.append("16 bits scaled to 8")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    return image


def _without_alpha(image: Image.Image, changes: list[str]) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB") if image.mode in ("P", "PA") else image
    image = image.convert("RGBA")
    if image.getextrema()[3][0] == 255:
        return image.convert("RGB")
    changes.append("transparency put over white")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
