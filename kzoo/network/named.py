"""Layers chosen by what their names begin with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kzoo.errors import UsageError, nearest

if TYPE_CHECKING:
    import keras


def layers_named(
    model: keras.Model,
    prefixes: Sequence[str],
    among: Iterable[keras.layers.Layer] | None = None,
) -> list[keras.layers.Layer]:
    """The layers whose names begin with a prefix, in the model's order.

    Args:
        model: any.
        prefixes: "head", "stage4", "stage4_2_conv".
        among: what to choose from, the model's layers by default.

    Raises:
        UsageError: a prefix fits none of them, with the nearest.
    """
    layers = list(model.layers if among is None else among)
    names = [layer.name for layer in layers]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            known = sorted({name.split("_")[0] for name in names})
            raise UsageError(
                f"no layer of {model.name} starts with {prefix!r}{nearest(prefix, known)} "
                f"(its layers start with {', '.join(known[:12])})"
            )
    return [layer for layer in layers if layer.name.startswith(tuple(prefixes))]
