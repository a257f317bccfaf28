"""Does a device compute what this machine computes? Real images run on both, the same bytes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.evaluate import wilson
from kzoo.learn.inputs import matching_data
from kzoo.lite.check import check_gates
from kzoo.lite.classify import classifier, evaluated, spread
from kzoo.lite.inspect import inspect
from kzoo.lite.interpret import ENCODINGS
from kzoo.measure.target import Setting, open_target
from kzoo.progress import Progress, silent

PIECE = 32_000_000
"""Bytes that are sent to a device at once, at most."""
FIRST, PATIENCE = 8, 15.0
"""Images in the first piece; the next has twice as many unless it took so many seconds."""
HOST = Setting(runtime="ai-edge-litert")


@dataclass(frozen=True)
class OnDevice:
    """A .tflite on a device beside the same file by LiteRT on this machine, on one thread.

    Attributes:
        target, kind: where it ran, and whether that was "measured" or "emulated".
        runner, runtime, runtime_version: what ran it there.
        delegate: as asked; None: the runtime's own choice.
        device: the processor, cores, memory and system of the device.
        split, images: which images, and how many.
        agreement: share of images with the same most probable class.
        bit_equal: how many images have outputs that are equal bit by bit.
        max_difference: of an output, dequantized; ``max_steps`` is the same in steps of a quantized
            output, None of a float one.
        accuracy: ``{"count", "accuracy", "interval"}`` of the device's answers, the interval being
            Wilson's of 95 %; ``host_accuracy`` is this machine's.
        min_agreement: the gate, or None.
        failures: the gate that was not met, in words; or none.
    """

    target: str
    kind: str
    runner: str
    runtime: str
    runtime_version: str
    delegate: str | None
    device: dict
    split: str
    images: int
    agreement: float
    bit_equal: int
    max_difference: float
    max_steps: int | None
    accuracy: dict
    host_accuracy: dict
    min_agreement: float | None
    failures: list[str]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def on_device(
    file: str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    on: str,
    split: str | None = None,
    limit: int | None = None,
    runtime: str | None = None,
    delegate: str | None = None,
    min_agreement: float | None = None,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> OnDevice:
    """Runs labelled images on a device and compares the raw outputs with this machine's.

    Args:
        file: a .tflite of one image at a time, (1, h, w, c), to (1, classes).
        data: a dataset or what `kzoo.load_data` takes.
        on: a target, see `kzoo.measure.target.TARGETS`.
        split: "train", "validation" or "test"; by default test, or validation where that is empty.
        limit: at most so many images, spread over the split; at least 1.
        runtime, delegate: on the device, as for `kzoo.profile`.
        min_agreement: a gate, share of equal top-1 in [0, 1].
        data_options: arguments of `kzoo.load_data` when ``data`` is a path.
        progress: called after each piece of the images.

    Raises:
        UsageError: an argument is wrong, or the target cannot do it.
        MissingError: a file, the device or a tool to reach it is missing.
        BadInputError: the model or the data is damaged, they do not fit, a runtime refuses the
            model, or the device gives NaN.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is at least 1; {limit} was given")
    check_gates({"min_agreement": min_agreement})
    if Path(file).suffix != ".tflite":
        raise UsageError(f"a device runs .tflite files; {str(file)!r} was given")
    found, contents = classifier(file), inspect(file, packed=False)
    given, made = contents.input, contents.output
    if given["shape"][0] != 1 or given["dtype"] not in ENCODINGS:
        raise BadInputError(
            f"{file} takes {given['dtype']} {given['shape']}; one image at a time of "
            f"{', '.join(ENCODINGS)} is compared"
        )
    options = {"progress": progress, **(data_options or {})}
    data = matching_data(found.image, found.classes, data, found.notes, **options)
    split, indices = evaluated(data, split)
    indices = spread(indices, limit or len(indices))
    pixels = np.load(data.images_file, mmap_mode="r")
    encode = ENCODINGS[given["dtype"]]
    setting = Setting(runtime=runtime, delegate=delegate)
    theirs, ours = [], []
    with open_target(on) as target, open_target("host") as host:
        for piece in _pieces(indices, given):
            sent = encode(pixels[piece]).tobytes()
            answer = target.outputs(Path(file), sent, setting)
            theirs.append(_rows(answer["outputs"], len(piece), target.name))
            ours.append(_rows(host.outputs(Path(file), sent, HOST)["outputs"], len(piece), "host"))
            progress(f"run on {on}", sum(map(len, theirs)), len(indices))
        compared = _compared(np.concatenate(theirs), np.concatenate(ours), made, target.name)
        answers = compared.pop("top1"), compared.pop("host_top1")
        accuracies = [_accuracy(each, data.labels[indices]) for each in answers]
        failures = []
        if min_agreement is not None and compared["agreement"] < min_agreement:
            failures.append(
                f"{target.name}: top-1 agreement with this machine {compared['agreement']:.4f} is "
                f"below {min_agreement:g}"
            )
        return OnDevice(
            target=target.name,
            kind=target.kind,
            **{key: answer[key] for key in ("runner", "runtime", "runtime_version")},
            delegate=delegate,
            device=target.machine(),
            split=split,
            images=len(indices),
            **compared,
            accuracy=accuracies[0],
            host_accuracy=accuracies[1],
            min_agreement=min_agreement,
            failures=failures,
        )


def _rows(raw: bytes, images: int, place: str) -> np.ndarray:
    """uint8 (images, bytes of all outputs of one)."""
    if not raw or len(raw) % images:
        raise BadInputError(f"{place} gave {len(raw)} bytes of outputs for {images} images")
    return np.frombuffer(raw, np.uint8).reshape(images, -1)


def _compared(theirs: np.ndarray, ours: np.ndarray, made: dict, place: str) -> dict:
    """The figures of an `OnDevice`, from rows of raw outputs; ``made`` is the first of them."""
    if theirs.shape != ours.shape:
        raise BadInputError(
            f"{place} gives {theirs.shape[1]} bytes for an image, this machine {ours.shape[1]}"
        )
    kind = np.dtype(made["dtype"])
    size = made["shape"][1] * kind.itemsize
    there, here = (each[:, :size].copy().view(kind).astype(np.float64) for each in (theirs, ours))
    if bad := int((~np.isfinite(there).all(axis=1)).sum()):
        raise BadInputError(f"{place} gives NaN or infinity on {bad} of {len(there)} images")
    most = float(np.abs(there - here).max())
    return {
        "agreement": float((there.argmax(1) == here.argmax(1)).mean()),
        "bit_equal": int((theirs == ours).all(axis=1).sum()),
        "max_difference": most * (made["scale"] or 1.0),
        "max_steps": round(most) if made["scale"] else None,
        "top1": there.argmax(1),
        "host_top1": here.argmax(1),
    }


def _accuracy(answers: np.ndarray, labels: np.ndarray) -> dict:
    right = int((answers == labels).sum())
    return {
        "count": len(labels),
        "accuracy": right / len(labels),
        "interval": list(wilson(right, len(labels))),
    }


def _pieces(indices: np.ndarray, given: dict) -> Iterator[np.ndarray]:
    """Parts of ``indices`` of images ``given``: few at first, more as far as the device is fast."""
    size = math.prod(given["shape"]) * np.dtype(given["dtype"]).itemsize
    start, count, most = 0, FIRST, max(1, PIECE // size)
    while start < len(indices):
        began = time.monotonic()
        yield indices[start : start + min(count, most)]
        start += min(count, most)
        if time.monotonic() - began < PATIENCE:
            count *= 2
