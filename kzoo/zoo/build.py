"""From a name to a Keras model."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from kzoo.errors import UsageError, one_of
from kzoo.registry import Entry, entry, pair
from kzoo.zoo.blocks import FLAVOURS, NORMS, using
from kzoo.zoo.initialize import initialize, without_values

if TYPE_CHECKING:
    import keras

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
            the smallest; a number that no network has, such as a depth of -3; a norm or auxiliary
            heads for a network that has none; weights that do not fit into memory.
    """
    if seed is not None:
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(f"a seed is from 0 to {MAX_SEED}; {seed} was given")
        import keras

        keras.utils.set_random_seed(seed)
    model = skeleton(
        name, classes=classes, size=size, channels=channels, head=head, norm=norm,
        flavour=flavour, auxiliary=auxiliary, **variant,
    )  # fmt: skip
    try:
        initialize(model.variables)
    except MemoryError as error:
        raise UsageError(_beyond_memory(name, model.variables)) from error
    return model


def skeleton(
    name: str,
    *,
    classes: int | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    head: str = "logits",
    norm: str = "batch",
    flavour: str | None = None,
    auxiliary: bool = False,
    **variant: object,
) -> keras.Model:
    """As `build`, without its weights: for shapes, counts and drawings in about half the time.

    Its variables have shapes and no values: what it would compute or save means nothing.
    """
    row = entry(name)
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
    x = keras.layers.Rescaling(1 / row.std, -row.mean / row.std, name="preprocess")(pixels)
    options = {**row.variant, **variant} | ({"auxiliary": True} if auxiliary else {})
    chosen = dataclasses.replace(
        FLAVOURS[flavour or row.flavour], norm=norm, **row.flavours.get(flavour or row.flavour, {})
    )

    try:
        with without_values(), using(chosen):
            y = row.builder(x, None if head == "none" else classes, **options)
    except Exception as error:
        if any(text in str(error) for text in _BEYOND_NUMBERS):
            raise UsageError(_beyond_memory(name)) from error
        if not variant or not isinstance(error, _OF_ARGUMENTS):
            raise
        raise UsageError(_wrong_arguments(row, variant, error)) from error
    if head == "softmax":
        y = keras.layers.Softmax(name="head_softmax")(y)
    return keras.Model(pixels, y, name=name)


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
