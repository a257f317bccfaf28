"""Is the exported file as good as the model it came from? On real images, by real kernels."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kzoo.child import blame, call_shared
from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.evaluate import Evaluation, score, softmax
from kzoo.lite.classify import FLOOR, evaluated, gives_logits, least_probability
from kzoo.lite.convert import images_for, made_from, model_path, shown
from kzoo.lite.inspect import Contents, inspect
from kzoo.lite.interpret import kernel_agreement, lite_outputs
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

FEW = 32
"""Images that slow kernels are run on."""


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
        kernels: whether other kernels of LiteRT, and more threads, give the same answers; see
            `kzoo.lite.interpret.kernel_agreement`. Empty where it was not asked for.
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
    kernels: dict[str, dict]
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
    min_agreement: float | None = None,
    max_drop: float | None = None,
    max_float_ops: int | None = None,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Check:
    """Compares a .tflite with the Keras model it was made from, on labelled images.

    Args:
        file: the ``.tflite``.
        against: the Keras model.
        data: a dataset or what `kzoo.load_data` takes.
        split: "train", "validation" or "test"; by default test, or validation where that is empty.
        limit: at most so many images, the first of the split; at least 1.
        kernels: also run it with LiteRT's other kernels, on the first 32 images.
        min_agreement: a gate, share of equal top-1 in [0, 1].
        max_drop: a gate, accuracy lost in percentage points.
        max_float_ops: a gate, float islands; a file without integer kernels never meets it.
        data_options: arguments of `kzoo.load_data` when ``data`` is a path; by default the split is
            the one that the model was trained on.
        progress: called at the stages of the work.

    Raises:
        MissingError, BadInputError, UsageError: as for `kzoo.convert`. A gate that is not met
        raises nothing; it stands in ``failures``.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is at least 1; {limit} was given")
    contents = inspect(file, packed=False)
    with model_path(against) as path:
        data = images_for(path, against, data, data_options, progress)
        made_from(file, contents, against, data)
        split, indices = evaluated(data, split)
        indices = indices[:limit]
        progress("run the Keras model", 0, len(indices))
        expected, probabilities_only = _keras_outputs(path, against, data, indices)
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
    return Check(
        contents=contents,
        against=shown(against).strip("'"),
        compared=compared,
        max_logit_error=float(errors.max()),
        mean_logit_error=float(errors.mean()),
        logit_std=float(pair[0].std()),
        agreement=agreement,
        keras=evaluations[0],
        lite=evaluations[1],
        kernels=kernel_agreement(file, data.images_file, indices[:FEW], progress=progress)
        if kernels
        else {},
        failures=_failures(
            agreement, evaluations, contents, min_agreement, max_drop, max_float_ops
        ),
        keras_probabilities=keras_probabilities,
        lite_probabilities=lite_probabilities,
        indices=indices,
    )


def _keras_outputs(path, against, data: Dataset, indices: np.ndarray) -> tuple[np.ndarray, bool]:
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        np.save(f"{folder}/indices.npy", indices)
        with blame(f"{shown(against)} cannot be run"):
            probabilities_only = call_shared(
                "kzoo.lite.translate:predict",
                model=str(path),
                images_file=str(data.images_file),
                folder=folder,
            )
        return np.load(f"{folder}/keras.npy"), probabilities_only


def _failures(
    agreement, evaluations, contents, min_agreement, max_drop, max_float_ops
) -> list[str]:
    failures = []
    if min_agreement is not None and agreement < min_agreement:
        failures.append(f"top-1 agreement {agreement:.4f} is below {min_agreement:g}")
    drop = 100 * (evaluations[0].accuracy - evaluations[1].accuracy)
    if max_drop is not None and drop > max_drop:
        failures.append(f"accuracy drops by {drop:.2f} points, {max_drop:g} are allowed")
    islands = contents.float_islands
    if max_float_ops is not None and not contents.integer_kernels:
        failures.append("no convolution or dense layer computes in integers: no quantized file")
    if max_float_ops is not None and len(islands) > max_float_ops:
        failures.append(
            f"{len(islands)} float operators, {max_float_ops} allowed: {', '.join(islands[:5])}"
        )
    return failures
