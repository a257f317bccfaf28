"""A .tflite file run on images, in a child process that may crash."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from kzoo.child import ChildCrashed, Worker, blame
from kzoo.environment import cores
from kzoo.errors import BadInputError
from kzoo.lite.tflite_file import blaming_file, tflite_file
from kzoo.progress import Progress, silent

CHUNK = 256
"""Images per call of the child: what is in memory at once, and how often progress is told."""
ENCODINGS = {
    "uint8": lambda pixels: pixels,
    "int8": lambda pixels: (pixels.astype(np.int16) - 128).astype(np.int8),
    "float32": lambda pixels: pixels.astype(np.float32),
}
"""What a file takes for uint8 pixels, by its input's dtype."""
BATCH = 4
"""Images at once, to see whether that changes what comes out."""
KERNELS = {
    "xnnpack": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
"""Three implementations of the same operators in LiteRT, by its names of them."""
RUNS = {
    "builtin": "built-in kernels",
    "reference": "reference kernels",
    "threads": "more threads",
    "batch": f"batches of {BATCH}",
}
"""Row of `kernel_agreement` → what it is of."""


def lite_outputs(
    file: str | os.PathLike,
    images_file: str | os.PathLike,
    indices: np.ndarray,
    *,
    threads: int | None = None,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Runs a .tflite on uint8 images, one by one, in a fresh child process.

    Args:
        file: the model; its input (1, h, w, c) is uint8, int8 (pixel - 128) or float32 pixels.
        images_file: a ``.npy`` of uint8 (n, h, w, c), mapped and not copied.
        indices: which of them.
        threads: of the interpreter; all usable cores by default.
        progress: called after every CHUNK images.

    Returns:
        The outputs (len(indices), classes), dequantized to float32, and, where the file ends in a
        softmax, the logits that enter it, as computed by the same kernels; else None.

    Raises:
        MissingError: a file does not exist.
        BadInputError: the model is damaged, crashes the runtime, or takes other images.
    """
    tflite_file(file)
    worker, parts = Worker(), []
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder, blame(f"{file} cannot be run"):
        try:
            for start in range(0, len(indices), CHUNK):
                np.save(
                    f"{folder}/indices.npy", np.asarray(indices[start : start + CHUNK], np.int64)
                )
                count = worker.call(
                    "kzoo.lite.interpret:run",
                    file=str(file),
                    images_file=str(images_file),
                    folder=folder,
                    threads=threads or cores(),
                )
                parts.append([np.load(f"{folder}/{i}.npy") for i in range(count)])
                progress("run the .tflite", min(start + CHUNK, len(indices)), len(indices))
        finally:
            worker.close()
    outputs, *logits = (np.concatenate(each) for each in zip(*parts, strict=True))
    return outputs, logits[0] if logits else None


def kernel_agreement(
    file: str | os.PathLike,
    images_file: str | os.PathLike,
    indices: np.ndarray,
    *,
    progress: Progress = silent,
) -> dict[str, dict]:
    """Whether LiteRT's kernels, threads and batches give the same answers to the same images.

    Args:
        file, images_file, indices: as of `lite_outputs`.
        progress: called for each row.

    Returns:
        Against XNNPACK on one thread and the batch that the file is made for, for "builtin",
        "reference", "threads" (XNNPACK on all cores, at least two) and "batch" (BATCH images at
        once): ``{"agreement", "max_difference", "max_steps"}``: the share of equal top-1, the
        largest difference of an output, and that in steps of a quantized output, or None. Or
        ``{"refused"}``, why not, where the runtime does not run the file so.

    Raises:
        As `lite_outputs`.
    """
    tflite_file(file)
    asked = {
        "xnnpack": {},
        "builtin": {"kernels": "builtin"},
        "reference": {"kernels": "reference"},
        "threads": {"threads": max(2, cores())},
        "batch": {"batch": BATCH},
    }
    rows = {}
    worker = Worker()
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder, blame(f"{file} cannot be run"):
        np.save(f"{folder}/indices.npy", np.asarray(indices, np.int64))
        try:
            for name, how in asked.items():
                try:
                    step = worker.call(
                        "kzoo.lite.interpret:run_with",
                        file=str(file),
                        images_file=str(images_file),
                        folder=folder,
                        **how,
                    )
                except (BadInputError, ChildCrashed) as error:
                    if not how:
                        raise
                    rows[name] = {"refused": str(error).splitlines()[0].removeprefix(f"{file}: ")}
                else:
                    found = np.load(f"{folder}/found.npy")
                    if not how:
                        expected = found
                    else:
                        rows[name] = _beside(expected, found, step)
                progress("run other kernels", len(rows) + 1, len(asked))
        finally:
            worker.close()
    return rows


def _beside(expected: np.ndarray, found: np.ndarray, step: float | None) -> dict:
    if not np.isfinite(found).all():
        return {"refused": "it gives NaN or infinity"}
    most = float(np.abs(found - expected).max())
    return {
        "agreement": float((found.argmax(-1) == expected.argmax(-1)).mean()),
        "max_difference": most,
        "max_steps": round(most / step) if step else None,
    }


@blaming_file
def run_with(
    file: str,
    images_file: str,
    folder: str,
    threads: int = 1,
    kernels: str = "xnnpack",
    batch: int | None = None,
) -> float | None:
    """In the child: writes ``found.npy``; returns the step of a quantized output, or None."""
    from kzoo.lite import flatbuffer

    data = Path(file).read_bytes()
    graph = flatbuffer.parse(data, file).subgraphs[0]
    images = np.load(images_file, mmap_mode="r")[np.load(f"{folder}/indices.npy")]
    try:
        found = infer(data, images, threads, kernels, batch)[0]
    except BadInputError as error:
        if batch is not None:  # XNNPACK does not tell which operator is in the way
            infer(data, images[:batch], threads, "builtin", batch)
        raise BadInputError(f"{file}: {error}") from error
    np.save(f"{folder}/found.npy", found)
    about = graph.tensors[graph.outputs[0]].quantization
    scales = [] if about is None or about.scale is None else about.scale
    return float(scales[0]) if len(scales) else None


@blaming_file
def run(file: str, images_file: str, folder: str, threads: int) -> int:
    """In the child: writes the outputs as ``0.npy``, the logits, if any, as ``1.npy``.

    Returns how many were written.
    """
    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(Path(file).read_bytes(), file)
    logits = flatbuffer.logits_tensor(model)
    wanted = 1 if logits is None else 2
    data = flatbuffer.with_outputs(model, [] if logits is None else [logits])
    images = np.load(images_file, mmap_mode="r")
    try:
        found = infer(data, images[np.load(f"{folder}/indices.npy")], threads)
    except BadInputError as error:
        raise BadInputError(f"{file}: {error}") from error
    for i, values in enumerate((found[0], found[-1])[:wanted]):
        np.save(f"{folder}/{i}.npy", values)
    return wanted


def infer(
    data: bytes,
    images: np.ndarray,
    threads: int,
    kernels: str = "xnnpack",
    batch: int | None = None,
) -> list[np.ndarray]:
    """Invokes a model's bytes on uint8 images (n, h, w, c).

    ``kernels`` are of `KERNELS`; ``batch`` is how many images it gets at once, by default as many
    as it was made for.

    Returns one float32 array (n, ...) per output of the model, dequantized.

    Raises:
        BadInputError: the model's input is not images of this size, or of an unknown dtype; or it
            cannot be resized to the batch.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = getattr(OpResolverType, KERNELS[kernels])
    try:
        interpreter = Interpreter(
            model_content=data, num_threads=threads, experimental_op_resolver_type=resolver
        )
        if batch is not None:
            (given,) = interpreter.get_input_details()
            interpreter.resize_tensor_input(given["index"], [batch, *given["shape"][1:]])
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BadInputError(f"the runtime refuses the model: {error}") from error
    inputs, results = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or tuple(inputs[0]["shape"][1:]) != images.shape[1:]:
        raise BadInputError(
            f"the model takes {[d['shape'].tolist() for d in inputs]}, the images are "
            f"{list(images.shape[1:])}"
        )
    encode = ENCODINGS.get(inputs[0]["dtype"].__name__)
    if encode is None:
        raise BadInputError(
            f"the model's input is {inputs[0]['dtype'].__name__}; "
            f"one of {', '.join(ENCODINGS)} is expected"
        )
    collected = [np.empty((len(images), *d["shape"][1:]), np.float32) for d in results]
    size = int(inputs[0]["shape"][0])
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        count = len(batch)
        if count < size:
            batch = np.concatenate([batch, np.zeros((size - count, *batch.shape[1:]), np.uint8)])
        try:
            interpreter.set_tensor(inputs[0]["index"], encode(batch))
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise BadInputError(f"the runtime stops in the model: {error}") from error
        for values, detail in zip(collected, results, strict=True):
            found = interpreter.get_tensor(detail["index"])
            if len(found) != size:
                raise BadInputError(f"it gives {list(found.shape)} for a batch of {size}")
            values[start : start + count] = _real(found[:count], detail["quantization"])
    return collected


def _real(values: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    scale, zero = quantization
    return (values.astype(np.float32) - zero) * scale if scale else values.astype(np.float32)
