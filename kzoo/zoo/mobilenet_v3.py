"""MobileNetV3: Howard, Sandler, Chu, Chen et al. 2019 (arXiv:1905.02244), tables 1 and 2."""

from __future__ import annotations

from functools import partial

from kzoo.registry import model
from kzoo.zoo.blocks import (
    classifier,
    conv,
    divisible,
    inverted_residual,
    layers,
    plain,
    squeeze_excite,
    stage_names,
)

RELU, SWISH = "relu", "hard_silu"

# kernel, expansion (as a factor, so that thin networks round it), channels, squeeze-and-excite,
# activation, stride
V3 = {
    "small": (
        (3, 1, 16, True, RELU, 2),
        (3, 72 / 16, 24, False, RELU, 2),
        (3, 88 / 24, 24, False, RELU, 1),
        (5, 4, 40, True, SWISH, 2),
        *[(5, 6, 40, True, SWISH, 1)] * 2,
        *[(5, 3, 48, True, SWISH, 1)] * 2,
        (5, 6, 96, True, SWISH, 2),
        *[(5, 6, 96, True, SWISH, 1)] * 2,
    ),
    "large": (
        (3, 1, 16, False, RELU, 1),
        (3, 4, 24, False, RELU, 2),
        (3, 3, 24, False, RELU, 1),
        (5, 3, 40, True, RELU, 2),
        *[(5, 3, 40, True, RELU, 1)] * 2,
        (3, 6, 80, False, SWISH, 2),
        (3, 2.5, 80, False, SWISH, 1),
        *[(3, 2.3, 80, False, SWISH, 1)] * 2,
        *[(3, 6, 112, True, SWISH, 1)] * 2,
        (5, 6, 160, True, SWISH, 2),
        *[(5, 6, 160, True, SWISH, 1)] * 2,
    ),
}

_SMALL = {
    "paper": "Howard et al. 2019 (arXiv:1905.02244), table 2",
    "top1_source": "docstring of keras.applications.mobilenet_v3",
    "flavours": {"torch": {"epsilon": 1e-3}}, "layout": "small", "hidden": 1024,
}  # fmt: skip
_LARGE = {**_SMALL, "paper": "Howard et al. 2019 (arXiv:1905.02244), table 1",
          "layout": "large", "hidden": 1280}  # fmt: skip


@model("mobilenet_v3_small", 2_542_856, 2_554_968, 56_510_400, alpha=1.0, minimalistic=False,
       top1=68.1, **_SMALL)  # fmt: skip
@model("mobilenet_v3_small_075", 2_041_872, 2_051_552, 43_399_344, alpha=0.75, minimalistic=False,
       top1=65.4, **_SMALL)  # fmt: skip
@model("mobilenet_v3_small_minimalistic", 2_044_736, 2_056_848, 52_288_448, alpha=1.0,
       minimalistic=True, top1=61.9, **_SMALL)  # fmt: skip
@model("mobilenet_v3_large", 5_483_032, 5_507_432, 216_589_760, alpha=1.0, minimalistic=False,
       top1=75.6, **_LARGE)  # fmt: skip
@model("mobilenet_v3_large_075", 3_993_528, 4_012_616, 154_560_624, alpha=0.75, minimalistic=False,
       top1=73.3, **_LARGE)  # fmt: skip
@model("mobilenet_v3_large_minimalistic", 3_924_288, 3_948_688, 209_136_704, alpha=1.0,
       minimalistic=True, top1=72.3, **_LARGE)  # fmt: skip
def mobilenet_v3(x, classes, *, layout, hidden, alpha, minimalistic):
    rows, swish = V3[layout], RELU if minimalistic else SWISH
    x = conv(x, 16, 3, 2, act=swish, name="stem")
    names = stage_names(stride for *_, stride in rows)
    for name, (kernel, expand, channels, attend, act, stride) in zip(names, rows, strict=True):
        middle, gate = divisible(expand * x.shape[-1]), None
        if minimalistic:
            kernel, act = 3, RELU
        elif attend:
            gate = partial(squeeze_excite, filters=divisible(middle / 4), gate="hard_sigmoid")
        filters = divisible(alpha * channels)
        x = inverted_residual(x, filters, kernel, stride, middle, act=act, attend=gate, name=name)
    x = conv(x, divisible(6 * x.shape[-1]), act=swish, name="head_expand")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="head_pool")(x)
    x = plain(x, hidden, act=swish, name="head_hidden")
    return classifier(layers.Flatten(name="head_flatten")(x), classes, dropout=0.2)
