"""One file of a dataset before it is decoded, and what can be said about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAX_FILE_BYTES = 512 * 2**20
"""64 megapixels of 16-bit RGB are 403 MB: a larger file is a film or an archive, not a photo."""


class BadImage(ValueError):
    """A file that cannot be used; the message is the reason. It never leaves ``kzoo.data``."""


@dataclass(frozen=True)
class Problem:
    """A finding of validation about one file.

    ``outcome`` is "left out" (not in the dataset), "converted" (in it, after the change that
    ``reason`` tells) or "note" (in it as it is; worth a look).
    """

    path: str
    outcome: str
    reason: str


@dataclass(frozen=True)
class Item:
    """A labelled file. ``path`` is relative to the source, with "/".

    ``split`` is "train", "validation" or "test" where the source says so, else "".
    ``content`` is the file, or its bytes where there is none (the embedded digits).
    """

    path: str
    label: str
    split: str
    content: Path | bytes

    def read(self) -> bytes:
        """The file's bytes; raises BadImage with the reason when there are none to be had."""
        if isinstance(self.content, bytes):
            return self.content
        try:
            # A named pipe would block for ever, and a link may lead nowhere.
            if not self.content.is_file():
                raise BadImage("not a file" if self.content.exists() else "does not exist")
            size = self.content.stat().st_size
            if size > MAX_FILE_BYTES:
                raise BadImage(f"{size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
            data = self.content.read_bytes()
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror or error})") from error
        if not data:
            raise BadImage("empty (0 bytes)")
        return data
