"""A phase of training: which layers, how long, with what optimizer."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import yaml

from kzoo.errors import UsageError, nearest, one_of
from kzoo.network.features import classifier_layer
from kzoo.network.named import layers_named

if TYPE_CHECKING:
    import keras

BATCH_NORM = ("batch", "frozen", "recalibrate", "auto")
CLASSIFIER = "classifier"
MONITORS = {"val_loss": "log_loss", "val_accuracy": "accuracy", "val_macro_f1": "macro_f1"}
"""What early stopping can watch, and the figure of an `Evaluation` that it is."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer.

    Attributes:
        epochs: passes over the training split.
        trainable: "all" (those that came frozen, too), or prefixes of the layers to train,
            ``("head", "stage4")``; the others are frozen, their BatchNorm too (it then uses its
            stored statistics). "classifier" is the last layer with weights alone, on features that
            are computed once: neither augmentation nor dropout plays a part.
        optimizer, schedule: as `kzoo.learn.optimizer.make_optimizer` takes them.
        learning_rate: the initial one, of the last layers.
        decay: layer-wise decay of the learning rate: the factor from one stage of the network to
            the one before it, (0, 1].
        batch_norm: "batch" (statistics of the batch, which the stored ones follow); "frozen": also
            where the layers around are trained, it uses its stored statistics and keeps its scale
            and offset, as fits small datasets and small batches; "recalibrate": as "batch", and
            after the phase the stored statistics are computed anew, with the final weights, as fits
            short phases; "auto": frozen where the model's file tells of pretrained weights, else
            recalibrate.
    """

    epochs: int = 15
    trainable: str | Sequence[str] = "all"
    optimizer: str | Mapping[str, object] = "adam"
    learning_rate: float = 1e-3
    schedule: str | Mapping[str, object] = "cosine"
    decay: float = 1.0
    batch_norm: str = "batch"

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise UsageError(f"epochs is a whole number from 1; {self.epochs!r} was given")
        rate = self.learning_rate
        if not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
            raise UsageError(f"a learning rate is a number above 0; {rate!r} was given")
        if not isinstance(self.decay, (int, float)) or not 0 < self.decay <= 1:
            raise UsageError(f"decay is above 0 and at most 1; {self.decay!r} was given")
        one_of("batch_norm", self.batch_norm, BATCH_NORM)
        if not isinstance(self.trainable, str):
            chosen = tuple(self.trainable)
            object.__setattr__(self, "trainable", chosen[0] if len(chosen) == 1 else chosen)


SCRATCH = (Phase(),)
"""For random weights."""
TRANSFER = (
    Phase(epochs=20, trainable=CLASSIFIER),
    Phase(epochs=8, learning_rate=5e-4, schedule="one_cycle", decay=0.7, batch_norm="frozen"),
)
"""For pretrained weights: the classifier on cached features first, so that the rest is not pulled
apart by a random one; then all stages, the earlier ones with smaller rates."""
RECIPES = {"scratch": SCRATCH, "transfer": TRANSFER}


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


def recipe_phases(
    name: str, pretrained: bool, changes: Mapping[str, object] | None = None
) -> tuple[Phase, ...]:
    """The phases of a recipe: "scratch", "transfer", or "auto", which looks at the weights.

    Args:
        name: of the recipe.
        pretrained: whether the weights are; "auto" is "transfer" then, else "scratch".
        changes: fields of the last phase. Where ``trainable`` is among them, it is the only one.

    Raises:
        UsageError: no such recipe, field or value.
    """
    one_of("phases", name, ("auto", *RECIPES))
    *first, last = RECIPES[("transfer" if pretrained else "scratch") if name == "auto" else name]
    changes = changes or {}
    return (*(first if "trainable" not in changes else ()), as_phase(vars(last) | {**changes}))


def all_phases(
    phases: str | Sequence[Phase | Mapping[str, object]], pretrained: bool
) -> list[Phase]:
    """The phases of a training: of a recipe by its name, or as they are given.

    Args:
        phases: as `recipe_phases` has it, or one after another.
        pretrained: whether the weights are; it decides what "auto" stands for.

    Raises:
        UsageError: no such recipe, field or value.
    """
    if isinstance(phases, str):
        phases = recipe_phases(phases, pretrained)
    settled = "frozen" if pretrained else "recalibrate"
    found = [as_phase(phase) for phase in phases]
    return [replace(p, batch_norm=settled) if p.batch_norm == "auto" else p for p in found]


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


def set_trainable(
    model: keras.Model, trainable: str | Sequence[str], batch_norm: str = "batch"
) -> None:
    """Freezes all layers but those that start with a prefix; BatchNorm with ``batch_norm`` frozen.

    Raises:
        UsageError: a prefix fits no layer, or nothing is left to train.
        BadInputError: "classifier" is asked of a network that does not end in one.
    """
    if trainable == CLASSIFIER:
        last = classifier_layer(model)
        for layer in model.layers:
            layer.trainable = layer is last
        return
    prefixes = (trainable,) if isinstance(trainable, str) else tuple(trainable)
    chosen = {*layers_named(model, [prefix for prefix in prefixes if prefix != "all"])}
    import keras

    for layer in model.layers:
        frozen = batch_norm == "frozen" and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = ("all" in prefixes or layer in chosen) and not frozen
    if not model.trainable_variables:
        raise UsageError(f"nothing to train: no layer that starts with {prefixes} has weights")


def layer_groups(model: keras.Model) -> list[str]:
    """The stages of a network from its head to its stem, as patterns of their variables' paths.

    Raises:
        UsageError: its layers are not named by stages.
    """
    found = {re.match(r"stage\d+|stem|head|", layer.name)[0] for layer in model.layers}
    stages = sorted((name for name in found if name.startswith("stage")), key=lambda n: int(n[5:]))
    if not stages:
        raise UsageError(
            f"layer-wise decay needs layers named stage1_1*, stage2_1*, ...; {model.name} has none"
        )
    order = ["head", *reversed(stages), "stem"]
    return [rf"{name}(_[^/]*)?/.*" for name in order if name in found]
