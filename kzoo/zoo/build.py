"""From a name to a Keras model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kzoo.errors import UsageError, nearest
from kzoo.registry import entry

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
        seed: makes the initial weights a function of it (it seeds Keras, NumPy and Python).
        variant: the builder's own arguments, instead of the row's.

    Raises:
        UsageError: unknown name (with the nearest), head or argument; a size below the smallest.
    """
    row = entry(name)
    height, width = (size, size) if isinstance(size, int) else (size or (row.size, row.size))
    classes = row.classes if classes is None else classes
    channels = row.channels if channels is None else channels
    if head not in HEADS:
        raise UsageError(f"head {head!r} is none of {', '.join(HEADS)}{nearest(head, HEADS)}")
    if min(height, width) < row.min_size:
        raise UsageError(
            f"{name} needs an input of at least {row.min_size} x {row.min_size} pixels, "
            f"{height} x {width} was asked"
        )
    if classes < 2 or channels < 1:
        raise UsageError(
            f"classes and channels are at least 1; {classes} and {channels} were asked"
        )
    if unknown := sorted(set(variant) - set(row.variant)):
        raise UsageError(
            f"{name} takes no argument {', '.join(unknown)}; it takes "
            f"{', '.join(row.variant) or 'none'}{nearest(unknown[0], row.variant)}"
        )

    import keras

    if seed is not None:
        keras.utils.set_random_seed(seed)
    pixels = keras.Input((height, width, channels), name="image")
    x = keras.layers.Rescaling(1 / row.std, -row.mean / row.std, name="preprocess")(pixels)
    x = row.builder(x, None if head == "none" else classes, **{**row.variant, **variant})
    if head == "softmax":
        x = keras.layers.Softmax(name="head_softmax")(x)
    return keras.Model(pixels, x, name=name)
