"""Weights that Keras wrote, as arrays, without building a model of them: HDF5 in three layouts.

- ``.h5`` of Keras 1 to 3: groups that list their ``layer_names`` and ``weight_names``; in the file
  of a whole model they lie under ``model_weights``, beside a config (``keras/src/legacy/saving``).
- ``.weights.h5`` of Keras 3: ``layers/conv2d_1/vars/0``, numbered by class, with the layer's own
  name as an attribute (``keras/src/saving/saving_lib.py``).
- ``.keras``: a zip of the same HDF5 and a config.

Of a config the order, the names and the normalization of pixels are taken.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import mmap
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from kzoo.child import blame, call_shared
from kzoo.errors import BadInputError
from kzoo.files import disk_errors
from kzoo.zoo.weights.archive import MAX_EXPANSION, SMALL, member, open_archive
from kzoo.zoo.weights.checkpoint import Checkpoint
from kzoo.zoo.weights.float32 import float32_of_bits
from kzoo.zoo.weights.keras_config import LAYERS, UNREADABLE, layers_of, normalization

if TYPE_CHECKING:
    import h5py

WEIGHTS = "model.weights.h5"
CONFIG = "config.json"

SECONDS = 60
BYTES_PER_SECOND = 20e6
"""A file gets `SECONDS` and the time of its size on a slow disk."""

LAYERS_2_13 = "_layer_checkpoint_dependencies"
"""What Keras 2.13 called the group `LAYERS`."""
TOP_LEVEL = "top_level_model_weights"
"""The group of variables that belong to the model itself and to no layer."""
TRAINING = ("optimizer", "metrics", "loss")
"""Groups of the file that are no weights of the network."""

PLAIN = ("kernel", "bias")
SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias")
SCALE = ("gamma", "beta")
STATISTICS = ("moving_mean", "moving_variance")
VARIABLES = {
    "dense": PLAIN,
    "conv1d": PLAIN,
    "conv2d": PLAIN,
    "conv3d": PLAIN,
    "conv2d_transpose": PLAIN,
    "depthwise_conv2d": PLAIN,
    "separable_conv2d": SEPARABLE,
    "layer_normalization": SCALE,
    "group_normalization": SCALE,
    "batch_normalization": (*SCALE, *STATISTICS),
    "normalization": ("mean", "variance", "count"),
}
"""Class of a layer → its variables in the order in which Keras 3 numbers them."""
SWITCHES = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
"""Variable → the entry of the layer's config that may leave it out."""


def read_keras(path: Path) -> Checkpoint:
    """The float weights of a Keras file.

    Read in a child process: on a damaged file the HDF5 library may crash, or loop without end.
    """
    seconds = SECONDS + path.stat().st_size / BYTES_PER_SECOND
    with tempfile.TemporaryDirectory() as folder, disk_errors(folder):
        output = f"{folder}/weights.npz"
        with blame("it is damaged, and the HDF5 library failed on it"):
            told = call_shared(
                f"{__name__}:extract", timeout=seconds, path=str(path), output=output
            )
        with np.load(output) as saved:
            arrays = {name: saved[f"arr_{number}"] for number, name in enumerate(told["names"])}
    pixels = told["normalization"]
    return Checkpoint(arrays, told["kinds"], pixels and tuple(map(np.array, pixels)))


def extract(path: str, output: str) -> dict:
    """In the child process: writes the arrays to ``output``, and returns what else there is."""
    read = _read_archive if zipfile.is_zipfile(path) else _read_h5
    found = read(Path(path))
    np.savez(output, *found.arrays.values())
    pixels = found.normalization and [each.tolist() for each in found.normalization]
    return {"names": list(found.arrays), "kinds": found.kinds, "normalization": pixels}


def _read_archive(path: Path) -> Checkpoint:
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        open_archive(path, data) as archive,
    ):
        config = bytes(member(archive, data, CONFIG))
        weights = io.BytesIO(member(archive, data, WEIGHTS))
    try:
        layers = layers_of(json.loads(config))
    except UNREADABLE as error:
        raise BadInputError(f"its {CONFIG} is damaged ({type(error).__name__}: {error})") from error
    return _read_h5(weights, layers)


