"""Features of a whole dataset, extracted once: ``<cache>/features/<key>/features.npy``.

The key is made of the layers before the cut with their weights and preprocessing, the content, size
and decoding of the images, and the engine: another weight, image, size or engine is another key,
and a new head on the same trunk is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.environment import version
from kzoo.errors import BadInputError, KzooError, MissingError, UsageError
from kzoo.files import atomic, cache_folder, digest, disk_errors, read_json, write_json
from kzoo.learn.inputs import matching_images
from kzoo.network.features import cut_tensors
from kzoo.network.identity import tensor_digests
from kzoo.network.model_file import functional, gives_probabilities
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

VERSION = 1
NAME = "features.npy"
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
    """

    name: str
    version: str
    run: Callable[[keras.Model, np.ndarray], Iterator[list[np.ndarray]]]


def keras_engine() -> Engine:
    """Keras' own prediction, on whatever backend it runs."""
    import keras

    backend = keras.backend.backend()
    return Engine("keras", f"{keras.__version__} {backend} {version(backend)}", _predict)


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
        engine: what runs the network; by default Keras.
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
    engine = engine or keras_engine()
    tensors = cut_tensors(model, cuts)
    images = _images_digest(data)
    folders = {}
    for cut, known in zip(tensors, tensor_digests(model, [*tensors.values()]), strict=True):
        key = [VERSION, known, _logarithm(model, cut), pooled, images, engine.name, engine.version]
        folders[cut] = cache_folder() / "features" / digest(key)
    # Two names of one tensor share a folder.
    arrays = {folder: _opened(folder) for folder in folders.values()}
    missing = {folder: cut for cut, folder in folders.items() if arrays[folder] is None}
    if missing:
        part = cut_model(model, [*missing.values()], pooled)
        _extract(part, [*missing], data.images, engine, progress)
        arrays |= {folder: _opened(folder) for folder in missing}
    for folder in missing:
        if arrays[folder] is None:
            raise MissingError(f"{str(folder)!r} was removed while it was read; try again")
    return {cut: arrays[folder] for cut, folder in folders.items()}


def _images_digest(data: Dataset) -> str:
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

    outputs = []
    for cut, tensor in cut_tensors(model, cuts).items():
        if pooled and len(tensor.shape) > 2:
            tensor = keras.ops.mean(tensor, axis=tuple(range(1, len(tensor.shape) - 1)))
        if _logarithm(model, cut):
            tensor = keras.ops.log(keras.ops.maximum(tensor, SMALLEST))
        outputs.append(tensor)
    return keras.Model(model.inputs[0], outputs, name=model.name)


def _logarithm(model: keras.Model, cut: str) -> bool:
    return cut == "logits" and gives_probabilities(model)


def _extract(
    part: keras.Model,
    folders: Sequence[Path],
    images: np.ndarray,
    engine: Engine,
    progress: Progress,
) -> None:
    """Writes the outputs for all images, batch by batch, into a folder each."""
    with disk_errors(folders[0]), contextlib.ExitStack() as files:
        sinks = []
        for folder, output in zip(folders, part.outputs, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            file = open(files.enter_context(atomic(folder / NAME)), "wb")  # noqa: SIM115
            files.enter_context(file)
            shape = (len(images), *output.shape[1:])
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            sinks.append(file)
        done = 0
        for batch in files.enter_context(contextlib.closing(engine.run(part, images))):
            for sink, rows in zip(sinks, batch, strict=True):
                if not np.isfinite(rows).all():
                    raise BadInputError(
                        f"{part.name} gives NaN or infinity for images {done} to "
                        f"{done + len(rows) - 1}; has it NaN in its weights?"
                    )
                sink.write(rows.astype("<f4").tobytes())
            done += len(batch[0])
            progress("extract features", done, len(images))
    for folder in folders:
        index = _index(np.load(folder / NAME, mmap_mode="r"))
        write_json(folder / "index.json", {"model": part.name, "engine": engine.name} | index)


def _index(array: np.ndarray) -> dict:
    # Against damage, not deceit: a hit should cost milliseconds, and SHA-256 takes four times that.
    return {"shape": list(array.shape), "crc32": zlib.crc32(array)}


def _opened(folder: Path) -> np.ndarray | None:
    """The array if it is as it was written, else None."""
    try:
        told = read_json(folder / "index.json")
        array = np.load(folder / NAME, mmap_mode="r")
        return array if _index(array).items() <= told.items() else None
    except (KzooError, OSError, ValueError, AttributeError, EOFError):
        return None
