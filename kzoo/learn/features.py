"""Features of a whole dataset, extracted once: ``<cache>/features/<key>/features.npy``.

The key is made of the layers before the cut with their weights and preprocessing, the content, size
and decoding of the images, and the engine: another weight, image, size or engine is another key,
and a new head on the same trunk is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.environment import version
from kzoo.errors import BadInputError, KzooError, MissingError, UsageError
from kzoo.files import atomic, cache_folder, digest, disk_errors, read_json, write_json
from kzoo.learn.inputs import matching_images
from kzoo.network.count import parameters
from kzoo.network.features import cut_tensors
from kzoo.network.identity import tensor_digests
from kzoo.network.model_file import functional, gives_probabilities
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

VERSION = 1
BATCH = 64
SMALLEST = float(np.finfo(np.float32).tiny)
"""Probabilities below it count as it, where logits are the logarithms of probabilities."""


@dataclass(frozen=True)
class Engine:
    """What runs a network over images.

    Attributes:
        name, version: of all that decides its arithmetic; part of the cache's key.
        run: gives, for a model and uint8 images (n, h, w, c), batch by batch in order, the float32
            arrays (batch, ...) of the model's outputs.
        most_bytes: of the weights of a network that it runs; Keras runs larger ones.
    """

    name: str
    version: str
    run: Callable[[keras.Model, np.ndarray], Iterator[list[np.ndarray]]]
    most_bytes: float = math.inf


def keras_engine() -> Engine:
    """Keras' own prediction, on whatever backend it runs."""
    import keras

    backend = keras.backend.backend()
    return Engine("keras", f"{keras.__version__} {backend} {version(backend)}", _predict)


def fitting(engine: Engine | None, model: keras.Model) -> Engine:
    """The engine; Keras where none is given, or where the network is too large for it."""
    if engine is None or 4 * parameters(model)[1] > engine.most_bytes:
        return keras_engine()
    return engine


def _predict(model: keras.Model, images: np.ndarray) -> Iterator[list[np.ndarray]]:
    import keras

    size = min(BATCH, len(images))
    for start in range(0, len(images), size):
        batch = images[start : start + size].astype(np.float32)
        count = len(batch)
        if count < size:  # filled up, so that one compiled shape serves all
            batch = np.concatenate([batch, np.zeros((size - count, *batch.shape[1:]), np.float32)])
        found = keras.tree.flatten(model.predict_on_batch(batch))
        yield [np.asarray(each, np.float32)[:count] for each in found]