def _read_h5(file: Path | BinaryIO, layers: Mapping[str, dict] | None = None) -> Checkpoint:
    """Reads any layout; ``layers`` are the groups of a Keras 3 file in order, where known."""
    import h5py

    try:
        with h5py.File(file, "r") as root:
            layers = _layers(root) if layers is None else layers
            group = _child(root, "model_weights") if _has(root, "model_weights") else root
            listed = _names(group, "layer_names")
            kinds: dict[str, str] = {}
            found = _listed(group, listed, layers) if listed else _numbered(root, layers, kinds)
            arrays = _arrays(found, MAX_EXPANSION * root.id.get_filesize() + SMALL)
            return Checkpoint(arrays, kinds, normalization(layers, arrays))
    except BadInputError:
        raise
    except Exception as error:  # h5py raises errors of eight classes on a damaged file
        raise BadInputError(f"the HDF5 file is damaged or cut short ({error})") from error


def _layers(root: h5py.Group) -> dict[str, dict]:
    """As `layers_of`, of a whole model in HDF5; empty where the file has the weights alone."""
    try:
        return layers_of(json.loads(root.attrs["model_config"]))
    except UNREADABLE:
        return {}


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; one above 64 kB is split into ``layer_names0``, ``layer_names1`` ..."""
    numbered = (f"{attribute}{number}" for number in itertools.count())
    parts = itertools.takewhile(group.attrs.__contains__, numbered)
    names = [name for part in (attribute, *parts) for name in group.attrs.get(part, ())]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _listed(
    group: h5py.Group, layers: list[str], described: Mapping[str, dict]
) -> Iterator[tuple[str, h5py.Dataset]]:
    if _has(group, TOP_LEVEL):
        layers = [*layers, TOP_LEVEL]
    for layer in layers:
        inside = _child(group, layer)
        weights = {name: _child(inside, name) for name in _names(inside, "weight_names")}
        if len({_layer(name) for name in weights}) > 1:
            weights = _as_made(layer, weights, described)
        for weight, dataset in weights.items():
            name = re.sub(r":\d+$", "", weight)
            yield name if name.startswith(f"{layer}/") else f"{layer}/{name}", dataset


def _layer(weight: str) -> str:
    return weight.rpartition("/")[0]


def _as_made(
    model: str, weights: dict[str, h5py.Dataset], described: Mapping[str, dict]
) -> dict[str, h5py.Dataset]:
    """The weights of a model in the model, in the order of its layers.

    Keras lists what is trainable first: of a base that is frozen in part, the last layers. The
    config knows better.
    """
    outer = [each for each, layer in described.items() if layer["config"]["name"] == model]
    inner = [
        layer["config"]["name"]
        for each, layer in described.items()
        if any(each.startswith(f"{group}/") for group in outer)
    ]
    rank = {name: number for number, name in enumerate(inner)}

    def place(weight: str) -> int | None:
        """Some layers' names have slashes, and some builders put a name before."""
        parts = _layer(weight).split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((rank[tail] for tail in tails if tail in rank), None)

    if len(rank) == len(inner) and None not in map(place, weights):
        return dict(sorted(weights.items(), key=lambda item: place(item[0])))
    if _trained_alike(weights):
        return weights
    raise BadInputError(
        f"the order of the layers in {model!r} cannot be told, as after some were frozen; save the "
        "whole model: model.save('net.keras')"
    )


def _trained_alike(weights: Mapping[str, h5py.Dataset]) -> bool:
    """Whether all layers were trainable, or none was: then they are listed as they were made."""
    layers = [_layer(name) for name in weights]
    runs = [layer for layer, _ in itertools.groupby(layers)]
    if len(runs) == len(set(runs)):
        # None was, or there are no statistics: the kernel that sees the image begins.
        kernels = [each.shape[2] for each in weights.values() if len(each.shape) == 4]
        return not kernels or kernels[0] == min(kernels)
    # All were: statistics alone come last, layer by layer as what is trained.
    still = [re.sub(r":\d+$", "", name).endswith(STATISTICS) for name in weights]
    first = still.index(True) if any(still) else len(still)
    after = [*dict.fromkeys(layers[first:])]
    return all(still[first:]) and after == [name for name in dict.fromkeys(layers) if name in after]


