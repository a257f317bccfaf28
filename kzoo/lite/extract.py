"""LiteRT as the engine of `kzoo.learn.features`, in child processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.child import Worker, blame, call_shared
from kzoo.environment import cores, version
from kzoo.errors import BadInputError
from kzoo.learn.features import Engine
from kzoo.network.model_file import save_model

if TYPE_CHECKING:
    import keras

BATCH = 8
"""Images per invocation: one at a time was 1.3 times slower (MobileNetV2 at 96 pixels, 2 cores), 32
no faster."""
CHUNK = 256
"""Images per call of the child."""
MOST_BYTES = 256 << 20
"""Weights of a network that it runs. The converter takes some 18 times as much memory: for VGG-16,
of 553 MB, 10 GB were measured."""
TOLERANCE = 1e-3
"""Largest error of a feature, in its standard deviations; 1e-5 is usual."""


def litert_engine() -> Engine:
    """The network as a float32 .tflite: several times as fast as Keras where it is convolutions.

    It takes seconds to convert, so it pays for a thousand images, not for a hundred. Networks of
    more than MOST_BYTES are left to Keras.
    """
    made_by = f"{version('ai-edge-litert')} from tensorflow {version('tensorflow')}"
    return Engine("litert", made_by, _run, MOST_BYTES)


def fast_engine() -> Engine | None:
    """`litert_engine` where TensorFlow and LiteRT are installed; else None, for Keras itself."""
    installed = find_spec("tensorflow") and find_spec("ai_edge_litert")
    return litert_engine() if installed else None


def _run(model: keras.Model, images: np.ndarray) -> Iterator[list[np.ndarray]]:
    with converted(model, images[:BATCH]) as run:
        yield from run(images)


@contextmanager
def converted(
    model: keras.Model, compared: np.ndarray
) -> Iterator[Callable[[np.ndarray], Iterator[list[np.ndarray]]]]:
    """Gives a function of uint8 images (n, h, w, c) that runs the model in LiteRT, CHUNK by CHUNK.

    Raises:
        BadInputError: LiteRT has no operators for it, or gives other features for the ``compared``
            images, BATCH at most, than TensorFlow does.
    """
    what = f"LiteRT cannot run {model.name}; extract its features with Keras"
    worker = Worker()
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder, blame(what):

        def run(images: np.ndarray) -> Iterator[list[np.ndarray]]:
            for start in range(0, len(images), CHUNK):
                np.save(f"{folder}/images.npy", images[start : start + CHUNK])
                worker.call("kzoo.lite.extract:invoke", folder=folder, cores=cores())
                yield [np.load(f"{folder}/found{i}.npy") for i in range(len(model.outputs))]

        try:
            save_model(model, Path(folder, "model.keras"))
            np.save(f"{folder}/compared.npy", compared)
            call_shared("kzoo.lite.extract:translate", folder=folder)
            _compare(next(run(compared)), folder, what)
            yield run
        finally:
            worker.close()


def translate(folder: str) -> None:
    """In the child: ``model.keras`` as ``model.tflite``, and what TensorFlow computes.

    The latter are ``expected0.npy`` and so on, one per output, for the images ``compared.npy``.
    """
    import keras
    import tensorflow as tf

    import kzoo.compress.fake_quant  # noqa: F401, a network in training may have its layers
    from kzoo.lite.translate import freeze

    net = keras.saving.load_model(f"{folder}/model.keras", compile=False, safe_mode=True)
    compared = np.load(f"{folder}/compared.npy")
    frozen = freeze(net, cast=True, batch=BATCH)
    data = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
    Path(folder, "model.tflite").write_bytes(data)
    count = len(compared)
    filled = np.concatenate([compared, np.zeros((BATCH - count, *compared.shape[1:]), np.uint8)])
    for i, values in enumerate(tf.nest.flatten(frozen(tf.constant(filled)))):
        np.save(f"{folder}/expected{i}.npy", values[:count])


def invoke(folder: str, cores: int) -> None:
    """In the child: the outputs for ``images.npy`` as ``found0.npy`` and so on.

    An interpreter per core: threads inside of one wait for each other after every operator, and on
    a busy machine that is long.
    """
    from kzoo.lite.interpret import infer

    model, images = Path(folder, "model.tflite").read_bytes(), np.load(f"{folder}/images.npy")
    with ThreadPoolExecutor(cores) as pool:
        shares = [share for share in np.array_split(images, cores) if len(share)]
        found = [*pool.map(lambda share: infer(model, share, 1), shares)]
    for i, parts in enumerate(zip(*found, strict=True)):
        np.save(f"{folder}/found{i}.npy", np.concatenate(parts))


def _compare(found: list[np.ndarray], folder: str, what: str) -> None:
    for i, values in enumerate(found):
        expected = np.load(f"{folder}/expected{i}.npy")
        if not np.isfinite(expected).all():
            return  # which is told where features are written
        error = np.abs(values[: len(expected)] - expected).max() / max(expected.std(), 1e-6)
        if not error < TOLERANCE:
            raise BadInputError(
                f"{what}: they differ by {error:.2g} of their standard deviation, "
                f"{TOLERANCE:g} allowed"
            )
