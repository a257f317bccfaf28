"""GhostNet: Han, Wang, Tian, Guo, Xu, Xu 2020 (arXiv:1911.11907), figures 2 and 3, table 1."""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import (
    classifier,
    conv,
    depthwise,
    divisible,
    layers,
    plain,
    residual_add,
    squeeze_excite,
    stage_names,
)

# kernel, expanded channels, channels, squeeze-and-excite, stride
GHOST = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    *[(3, 184, 80, False, 1)] * 2,
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    *[(5, 960, 160, False, 1), (5, 960, 160, True, 1)] * 2,
)


def ghost(x, filters, act="relu", *, name):
    """Half the channels by a 1x1 convolution, the other half by a 3x3 depthwise one of these:
    (n, h, w, c) -> (n, h, w, filters). Figure 2 with s = 2, d = 3."""
    x = conv(x, filters // 2, act=act, name=f"{name}_primary")
    y = depthwise(x, 3, act=act, name=f"{name}_cheap")
    return layers.Concatenate(name=f"{name}_concat")([x, y])


def ghost_bottleneck(x, middle, filters, kernel, stride, attend, *, name):
    """Expand, filter depthwise at stride 2 only, attend, project; the shortcut is convolved where
    shapes differ: (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters)."""
    y = ghost(x, middle, name=f"{name}_expand")
    if stride > 1:
        y = depthwise(y, kernel, stride, act=None, name=f"{name}_depthwise")
    if attend:
        y = squeeze_excite(y, divisible(middle / 4, by=4), gate="hard_sigmoid", name=name)
    y = ghost(y, filters, act=None, name=f"{name}_project")
    if stride > 1 or filters != x.shape[-1]:
        x = depthwise(x, kernel, stride, act=None, name=f"{name}_shortcut_depthwise")
        x = conv(x, filters, act=None, name=f"{name}_shortcut")
    return residual_add(x, y, name=name)


@model("ghostnet", 5_182_508, 5_204_476, 141_150_512, flavour="torch", top1=73.960,
       top1_source="timm", paper="Han et al. 2020 (arXiv:1911.11907), table 1")  # fmt: skip
def ghostnet(x, classes):
    x = conv(x, 16, 3, 2, name="stem")
    names = stage_names(stride for *_, stride in GHOST)
    for name, (kernel, middle, filters, attend, stride) in zip(names, GHOST, strict=True):
        x = ghost_bottleneck(x, middle, filters, kernel, stride, attend, name=name)
    x = conv(x, 960, name="head_expand")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="head_pool")(x)
    x = plain(x, 1280, name="head_hidden")
    return classifier(layers.Flatten(name="head_flatten")(x), classes, dropout=0.2)
