"""RegNetX and RegNetY: Radosavovic, Kosaraju, Girshick, He, Dollar 2020, Designing Network Design
Spaces (arXiv:2003.13678), section 3.3 and figures 4, 15 and 16.
"""

from __future__ import annotations

import math

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, divisible, residual_add, squeeze_excite


def block_widths(depth, w0, wa, wm, group):
    """The width of every block: linear in its index, quantized to powers of ``wm`` (equations 2 to
    4) and to multiples of 8 and of the group width."""
    for j in range(depth):
        steps = round(math.log((w0 + wa * j) / w0, wm))
        yield divisible(round(w0 * wm**steps / 8) * 8, group)


def residual(x, filters, stride, *, groups, squeeze, name):
    """X block, figure 4: 1x1, grouped 3x3, 1x1, without a bottleneck. (n, h, w, c) ->
    (n, ceil(h / stride), ceil(w / stride), filters); ``squeeze`` by a quarter of c makes it Y."""
    y = conv(x, filters, name=f"{name}_1")
    y = conv(y, filters, 3, stride, groups=groups, name=f"{name}_2")
    if squeeze:
        y = squeeze_excite(y, x.shape[-1] // 4, name=name)
    y = conv(y, filters, act=None, name=f"{name}_3")
    if stride > 1 or x.shape[-1] != filters:
        x = conv(x, filters, 1, stride, act=None, name=f"{name}_shortcut")
    return residual_add(x, y, "relu", name=name)


_ALL = {"flavour": "torch", "top1_source": "torchvision"}
_X = _ALL | {"paper": "Radosavovic et al. 2020 (arXiv:2003.13678), figure 15", "squeeze": False}
_Y = _ALL | {"paper": "Radosavovic et al. 2020 (arXiv:2003.13678), figure 16", "squeeze": True}


@model("regnet_x_400mf", 5_495_976, 5_533_832, 413_812_608, depth=22, w0=24, wa=24.48, wm=2.54,
       group=16, top1=72.834, **_X)  # fmt: skip
@model("regnet_x_800mf", 7_259_656, 7_296_968, 799_699_712, depth=16, w0=56, wa=35.73, wm=2.28,
       group=16, top1=75.212, **_X)  # fmt: skip
@model("regnet_x_1_6gf", 9_190_136, 9_233_640, 1_602_849_792, depth=18, w0=80, wa=34.01, wm=2.25,
       group=24, top1=77.04, **_X)  # fmt: skip
@model("regnet_x_3_2gf", 15_296_552, 15_359_112, 3_176_621_952, depth=25, w0=88, wa=26.31, wm=2.25,
       group=48, top1=78.364, **_X)  # fmt: skip
@model("regnet_y_400mf", 4_344_144, 4_371_296, 401_842_848, depth=16, w0=48, wa=27.89, wm=2.09,
       group=8, top1=74.046, **_Y)  # fmt: skip
@model("regnet_y_800mf", 6_432_512, 6_462_944, 833_856_256, depth=14, w0=56, wa=38.84, wm=2.4,
       group=16, top1=76.42, **_Y)  # fmt: skip
@model("regnet_y_1_6gf", 11_202_430, 11_255_102, 1_612_076_160, depth=27, w0=48, wa=20.71, wm=2.65,
       group=24, top1=77.95, **_Y)  # fmt: skip
@model("regnet_y_3_2gf", 19_436_338, 19_502_498, 3_176_482_752, depth=21, w0=80, wa=42.63, wm=2.66,
       group=24, top1=78.948, **_Y)  # fmt: skip
def regnet(x, classes, *, depth, w0, wa, wm, group, squeeze):
    x = conv(x, 32, 3, 2, name="stem")
    stage, block, last = 0, 0, None
    for width in block_widths(depth, w0, wa, wm, group):
        first = width != last  # A stage is a run of blocks of one width; its first block strides.
        stage, block, last = (stage + 1, 1, width) if first else (stage, block + 1, width)
        x = residual(
            x, width, 2 if first else 1, groups=width // group, squeeze=squeeze,
            name=f"stage{stage}_{block}",
        )  # fmt: skip
    return classifier(x, classes)
