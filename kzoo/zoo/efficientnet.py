"""EfficientNet: Tan, Le 2019 (arXiv:1905.11946), table 1 and compound scaling.

Lite: Liu 2020, tensorflow/tpu, models/official/efficientnet/lite: B0 to B4 without what integer
accelerators lack (no squeeze-and-excite, ReLU6 for swish).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from kzoo.registry import model
from kzoo.zoo.blocks import (
    classifier,
    conv,
    divisible,
    inverted_residual,
    squeeze_excite,
    stage_names,
)

# kernel, expansion, stride, channels, repeats
TABLE_1 = (
    (3, 1, 1, 16, 1),
    (3, 6, 2, 24, 2),
    (5, 6, 2, 40, 2),
    (3, 6, 2, 80, 3),
    (5, 6, 1, 112, 3),
    (5, 6, 2, 192, 4),
    (3, 6, 1, 320, 1),
)


def unroll(table) -> Iterator[tuple]:
    """(name, kind, expansion, stride, channels, drop) of each block; rows are as in `TABLE_1`.

    The share of images that drop the block's branch in training grows from 0 towards 0.2 (section
    5.2; Huang et al. 2016).
    """
    blocks = [
        (kind, expand, 1 if repeat else stride, channels)
        for kind, expand, stride, channels, repeats in table
        for repeat in range(repeats)
    ]
    names = stage_names(stride for _, _, stride, _ in blocks)
    for i, (name, block) in enumerate(zip(names, blocks, strict=True)):
        yield name, *block, 0.2 * i / len(blocks)


_KERAS = {"paper": "Tan, Le 2019 (arXiv:1905.11946), table 1", "top1_source": "keras"}
# torchvision has TensorFlow's weights for these three, and with them its epsilon.
_LARGE = _KERAS | {"flavours": {"torch": {"epsilon": 1e-3}}}


@model("efficientnet_b0", 5_288_548, 5_330_564, 385_814_752, width=1.0, depth=1.0, dropout=0.2,
       top1=77.1, **_KERAS)  # fmt: skip
@model("efficientnet_b1", 7_794_184, 7_856_232, 686_802_832, size=240, width=1.0, depth=1.1,
       dropout=0.2, top1=79.1, **_KERAS)  # fmt: skip
@model("efficientnet_b2", 9_109_994, 9_177_562, 993_561_872, size=260, width=1.1, depth=1.2,
       dropout=0.3, top1=80.1, **_KERAS)  # fmt: skip
@model("efficientnet_b3", 12_233_232, 12_320_528, 1_827_141_392, size=300, width=1.2, depth=1.4,
       dropout=0.3, top1=81.6, **_KERAS)  # fmt: skip
@model("efficientnet_b4", 19_341_616, 19_466_816, 4_393_771_024, size=380, width=1.4, depth=1.8,
       dropout=0.4, top1=82.9, **_KERAS)  # fmt: skip
@model("efficientnet_b5", 30_389_784, 30_562_520, 10_266_384_752, size=456, width=1.6, depth=2.2,
       dropout=0.4, top1=83.6, **_LARGE)  # fmt: skip
@model("efficientnet_b6", 43_040_704, 43_265_136, 19_067_593_536, size=528, width=1.8, depth=2.6,
       dropout=0.5, top1=84.0, **_LARGE)  # fmt: skip
@model("efficientnet_b7", 66_347_960, 66_658_680, 37_745_884_192, size=600, width=2.0, depth=3.1,
       dropout=0.5, top1=84.3, **_LARGE)  # fmt: skip
def efficientnet(x, classes, *, width, depth, dropout):
    table = [(*row, divisible(c * width), math.ceil(n * depth)) for *row, c, n in TABLE_1]
    x = conv(x, divisible(32 * width), 3, 2, act="silu", name="stem")
    for name, kernel, expand, stride, filters, drop in unroll(table):
        entering = x.shape[-1]
        attend = partial(squeeze_excite, filters=entering // 4, act="silu")
        x = inverted_residual(
            x, filters, kernel, stride, expand * entering,
            act="silu", attend=attend, drop=drop, name=name,
        )  # fmt: skip
    x = conv(x, divisible(1280 * width), act="silu", name="head_expand")
    return classifier(x, classes, dropout)


_LITE = {
    "paper": "Liu 2020, EfficientNet-Lite (tensorflow/tpu, models/official/efficientnet/lite)",
    "mean": 127.0, "std": 128.0, "top1_source": "timm",
}  # fmt: skip


@model("efficientnet_lite0", 4_652_008, 4_694_024, 385_187_552, width=1.0, depth=1.0, dropout=0.2,
       top1=74.846, **_LITE)  # fmt: skip
@model("efficientnet_lite1", 5_416_680, 5_470_344, 600_185_232, size=240, width=1.0, depth=1.1,
       dropout=0.2, top1=76.674, **_LITE)  # fmt: skip
@model("efficientnet_lite2", 6_092_072, 6_150_168, 859_736_272, size=260, width=1.1, depth=1.2,
       dropout=0.3, top1=77.47, **_LITE)  # fmt: skip
@model("efficientnet_lite3", 8_197_096, 8_273_768, 1_607_554_544, size=300, width=1.2, depth=1.4,
       dropout=0.3, top1=79.808, **_LITE)  # fmt: skip
@model("efficientnet_lite4", 13_006_568, 13_118_936, 3_943_564_112, size=380, width=1.4, depth=1.8,
       dropout=0.3, top1=81.54, **_LITE)  # fmt: skip
def efficientnet_lite(x, classes, *, width, depth, dropout):
    # The first and the last row stay one block; stem and head keep their width.
    table = [
        (*row, divisible(c * width), math.ceil(n * depth) if n > 1 else 1) for *row, c, n in TABLE_1
    ]
    x = conv(x, 32, 3, 2, act="relu6", name="stem")
    for name, kernel, expand, stride, filters, drop in unroll(table):
        middle = expand * x.shape[-1]
        x = inverted_residual(x, filters, kernel, stride, middle, drop=drop, name=name)
    x = conv(x, 1280, act="relu6", name="head_expand")
    return classifier(x, classes, dropout)
