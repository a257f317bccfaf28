"""ResNet, ResNeXt and wide ResNet for ImageNet.

He, Zhang, Ren, Sun 2015, Deep Residual Learning (arXiv:1512.03385), table 1.
Xie, Girshick, Dollar, Tu, He 2016, Aggregated Residual Transformations (arXiv:1611.05431), table 1.
Zagoruyko, Komodakis 2016, Wide Residual Networks (arXiv:1605.07146), section 3.

In the flavour "torch" the 3x3 convolution of a bottleneck strides, known as ResNet v1.5.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, flavour, max_pool, residual_add


def biased(groups):
    """keras.applications' ResNets have biases, and stride in the first 1x1; ResNeXts never did."""
    return flavour().name == "keras" and groups == 1


def basic(x, filters, stride, *, middle, groups, name):
    """Two 3x3 convolutions: (n, h, w, c) -> (n, h/stride, w/stride, filters). Figure 5, left."""
    bias = biased(groups)
    y = conv(x, middle, 3, stride, groups=groups, bias=bias, name=f"{name}_1")
    return conv(y, filters, 3, act=None, bias=bias, name=f"{name}_2")


def bottleneck(x, filters, stride, *, middle, groups, name):
    """1x1, 3x3, 1x1: (n, h, w, c) -> (n, h/stride, w/stride, 4 filters). Figure 5, right."""
    bias = biased(groups)
    first, second = (stride, 1) if bias else (1, stride)
    y = conv(x, middle, 1, first, bias=bias, name=f"{name}_1")
    y = conv(y, middle, 3, second, groups=groups, bias=bias, name=f"{name}_2")
    return conv(y, 4 * filters, act=None, bias=bias, name=f"{name}_3")


def residual(x, y, stride, *, bias, name):
    """The branch y added to x, which a 1x1 projection fits to it where shapes differ (option B)."""
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        x = conv(x, y.shape[-1], 1, stride, act=None, bias=bias, name=f"{name}_shortcut")
    return residual_add(x, y, "relu", name=name)


_ALL = {
    "flavour": "torch", "top1_source": "torchvision",
    "flavours": {"keras": {"symmetric": True, "epsilon": 1.001e-5}},
}  # fmt: skip
_RESNET = _ALL | {"paper": "He et al. 2015 (arXiv:1512.03385), table 1", "groups": 1, "width": 64}
_NEXT = _ALL | {"paper": "Xie et al. 2016 (arXiv:1611.05431), table 1", "block": bottleneck}
_WIDE = _ALL | {
    "paper": "Zagoruyko, Komodakis 2016 (arXiv:1605.07146), section 3", "block": bottleneck,
    "groups": 1, "width": 128,
}  # fmt: skip


@model("resnet18", 11_689_512, 11_699_112, 1_814_073_344, block=basic, depths=(2, 2, 2, 2),
       top1=69.758, **_RESNET)  # fmt: skip
@model("resnet34", 21_797_672, 21_814_696, 3_663_761_408, block=basic, depths=(3, 4, 6, 3),
       top1=73.314, **_RESNET)  # fmt: skip
@model("resnet50", 25_557_032, 25_610_152, 4_089_184_256, block=bottleneck, depths=(3, 4, 6, 3),
       top1=76.13, **_RESNET)  # fmt: skip
@model("resnet101", 44_549_160, 44_654_504, 7_801_405_440, block=bottleneck, depths=(3, 4, 23, 3),
       top1=77.374, **_RESNET)  # fmt: skip
@model("resnet152", 60_192_808, 60_344_232, 11_513_626_624, block=bottleneck, depths=(3, 8, 36, 3),
       top1=78.312, **_RESNET)  # fmt: skip
@model("resnext50_32x4d", 25_028_904, 25_097_128, 4_230_479_872, depths=(3, 4, 6, 3), groups=32,
       width=4, top1=77.618, **_NEXT)  # fmt: skip
@model("resnext101_32x8d", 88_791_336, 88_994_216, 16_414_015_488, depths=(3, 4, 23, 3), groups=32,
       width=8, top1=79.312, **_NEXT)  # fmt: skip
@model("resnext101_64x4d", 83_455_272, 83_658_152, 15_460_270_080, depths=(3, 4, 23, 3), groups=64,
       width=4, top1=83.246, **_NEXT)  # fmt: skip
@model("wide_resnet50_2", 68_883_240, 68_951_464, 11_398_021_120, depths=(3, 4, 6, 3), top1=78.468,
       **_WIDE)  # fmt: skip
@model("wide_resnet101_2", 126_886_696, 127_024_552, 22_753_050_624, depths=(3, 4, 23, 3),
       top1=78.848, **_WIDE)  # fmt: skip
def resnet(x, classes, *, block, depths, groups, width):
    bias = biased(groups)
    x = conv(x, 64, 7, 2, bias=bias, name="stem")
    x = max_pool(x, name="stage1_0")
    for i, depth in enumerate(depths):
        for j in range(depth):
            stride = 2 if i and not j else 1
            name = f"stage{i + 1}_{j + 1}"
            y = block(x, 64 << i, stride, middle=width * groups << i, groups=groups, name=name)
            x = residual(x, y, stride, bias=bias, name=name)
    return classifier(x, classes)
