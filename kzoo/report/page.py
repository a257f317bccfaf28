"""What every page of this room is made with: a template, and pictures inside it."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kzoo.errors import UsageError

if TYPE_CHECKING:
    import jinja2
    from PIL import Image

LARGEST_TILE = 192
"""Pixels; a page shows photos at half of it, and 24 of them should not weigh megabytes."""


def ending_of(path: str | os.PathLike, what: str, known: tuple[str, ...] = (".html",)) -> str:
    """The ending of a file that ``what`` is written to; raises UsageError if it is not known."""
    found = Path(path).suffix.lower()
    if found not in known:
        raise UsageError(f"{what} is written as {' or '.join(known)}; {str(path)!r} was given")
    return found


def template(name: str) -> jinja2.Template:
    """One of the pages of this room. What is put into it is text, whatever it holds."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def data_uri(png: bytes) -> str:
    """A picture as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def tile(image: Image.Image) -> str:
    """A photo as the address of itself, scaled down to what a page shows of it."""
    image.thumbnail((LARGEST_TILE, LARGEST_TILE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return data_uri(buffer.getvalue())


def pixelated(size: tuple[int, int]) -> bool:
    """Whether photos of this size (pixels) are so small that a page shows their pixels."""
    return max(size) <= LARGEST_TILE // 2
