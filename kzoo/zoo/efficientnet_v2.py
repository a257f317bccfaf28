"""EfficientNetV2: Tan, Le 2021 (arXiv:2104.00298), table 4; all but S from the authors' code, with
the one dropout rate of keras.applications.
"""

from __future__ import annotations

import math
from functools import partial

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, inverted_residual, residual_add, squeeze_excite
from kzoo.zoo.efficientnet import unroll


def fused(x, filters, stride, middle, *, drop, name):
    """Expand by a 3x3 convolution, project: figure 2. Not expanded, it is one convolution.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters), with a shortcut where shapes
    allow.
    """
    if middle == x.shape[-1]:
        y = conv(x, filters, 3, stride, act="silu", name=name)
    else:
        y = conv(x, middle, 3, stride, act="silu", name=f"{name}_expand")
        y = conv(y, filters, act=None, name=f"{name}_project")
    same = stride == 1 and filters == x.shape[-1]
    return residual_add(x, y, drop=drop, name=name) if same else y


def mbconv(x, filters, stride, middle, *, drop, name):
    """An inverted residual whose squeeze is a quarter of the channels that enter."""
    attend = partial(squeeze_excite, filters=x.shape[-1] // 4, act="silu")
    return inverted_residual(
        x, filters, 3, stride, middle, act="silu", attend=attend, drop=drop, name=name
    )


# block, expansion, stride, channels, repeats
TABLE_B = (
    ("fused", 1, 1, 16, 1),
    ("fused", 4, 2, 32, 2),
    ("fused", 4, 2, 48, 2),
    ("mbconv", 4, 2, 96, 3),
    ("mbconv", 6, 1, 112, 5),
    ("mbconv", 6, 2, 192, 8),
)
TABLE_S = (
    ("fused", 1, 1, 24, 2),
    ("fused", 4, 2, 48, 4),
    ("fused", 4, 2, 64, 4),
    ("mbconv", 4, 2, 128, 6),
    ("mbconv", 6, 1, 160, 9),
    ("mbconv", 6, 2, 256, 15),
)
TABLE_M = (
    ("fused", 1, 1, 24, 3),
    ("fused", 4, 2, 48, 5),
    ("fused", 4, 2, 80, 5),
    ("mbconv", 4, 2, 160, 7),
    ("mbconv", 6, 1, 176, 14),
    ("mbconv", 6, 2, 304, 18),
    ("mbconv", 6, 1, 512, 5),
)
TABLE_L = (
    ("fused", 1, 1, 32, 4),
    ("fused", 4, 2, 64, 7),
    ("fused", 4, 2, 96, 7),
    ("mbconv", 4, 2, 192, 10),
    ("mbconv", 6, 1, 224, 19),
    ("mbconv", 6, 2, 384, 25),
    ("mbconv", 6, 1, 640, 7),
)

_KERAS = {"top1_source": "keras", "flavours": {"torch": {"epsilon": 1e-3}}}
_B = _KERAS | {
    "paper": "Tan, Le 2021 (arXiv:2104.00298), its code's B0 to B3",
    "table": TABLE_B, "stem": 32,
}  # fmt: skip
_SM = _KERAS | {
    "paper": "Tan, Le 2021 (arXiv:2104.00298): S is table 4, M and L its code's",
    "mean": 128.0, "std": 128.0,
}  # fmt: skip


@model("efficientnet_v2_b0", 7_139_704, 7_200_312, 718_086_176, width=1.0, depth=1.0, top1=78.7,
       **_B)  # fmt: skip
@model("efficientnet_v2_b1", 8_141_052, 8_212_124, 1_196_819_360, size=240, width=1.0, depth=1.1,
       top1=79.8, **_B)  # fmt: skip
@model("efficientnet_v2_b2", 10_096_086, 10_178_374, 1_697_542_832, size=260, width=1.1, depth=1.2,
       top1=80.5, **_B)  # fmt: skip
@model("efficientnet_v2_b3", 14_358_406, 14_467_622, 3_011_458_816, size=300, width=1.2, depth=1.4,
       top1=82.0, **_B)  # fmt: skip
@model("efficientnet_v2_s", 21_458_488, 21_612_360, 8_365_617_152, table=TABLE_S, stem=24, size=384,
       width=1.0, depth=1.0, top1=83.9, **_SM)  # fmt: skip
@model("efficientnet_v2_m", 54_139_356, 54_431_388, 24_582_460_384, table=TABLE_M, stem=24,
       size=480, width=1.0, depth=1.0, top1=85.3, **_SM)  # fmt: skip
@model("efficientnet_v2_l", 118_515_272, 119_027_848, 56_079_699_008, table=TABLE_L, stem=32,
       size=480, width=1.0, depth=1.0, top1=85.7, **_SM)  # fmt: skip
def efficientnet_v2(x, classes, *, table, stem, width, depth):
    def widen(channels):  # to the nearest multiple of 8, unlike `divisible`
        return int(channels * width + 4) // 8 * 8

    table = [(*row, widen(c), math.ceil(n * depth)) for *row, c, n in table]
    x = conv(x, widen(stem), 3, 2, act="silu", name="stem")
    for name, kind, expand, stride, filters, drop in unroll(table):
        block = fused if kind == "fused" else mbconv
        x = block(x, filters, stride, expand * x.shape[-1], drop=drop, name=name)
    x = conv(x, widen(1280), act="silu", name="head_expand")
    return classifier(x, classes, dropout=0.2)
