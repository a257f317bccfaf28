"""The small ResNets for 32-pixel images.

ResNet-20 to -110: He, Zhang, Ren, Sun 2015, Deep Residual Learning, section 4.2, with option A
shortcuts.
ResNet-8: the image-classification reference of MLPerf Tiny (Banbury et al. 2021), with option B
shortcuts and biased convolutions.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, layers, plain, residual_add


def residual(x, filters, stride, shortcut, *, bias, name):
    """Two 3x3 convolutions and a shortcut: (n, h, w, c) -> (n, h/stride, w/stride, filters)."""
    y = conv(x, filters, 3, stride, bias=bias, name=f"{name}_1")
    y = conv(y, filters, 3, act=None, bias=bias, name=f"{name}_2")
    if stride > 1 or x.shape[-1] != filters:
        x = shortcut(x, filters, stride, name)
    return residual_add(x, y, "relu", name=name)


def option_a(x, filters, stride, name):
    """Every second pixel, and zeros for the new channels: no parameters (section 4.2)."""
    x = layers.MaxPooling2D(1, stride, name=f"{name}_shortcut")(x)
    new = filters - x.shape[-1]
    # Told "channels_first", this layer pads the last two axes, here (w, c): zeros are added to the
    # channels by a stock layer, with a name.
    pad = layers.ZeroPadding2D(
        ((0, 0), (new // 2, new - new // 2)),
        data_format="channels_first",
        name=f"{name}_shortcut_pad",
    )
    return pad(x)


def option_b(x, filters, stride, name):
    """A 1x1 projection; MLPerf Tiny puts no BatchNorm behind it."""
    return plain(x, filters, 1, stride, act=None, name=f"{name}_shortcut")


_OPTION_A = {
    "size": 32, "min_size": 8, "classes": 10, "flavour": "torch", "shortcut": option_a,
    "bias": False, "top1_data": "CIFAR-10",
    "paper": "He et al. 2015 (arXiv:1512.03385), section 4.2, option A",
}  # fmt: skip


@model("resnet8", 78_186, 78_666, 12_501_632, size=32, min_size=8, classes=10, depth=1, bias=True,
       paper="MLPerf Tiny image classification (Banbury et al. 2021, arXiv:2106.07597)",
       shortcut=option_b)  # fmt: skip
@model("resnet20", 269_722, 271_098, 40_551_040, depth=3, top1=91.25,
       top1_source="table 6 of the paper (error 8.75 %)", **_OPTION_A)  # fmt: skip
@model("resnet32", 464_154, 466_426, 68_862_592, depth=5, top1=92.49,
       top1_source="table 6 of the paper (error 7.51 %)", **_OPTION_A)  # fmt: skip
@model("resnet44", 658_586, 661_754, 97_174_144, depth=7, top1=92.83,
       top1_source="table 6 of the paper (error 7.17 %)", **_OPTION_A)  # fmt: skip
@model("resnet56", 853_018, 857_082, 125_485_696, depth=9, top1=93.03,
       top1_source="table 6 of the paper (error 6.97 %)", **_OPTION_A)  # fmt: skip
@model("resnet110", 1_727_962, 1_736_058, 252_887_680, depth=18, top1=93.57,
       top1_source="table 6 of the paper (error 6.43 %)", **_OPTION_A)  # fmt: skip
def resnet_cifar(x, classes, *, depth, shortcut, bias):
    x = conv(x, 16, 3, bias=bias, name="stem")
    for i, filters in enumerate((16, 32, 64), start=1):
        for j in range(1, depth + 1):
            stride = 2 if i > 1 and j == 1 else 1
            x = residual(x, filters, stride, shortcut, bias=bias, name=f"stage{i}_{j}")
    return classifier(x, classes)
