"""Xception: Chollet 2017 (arXiv:1610.02357), figure 5."""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import activate, classifier, conv, layers, residual_add, separable


def separables(x, widths, *, first=True, name):
    """ReLU, separable convolution, normalization for each width; ``first``: the first ReLU too."""
    for i, filters in enumerate(widths, start=1):
        x = activate(x, "relu" if first or i > 1 else None, f"{name}_{i}_enter")
        x = separable(x, filters, act=None, name=f"{name}_{i}")
    return x


def downsample(x, *widths, first=True, name):
    """Two separable convolutions, then pooling: (n, h, w, c) -> (n, h / 2, w / 2, widths[-1])."""
    y = separables(x, widths, first=first, name=name)
    # Not `max_pool`: what enters is negative too.
    y = layers.MaxPooling2D(3, 2, "same", name=f"{name}_pool")(y)
    shortcut = conv(x, widths[-1], 1, 2, act=None, name=f"{name}_shortcut")
    return residual_add(y, shortcut, name=name)


@model("xception", 22_855_952, 22_910_480, 8_357_403_496, size=299, min_size=71, top1=79.006,
       top1_source="keras-applications",
       paper="Chollet 2017 (arXiv:1610.02357), figure 5")  # fmt: skip
def xception(x, classes):
    x = conv(x, 32, 3, 2, padding="valid", name="stem_1")
    x = conv(x, 64, 3, padding="valid", name="stem_2")
    x = downsample(x, 128, 128, first=False, name="stage1_1")
    x = downsample(x, 256, 256, name="stage2_1")
    x = downsample(x, 728, 728, name="stage3_1")
    for i in range(2, 10):
        x = residual_add(separables(x, [728] * 3, name=f"stage3_{i}"), x, name=f"stage3_{i}")
    x = downsample(x, 728, 1024, name="stage4_1")
    x = separable(x, 1536, name="stage4_2")
    x = separable(x, 2048, name="stage4_3")
    return classifier(x, classes)
