"""What a student is asked to match of its teacher, and the losses that say how well it does.

A teacher's side depends on the teacher and the images alone and is computed once. The student's is
made of further outputs of one model that shares its layers, with adapters where widths differ; that
model is trained by Keras' own step, on whatever backend.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import UsageError, nearest
from kzoo.learn.features import Engine, cut_features, extracted
from kzoo.learn.knowledge import (
    adapted,
    attention,
    average_logits,
    flow,
    pooled_to,
    softened,
    squared_error,
)
from kzoo.learn.variants import Variants
from kzoo.network.features import cut_names
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

LOSSES = {
    "soft": 0.9,
    "hard": 0.1,
    "hint": 1.0,
    "attention": 5.0,
    "fsp": 1.0,
    "mimic": 1.0,
    "self": 1.0,
}
"""The losses and their usual weights. Zagoruyko, Komodakis 2017, section 4.1.1, have 1000 over the
number of cells for "attention": 1 to 16 on their maps of 32 x 32 to 8 x 8. On maps of 3 x 3 it left
nothing to the other losses: mobilenet_v1_025 had 38 % of clothing10 right, 53 % without it."""
AT_STAGES = ("hint", "attention", "fsp")
OF_A_TEACHER = ("soft", *AT_STAGES, "mimic")
SAMPLE = 512
"""Rows that tell how large a teacher's outputs are, and how much they differ."""
SMALLEST = 1e-12

Pair = tuple["keras.KerasTensor", "keras.KerasTensor"]


@dataclass(frozen=True)
class Lessons:
    """What is minimized beside the labels' cross-entropy, by output of the model.

    Attributes:
        student: images -> logits or probabilities.
        model: images -> a dict of outputs, "hard" (those of the student) and one per loss and cut;
            the student itself where labels alone teach.
        losses: (target, output) -> a value per image, by output.
        weights: of the losses.
        targets: float32 (rows, ...), rows as in `Variants`.
        terms: the outputs whose losses, averaged, are each of `LOSSES`.
    """

    student: keras.Model
    model: keras.Model
    losses: Mapping[str, Callable] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    terms: Mapping[str, Sequence[str]] = field(default_factory=dict)


def checked_losses(losses: Mapping[str, float] | None, teacher: bool) -> dict[str, float]:
    """The weights, those of 0 left out; UsageError for what makes no sense."""
    if losses is None:
        losses = {name: LOSSES[name] for name in ("soft", "hard")}
    for name, weight in losses.items():
        if name not in LOSSES:
            raise UsageError(
                f"no loss is called {name!r}{nearest(name, LOSSES)} (known: {', '.join(LOSSES)})"
            )
        if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise UsageError(f"a loss's weight is a number from 0; {name}={weight!r} was given")
    found = {name: float(weight) for name, weight in losses.items() if weight}
    if not found:
        raise UsageError(f"no loss is left, every weight is 0; known: {', '.join(LOSSES)}")
    asked = [name for name in found if name in OF_A_TEACHER]
    if asked and not teacher:
        raise UsageError(f"the loss {asked[0]} needs a teacher; self and hard do without")
    if teacher and not asked:
        raise UsageError(
            f"the teacher has no part in {' and '.join(found)}; leave it out, or give a weight to "
            f"one of {', '.join(OF_A_TEACHER)}"
        )
    return found


def chosen_cuts(
    student: keras.Model,
    teacher: keras.Model | None,
    losses: Mapping[str, float],
    at: Sequence[str],
) -> list[str]:
    """The stages to compare, in the order of the network.

    Raises:
        UsageError: a stage is missing, or its output is no map.
    """
    asked = [name for name in AT_STAGES if name in losses]
    if not asked:
        if at:
            raise UsageError(
                f"stages are for the losses {', '.join(AT_STAGES)}; given are {', '.join(losses)}"
            )
        return []
    stages = {
        name: [cut for cut in cut_names(model) if cut.startswith("stage")]
        for name, model in (("student", student), ("teacher", teacher))
    }
    for cut in at:
        for name, known in stages.items():
            if cut not in known:
                hint = "" if re.match(r"stage\d", cut) else "; the loss mimic compares at the head"
                raise UsageError(
                    f"the {name} has no {cut!r}{hint} (its stages: {', '.join(known) or 'none'})"
                )
    both = [cut for cut in stages["student"] if cut in stages["teacher"]]
    chosen = [cut for cut in both if cut in at] if at else both[-2:]
    if len(chosen) < 1 + ("fsp" in losses):
        raise UsageError(
            f"the loss {asked[-1]} needs {'two stages' if 'fsp' in losses else 'a stage'} of both "
            f"networks; given {', '.join(at) or 'none'}, in both: {', '.join(both) or 'none'}"
        )
    for cut in chosen:  # before hours of training a teacher
        _map(student, cut)
        _map(teacher, cut)
    return chosen


