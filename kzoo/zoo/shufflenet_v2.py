"""ShuffleNetV2: Ma, Zhang, Zheng, Sun 2018 (arXiv:1807.11164), figure 3 (c, d) and table 5."""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, depthwise, layers, max_pool

_TORCH = {
    "paper": "Ma et al. 2018 (arXiv:1807.11164), table 5",
    "flavour": "torch", "top1_source": "torchvision", "size": 224,
}  # fmt: skip


def halves(x, name):
    """Channel split: (n, h, w, c) -> two of (n, h, w, c / 2)."""
    half = x.shape[-1] // 2
    # Told "channels_first", the layer crops the last two axes, here (w, c).
    for side, crop in (("left", (0, half)), ("right", (half, 0))):
        yield layers.Cropping2D(
            ((0, 0), crop), data_format="channels_first", name=f"{name}_{side}"
        )(x)


def shuffle(x, name):
    """Interleaves the halves of the channels: 0, c / 2, 1, c / 2 + 1, ...; (n, h, w, c)."""
    _, high, wide, channels = x.shape
    # Pixels on one axis: runtimes transpose four axes faster than five.
    x = layers.Reshape((high * wide, 2, channels // 2), name=f"{name}_split")(x)
    x = layers.Permute((1, 3, 2), name=f"{name}_shuffle")(x)
    return layers.Reshape((high, wide, channels), name=f"{name}_merge")(x)


def shuffle_unit(x, filters, stride, *, name):
    """One half passes, the other is filtered; at stride 2 all channels enter both branches:
    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters)."""
    if stride == 1:
        x, y = halves(x, name)
    else:
        y = x
        x = depthwise(x, 3, stride, act=None, name=f"{name}_left_depthwise")
        x = conv(x, filters // 2, name=f"{name}_left_project")
    y = conv(y, filters // 2, name=f"{name}_expand")
    y = depthwise(y, 3, stride, act=None, name=f"{name}_depthwise")
    y = conv(y, filters // 2, name=f"{name}_project")
    return shuffle(layers.Concatenate(name=f"{name}_concat")([x, y]), name)


@model("shufflenet_v2_x0_5", 1_366_792, 1_374_744, 40_476_448, width=48, last=1024, top1=60.552,
       **_TORCH)  # fmt: skip
@model("shufflenet_v2_x1_0", 2_278_604, 2_294_784, 144_907_992, width=116, last=1024, top1=69.362,
       **_TORCH)  # fmt: skip
@model("shufflenet_v2_x1_5", 3_503_624, 3_527_064, 295_759_392, width=176, last=1024, top1=72.996,
       **_TORCH)  # fmt: skip
@model("shufflenet_v2_x2_0", 7_393_996, 7_427_712, 583_253_464, width=244, last=2048, top1=76.23,
       **_TORCH)  # fmt: skip
def shufflenet_v2(x, classes, *, width, last):
    x = conv(x, 24, 3, 2, name="stem")
    x = max_pool(x, name="stage1_1")
    for i, repeats in ((2, 4), (3, 8), (4, 4)):
        for j in range(1, repeats + 1):
            x = shuffle_unit(x, width, 2 if j == 1 else 1, name=f"stage{i}_{j}")
        width *= 2
    x = conv(x, last, name="head_expand")
    return classifier(x, classes)
