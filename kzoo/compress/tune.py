"""The training that every compression ends with: short, at a low rate, on the labels or a teacher.

It is `kzoo.finetune`, or `kzoo.distill` where there is a teacher, with other defaults.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.coding import coded_bytes
from kzoo.compress.kernels import kernels_of
from kzoo.data.dataset import Dataset
from kzoo.learn.distill import distill
from kzoo.learn.evaluate import Evaluation
from kzoo.learn.finetune import finetune
from kzoo.learn.inputs import matching_data
from kzoo.learn.loop import evaluate
from kzoo.learn.phase import Phase, as_phase
from kzoo.learn.projection import Projection
from kzoo.learn.training import Training
from kzoo.network.model_file import opened, read_notes, save_model
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

PHASE = Phase(epochs=8, learning_rate=3e-4, schedule="cosine", batch_norm="recalibrate")
"""For a trained network. A tenth of the rate that trains from random weights to a third of it.
BatchNorm follows, of pretrained networks too, as what is left of the weights has other statistics;
they are counted again at the end, as so few steps do not carry them along."""

TFMOT = "tfmot"
"""The ``engine`` that trains by TensorFlow Model Optimization, see `kzoo.compress.tfmot`."""


@dataclass(frozen=True)
class Compressed:
    """What came out of a compression.

    Attributes:
        before: how good the model was, on the images that ``training.evaluation`` is of.
        training: the training that it was compressed in, with the model; a
            `kzoo.learn.distill.Distilled` where there was a teacher.
        kernels: of every kernel ``name``, ``shape``, ``count`` of its weights, how many ``zeros``
            and how many distinct ``values`` they have.
        coded_bytes: of all weights, see `kzoo.compress.coding`.
    """

    before: Evaluation
    training: Training
    kernels: list[dict]
    coded_bytes: int

    @property
    def sparsity(self) -> float:
        """The share of zeros among the weights of all kernels, depthwise ones included."""
        zeros, count = (sum(row[key] for row in self.kernels) for key in ("zeros", "count"))
        return zeros / count

    def to_dict(self) -> dict:
        """The record as JSON values, without the model."""
        return {
            **self.training.to_dict(),
            "before": self.before.to_dict(),
            "kernels": self.kernels,
            "sparsity": self.sparsity,
            "coded_bytes": self.coded_bytes,
        }


def tuning_phases(
    changes: Mapping[str, object] | None = None, phase: Phase = PHASE
) -> tuple[Phase, ...]:
    """``phase`` with other values of some fields."""
    return (as_phase(vars(phase) | {**(changes or {})}),)


def tune(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    projection: Callable[[keras.Model], Projection],
    prepare: Callable[[keras.Model], keras.Model] | None = None,
    *,
    phases: Sequence[Phase | Mapping[str, object]] = (PHASE,),
    data_options: Mapping[str, object] | None = None,
    teacher: keras.Model | str | os.PathLike | None = None,
    seed: int = 0,
    progress: Progress = silent,
    **training: object,
) -> Compressed:
    """Trains a model whose weights are held to a form.

    Args:
        model: a functional Keras model or its file.
        data: as for `kzoo.finetune`.
        projection: as for `kzoo.finetune`.
        prepare: makes of the model what is trained, an equal one.
        phases: as for `kzoo.finetune`.
        data_options: arguments of `kzoo.load_data`; the split is by default that of the model.
        teacher: as for `kzoo.distill`, or None; the model itself will do.
        seed, progress: as for `kzoo.finetune`.
        training: what else `kzoo.finetune` takes, or with a teacher `kzoo.distill`.
    """
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
    before = opened(model)
    # No image that the model was trained on is taken for a test.
    options = {"seed": seed, "progress": progress, **notes.get("split", {}), **(data_options or {})}
    data = matching_data(
        before.inputs[0].shape[1:],
        before.outputs[0].shape[1],
        data,
        {"classes": notes.get("classes", ())},
        **options,
    )
    judged = evaluate(before, data, progress=progress)
    training |= {"projection": projection, "phases": phases, "seed": seed, "progress": progress}
    train = finetune
    paths = [each for each in (model, teacher) if isinstance(each, (str, os.PathLike))]
    if len(paths) == 2 and Path(paths[0]).resolve() == Path(paths[1]).resolve():
        teacher = before  # what it was teaches what it becomes
    if training.get("engine") == TFMOT:
        from kzoo.compress.tfmot import train

        training |= {"teacher": teacher}
    elif teacher is not None:
        train, training = distill, {"alone": False, "teacher": teacher, **training}
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        if prepare:  # by a file, so that what the notes tell goes along
            prepared = prepare(before)
            model = save_model(prepared, Path(folder, "prepared.keras"), notes=notes)
        found = train(model, data, **training)
    rows = [_row(kernel) for kernel in kernels_of(found.model, include=[""])]
    return Compressed(judged, found, rows, coded_bytes(found.model))


def _row(kernel) -> dict:
    values = kernel.values
    return {
        "name": kernel.name,
        "shape": list(values.shape),
        "count": values.size,
        "zeros": int((values == 0).sum()),
        "values": len(np.unique(values)),
    }