def make_lessons(
    student: keras.Model,
    teacher: keras.Model | None,
    variants: Variants,
    *,
    losses: Mapping[str, float],
    cuts: Sequence[str] = (),
    temperature: float = 1.0,
    seed: int = 0,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Lessons:
    """The lessons of some losses, with the teacher's side computed or read.

    Args:
        student, teacher: functional classifiers of the same classes.
        variants: of the images, at both networks' sizes.
        losses: weights above 0 of some of `LOSSES`.
        cuts: the stages for "hint", "attention" and "fsp", in the order of the network.
        temperature: of "soft" and "self".
        seed: of the adapters.
        engine, progress: as for `kzoo.learn.features`.

    Raises:
        BadInputError: the teacher gives NaN.
        MissingError: no disk space, or no permission to write the cache.
    """
    import keras

    own, taught, kinds = {}, {}, {}
    for kind in (name for name in losses if name in OF_A_TEACHER):
        for label, pair in _pairs(kind, student, teacher, cuts, seed):
            (own[label], taught[label]), kinds[label] = pair, kind
    targets = {}
    if taught:
        part = keras.Model(teacher.inputs[0], [*taught.values()], name=teacher.name)
        size = teacher.inputs[0].shape[1:3]
        images, identity = variants.images[size], variants.identities[size]
        targets = extracted(part, [*taught], images, identity, engine, progress)
    if "self" in losses:
        own["self"], kinds["self"] = average_logits(student), "self"
        targets["self"] = np.broadcast_to(np.float32(0), (len(variants.labels), 1, 1))
    if not own:
        return Lessons(student, student)
    seen = variants.places[variants.places >= 0]
    seen = np.sort(seen[:: max(1, len(seen) // SAMPLE)])
    terms = {name: [label for label in kinds if kinds[label] == name] for name in losses}
    return Lessons(
        student=student,
        model=keras.Model(student.inputs[0], {"hard": student.outputs[0], **own}),
        losses={label: _loss(kinds[label], targets[label][seen], temperature) for label in own},
        weights={label: losses[kind] / len(terms[kind]) for label, kind in kinds.items()},
        targets=targets,
        terms={name: labels or ["hard"] for name, labels in terms.items()},
    )


def _pairs(
    kind: str, student: keras.Model, teacher: keras.Model, cuts: Sequence[str], seed: int
) -> Iterator[tuple[str, Pair]]:
    """The tensors that a loss compares, the student's and the teacher's, by name."""
    if kind == "soft":
        yield "soft", (cut_features(student, "logits"), cut_features(teacher, "logits"))
        return
    if kind == "mimic":
        own, other = cut_features(student, "head"), cut_features(teacher, "head")
        yield "mimic", (adapted(own, other.shape[-1], "mimic", seed), other)
        return
    maps = {cut: (_map(student, cut), _map(teacher, cut)) for cut in cuts}
    if kind == "fsp":
        own = {
            cut: x if x.shape[-1] == y.shape[-1] else adapted(x, y.shape[-1], f"fsp_{cut}", seed)
            for cut, (x, y) in maps.items()
        }
        for a, b in pairwise(cuts):
            yield f"fsp_{a}_{b}", (flow(own[a], own[b]), flow(maps[a][1], maps[b][1]))
        return
    for cut, (own, other) in maps.items():
        name = f"{kind}_{cut}"
        size = tuple(map(min, own.shape[1:3], other.shape[1:3]))
        if kind == "attention":
            yield name, (attention(own, size), attention(other, size))
        else:
            own, other = pooled_to(own, size), pooled_to(other, size)
            yield name, (adapted(own, other.shape[-1], name, seed), other)


def _map(model: keras.Model, cut: str) -> keras.KerasTensor:
    found = cut_features(model, cut, pooled=False)
    if len(found.shape) != 4:
        raise UsageError(
            f"{cut} of {model.name} is no map (n, h, w, c), it is {found.shape}; the loss mimic "
            f"compares what enters the classifier, whatever its shape"
        )
    return found


def _loss(kind: str, sample: np.ndarray, temperature: float) -> Callable:
    """(target, output) -> (n,). Of "hint", "mimic" and "fsp" an output of zeros costs 1.

    Whatever the size of a teacher's values, a weight then means the same, and training begins
    gently: the adapters of "hint" and "mimic" predict how much a value differs from its mean.
    """
    if kind == "soft":
        return softened(temperature)
    if kind == "self":
        loss = softened(temperature)
        return lambda _, both: loss(both[:, 1], both[:, 0])
    if kind == "attention":
        return squared_error()
    if kind == "fsp":  # what is compared has to be of one size, so only the sum is scaled
        loss, unit = squared_error(), float(np.square(sample).mean())
        return lambda *both: loss(*both) / max(unit, SMALLEST)
    spread = float(np.sqrt(sample.var(axis=0).mean()))
    return squared_error(sample.mean(axis=0), max(spread, SMALLEST))
