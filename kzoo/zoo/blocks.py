"""Blocks that more than one family uses: tensor in, tensor out, names from the caller.

Keras is imported when the first layer is made, so that registering a family costs nothing.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass


class _Lazy:
    """A module that is imported at the first use of one of its attributes."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(importlib.import_module(self._name), attribute)


layers = _Lazy("keras.layers")


@dataclass(frozen=True)
class Flavour:
    """What one name means in one library: elsewhere it has another padding and another epsilon.

    Attributes:
        symmetric: pad a strided convolution by ``kernel // 2`` on both sides (torch, Caffe) instead
            of TensorFlow's "same", which pads one pixel less at the top left for even sizes.
        epsilon: of BatchNorm.
        momentum: of BatchNorm's moving statistics. Keras' .99 leaves them far behind after a few
            hundred steps (chance accuracy at inference was seen), so .9 is used.
    """

    symmetric: bool
    epsilon: float
    momentum: float = 0.9


KERAS = Flavour(symmetric=False, epsilon=1e-3)
TORCH = Flavour(symmetric=True, epsilon=1e-5)


def divisible(channels: float, by: int = 8) -> int:
    """Rounds to a multiple of ``by``, never down by more than a tenth (MobileNetV2's code)."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def _padded(x, kernel: int, stride: int, flavour: Flavour, name: str):
    """Returns x, padded where the flavour wants it, and the convolution's own padding."""
    if stride == 1 or kernel == 1 or not flavour.symmetric:
        return x, "same"
    return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"


def normalize(x, act: str | None, flavour: Flavour, name: str):
    """BatchNorm, then the activation (None for none): (n, h, w, c) -> (n, h, w, c)."""
    x = layers.BatchNormalization(
        epsilon=flavour.epsilon, momentum=flavour.momentum, name=f"{name}_bn"
    )(x)
    return layers.Activation(act, name=f"{name}_act")(x) if act else x


def conv(x, filters, kernel=1, stride=1, *, act="relu", bias=False, flavour=KERAS, name):
    """Convolution, BatchNorm, activation.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters).
    """
    x, padding = _padded(x, kernel, stride, flavour, name)
    x = layers.Conv2D(
        filters, kernel, stride, padding,
        use_bias=bias, kernel_initializer="he_normal", name=f"{name}_conv",
    )(x)  # fmt: skip
    return normalize(x, act, flavour, name)


def depthwise(x, kernel=3, stride=1, *, act="relu", flavour=KERAS, name):
    """Depthwise convolution, BatchNorm, activation; the channels stay: (n, h, w, c)."""
    x, padding = _padded(x, kernel, stride, flavour, name)
    x = layers.DepthwiseConv2D(
        kernel, stride, padding,
        use_bias=False, depthwise_initializer="he_normal", name=f"{name}_conv",
    )(x)  # fmt: skip
    return normalize(x, act, flavour, name)


def classifier(x, classes: int | None, dropout: float = 0.0):
    """Global average pooling and a dense layer: (n, h, w, c) -> logits (n, classes).

    With ``classes`` None it stops at the pooled features, (n, c).
    """
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    if classes is None:
        return x
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout")(x)
    return layers.Dense(classes, name="head")(x)
