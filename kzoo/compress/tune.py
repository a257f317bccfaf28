"""The training that every compression ends with: short, at a low rate, on the labels or a teacher.

It is `kzoo.finetune`, or `kzoo.distill` where there is a teacher, with other defaults.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kzoo.data.dataset import Dataset
from kzoo.learn.distill import distill
from kzoo.learn.evaluate import Evaluation
from kzoo.learn.finetune import finetune
from kzoo.learn.inputs import matching_data
from kzoo.learn.loop import evaluate
from kzoo.learn.phase import Phase, as_phase
from kzoo.learn.projection import Projection
from kzoo.learn.training import Training
from kzoo.network.model_file import opened, read_notes
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

PHASE = Phase(epochs=8, learning_rate=3e-4, schedule="cosine", batch_norm="recalibrate")
"""For a trained network. A tenth of the rate that trains from random weights to a third of it; the
statistics are counted again at the end, as so few steps do not carry them along."""


def tuning_phases(changes: Mapping[str, object] | None = None) -> tuple[Phase, ...]:
    """`PHASE` with other values of some fields."""
    return (as_phase(vars(PHASE) | {**(changes or {})}),)


def tune(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    projection: Callable[[keras.Model], Projection],
    *,
    phases: Sequence[Phase | Mapping[str, object]] = (PHASE,),
    data_options: Mapping[str, object] | None = None,
    teacher: keras.Model | str | os.PathLike | None = None,
    seed: int = 0,
    progress: Progress = silent,
    **training: object,
) -> tuple[Evaluation, Training]:
    """Trains a model whose weights are held to a form.

    Args:
        model: a functional Keras model or its file.
        data: as for `kzoo.finetune`.
        projection: as for `kzoo.finetune`.
        phases: as for `kzoo.finetune`.
        data_options: arguments of `kzoo.load_data`; the split is by default that of the model.
        teacher: as for `kzoo.distill`, or None.
        seed, progress: as for `kzoo.finetune`.
        training: what else `kzoo.finetune` takes, or with a teacher `kzoo.distill`.

    Returns:
        How good the model was on the images that the training is judged on, and the training.
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
    if teacher is None:
        return judged, finetune(model, data, **training)
    return judged, distill(model, data, teacher=teacher, **{"alone": False, **training})
