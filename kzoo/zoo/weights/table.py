"""Which pretrained weights there are, from table.csv, which tools/weights.py writes.

Standard library only, so that lists and cards cost no import of Keras.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import UsageError, nearest

FOLDER = Path(__file__).parent
CROP = 0.875
"""ImageNet's usual: 224 of 256 pixels."""


@dataclass(frozen=True)
class Weights:
    """One file of pretrained weights, and how images were given to the network that has them.

    Attributes:
        name: of the architecture.
        tag: who published them and what they were trained on: "tv_in1k" is torchvision's, on
            ImageNet-1k.
        url: where they are downloaded from; empty where ``package`` alone has them.
        digest: as for `kzoo.fetch.fetch`; empty where none is published.
        package: "module/path": a Python package that carries the file.
        flavour: "keras" or "torch".
        mean, std: the normalization, (pixel - mean) / std, of red, green and blue or all alike.
        bgr: whether the file's first layer takes blue first.
        size: height and width in pixels.
        resize: what the shorter side is resized to before ``size`` is cut from the middle; None
            where the publisher does not tell.
        labels: the file of class names here, without its suffix.
        top1, top5: published accuracies in percent.
        licence: of the file.
    """

    name: str
    tag: str
    url: str
    digest: str
    package: str
    flavour: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool
    size: int
    resize: int | None
    labels: str
    top1: float | None
    top5: float | None
    licence: str

    @property
    def crop(self) -> float:
        """The share of an image's shorter side that the network looks at; `CROP` if not told."""
        return self.size / self.resize if self.resize else CROP

    @property
    def classes(self) -> Sequence[str]:
        """The names of the outputs, in their order."""
        return (FOLDER / f"{self.labels}.txt").read_text().splitlines()


@functools.cache
def _table() -> dict[str, tuple[Weights, ...]]:
    found: dict[str, list[Weights]] = {}
    with (FOLDER / "table.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key in ("mean", "std"):
                row[key] = tuple(float(value) for value in row[key].split())
            for key in ("top1", "top5"):
                row[key] = float(row[key]) if row[key] else None
            row |= {
                "bgr": row["bgr"] == "1",
                "size": int(row["size"]),
                "resize": int(row["resize"]) if row["resize"] else None,
            }
            found.setdefault(row["name"], []).append(Weights(**row))
    return {name: tuple(rows) for name, rows in found.items()}


def weights_of(name: str) -> tuple[Weights, ...]:
    """The pretrained weights of an architecture, the best published top-1 first."""
    return tuple(sorted(_table().get(name, ()), key=lambda row: -(row.top1 or 0)))


def find(name: str, tag: str) -> Weights:
    """The weights with a tag, or for "imagenet" the best trained on it.

    Raises:
        UsageError: there are none; says which there are.
    """
    known = weights_of(name)
    for row in known:
        if tag == row.tag or (tag == "imagenet" and row.labels == "imagenet"):
            return row
    tags = [row.tag for row in known]
    which = f"; there are {', '.join(tags)}" if tags else "; kzoo knows none for it"
    raise UsageError(
        f"{name} has no weights {tag!r}{nearest(tag, tags)}{which}, or give a file: "
        "--weights path/to/file"
    )
