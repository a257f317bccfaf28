"""MnasNet: Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le 2019 (arXiv:1807.11626).

MnasNet-B1, which was searched without squeeze-and-excite.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, divisible, inverted_residual, stage_names

# expansion t, channels c, repeats n, stride s, kernel k
B1 = (
    (1, 16, 1, 1, 3),
    (3, 24, 3, 2, 3),
    (3, 40, 3, 2, 5),
    (6, 80, 3, 2, 5),
    (6, 96, 2, 1, 3),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)

_TORCH = {
    "paper": "Tan et al. 2019 (arXiv:1807.11626), MnasNet-B1",
    "flavour": "torch", "top1_source": "torchvision", "size": 224,
}  # fmt: skip


@model("mnasnet0_5", 2_218_512, 2_239_136, 104_455_968, alpha=0.5, top1=67.734, **_TORCH)
@model("mnasnet0_75", 3_170_208, 3_200_016, 215_493_104, alpha=0.75, top1=71.18, **_TORCH)
@model("mnasnet1_0", 4_383_312, 4_421_232, 314_415_872, alpha=1.0, top1=73.456, **_TORCH)
@model("mnasnet1_3", 6_282_256, 6_331_072, 526_362_432, alpha=1.3, top1=76.506, **_TORCH)
def mnasnet(x, classes, *, alpha):
    rows = [(t, c, 1 if j else s, k) for t, c, n, s, k in B1 for j in range(n)]
    x = conv(x, divisible(32 * alpha), 3, 2, name="stem")
    names = stage_names(stride for _, _, stride, _ in rows)
    for name, (expand, channels, stride, kernel) in zip(names, rows, strict=True):
        filters, middle = divisible(channels * alpha), expand * x.shape[-1]
        x = inverted_residual(x, filters, kernel, stride, middle, act="relu", name=name)
    x = conv(x, 1280, name="head_expand")
    return classifier(x, classes, dropout=0.2)
