"""Is the exported file as good as the model it came from? On real images, by real kernels."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kzoo.child import blame, call
from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.evaluate import Evaluation, score, softmax
from kzoo.lite.classify import FLOOR, evaluated, gives_logits, least_probability, spread
from kzoo.lite.convert import images_for, made_from, model_outputs, model_path, shown
from kzoo.lite.inspect import Contents, inspect
from kzoo.lite.interpret import KERNELS, RUNS, kernel_agreement, lite_outputs
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

FEW = 32
"""Images that slow kernels are run on."""
USUAL = {"min_agreement": 0.97, "max_drop": 1.0, "min_kernels": 0.9}
"""The gates of ``gate=True``; ``max_float_ops`` is 0 where a file computes in integers."""
RANGES = {"min_agreement": (0, 1), "max_drop": (-100, 100), "max_float_ops": (0, math.inf)}
"""Gate → what it is from and to: others are always met, or never."""
EXACT = 0.999
"""``min_agreement`` of a file whose weights are float: it is the network, but for rounding."""
ROUNDED = (" int16", " int8", " uint8", " int4", " int2")
"""How kinds of bytes end that are weights of fewer bits than float16's."""
NOISE = 1e-3
"""What more threads or a batch may move a float output by, in standard deviations of the logits
where these are more than 1; of integers it is one step."""


@dataclass(frozen=True)
class Check:
    """A .tflite file beside the Keras model it came from, on the same images.

    Attributes:
        contents: what is inside the file.
        against: the Keras model's name or path.
        compared: "logits", or "log-probabilities" where the Keras model itself ends in a softmax.
        max_logit_error, mean_logit_error: absolute differences.
        logit_std: standard deviation of the Keras logits, to see them against.
        agreement: share of images with the same most probable class.
        keras, lite: accuracy and more of both.
        per_class: of each class that has images, what the file changes, the worst first:
            ``{"class", "count", "keras", "lite", "change", "lost", "gained"}``: its name, its
            images, the share of them that each model takes for it, the difference in points, and
            how many images only the Keras model, only the file, takes for it.
        findings: what the file computes or stores for nothing, and what to do about it, see
            `kzoo.lite.findings.findings`.
        kernels: whether other kernels of LiteRT, more threads and batches give the same answers;
            see `kzoo.lite.interpret.kernel_agreement`. Empty where it was not asked for.
        gates: those in force, by the names of the arguments; "min_kernels" is the share of equal
            top-1 with other kernels.
        failures: the gates that were not met, in words.
        keras_probabilities, lite_probabilities: (n, classes) float32, in the order of ``indices``.
        indices: which images of the dataset.
    """

    contents: Contents
    against: str
    compared: str
    max_logit_error: float
    mean_logit_error: float
    logit_std: float
    agreement: float
    keras: Evaluation
    lite: Evaluation
    per_class: list[dict]
    findings: list[dict]
    kernels: dict[str, dict]
    gates: dict[str, float]
    failures: list[str]
    keras_probabilities: np.ndarray = field(repr=False)
    lite_probabilities: np.ndarray = field(repr=False)
    indices: np.ndarray = field(repr=False)

    def to_dict(self) -> dict:
        """The record as JSON values, without the arrays."""
        arrays = ("keras_probabilities", "lite_probabilities", "indices")
        return {key: value for key, value in asdict(self).items() if key not in arrays}


