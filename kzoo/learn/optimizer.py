"""Keras' optimizers and learning-rate schedules, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.learn.named import named, short

if TYPE_CHECKING:
    import keras

WRAPPERS = ("LossScaleOptimizer", "MultiOptimizer")
"""They take other optimizers, which no name gives."""


def make_optimizer(
    optimizer: str | Mapping[str, object],
    learning_rate: float,
    schedule: str | Mapping[str, object],
    steps: int,
    groups: Sequence[str] = (),
    decay: float = 1.0,
) -> keras.optimizers.Optimizer:
    """An optimizer of `keras.optimizers` with a schedule of `keras.optimizers.schedules`.

    Args:
        optimizer: a name ("adam", "sgd", "rmsprop", ...), or a mapping with ``name`` and the
            class's own arguments, ``{"name": "sgd", "momentum": 0.9}``.
        learning_rate: the initial one, or the peak of a schedule with warm-up.
        schedule: "constant", a name ("one_cycle", "cosine", "exponential", "polynomial",
            "inverse_time", "cosine_restarts", "piecewise_constant"), or a mapping as above. Steps
            that are not given are the whole phase's.
        steps: optimizer steps in the phase.
        groups: regular expressions of variables' paths, from the last layers to the first: the rate
            of each is ``decay`` times that of the one before, the first's being ``learning_rate``.
        decay: layer-wise decay of the rate (Howard, Ruder 2018, section 3.2; they used 1 / 2.6).

    Raises:
        UsageError: an unknown name or argument, with the nearest.
    """
    import keras

    make = named(
        keras.optimizers, keras.optimizers.Optimizer, "optimizer", optimizer, without=WRAPPERS
    )
    made = [
        make(learning_rate=_schedule(schedule, learning_rate * decay**i, steps))
        for i in range(max(1, len(groups)))
    ]
    if decay == 1 or len(groups) < 2:
        return made[0]
    chosen = dict(zip(groups, made, strict=True))
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(made[0], chosen))


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate of the next step; of the last layers where it differs by layer."""
    return float(np.asarray(_inner(optimizer)[0].learning_rate))


def uses_averages(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether it keeps moving averages of the weights: ``{"name": "adam", "use_ema": True}``."""
    return any(each.use_ema for each in _inner(optimizer))


def _inner(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    return getattr(optimizer, "optimizers", None) or [optimizer]


def _schedule(schedule, learning_rate, steps):
    import keras

    name = short(schedule if isinstance(schedule, str) else str(schedule.get("name", "")))
    if name == "constant":
        return learning_rate
    start = learning_rate
    if name == "one_cycle":
        # Smith, Topin 2017 (arXiv:1708.07120), section 4: up, down, and on to nothing.
        given = {} if isinstance(schedule, str) else schedule
        schedule = {"warmup_steps": round(0.3 * steps), "alpha": 1e-4, **given, "name": "cosine"}
        start = learning_rate / 25
    elif name == "cosine" and isinstance(schedule, Mapping) and "warmup_steps" in schedule:
        start = 0.0
    if start != learning_rate:
        # Keras counts decay_steps after the warm-up; the phase's end is where the rate should be 0.
        steps = max(1, steps - int(schedule["warmup_steps"]))
        schedule = {"warmup_target": learning_rate, **schedule}
    base = keras.optimizers.schedules.LearningRateSchedule
    make = named(
        keras.optimizers.schedules, base, "schedule", schedule, also=("constant", "one_cycle")
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
    return make(initial_learning_rate=start, **own)
