"""Keras' optimizers and learning-rate schedules, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kzoo.errors import UsageError, nearest

if TYPE_CHECKING:
    import keras

WRAPPERS = ("LossScaleOptimizer", "MultiOptimizer")
"""They take other optimizers, which no name gives."""


def make_optimizer(
    optimizer: str | Mapping[str, object],
    learning_rate: float,
    schedule: str | Mapping[str, object],
    steps: int,
) -> keras.optimizers.Optimizer:
    """An optimizer of `keras.optimizers` with a schedule of `keras.optimizers.schedules`.

    Args:
        optimizer: a name ("adam", "sgd", "rmsprop", ...), or a mapping with ``name`` and the
            class's own arguments, ``{"name": "sgd", "momentum": 0.9}``.
        learning_rate: the initial one, or the peak of a schedule with warm-up.
        schedule: "constant", a name ("cosine", "exponential", "polynomial", "inverse_time",
            "cosine_restarts", "piecewise_constant"), or a mapping as above. Steps that are not
            given are the whole phase's.
        steps: optimizer steps in the phase.

    Raises:
        UsageError: an unknown name or argument, with the nearest.
    """
    import keras

    rate = _schedule(schedule, learning_rate, steps)
    return _made(keras.optimizers, keras.optimizers.Optimizer, "optimizer", optimizer)(
        learning_rate=rate
    )


def _schedule(schedule, learning_rate, steps):
    import keras

    name = _short(schedule if isinstance(schedule, str) else str(schedule.get("name", "")))
    if name == "constant":
        return learning_rate
    if isinstance(schedule, Mapping) and "warmup_steps" in schedule and name == "cosine":
        # Keras counts decay_steps after the warm-up; the phase's end is where the rate should be 0.
        steps = max(1, steps - int(schedule["warmup_steps"]))
        schedule = {"warmup_target": learning_rate, **schedule}
        learning_rate = 0.0
    make = _made(
        keras.optimizers.schedules,
        keras.optimizers.schedules.LearningRateSchedule,
        "schedule",
        schedule,
        also=("constant",),
    )
    if name.startswith("piecewise"):
        return make()
    # Rounded up: each run is twice the one before, and a third run must not begin at the last step.
    defaults = {"cosine_restarts": {"first_decay_steps": -(-steps // 3)}}
    own = defaults.get(name, {"decay_steps": steps})
    given = schedule if isinstance(schedule, Mapping) else {}
    own = {key: value for key, value in own.items() if key not in given}
    if name in ("exponential", "inverse_time"):
        own = {"decay_rate": 0.5, **own} if "decay_rate" not in given else own
    return make(initial_learning_rate=learning_rate, **own)


def _made(module, base, what: str, chosen, also: tuple[str, ...] = ()):
    """A function that makes the chosen class with the user's arguments and those it is given."""
    settings = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    name = str(settings.pop("name", ""))
    classes = {
        _short(key): value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value is not base
        and key not in WRAPPERS
    }
    if _short(name) not in classes:
        known = sorted({*classes, *also})
        raise UsageError(
            f"no {what} of Keras is called {name!r}{nearest(_short(name), known)} "
            f"(known: {', '.join(known)})"
        )

    def make(**arguments):
        try:
            return classes[_short(name)](**{**arguments, **settings})
        except (TypeError, ValueError) as error:
            raise UsageError(f"{what} {name!r}: {error}") from error

    return make


def _short(name: str) -> str:
    """``CosineDecay``, ``cosine_decay`` and ``cosine`` are one name, as ``AdamW`` and ``adamw``."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()
    return snake.replace("_decay", "")
