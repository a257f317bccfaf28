"""From a name to a Keras model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kzoo.errors import UsageError, nearest
from kzoo.registry import entry, pair
from kzoo.zoo.blocks import FLAVOURS, NORMS, using

if TYPE_CHECKING:
    import keras

HEADS = ("logits", "softmax", "none")


def build(
    name: str,
    *,
    classes: int | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    head: str = "logits",
    norm: str = "batch",
    flavour: str | None = None,
    auxiliary: bool = False,
    seed: int | None = None,
    **variant: object,
) -> keras.Model:
    """Builds a registered architecture as a functional Keras model with random weights.

    Its input ``image`` takes pixels in [0, 255], float32 (n, h, w, channels); the first layer,
    ``preprocess``, normalizes them.

    Args:
        name: as `kzoo.list_models` gives it.
        classes: number of classes; the row's by default.
        size: height and width, or one number for both; the row's by default.
        channels: of the input; the row's by default.
        head: "logits" (n, classes), "softmax" for probabilities, "none" for the features that
            enter the classifier, (n, d).
        norm: what stands where the network has BatchNorm: "batch", "group", "layer" or "none".
        flavour: "keras" or "torch": whose padding, epsilon and details; the row's by default.
        auxiliary: with the auxiliary classifiers, as further outputs (n, classes) after the first.
            `kzoo.finetune` trains them along and leaves them out of what it returns.
        seed: makes the initial weights a function of it (it seeds Keras, NumPy and Python).
        variant: the builder's own arguments, instead of the row's.

    Raises:
        UsageError: unknown name (with the nearest), head, norm, flavour or argument; a size below
            the smallest; a norm or auxiliary heads for a network that has none.
    """
    row = entry(name)
    height, width = pair(row.size if size is None else size)
    classes = row.classes if classes is None else classes
    channels = row.channels if channels is None else channels
    _one_of("head", head, HEADS)
    _one_of("norm", norm, NORMS)
    _one_of("flavour", flavour or row.flavour, FLAVOURS)
    least = pair(row.min_size)
    if height < least[0] or width < least[1]:
        raise UsageError(
            f"{name} needs an input of at least {least[0]} x {least[1]} pixels, "
            f"{height} x {width} was asked"
        )
    if classes < 2 or channels < 1:
        raise UsageError(
            f"classes are at least 2 and channels at least 1; {classes} and {channels} were asked"
        )
    if unknown := sorted(set(variant) - set(row.variant)):
        raise UsageError(
            f"{name} takes no argument {', '.join(unknown)}; it takes "
            f"{', '.join(row.variant) or 'none'}{nearest(unknown[0], row.variant)}"
        )
    if norm != "batch" and row.params == row.total_params:
        raise UsageError(f"{name} has no BatchNorm in whose place norm={norm!r} could stand")
    if auxiliary and (row.auxiliary is None or head != "logits"):
        why = "has none" if row.auxiliary is None else f"has them with logits, not head={head!r}"
        raise UsageError(f"auxiliary classifiers were asked, {name} {why}")

    import keras

    if seed is not None:
        keras.utils.set_random_seed(seed)
    pixels = keras.Input((height, width, channels), name="image")
    x = keras.layers.Rescaling(1 / row.std, -row.mean / row.std, name="preprocess")(pixels)
    options = {**row.variant, **variant} | ({"auxiliary": True} if auxiliary else {})
    chosen = dataclasses.replace(
        FLAVOURS[flavour or row.flavour], norm=norm, **row.flavours.get(flavour or row.flavour, {})
    )
    try:
        with using(chosen):
            x = row.builder(x, None if head == "none" else classes, **options)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        if not variant:
            raise
        given = ", ".join(f"{key}={value}" for key, value in variant.items())
        raise UsageError(f"{name} cannot be built with {given}: {error!r}") from error
    if head == "softmax":
        x = keras.layers.Softmax(name="head_softmax")(x)
    return keras.Model(pixels, x, name=name)


def skeleton(name: str, **options: object) -> keras.Model:
    """As `build`, without its weights: for shapes, counts and drawings in a tenth of the time.

    Its variables have shapes and no values; it cannot be called on images or saved.
    """
    with _no_weights():
        return build(name, **options)


@contextlib.contextmanager
def _no_weights() -> Iterator[None]:
    import keras
    from keras.src.backend.common import global_state

    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Else the next scope that ends, in an unrelated model, would allocate them all.
        global_state.set_global_attribute("uninitialized_variables", [])


def _one_of(what: str, given: str, allowed) -> None:
    if given not in allowed:
        raise UsageError(
            f"{what} {given!r} is none of {', '.join(allowed)}{nearest(given, allowed)}"
        )
