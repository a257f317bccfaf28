"""Knowledge distillation: a small network learns from a large one, beside the labels."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.files import digest, new_output, sha256
from kzoo.learn.augment import Augment, augmentation
from kzoo.learn.checkpoint import drop_checkpoints
from kzoo.learn.evaluate import Evaluation, score, softmax
from kzoo.learn.features import Engine, cut_model, extracted, images_digest
from kzoo.learn.inputs import matching_classes, matching_data
from kzoo.learn.lessons import Lessons, checked_losses, chosen_cuts, make_lessons
from kzoo.learn.logs import epoch_logs
from kzoo.learn.loop import Loop, evaluate
from kzoo.learn.phase import Phase, all_phases
from kzoo.learn.projection import Projection
from kzoo.learn.task import Distillation
from kzoo.learn.training import (
    Training,
    check_arguments,
    checkpoints,
    notes_of,
    planned,
    recipe_of,
    trained_as_planned,
    weights_digest,
)
from kzoo.learn.variants import decoded_at, variants
from kzoo.network.model_file import keras_name, opened, read_notes, save_model
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Distilled(Training):
    """What came out of `distill`: a `Training`, whose history has a column per loss, unweighted.

    Attributes:
        teacher: its figures on the same images, or None without one.
        alone: the training of the same student on the labels alone, or None.
    """

    teacher: Evaluation | None
    alone: Training | None

    def to_dict(self) -> dict:
        """The record as JSON values, without the models."""
        return {
            **super().to_dict(),
            "teacher": self.teacher and self.teacher.to_dict(),
            "alone": self.alone and self.alone.to_dict(),
        }


def distill(
    student: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    teacher: keras.Model | str | os.PathLike | None = None,
    losses: Mapping[str, float] | None = None,
    temperature: float = 4.0,
    at: Sequence[str] = (),
    alone: bool = True,
    augment: Augment = "none",
    augment_seeds: int = 4,
    phases: str | Sequence[Phase | Mapping[str, object]] = "auto",
    batch_size: int = 32,
    class_weights: str | Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
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
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Distilled:
    """Trains a student on labels and on what a teacher makes of the same images.

    What the teacher makes of them is computed once and cached, also for other temperatures, weights
    and students. So the images are augmented once, in ``augment_seeds`` variants. Both networks see
    the same ones, each at its own size: they are made at the larger size and scaled down to the
    other; without augmentation every photo is decoded at both. A checkpoint is kept as by
    `kzoo.finetune`, and holds the student, its adapters, its average and its optimizer.

    Args:
        student: a functional Keras model or its file; auxiliary heads are left out.
        data: a dataset, or what `kzoo.load_data` takes (then ``data_options`` are its arguments; by
            default the split is the one that the teacher was trained on).
        teacher: a functional Keras model or its file, of the same classes.
        losses: weights by name, ``{"soft": 0.9, "hard": 0.1}`` by default; docs/distill.md has the
            formulas. "hard": cross-entropy with the labels. "soft": T^2 times the divergence of the
            softened classes (Hinton et al. 2015). "hint": squared error of maps (Romero et al.
            2015). "attention": of normalized maps of their energy (Zagoruyko, Komodakis 2017).
            "fsp": of the products of two stages' channels (Yim et al. 2017). "mimic": of what
            enters the classifier. "self": as "soft", the teacher being the student's own average
            (Tarvainen, Valpola 2017), which needs no ``teacher``.
        temperature: T of "soft" and "self".
        at: the stages for "hint", "attention" and "fsp", by default the last two of both networks.
        alone: also train the student on the labels alone, from the same weights and on the same
            variants, to compare.
        augment: as for `kzoo.finetune`.
        augment_seeds: variants of every image; one epoch takes one. More of them are better, and
            take disk space: a byte per pixel and channel.
        phases: as for `kzoo.finetune`; in a phase of the classifier alone the labels teach.
        engine: what runs the teacher, see `kzoo.learn.features`.
        projection: as for `kzoo.finetune`; of the distilled student, not of the one alone.
        progress: called after each step.

    The others, ``batch_size``, ``class_weights`` (which count in every loss), ``label_smoothing``,
    ``early_stopping``, ``monitor``, ``precision``, ``seed``, ``output``, ``force``, ``logs`` and
    ``checkpoint_seconds``, are as for `kzoo.finetune`.

    Raises:
        UsageError: an argument is wrong, ``output`` exists, or no split is left to evaluate on.
        BadInputError: the networks and the data do not fit, or the training diverged.
        MissingError: a file or disk space is missing.
    """
    if output is not None:
        output = new_output(keras_name(output), force=force)
    losses = checked_losses(losses, teacher is not None)
    if not isinstance(temperature, (int, float)) or not 0 < temperature < math.inf:
        raise UsageError(f"a temperature is a number above 0; {temperature!r} was given")
    if augment_seeds < 1:
        raise UsageError(f"augment_seeds is at least 1; {augment_seeds} was given")
    if _same(student, teacher):
        raise UsageError(
            "the teacher is the student itself; give a fresh one to be born again (kzoo build), or "
            "let it learn from its own average by the loss self"
        )
    notes, told = (read_notes(each) if _is_path(each) else {} for each in (student, teacher))
    phases = all_phases(phases, bool(notes.get("weights")))
    check_arguments(phases, batch_size, label_smoothing, early_stopping, monitor, precision)
    layers = augmentation(augment)
    student, teacher = opened(student), teacher if teacher is None else opened(teacher)
    cuts = chosen_cuts(student, teacher, losses, at)
    # No image that the teacher was trained on is taken for a test.
    options = {"seed": seed, "progress": progress, **told.get("split", {}), **(data_options or {})}
    data = matching_data(
        student.inputs[0].shape[1:],
        student.outputs[0].shape[1],
        data,
        {"classes": notes.get("classes", ())},
        **options,
    )
    photos = {data.size: data}
    if teacher is not None:
        _check_teacher(teacher, told, data)
        photos |= {size: decoded_at(data, size, progress) for size in [_size(teacher)]}
    plan = planned(
        data,
        phases=phases,
        batch_size=batch_size,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        head_weights=[losses.get("hard", 0.0)],
        augment=[],  # the variants are
        early_stopping=early_stopping,
        monitor=monitor,
        seed=seed,
    )
    recipe = {
        **recipe_of(plan, student, data, engine, precision),
        "augment": layers,
        "augment_seeds": augment_seeds,
        "losses": losses,
        "temperature": temperature,
        "at": cuts,
        "teacher": teacher and weights_digest(teacher),
    }
    held = projection(student) if projection else Projection()
    if projection:
        recipe["projection"] = held.recipe
    judged = teacher and _judged(teacher, photos[_size(teacher)], engine, progress)
    seen = variants(photos, layers, augment_seeds, progress)
    train = functools.partial(
        _train,
        data,
        seen,
        engine=engine,
        precision=precision,
        checkpoint_seconds=checkpoint_seconds,
    )
    folders = [checkpoints(output, recipe)]
    baseline = None
    if alone and [*losses] != ["hard"]:
        apart = {"losses": {"hard": 1.0}, "temperature": None, "at": [], "teacher": None}
        own = recipe | apart | {"head_weights": [1.0]}
        folders.append(checkpoints(output, own))
        copy = type(student).from_config(student.get_config())
        copy.set_weights(student.get_weights())
        baseline, _ = train(
            Lessons(copy, copy),
            replace(plan, head_weights=[1.0]),
            own,
            folders[-1],
            progress=lambda task, *now: progress(task.replace("train", "train alone", 1), *now),
        )
    lessons = make_lessons(
        student,
        teacher,
        seen,
        losses=losses,
        cuts=cuts,
        temperature=temperature,
        seed=seed,
        engine=engine,
        progress=progress,
    )
    found, told = train(
        lessons,
        plan,
        recipe,
        folders[0],
        projection=held,
        logs=epoch_logs(logs),
        progress=progress,
    )
    if output:
        save_model(found.model, output, notes=notes_of(data, notes) | told, force=force)
        for folder in folders:
            drop_checkpoints(folder)
        written = {"output": str(output), "sha256": sha256(output)}
        found = replace(found, **written)
    return Distilled(**vars(found), teacher=judged, alone=baseline)


def _train(data, seen, lessons, plan, recipe, folder, *, precision, checkpoint_seconds, **others):
    """A student's training on its lessons, as a `Training` that is not written yet, and notes."""
    loop = Loop(
        lessons.model,
        data,
        plan,
        folder,
        classifier=lessons.student,
        task=functools.partial(Distillation, lessons, seen),
        terms=[*lessons.terms],
        **others,
    )
    with trained_as_planned(lessons.student, plan, precision):
        loop.run(checkpoint_seconds)
    finished, told = loop.projection.finished(lessons.student)
    found = Training(
        model=finished,
        classes=data.classes,
        history=loop.history,
        evaluation=evaluate(lessons.student, data, progress=others["progress"]),
        recipe=recipe,
        output=None,
        sha256=None,
        stopped_early=loop.stopped_early,
    )
    return found, told


