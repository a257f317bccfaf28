"""A phase of training: which layers, how long, with what optimizer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from kzoo.errors import UsageError, nearest

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer.

    Attributes:
        epochs: passes over the training split.
        trainable: "all" (those that came frozen, too), or prefixes of the layers to train,
            ``("head", "stage4")``; the others are frozen, their BatchNorm too (it then uses its
            stored statistics).
        optimizer, schedule: as `kzoo.learn.optimizer.make_optimizer` takes them.
        learning_rate: the initial one.
    """

    epochs: int = 15
    trainable: str | Sequence[str] = "all"
    optimizer: str | Mapping[str, object] = "adam"
    learning_rate: float = 1e-3
    schedule: str | Mapping[str, object] = "cosine"

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise UsageError(f"epochs is a whole number from 1; {self.epochs!r} was given")
        rate = self.learning_rate
        if not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
            raise UsageError(f"a learning rate is a number above 0; {rate!r} was given")


def as_phase(phase: Phase | Mapping[str, object]) -> Phase:
    """A phase of itself or of its fields; raises UsageError for an unknown field."""
    if isinstance(phase, Phase):
        return phase
    known = Phase.__dataclass_fields__
    for key in phase:
        if key not in known:
            raise UsageError(
                f"a phase has no {key!r}{nearest(key, known)} (known: {', '.join(known)})"
            )
    return Phase(**phase)


def parse_phase(text: str) -> Phase:
    """A phase of ``"epochs: 5, trainable: head, learning_rate: 1e-3"``, YAML without braces."""
    try:
        values = yaml.safe_load("{" + text.replace("=", ": ") + "}")
    except yaml.YAMLError as error:
        raise UsageError(f"a phase is 'epochs: 5, trainable: head'; {text!r} was given") from error
    if isinstance(values.get("learning_rate"), str):  # YAML 1.1 reads 1e-3, without a dot, as text
        with contextlib.suppress(ValueError):
            values["learning_rate"] = float(values["learning_rate"])
    return as_phase(values)


def set_trainable(model: keras.Model, trainable: str | Sequence[str]) -> None:
    """Freezes all layers but those that start with a prefix.

    Raises:
        UsageError: a prefix fits no layer, or nothing is left to train.
    """
    prefixes = (trainable,) if isinstance(trainable, str) else tuple(trainable)
    names = [layer.name for layer in model.layers]
    for prefix in prefixes:
        if prefix != "all" and not any(name.startswith(prefix) for name in names):
            known = sorted({name.split("_")[0] for name in names})
            raise UsageError(
                f"no layer of {model.name} starts with {prefix!r}{nearest(prefix, known)} "
                f"(its layers start with {', '.join(known[:12])})"
            )
    for layer in model.layers:
        layer.trainable = "all" in prefixes or layer.name.startswith(prefixes)
    if not model.trainable_variables:
        raise UsageError(f"nothing to train: no layer that starts with {prefixes} has weights")