def check(
    file: str | os.PathLike,
    *,
    against: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    split: str | None = None,
    limit: int | None = None,
    kernels: bool = False,
    gate: bool = False,
    min_agreement: float | None = None,
    max_drop: float | None = None,
    max_float_ops: int | None = None,
    normalize: Sequence[Sequence[float]] | None = None,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Check:
    """Compares a .tflite with the Keras model it was made from, on labelled images.

    Args:
        file: the ``.tflite``.
        against: the Keras model, or the float ``.tflite``.
        data: a dataset or what `kzoo.load_data` takes.
        split: "train", "validation" or "test"; by default test, or validation where that is empty.
        limit: at most so many images, spread over the split; at least 1.
        kernels: also run it with LiteRT's other kernels, more threads and in batches, on 32 of
            them.
        gate: hold the file to all gates, each at its usual value if no other is given: agreement
            0.97, or 0.999 where weights are float; a drop of 1 point; no float islands where it
            computes in integers; and ``kernels``, of which other ones give the same top-1 on 90 %
            of the images, more threads and batches the same numbers.
        min_agreement: a gate, share of equal top-1 in [0, 1].
        max_drop: a gate, accuracy lost in percentage points; below 0, what it must have won.
        max_float_ops: a gate, float islands; a file without integer kernels never meets it.
        normalize: as for `kzoo.quantize`, of ``against``.
        data_options: arguments of `kzoo.load_data` when ``data`` is a path; by default the split is
            the one that the model was trained on.
        progress: called at the stages of the work.

    Raises:
        MissingError, BadInputError, UsageError: as for `kzoo.convert`. A gate that is not met
        raises nothing; it stands in ``failures``.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is at least 1; {limit} was given")
    given = {
        "min_agreement": min_agreement, "max_drop": max_drop, "max_float_ops": max_float_ops,
    }  # fmt: skip
    check_gates(given)
    contents = inspect(file, packed=False)
    with model_path(against) as path:
        data = images_for(path, against, data, data_options, progress, normalize)
        made_from(file, contents, against, data)
        split, indices = evaluated(data, split)
        indices = spread(indices, limit or len(indices))
        progress("run the Keras model", 0, len(indices))
        expected, probabilities_only = model_outputs(
            path, against, data.images_file, indices, normalize
        )
    found, logits = lite_outputs(file, data.images_file, indices, progress=progress)
    if found.shape != expected.shape:
        raise BadInputError(
            f"{file} gives {found.shape[1:]} outputs, {shown(against)} {expected.shape[1:]}"
        )

    of_logits = gives_logits(found, logits)
    lite_probabilities = softmax(found) if of_logits else found
    keras_probabilities = expected if probabilities_only else softmax(expected)
    if probabilities_only or (logits is None and not of_logits):
        compared = "log-probabilities"
        pair = [np.log(np.maximum(p, FLOOR)) for p in (keras_probabilities, lite_probabilities)]
    else:
        compared, pair = "logits", [expected, found if logits is None else logits]
    errors = np.abs(pair[0] - pair[1])
    labels = data.labels[indices]
    floor = least_probability(contents)
    evaluations = [
        score(p, labels, split, floor) for p in (keras_probabilities, lite_probabilities)
    ]
    agreement = float((pair[0].argmax(1) == lite_probabilities.argmax(1)).mean())
    logit_std = float(pair[0].std())
    rows = {}
    if kernels or gate:
        rows = kernel_agreement(file, data.images_file, spread(indices, FEW), progress=progress)
    gates = (_usual(contents) if gate else {}) | {
        name: value for name, value in given.items() if value is not None
    }
    failures = _failures(gates, agreement, evaluations, contents)
    if gate:
        failures += _kernel_failures(gates, rows, NOISE * max(1, logit_std))
    return Check(
        contents=contents,
        against=shown(against).strip("'"),
        compared=compared,
        max_logit_error=float(errors.max()),
        mean_logit_error=float(errors.mean()),
        logit_std=logit_std,
        agreement=agreement,
        keras=evaluations[0],
        lite=evaluations[1],
        per_class=_per_class(
            data.classes, labels, keras_probabilities.argmax(1), lite_probabilities.argmax(1)
        ),
        findings=_findings(file),
        kernels=rows,
        gates=gates,
        failures=failures,
        keras_probabilities=keras_probabilities,
        lite_probabilities=lite_probabilities,
        indices=indices,
    )


def check_gates(given: Mapping[str, float | None]) -> None:
    """Raises UsageError for a gate that is not in its range of `RANGES`; None is no gate."""
    for name, value in given.items():
        least, most = RANGES[name]
        if value is not None and not (least <= value <= most and math.isfinite(value)):
            meant = f"{least} or more" if most == math.inf else f"from {least} to {most}"
            raise UsageError(f"{name} is {meant}; {value:g} was given")


def _findings(file: str | os.PathLike) -> list[dict]:
    with blame(f"{file} cannot be read"):
        return call("kzoo.lite.findings:findings", file=str(file))


def _per_class(
    classes: Sequence[str], labels: np.ndarray, keras: np.ndarray, lite: np.ndarray
) -> list[dict]:
    """The rows of ``Check.per_class``, from integers (n,): labels and both models' answers."""
    rows = []
    for label in np.unique(labels):
        of_class = labels == label
        right, still = (each[of_class] == label for each in (keras, lite))
        lost, gained = int((right & ~still).sum()), int((still & ~right).sum())
        rows.append(
            {
                "class": classes[label],
                "count": len(right),
                "keras": float(right.mean()),
                "lite": float(still.mean()),
                "change": 100 * (gained - lost) / len(right),
                "lost": lost,
                "gained": gained,
            }
        )
    return sorted(rows, key=lambda row: row["change"])


def _usual(contents: Contents) -> dict[str, float]:
    gates = dict(USUAL)
    if contents.integer_kernels:
        gates["max_float_ops"] = 0
    elif not any(kind.endswith(ROUNDED) for kind in contents.bytes_by_kind):
        gates["min_agreement"] = EXACT
    return gates


def _failures(
    gates: Mapping[str, float],
    agreement: float,
    evaluations: Sequence[Evaluation],
    contents: Contents,
) -> list[str]:
    failures = []
    least, most = gates.get("min_agreement"), gates.get("max_drop")
    if least is not None and agreement < least:
        failures.append(f"top-1 agreement {agreement:.4f} is below {least:g}")
    drop = 100 * (evaluations[0].accuracy - evaluations[1].accuracy)
    if most is not None and drop > most:
        count = evaluations[0].count
        failures.append(
            f"accuracy drops by {drop:.2f} points ({drop / 100 * count:.0f} of {count} images), "
            f"{most:g} are allowed"
        )
    allowed, islands = gates.get("max_float_ops"), contents.float_islands
    if allowed is not None and not contents.integer_kernels:
        failures.append("no convolution or dense layer computes in integers: no quantized file")
    if allowed is not None and len(islands) > allowed:
        failures.append(
            f"{len(islands)} float operators, {allowed} allowed: {', '.join(islands[:5])}"
        )
    return failures


def _kernel_failures(
    gates: Mapping[str, float], rows: Mapping[str, dict], noise: float
) -> list[str]:
    failures = []
    for name, row in rows.items():
        if "refused" in row:
            if name != "batch":  # a file may well be made for one
                failures.append(f"{RUNS[name]}: {row['refused']}")
        elif name in KERNELS:
            if row["agreement"] < gates["min_kernels"]:
                failures.append(
                    f"{RUNS[name]}: same top-1 on {100 * row['agreement']:.1f} % of the images, "
                    f"{100 * gates['min_kernels']:g} % are needed"
                )
        elif row["max_difference"] > noise if row["max_steps"] is None else row["max_steps"] > 1:
            failures.append(f"{RUNS[name]}: outputs change by up to {row['max_difference']:.2g}")
    return failures
