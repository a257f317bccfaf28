"""From a name to a Keras model."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kzoo.errors import UsageError, one_of
from kzoo.registry import Entry, entry, pair
from kzoo.zoo.blocks import FLAVOURS, NORMS, using
from kzoo.zoo.initialize import initialize, without_values

if TYPE_CHECKING:
    import keras
    import numpy as np

HEADS = ("logits", "softmax", "none")
MAX_SEED = 2**32 - 1
"""NumPy takes none above."""


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
    weights: str | os.PathLike | Mapping[str, np.ndarray] | None = None,
    seed: int | None = None,
    **variant: object,
) -> keras.Model:
    """Builds a registered architecture as a functional Keras model.

    Its input ``image`` takes pixels in [0, 255], float32 (n, h, w, channels); the first layer,
    ``preprocess``, normalizes them.

    Args:
        name: as `kzoo.list_models` gives it.
        classes: number of classes; the row's by default, or those that the weights' file names.
        size: height and width, or one number for both; the row's by default, or the size that
            the weights were trained at.
        channels: of the input; the row's by default.
        head: "logits" (n, classes), "softmax" for probabilities, "none" for the features that
            enter the classifier, (n, d).
        norm: what stands where the network has BatchNorm: "batch", "group", "layer" or "none".
        flavour: "keras" or "torch": whose padding, epsilon and details; the row's by default, or
            that of the weights.
        auxiliary: with the auxiliary classifiers, as further outputs (n, classes) after the first.
            `kzoo.finetune` trains them along and leaves them out of what it returns.
        weights: pretrained ones: a tag such as "tv_in1k" (`kzoo info NAME` shows them), "imagenet"
            for the best trained on it, a file of Keras or torch, or arrays by name, such as
            `kzoo.lite.saved_model.read_saved_model` returns. They bring their flavour, size and
            normalization. What could not be taken over as it was is told in a warning. None for
            random weights.
        seed: makes the initial weights a function of it (it seeds Keras, NumPy and Python).
        variant: the builder's own arguments, instead of the row's.

    Raises:
        UsageError: unknown name (with the nearest), head, norm, flavour or argument; a size below
            the smallest; a number that no network has, such as a depth of -3; a norm or auxiliary
            heads for a network that has none; weights that do not fit into memory; no such tag;
            a flavour that is not that of the tag.
        MissingError: the weights' file or package is not there and cannot be downloaded.
        BadInputError: the weights are damaged, or of another network.
    """
    options = {
        "classes": classes, "size": size, "channels": channels, "head": head, "norm": norm,
        "flavour": flavour, "auxiliary": auxiliary,
    }  # fmt: skip
    if weights is None:
        return drawn(entry(name), seed, **options, **variant)[0]
    from kzoo.zoo.weights.load import pretrained

    found = pretrained(name, weights, seed=seed, **options, **variant)
    for note in found.notes:
        warnings.warn(f"{name}: {note}", stacklevel=2)
    return found.model


def drawn(row: Entry, seed: int | None, **options: object) -> tuple[keras.Model, list]:
    """`build` for a row with random weights: the model, and its variables as they were made."""
    if seed is not None:
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(f"a seed is from 0 to {MAX_SEED}; {seed} was given")
        import keras

        keras.utils.set_random_seed(seed)
    model, made = _laid_out(row, **options)
    try:
        initialize(model.variables)
    except MemoryError as error:
        raise UsageError(_beyond_memory(row.name, model.variables)) from error
    return model, made


def skeleton(name: str, **options: object) -> keras.Model:
    """As `build`, without its weights: for shapes, counts and drawings in about half the time.

    Its variables have shapes and no values: what it would compute or save means nothing.
    """
    return _laid_out(entry(name), **options)[0]


def _laid_out(
    row: Entry,
    *,
    classes: int | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    head: str = "logits",
    norm: str = "batch",
    flavour: str | None = None,
    auxiliary: bool = False,
    **variant: object,
) -> tuple[keras.Model, list]:
    name = row.name
    height, width = pair(row.size if size is None else size)
    classes = row.classes if classes is None else classes
    channels = row.channels if channels is None else channels
    one_of("head", head, HEADS)
    one_of("norm", norm, NORMS)
    one_of("flavour", flavour or row.flavour, FLAVOURS)
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
    row.check_arguments(variant)
    if norm != "batch" and row.params == row.total_params:
        raise UsageError(f"{name} has no BatchNorm in whose place norm={norm!r} could stand")
    if auxiliary and (row.auxiliary is None or head != "logits"):
        why = "has none" if row.auxiliary is None else f"has them with logits, not head={head!r}"
        raise UsageError(f"auxiliary classifiers were asked, {name} {why}")

    import keras

    pixels = keras.Input((height, width, channels), name="image")
    x = _normalization(row, channels)(pixels)
    options = {**row.variant, **variant} | ({"auxiliary": True} if auxiliary else {})
    chosen = dataclasses.replace(
        FLAVOURS[flavour or row.flavour], norm=norm, **row.flavours.get(flavour or row.flavour, {})
    )

    try:
        with without_values() as made, using(chosen):
            y = row.builder(x, None if head == "none" else classes, **options)
    except Exception as error:
        if any(text in str(error) for text in _BEYOND_NUMBERS):
            raise UsageError(_beyond_memory(name)) from error
        if not variant or not isinstance(error, _OF_ARGUMENTS):
            raise
        raise UsageError(_wrong_arguments(row, variant, error)) from error
    if head == "softmax":
        y = keras.layers.Softmax(name="head_softmax")(y)
    return keras.Model(pixels, y, name=name), made


def affine(row: Entry) -> tuple[list[float], list[float]]:
    """Scale and offset of (pixel - mean) / std, for every channel or one for all."""
    means, deviations = (
        value if isinstance(value, tuple) else (value,) for value in (row.mean, row.std)
    )
    scale = [1 / deviation for deviation in deviations]
    if len(means) > len(scale):
        scale *= len(means)
    return scale, [-mean * factor for mean, factor in zip(means, scale, strict=True)]


def _normalization(row: Entry, channels: int):
    """The layer ``preprocess``, for every channel or for all alike."""
    import keras

    scale, offset = affine(row)
    if len(scale) not in (1, channels):  # weights for RGB, other channels asked
        scale, offset = ([sum(values) / len(values)] for values in (scale, offset))
    if len(scale) == 1:
        scale, offset = scale[0], offset[0]
    return keras.layers.Rescaling(scale, offset, name="preprocess")


_BEYOND_NUMBERS = ("would have more than 2**63", "out-of-range integer")
"""What backends say of a shape whose elements they cannot number."""
_OF_ARGUMENTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What builders and Keras make of arguments that are not what they expect."""


def _wrong_arguments(row: Entry, variant: dict[str, object], error: Exception) -> str:
    given = ", ".join(f"{key}={value}" for key, value in variant.items())
    card = row.card()["variant"]
    known = []
    for key in variant:
        words = {word for word in row.known(key) if isinstance(word, str)} - {card[key]}
        others = f" (its siblings {', '.join(sorted(words))})" if words else ""
        known.append(f"{key}={card[key]}{others}")
    # A look-up's error tells what was looked for, and no more.
    named = isinstance(error, (AttributeError, LookupError))
    why = "" if named else f": {(str(error) or repr(error)).splitlines()[0]}"
    return f"{row.name} cannot be built with {given}; its card has {', '.join(known)}{why}"


def _beyond_memory(name: str, variables: list = ()) -> str:
    count = sum(math.prod(variable.shape) for variable in variables)
    return f"{name} as asked needs more memory than there is" + (
        f": it has {count:,} weights" if count else ""
    )
