"""Where an int8 file loses what the network knew: by layer, why, and what to do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.child import blame, call_shared
from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.lite.convert import images_for, made_from, model_path, shown
from kzoo.lite.inspect import KERNELS, inspect
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

FOR_RANGES = 128
"""Images that a file's ranges are compared with those of."""
OUTLIER = 8.0
"""Times the median channel's range that a channel's is wide enough to be called an outlier."""
UNUSED = 0.3
"""Share of its largest value below which 999 of 1,000 values of a wide range lie."""
NOTED, WRONG = 0.03, 0.3
"""Distances of a file's ranges from those of the images: where others that fit twice as well are
told of, and where they are wrong whatever they are of."""
MIXING = ("CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
"""What makes a channel of all channels: none passes through."""
SMALL = 0.002
"""Nats: a layer that costs less alone is not a finding."""
COARSE = 22.0
"""Decibels of a kernel below which its rounding is called the cause."""


@dataclass(frozen=True)
class Localization:
    """What `localize` found.

    Attributes:
        file, against: the int8 file and the Keras model.
        images: how many were looked at.
        agreement: share of them with the same top-1 in both.
        divergence: mean Kullback-Leibler divergence of their probabilities, nats.
        calibration: how far the file's ranges are from those of the images, by what the images
            could be mistaken for; see `kzoo.lite.layers`.
        findings: the worst first: ``{"layer", "layers", "operator", "tensor", "affected",
            "cause", "text", "cure"}``; the layers that are affected have to be in float together.
        layers: a row per operator in the network's order: signal-to-noise in decibels, cosine,
            share of clipped values, its range in the file and as seen, the widest channel, and,
            in nats, what it costs "alone" and what is left "without" it.
    """

    file: str
    against: str
    images: int
    agreement: float
    divergence: float
    calibration: dict[str, float]
    findings: list[dict]
    layers: list[dict]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def localize(
    file: str | os.PathLike,
    *,
    against: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    limit: int = 32,
    alone: bool = True,
    normalize: Sequence[Sequence[float]] | None = None,
    seed: int = 0,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Localization:
    """Compares an int8 .tflite with the Keras model it was made from, tensor by tensor.

    Each operator is also rounded alone, with the file's own ranges, and the worst are left in float
    alone: what errs most is often where an error of before arrives, and not where it is made.

    Args:
        file: the int8 ``.tflite``, from kzoo or from elsewhere.
        against: the Keras model, or the float ``.tflite``.
        data: images; of their training split, labels are not looked at.
        limit: how many.
        alone: whether to round operators one at a time; seconds to minutes.
        normalize: as for `kzoo.quantize`.
        seed: of the choice of images.
        data_options: arguments of `kzoo.load_data` when ``data`` is a path.
        progress: called at the stages of the work.

    Raises:
        MissingError, UsageError: as `kzoo.check`.
        BadInputError: also where the file is not of the model, or has no whole numbers.
    """
    from kzoo.lite.quantize import stratified

    if limit < 1:
        raise UsageError(f"limit is at least 1; {limit} was given")
    contents = inspect(file, packed=False)
    if not any(f"{kernel} int8" in contents.operators for kernel in KERNELS):
        raise BadInputError(
            f"{file} has no convolution or dense layer of 8-bit activations: there is nothing to "
            "find"
        )
    if "equalize" in contents.notes.get("prepared", ()):
        raise BadInputError(
            f"{file} is of an equalized network, whose tensors are scaled: localize the file that "
            "kzoo quantize makes without --equalize"
        )
    with model_path(against) as path, tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        data = images_for(path, against, data, data_options, progress, normalize, labelled=False)
        made_from(file, contents, against, data)
        np.save(Path(folder, "images.npy"), stratified(data, max(limit, FOR_RANGES), seed))
        with blame(f"{file} cannot be taken apart"):
            found = call_shared(
                "kzoo.lite.layers:measure",
                model=str(path),
                file=str(file),
                images_file=f"{folder}/images.npy",
                limit=limit,
                alone=alone,
                normalize=normalize,
                progress=progress,
            )
    return Localization(
        file=str(file), against=shown(against).strip("'"), findings=_findings(found), **found
    )


def _findings(found: Mapping) -> list[dict]:
    """Causes, the worst first."""
    findings = []
    distances = dict(found["calibration"])
    now = distances.pop("as they are")
    likely = min(distances, key=distances.get)
    text = None
    if now > NOTED and distances[likely] < now / 2:
        text = f"its ranges are those of images {likely} ({distances[likely]:.3f} apart), not of "
        text += f"the images as they are ({now:.3f})"
    elif now > WRONG:
        text = f"its ranges are far from those of these images ({now:.3f} apart)"
    if text:
        findings.append(
            {
                "layer": "image", "layers": ["image"], "operator": "calibration",
                "tensor": "image", "affected": [], "cause": "calibration images",
                "text": text, "cure": "calibrate with images as the network takes them",
            }
        )  # fmt: skip
    rows = [row for row in found["layers"] if not row["float"]]
    by = any("alone" in row for row in rows)
    makers = {row["tensor"]: row for row in found["layers"]}

    def lost(row: Mapping) -> float:
        """What it adds to the noise of what it reads, if it was not rounded alone."""
        if by:
            return row.get("alone", 0)
        entering = [makers[name]["sqnr_db"] for name in row["inputs"] if name in makers]
        return min(entering, default=60) - row["sqnr_db"]

    rows.sort(key=lost, reverse=True)
    for row in rows[:10]:
        if by and row.get("alone", 0) < SMALL:
            break
        row = _origin(row, makers)
        if any(each["tensor"] == row["tensor"] for each in findings):
            continue
        affected = _affected(row, found["layers"], makers)
        cause, text, cure = _why(row, " ".join(f"--exclude {name}" for name in affected))
        findings.append(
            {
                "layer": row["layer"], "layers": row["layers"], "operator": row["operator"],
                "tensor": row["tensor"], "affected": affected, "cause": cause, "text": text,
                "cure": cure,
            }
        )  # fmt: skip
    return findings


def _affected(row: Mapping, rows: Sequence[Mapping], makers: Mapping) -> list[str]:
    """The layers that have to be in float together: a tensor's range is its readers', too."""
    if row["channel_ratio"] <= OUTLIER:
        return [row["layer"]]
    wide = {each["tensor"] for each in rows if _origin(each, makers)["tensor"] == row["tensor"]}
    readers = [each for each in rows if each["tensor"] in wide or wide.intersection(each["inputs"])]
    return list(dict.fromkeys(each["layer"] for each in readers))


def _origin(row: Mapping, makers: Mapping[str, Mapping]) -> Mapping:
    """Where a channel became an outlier: it stays one through additions and activations."""
    for _ in makers:
        if row["channel_ratio"] <= OUTLIER or row["gate"]:
            return row
        earlier = [
            makers[name]
            for name in row["inputs"]
            if name in makers
            and makers[name]["channel"] == row["channel"]
            and makers[name]["channel_ratio"] > OUTLIER
            and makers[name]["channels"] == row["channels"]
            and row["operator"] not in MIXING
        ]
        if not earlier:
            return row
        row = max(earlier, key=lambda each: each["channel_ratio"])
    return row


def _why(row: Mapping, float_: str) -> tuple[str, str, str]:
    """(cause, in words, what to do) of one operator."""
    ratio, used = row["channel_ratio"], row["used"]
    low, high = row["range"]
    if row["gate"]:
        return (
            "gate",
            f"it multiplies maps by a number per channel, and what comes out is from {low:.3g} to "
            f"{high:.3g} with {ratio:.0f} times the median range in channel {row['channel']}",
            f"leave it in float: {float_}",
        )
    if row["swish"]:
        return (
            "swish",
            f"what it gives is from {low:.3g} to {high:.3g}, and never below -0.28: of its steps "
            f"{100 * -low / max(high - low, 1e-12):.1f} % are for half of the inputs",
            f"clip its range (--ranges mse), or leave it in float: {float_}",
        )
    if ratio > OUTLIER and row["channels"] > 1:
        return (
            "outlier channel",
            f"channel {row['channel']} of {row['channels']} is {ratio:.0f} times as wide as the "
            "median, and all have one step",
            f"equalize (--equalize), or leave it in float: {float_}",
        )
    if row["clipped"] > 0.005:
        return (
            "narrow range",
            f"{100 * row['clipped']:.1f} % of its values lie outside of its range, {low:.3g} to "
            f"{high:.3g}; {row['seen'][0]:.3g} to {row['seen'][1]:.3g} were seen",
            "calibrate with more images, by --ranges minmax",
        )
    if used < UNUSED or (row["wide"] or 1) > 2:
        return (
            "wide range",
            f"999 of 1,000 values lie within {100 * used:.0f} % of its range, {low:.3g} to "
            f"{high:.3g}",
            "clip it (--ranges mse or percentile)",
        )
    if row["weights_db"] is not None and row["weights_db"] < COARSE:
        return (
            "weights",
            f"its kernel is rounded to {row['weights_db']:.0f} dB",
            "choose which way each weight is rounded (--adaround)",
        )
    return (
        "many small errors",
        f"nothing stands out; {row['sqnr_db']:.0f} dB of signal to noise",
        f"leave it in float ({float_}), or train with the rounding (kzoo qat)",
    )