def _numbered(
    root: h5py.Group, layers: Mapping[str, dict], kinds: dict[str, str]
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Notes in ``kinds`` which class's a layer is that ``layers`` does not have."""
    import h5py

    variables: dict[str, dict[str, h5py.Dataset]] = {}
    own_names: dict[str, str] = {}

    def see(path: str, item: h5py.Group | h5py.Dataset) -> None:
        *group, container, last = ["", *path.split("/")]
        layer = "/".join(group)[1:].replace(LAYERS_2_13, LAYERS)
        if isinstance(item, h5py.Group) and last == "vars":
            own_names[f"{layer}/{container}".strip("/")] = item.attrs.get("name")
        elif isinstance(item, h5py.Dataset) and container == "vars":
            variables.setdefault(layer, {})[last] = item

    root.visititems(see)
    order = {layer: rank for rank, layer in enumerate(layers)}

    def place(layer: str) -> tuple:
        described = layer
        while described and described not in order:
            described = described.rpartition("/")[0]
        return order.get(described, len(order)), _natural(layer)

    for layer in sorted(variables, key=place):
        if layer.split("/")[0] in TRAINING:
            continue
        config = layers.get(layer, {}).get("config")
        kind = re.sub(r"_\d+$", "", layer.rpartition("/")[2])
        numbers = sorted(variables[layer], key=_natural)
        names = _variables(kind, config, len(numbers)) or numbers
        label = _label(layer, layers, own_names)
        if layer not in layers:
            kinds[label] = re.sub(r"_\d+(?=/|$)", "", layer)
        for number, name in zip(numbers, names, strict=True):
            yield f"{label}/{name}", variables[layer][number]


def _label(layer: str, layers: Mapping[str, dict], own_names: Mapping[str, str]) -> str:
    """``layers/functional/layers/conv2d_1`` → ``backbone/stem_conv``, where names are known."""
    parts, label = layer.split("/") if layer else [], []
    for end in range(1, len(parts) + 1):
        group = "/".join(parts[:end])
        name = own_names.get(group) or layers.get(group, {}).get("config", {}).get("name")
        if name or parts[end - 1] != LAYERS:
            label.append(name or parts[end - 1])
    return "/".join(label) or own_names.get("") or "model"


def _variables(kind: str, config: Mapping | None, count: int) -> list[str]:
    """The names of a layer's ``count`` variables; empty where they cannot be told."""
    names = list(VARIABLES.get(kind, ()))
    if config is not None:
        names = [name for name in names if config.get(SWITCHES.get(name), True)]
    elif len(names) == count + 1 and names[-1] == "bias":
        names.pop()
    return names if len(names) == count else []


def _natural(path: str) -> list[str | int]:
    """``conv2d_2`` before ``conv2d_10``."""
    parts = re.split(r"([0-9]+)", path)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)]


def _has(group: h5py.Group, name: str) -> bool:
    return group.id.links.exists(name.encode())


def _child(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
    """What lies at ``path`` in this file; a link may lead to any other file of the machine."""
    from h5py import h5l

    for part in filter(None, path.split("/")):
        if not _has(group, part):
            raise BadInputError(f"the HDF5 file has no {part!r} in {group.name!r}")
        if group.id.links.get_info(part.encode()).type != h5l.TYPE_HARD:
            raise BadInputError(f"{part!r} in {group.name!r} is a link; links are not followed")
        group = group[part]
    return group


def _arrays(found: Iterable[tuple[str, h5py.Dataset]], limit: int) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    asked = 0
    for name, dataset in found:
        if name in arrays:
            raise BadInputError(f"two weights are called {name!r}")
        if dataset.external or dataset.is_virtual:
            raise BadInputError(f"{dataset.name!r} lies in another file; links are not followed")
        half = dataset.attrs.get("dtype") == "bfloat16"
        if dataset.shape is None or not (half or dataset.dtype.kind == "f"):
            continue
        asked += 4 * math.prod(dataset.shape)
        if asked > limit:
            raise BadInputError(f"{dataset.name!r} of shape {dataset.shape} is a compression bomb")
        if half:
            arrays[name] = float32_of_bits(np.asarray(dataset[()]).view("<u2"))
        else:
            arrays[name] = np.asarray(dataset.astype(np.float32)[()])
    return arrays
