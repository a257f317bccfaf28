"""Training in phases, with checkpoints that resume exactly."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kzoo.data.dataset import Dataset
from kzoo.errors import UsageError
from kzoo.files import digest, new_output, sha256
from kzoo.learn.augment import Augment, augmentation
from kzoo.learn.checkpoint import drop_checkpoints
from kzoo.learn.distributed import Team, join
from kzoo.learn.features import Engine
from kzoo.learn.inputs import matching_data
from kzoo.learn.logs import epoch_logs
from kzoo.learn.loop import Loop, evaluate
from kzoo.learn.phase import Phase, all_phases
from kzoo.learn.projection import Projection
from kzoo.learn.training import (
    Training,
    check_arguments,
    checkpoints,
    notes_of,
    planned,
    recipe_of,
    trained_as_planned,
)
from kzoo.network.model_file import keras_name, opened, read_notes, save_model
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras


def finetune(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    phases: str | Sequence[Phase | Mapping[str, object]] = "auto",
    batch_size: int = 32,
    class_weights: str | Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
    augment: Augment = "none",
    auxiliary_weight: float = 0.3,
    early_stopping: int | None = None,
    monitor: str = "val_loss",
    precision: str = "float32",
    seed: int = 0,
    output: str | os.PathLike | None = None,
    force: bool = False,
    checkpoint_seconds: float = 60.0,
    logs: str | os.PathLike | None = None,
    engine: Engine | None = None,
    projection: Callable[[keras.Model], Projection] | None = None,
    distributed: bool = False,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Training:
    """Trains a classifier on images, (n, h, w, c) pixels in [0, 255] -> (n, classes).

    With ``output``, a checkpoint is kept beside it; the same call after a kill goes on from there
    and ends with the same weights, on the same number of cores and as far as the backend's own
    arithmetic is deterministic.

    Auxiliary heads (`kzoo.build` with ``auxiliary=True``) add their losses, each weighted with
    ``auxiliary_weight``, and are left out of the result.

    Args:
        model: a functional Keras model or its file.
        data: a dataset, or what `kzoo.load_data` takes (then ``data_options`` are its arguments).
        phases: one after another, each with a fresh optimizer; or a recipe of
            `kzoo.learn.phase`: "scratch", "transfer", or "auto", which is "transfer" where the
            model's file tells of pretrained weights.
        batch_size: images per step; an incomplete last batch is left out of the epoch.
        class_weights: "balanced" (n / (classes * count)), a weight per class name, or None.
        label_smoothing: share of the label's weight spread over all classes, [0, 1).
        augment: of the training images: "none", "light" (flips and shifts), "strong" (with small
            turns, zooms and changes of brightness, MixUp and random erasing), or any augmentation
            layers of Keras, by name or as a mapping of ``name`` and arguments, in their order.
        auxiliary_weight: weight of the loss of every auxiliary head, for models that have them: 0.3
            in GoogLeNet (Szegedy et al. 2014, section 5), 0.4 in Inception v3.
        early_stopping: end a phase after so many epochs without a better ``monitor``, and go back
            to the best epoch's weights.
        monitor: "val_loss", "val_accuracy" or "val_macro_f1".
        precision: "float32", or "mixed_bfloat16" where the hardware multiplies it.
        seed: of the order of images, dropout and the split.
        output: the ``.keras`` file to write.
        force: overwrite ``output``.
        checkpoint_seconds: at most this much work is lost to a kill.
        logs: a folder for ``history.csv`` and, where tensorboardX is installed, for TensorBoard.
        engine: what extracts features in a phase of the classifier, see `kzoo.learn.features`.
        projection: makes of the model what holds its weights to a form, as `kzoo.prune` does.
        distributed: share every batch with all devices of all processes that were started together
            (docs/scale.md), on the JAX backend. Process 0 alone writes, and has an ``output`` in
            its record; in several processes ``model`` is a file.
        progress: called after each step.

    Raises:
        UsageError: an argument is wrong, ``output`` exists, or no split is left to evaluate on.
        BadInputError: the model and the data do not fit, or the training diverged.
        MissingError: a file, disk space or another process is missing.
    """
    team = join(seed) if distributed else Team()
    progress = progress if team.leads else silent
    if output is not None:
        output = new_output(keras_name(output), force=force)
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
    phases = all_phases(phases, bool(notes.get("weights")))
    check_arguments(phases, batch_size, label_smoothing, early_stopping, monitor, precision)
    if not 0 <= auxiliary_weight < math.inf:
        raise UsageError(f"auxiliary_weight is at least 0 and finite; {auxiliary_weight} was given")
    model = opened(model, auxiliary=True)
    head_weights = [1.0, *[float(auxiliary_weight)] * (len(model.outputs) - 1)]
    options = {"seed": seed, "progress": progress, **(data_options or {})}
    # Its own seed decides the split, so only the names of the notes count here.
    data = matching_data(
        model.inputs[0].shape[1:],
        model.outputs[0].shape[1],
        data,
        {"classes": notes.get("classes", ())},
        **options,
    )
    plan = planned(
        data,
        phases=phases,
        batch_size=batch_size,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        head_weights=head_weights,
        augment=augmentation(augment),
        early_stopping=early_stopping,
        monitor=monitor,
        seed=seed,
    )
    team.check(plan.batch_size)
    recipe = recipe_of(plan, model, data, engine, precision)
    held = projection(model) if projection else Projection()
    if projection:
        recipe["projection"] = held.recipe
    folder = checkpoints(output, recipe)
    team.agree(digest(recipe))
    loop = Loop(
        model,
        data,
        plan,
        folder,
        projection=held,
        engine=engine,
        team=team,
        logs=epoch_logs(logs if team.leads else None),
        progress=progress,
    )
    with trained_as_planned(model, plan, precision):
        loop.run(checkpoint_seconds)
    finished, told = held.finished(loop.classifier)
    evaluation = evaluate(loop.classifier, data, progress=progress, team=team)
    output = output if team.leads else None
    if output:
        save_model(finished, output, notes=notes_of(data, notes) | told, force=force)
        drop_checkpoints(folder)
    return Training(
        model=finished,
        classes=data.classes,
        history=loop.history,
        evaluation=evaluation,
        recipe=recipe,
        output=str(output) if output else None,
        sha256=sha256(output) if output else None,
        stopped_early=loop.stopped_early,
    )