def _judged(
    teacher: keras.Model, data: Dataset, engine: Engine | None, progress: Progress
) -> Evaluation:
    """A teacher's figures, from cached logits."""
    split = data.evaluation_split
    chosen = data.splits[split]
    part = cut_model(teacher, ["logits"])
    identity = digest([images_digest(data), chosen.tolist()])
    found = extracted(part, ["logits"], data.images[chosen], identity, engine, progress)
    return score(softmax(found["logits"]), data.labels[chosen], split)


def _check_teacher(teacher: keras.Model, told: Mapping[str, object], data: Dataset) -> None:
    (height, width, channels), own = teacher.inputs[0].shape[1:], data.images.shape[1:]
    if channels != own[2] or height * own[1] != width * own[0]:
        raise BadInputError(
            f"the teacher takes {height} x {width} x {channels} images, the student "
            f"{' x '.join(map(str, own))}; the same shape and channels are expected"
        )
    try:
        matching_classes(teacher.outputs[0].shape[1], data, told)
    except BadInputError as error:
        raise BadInputError(f"the teacher does not fit: {error}") from error


def _size(model: keras.Model) -> tuple[int, int]:
    return model.inputs[0].shape[1:3]


def _is_path(model: object) -> bool:
    return isinstance(model, (str, os.PathLike))


def _same(student: object, teacher: object) -> bool:
    if _is_path(student) and _is_path(teacher):
        return Path(student).resolve() == Path(teacher).resolve()
    return student is teacher
