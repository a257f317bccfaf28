"""Quantization after training, calibrated on real images."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.errors import UsageError
from kzoo.lite.calibration import MOST, known_ranges
from kzoo.lite.convert import (
    Conversion,
    check_arguments,
    images_for,
    model_path,
    notes_of,
    shown,
    write_lite,
)
from kzoo.lite.recipes import MIXED, RECIPES, known_recipe
from kzoo.network.model_file import load_model, read_notes, save_model
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

PREPARING = 200
"""Images that a network is changed on before it is exported, where their number is not given."""


def quantize(
    model: keras.Model | str | os.PathLike,
    output: str | os.PathLike,
    *,
    calibrate: Dataset | str | os.PathLike | None = None,
    recipe: str = "int8",
    budget_drop: float | None = None,
    samples: int | None = None,
    ranges: str = "minmax",
    exclude: Sequence[str] = (),
    equalize: bool = False,
    adaround: bool = False,
    io: str | None = None,
    head: str = "probabilities",
    normalize: Sequence[Sequence[float]] | None = None,
    frame: int | tuple[int, int] | None = None,
    cost: Callable[[Path, Path], float] | None = None,
    seed: int = 0,
    force: bool = False,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Writes a Keras model, or a float .tflite from anywhere, as a .tflite of small whole numbers.

    In ``int8``, weights are symmetric per output channel, activations have the range they take on
    calibration images (Jacob et al. 2018, arXiv:1712.05877; LiteRT's 8-bit specification). With
    uint8 or int8 pixels a normalization of one scale and offset becomes the input's scale and zero
    point and costs nothing.

    Args:
        model: functional, pixels (n, h, w, c) in [0, 255] -> logits or probabilities (n, classes);
            its file, or a float ``.tflite`` of one image to one vector.
        output: the ``.tflite`` file.
        calibrate: images to calibrate on, as many of each class as can be, of their training split
            only. Not needed where activations stay floating-point. Where they are given, biases
            are corrected for what rounding the kernels adds, see `kzoo.lite.bias_correction`, but
            of a network that was trained with the rounding.
        recipe: a name of `kzoo.lite.recipes.RECIPES`, or "mixed": int8 but for the layers that
            lose most, see `kzoo.lite.trials.mixed`.
        budget_drop: in place of a recipe, the percentage points of accuracy that the smallest file
            may lose on 512 images of the test split or validation at most, see
            `kzoo.lite.trials.smallest`; ``calibrate`` has labels then.
        samples: how many images; by default so many that their ranges settle.
        ranges: how they are chosen, see `kzoo.lite.calibration.calibrated`.
        exclude: prefixes of the layers that stay float32.
        equalize: before it, scale channels so that kernels have equal ranges.
        adaround: then learn which way each weight is rounded. Both give another network that
            computes much the same; the file is compared with ``model`` still. See
            `kzoo.compress.equalize` and ``adaround`` there.
        io: dtype of the pixels that go in: "uint8", by default, "int8" (pixel - 128) or "float32".
            Where activations are 8-bit numbers, what comes out has it too (probabilities as
            uint8 have the scale 1/256).
        head: "probabilities" or "logits".
        normalize: (mean, std), of a network or .tflite from elsewhere that takes
            (pixel - mean) / std and does not tell so; what is written takes pixels.
        frame: as for `kzoo.convert`.
        cost: for "mixed", the latency of a file as a share of another's that may be 1.1 at most,
            such as `kzoo.measure.cost.file_share`; None lets it take any.
        seed: of the choice of images.
        force: overwrite.
        data_options: arguments of `kzoo.load_data` when ``calibrate`` is a path; by default the
            split is the one that the model was trained on.
        progress: called at the stages of the work.

    Raises:
        As `kzoo.convert`, and BadInputError where images and model do not fit.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"samples is at least 1; {samples} was given")
    recipe, io = known_recipe(recipe, io)
    known_ranges(ranges)
    if budget_drop is not None or recipe == MIXED:
        if frame:
            raise UsageError("a choice between files compares them at the network's size: no frame")
        return _tried(
            model, output, recipe, budget_drop, cost,
            calibrate=calibrate, samples=samples, ranges=ranges, exclude=exclude,
            equalize=equalize, adaround=adaround, io=io, head=head,
            normalize=normalize, seed=seed, force=force, data_options=data_options,
            progress=progress,
        )  # fmt: skip
    output = check_arguments(output, head, force)
    asked = {"equalize": equalize, "adaround": adaround}
    changes = [name for name, wanted in asked.items() if wanted]
    static = RECIPES[recipe].activations is not None
    if calibrate is None and (static or changes):
        raise UsageError(
            f"{recipe if static else changes[0]} needs images to calibrate on; add "
            "--calibrate PHOTOS"
        )
    with model_path(model) as path:
        notes = notes_of(path)
        if changes and path.suffix == ".tflite":
            raise UsageError(
                f"{', '.join(changes)} need the Keras network; {shown(model)} was given"
            )
        if notes.get("ranges") and changes:
            raise UsageError(
                f"{shown(model)} was trained with the rounding of int8, which is exported as it "
                f"is; leave out {', '.join(changes)}, or quantize the file that kzoo qat was given"
            )
        images = None
        if calibrate is not None:
            data = images_for(
                path, model, calibrate, data_options, progress, normalize, labelled=False
            )
            images = stratified(data, samples or MOST, seed)
        options = {"exclude": list(exclude), "normalize": normalize, "frame": frame}
        if static:
            options |= {"ranges": ranges, "samples": samples}
        if not changes:
            return write_lite(path, output, recipe, io, head, images, progress, **options)
        with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
            ready = Path(folder, Path(path).with_suffix(".keras").name)
            told = _prepare(
                path, ready, images[: samples or PREPARING], asked, normalize, seed, progress
            )
            options["normalize"] = None  # it is a layer of what was prepared
            return write_lite(
                ready, output, recipe, io, head, images, progress,
                against=(path, normalize), told=told, **options,
            )  # fmt: skip


def _tried(model, output, recipe, budget_drop, cost, **options) -> Conversion:
    """The file that was kept of several, with the record of all."""
    from kzoo.lite import trials

    if budget_drop is not None and recipe != "int8":
        raise UsageError(f"a budget chooses the recipe; {recipe} was given too")
    if budget_drop is not None and options["io"] == "int8":
        raise UsageError(
            "a budget takes uint8 or float32 pixels, as all recipes do; io int8 was given"
        )
    changes = [name for name in ("equalize", "adaround") if options[name]]
    if recipe == MIXED and changes:
        raise UsageError(
            f"mixed looks for where the network itself loses; leave out {', '.join(changes)}"
        )
    if options["calibrate"] is None:
        asked = recipe if budget_drop is None else "a budget"
        raise UsageError(f"{asked} needs images to compare on; add --calibrate PHOTOS")
    if budget_drop is not None:
        found = trials.smallest(model, output, budget_drop=budget_drop, **options)
    else:
        found = trials.mixed(model, output, cost=cost, **options)
    (kept,) = (trial for trial in found if trial.written)
    name = recipe if budget_drop is None else kept.made.quantization
    return replace(kept.made, quantization=name, tried=[trial.to_dict() for trial in found])


def stratified(data: Dataset, count: int, seed: int) -> np.ndarray:
    """So many training images, uint8 (n, h, w, c): one of each class, a second of each, ..."""
    order = data.order("train", seed, 0)
    labels = data.labels[order]
    rank = np.empty(len(order), np.int64)
    for label in np.unique(labels):
        rank[labels == label] = np.arange((labels == label).sum())
    chosen = order[np.argsort(rank, kind="stable")][:count]
    return np.ascontiguousarray(data.images[chosen])


def _prepare(
    path, ready: Path, images, asked: Mapping[str, bool], normalize, seed: int, progress
) -> dict:
    """Writes the network that is exported in place of another, and tells what was done."""
    from kzoo.compress.adaround import adaround
    from kzoo.compress.equalize import equalize, held_channels
    from kzoo.lite.source import normalizing

    model, told = normalizing(load_model(path), path, normalize), {}
    if asked["equalize"]:
        told["equalize"] = {"held by": dict(Counter(held_channels(model).values()))}
        model = equalize(model)
    if asked["adaround"]:
        told["adaround"] = {"images": len(images)}
        model = adaround(model, images, seed=seed, progress=progress)
    save_model(model, ready, notes=read_notes(path))
    return told
