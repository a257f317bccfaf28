"""Augmented copies of the training images, made once, so that two networks see the same ones.

A teacher's outputs can be cached only for images that come back. So every training image has a few
variants, each epoch takes the next, and each network gets them at its own size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.data.load import load_data
from kzoo.errors import BadInputError
from kzoo.files import digest
from kzoo.learn.augment import Augmenter
from kzoo.learn.features import computed_once, images_digest, keras_engine
from kzoo.progress import Progress, silent

VERSION = 1
BATCH = 64

Size = tuple[int, int]


@dataclass(frozen=True)
class Variants:
    """Images and labels by row, and which rows an epoch takes.

    Attributes:
        images: by size (h, w): uint8 (rows, h, w, c).
        labels: float32 (rows, classes): one-hot, or mixed where the images are.
        places: int64 (count, n): in each variant the row of every image of the dataset, -1 where it
            has none.
        identities: by size, what decides the images, for caches.
    """

    images: Mapping[Size, np.ndarray]
    labels: np.ndarray
    places: np.ndarray
    identities: Mapping[Size, str]

    def rows(self, chosen: np.ndarray, epoch: int) -> np.ndarray:
        """The rows of the images of these numbers in an epoch, int64, ascending."""
        return np.sort(self.places[epoch % len(self.places)][chosen])


def decoded_at(data: Dataset, size: Size, progress: Progress = silent) -> Dataset:
    """The same photos, decoded at another size; ``data`` itself where that is its own.

    Raises:
        BadInputError: the source has changed, or ``data`` holds other images than its source.
    """
    if data.size == size:
        return data
    # Which files are good enough was decided when ``data`` was loaded.
    options = {**data.split_settings, "bad": "skip", "max_bad": 1.0, "progress": progress}
    other = load_data(data.source, size=size, channels=data.channels, **options)
    same = other.paths == data.paths and np.array_equal(other.labels, data.labels)
    if not same or any(not np.array_equal(other.splits[k], data.splits[k]) for k in data.splits):
        raise BadInputError(
            f"{data.source} does not hold the images of the dataset any more, or never did; give "
            "its path, so that it is read at both networks' sizes"
        )
    return other


def variants(
    data: Mapping[Size, Dataset],
    layers: Sequence[str | Mapping[str, object]],
    count: int,
    progress: Progress = silent,
) -> Variants:
    """The images of the training split in ``count`` variants, cached; as they are without layers.

    Variant i depends on i, the layers and the data alone. It is made at the largest size and scaled
    down to the others (bilinear, antialiased), so that a shift or a mix is the same for all.

    Args:
        data: by size (h, w) the same photos; all sizes of the same shape.
        layers: of `Augmenter`.
        count: of variants, at least 1.
        progress: called after every batch.

    Raises:
        UsageError: a layer cannot do with such images.
        MissingError: no disk space, or no permission to write the cache.
    """
    source = data[max(data)]
    one_hot = np.eye(len(source.classes), dtype=np.float32)[source.labels]
    train = source.splits["train"]
    if not layers:
        places = np.full((1, len(one_hot)), -1)
        places[0, train] = train
        return Variants(
            images={size: each.images for size, each in data.items()},
            labels=one_hot,
            places=places,
            identities={size: images_digest(each) for size, each in data.items()},
        )
    # Mixing takes its partners from the batch: in the order of the files all would be of one class.
    orders = [source.order("train", 0, i) for i in range(count)]
    places = np.full((count, len(one_hot)), -1)
    for i, order in enumerate(orders):
        places[i, order] = i * len(train) + np.arange(len(train))
    what = hashlib.sha256(source.labels.tobytes() + train.tobytes()).hexdigest()
    key = [VERSION, images_digest(source), what, list(layers), count, keras_engine().version]
    keys = {str(size): [*key, size] for size in data} | {"labels": [*key, "labels"]}
    sizes = {str(size): size for size in data}

    def compute(missing: list[str]) -> Iterator[list[np.ndarray]]:
        augmenter, done = Augmenter(layers, seed=0), 0
        for order in orders:
            for start in range(0, len(order), BATCH):
                chosen = order[start : start + BATCH]
                images, labels = augmenter(
                    source.images[chosen].astype(np.float32), one_hot[chosen]
                )
                yield [
                    _pixels(images, sizes[name]) if name in sizes else np.float32(labels)
                    for name in missing
                ]
                done += len(chosen)
                progress("augment", done, count * len(train))

    rows = count * len(train)
    arrays = computed_once("variants", keys, compute, rows, {"data": source.source})
    return Variants(
        images={size: arrays[str(size)] for size in data},
        labels=arrays["labels"],
        places=places,
        identities={size: digest(keys[str(size)]) for size in data},
    )


def _pixels(images: np.ndarray, size: Size) -> np.ndarray:
    """uint8 images of a size, from float32 ones."""
    import keras

    if images.shape[1:3] != size:
        images = keras.ops.image.resize(images, size, interpolation="bilinear", antialias=True)
    return np.clip(np.rint(np.asarray(images)), 0, 255).astype(np.uint8)
