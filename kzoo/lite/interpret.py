"""A .tflite file run on images, in a child process that may crash."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from kzoo.child import blame, call
from kzoo.errors import BadInputError
from kzoo.lite.tflite_file import tflite_file


def lite_outputs(
    file: str | os.PathLike,
    images_file: str | os.PathLike,
    indices: np.ndarray,
    *,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Runs a .tflite on uint8 images, one by one, in a fresh child process.

    Args:
        file: the model; its input (1, h, w, c) is uint8, int8 (pixel - 128) or float32 pixels.
        images_file: a ``.npy`` of uint8 (n, h, w, c), mapped and not copied.
        indices: which of them.
        threads: of the interpreter; all usable cores by default.

    Returns:
        The outputs (len(indices), classes), dequantized to float32, and, where the file ends in a
        softmax, the logits that enter it, as computed by the same kernels; else None.

    Raises:
        MissingError: a file does not exist.
        BadInputError: the model is damaged, crashes the runtime, or takes other images.
    """
    tflite_file(file)
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder, blame(f"{file} cannot be run"):
        np.save(f"{folder}/indices.npy", np.asarray(indices, np.int64))
        call(
            "kzoo.lite.interpret:run",
            file=str(file),
            images_file=str(images_file),
            folder=folder,
            threads=threads or len(os.sched_getaffinity(0)),
        )
        logits = Path(folder, "logits.npy")
        return np.load(f"{folder}/outputs.npy"), np.load(logits) if logits.exists() else None


def run(file: str, images_file: str, folder: str, threads: int) -> None:
    """In the child: writes ``outputs.npy`` and perhaps ``logits.npy`` into ``folder``."""
    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(Path(file).read_bytes(), file)
    logits = flatbuffer.logits_tensor(model)
    data = flatbuffer.with_outputs(model, [] if logits is None else [logits])
    images = np.load(images_file, mmap_mode="r")
    try:
        found = infer(data, images[np.load(f"{folder}/indices.npy")], threads)
    except BadInputError as error:
        raise BadInputError(f"{file}: {error}") from error
    for name, values in zip(("outputs", "logits"), found, strict=False):
        np.save(f"{folder}/{name}.npy", values)


def infer(data: bytes, images: np.ndarray, threads: int) -> list[np.ndarray]:
    """Invokes a model's bytes on uint8 images (n, h, w, c), one by one.

    Returns one float32 array (n, ...) per output of the model, dequantized.

    Raises:
        BadInputError: the model's input is not one image of this size, or of an unknown dtype.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BadInputError(f"the runtime refuses the model: {error}") from error
    inputs, results = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or tuple(inputs[0]["shape"][1:]) != images.shape[1:]:
        raise BadInputError(
            f"the model takes {[d['shape'].tolist() for d in inputs]}, the images are "
            f"{list(images.shape[1:])}"
        )
    encode = {
        np.uint8: lambda pixels: pixels,
        np.int8: lambda pixels: (pixels.astype(np.int16) - 128).astype(np.int8),
        np.float32: lambda pixels: pixels.astype(np.float32),
    }.get(inputs[0]["dtype"])
    if encode is None:
        raise BadInputError(
            f"the model's input is {inputs[0]['dtype'].__name__}; "
            "uint8, int8 or float32 is expected"
        )
    collected = [np.empty((len(images), *d["shape"][1:]), np.float32) for d in results]
    for i, image in enumerate(images):
        interpreter.set_tensor(inputs[0]["index"], encode(image[None]))
        interpreter.invoke()
        for values, detail in zip(collected, results, strict=True):
            values[i] = _real(interpreter.get_tensor(detail["index"])[0], detail["quantization"])
    return collected


def _real(values: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    scale, zero = quantization
    return (values.astype(np.float32) - zero) * scale if scale else values.astype(np.float32)