def features(
    model: keras.Model,
    data: Dataset,
    cuts: Sequence[str],
    *,
    pooled: bool = True,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """What a network makes of every image of a dataset at several cuts, in one pass, cached.

    Args:
        model: functional, pixels (n, h, w, c) in [0, 255] -> (n, classes).
        data: images of the model's input size; their classes are of no concern.
        cuts: "stage1", "stage2", ..., "head", "logits", see `kzoo.network.features.cut_names`.
        pooled: maps (n, h, w, c) are averaged over h and w.
        engine: what runs the network, by default Keras; see `Engine` for large ones.
        progress: called after every batch of what is not cached.

    Returns:
        For each cut a read-only memmap float32 (n, c), or (n, h, w, c) of maps that are not pooled,
        whose row i belongs to ``data.images[i]``. Where the model gives probabilities, "logits" are
        their logarithms.

    Raises:
        UsageError: no cut is given, or one that the network does not have.
        BadInputError: the images do not fit the model, or it gives NaN or infinity.
        MissingError: no disk space, or no permission to write the cache.
    """
    if not cuts:
        raise UsageError("no cut is given; stage1, stage2, ..., head and logits are cuts")
    model = functional(model)
    data = matching_images(model.inputs[0].shape[1:], data)
    names = list(dict.fromkeys(cuts))
    part = cut_model(model, names, pooled)
    return extracted(part, names, data.images, images_digest(data), engine, progress)


def extracted(
    part: keras.Model,
    names: Sequence[str],
    images: np.ndarray,
    identity: str,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """The outputs of a network for all images, float32 (n, ...), under a name each, cached.

    Args:
        part: functional, images (n, h, w, c) -> a list of outputs.
        names: of the outputs, in their order; equal outputs may have several.
        images: uint8 (n, h, w, c).
        identity: of the images, such as their digest.
        engine, progress: as for `features`.

    Raises:
        BadInputError: an output is NaN or infinity.
        MissingError: no disk space, or no permission to write the cache.
    """
    import keras

    engine = fitting(engine, part)
    known = zip(names, tensor_digests(part, part.outputs), strict=True)
    keys = {name: [VERSION, each, identity, engine.name, engine.version] for name, each in known}

    def compute(missing: list[str]) -> Iterator[list[np.ndarray]]:
        outputs = [part.outputs[names.index(name)] for name in missing]
        asked = keras.Model(part.inputs[0], outputs, name=part.name)
        # XLA's maximum of NaN and 0 is 0: behind a ReLU nothing would show.
        for weight in asked.weights:
            if not np.isfinite(np.asarray(weight, np.float32)).all():
                raise BadInputError(
                    f"{part.name} has NaN in its weights, {weight.path}, or infinity"
                )
        done = 0
        with contextlib.closing(engine.run(asked, images)) as batches:
            for batch in batches:
                if not all(np.isfinite(rows).all() for rows in batch):
                    raise BadInputError(
                        f"{part.name} gives NaN or infinity for images {done} to "
                        f"{done + len(batch[0]) - 1}; has it NaN in its weights?"
                    )
                yield [rows.astype("<f4") for rows in batch]
                done += len(batch[0])
                progress("extract features", done, len(images))

    told = {"model": part.name, "engine": engine.name}
    return computed_once("features", keys, compute, len(images), told)


def images_digest(data: Dataset) -> str:
    """The store's key where the images are those of a store, else the hash of their pixels."""
    whole = isinstance(data.images.base, mmap.mmap)  # the file, not a part or a copy of it
    folder = data.images_file.parent
    if whole and folder.parent == cache_folder() / "store":
        return folder.name
    state = hashlib.sha256(str(data.images.shape).encode())
    for image in data.images:
        state.update(np.ascontiguousarray(image))
    return state.hexdigest()


def cut_model(model: keras.Model, cuts: Sequence[str], pooled: bool = True) -> keras.Model:
    """The network with its features at the cuts, (n, c) each where pooled, as its outputs."""
    import keras

    outputs = [cut_features(model, cut, pooled) for cut in cuts]
    return keras.Model(model.inputs[0], outputs, name=model.name)


def cut_features(model: keras.Model, cut: str, pooled: bool = True) -> keras.KerasTensor:
    """The tensor of a network at a cut, as `features` has it."""
    import keras

    (tensor,) = cut_tensors(model, [cut]).values()
    if pooled and len(tensor.shape) > 2:
        tensor = keras.ops.mean(tensor, axis=tuple(range(1, len(tensor.shape) - 1)))
    if cut == "logits" and gives_probabilities(model):
        tensor = keras.ops.log(keras.ops.maximum(tensor, SMALLEST))
    return tensor


def computed_once(
    kind: str,
    keys: Mapping[str, object],
    compute: Callable[[list[str]], Iterator[list[np.ndarray]]],
    count: int,
    told: Mapping[str, object],
) -> dict[str, np.ndarray]:
    """Arrays under a name each, read-only memory maps of ``<cache>/<kind>/<key>/<kind>.npy``.

    Args:
        kind: what they are, such as "features".
        keys: all that decides each, as JSON; equal keys are one array.
        compute: gives the rows of those that are missing, batch by batch in their order.
        count: rows of each.
        told: what else is written beside each.

    Raises:
        MissingError: no disk space, or no permission to write the cache.
    """
    folders = {name: cache_folder() / kind / digest(key) for name, key in keys.items()}
    arrays = {folder: _opened(folder) for folder in folders.values()}
    missing = {folder: name for name, folder in folders.items() if arrays[folder] is None}
    if missing:
        _write([*missing], compute([*missing.values()]), count, told)
        arrays |= {folder: _opened(folder) for folder in missing}
    for folder in missing:
        if arrays[folder] is None:
            raise MissingError(f"{str(folder)!r} was removed while it was read; try again")
    return {name: arrays[folder] for name, folder in folders.items()}


def _file(folder: Path) -> Path:
    return folder / f"{folder.parent.name}.npy"


def _write(
    folders: Sequence[Path],
    batches: Iterator[list[np.ndarray]],
    count: int,
    told: Mapping[str, object],
) -> None:
    with disk_errors(folders[0]), contextlib.ExitStack() as stack:
        files = []
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(stack.enter_context(atomic(_file(folder))), "wb")  # noqa: SIM115
            files.append(stack.enter_context(file))
        for batch in stack.enter_context(contextlib.closing(batches)):
            for file, rows in zip(files, batch, strict=True):
                if not file.tell():
                    described = np.lib.format.dtype_to_descr(rows.dtype)
                    shape = (count, *rows.shape[1:])
                    header = {"descr": described, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(rows.tobytes())
    for folder in folders:
        index = _index(np.load(_file(folder), mmap_mode="r"))
        write_json(folder / "index.json", {**told, **index})


def _index(array: np.ndarray) -> dict:
    # Against damage, not deceit: a hit should cost milliseconds, and SHA-256 takes four times that.
    return {"shape": list(array.shape), "crc32": zlib.crc32(array)}


def _opened(folder: Path) -> np.ndarray | None:
    """The array if it is as it was written, else None."""
    try:
        told = read_json(folder / "index.json")
        array = np.load(_file(folder), mmap_mode="r")
        return array if _index(array).items() <= told.items() else None
    except (KzooError, OSError, ValueError, AttributeError, EOFError):
        return None
