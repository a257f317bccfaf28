"""The reference networks of MLPerf Tiny: Banbury et al. 2021 (arXiv:2106.07597), table 1.

ResNet-8, the third one for images, stands with the other small ResNets. Their convolutions have
biases in front of BatchNorm.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, depthwise, layers, stage_names
from kzoo.zoo.mobilenet_v1 import V1

_PAPER = "MLPerf Tiny {} (Banbury et al. 2021, arXiv:2106.07597), reference model"


def separable(x, filters, stride=1, *, name):
    """3x3 depthwise, 1x1: (n, h, w, c) -> (n, h / stride, w / stride, filters)."""
    x = depthwise(x, 3, stride, bias=True, name=f"{name}_depthwise")
    return conv(x, filters, bias=True, name=f"{name}_pointwise")


@model("ds_cnn", 23_756, 24_908, 2_656_768, size=(49, 10), min_size=2, channels=1, classes=12,
       mean=0, std=1, task="keyword spotting", paper=_PAPER.format("keyword spotting"))  # fmt: skip
def ds_cnn(x, classes):
    height, width = x.shape[1] // 2, x.shape[2] // 2
    x = conv(x, 64, (10, 4), 2, bias=True, name="stem")
    x = layers.Dropout(0.2, name="stem_dropout")(x)
    for i in (1, 2, 3, 4):
        x = separable(x, 64, name=f"stage1_{i}")
    x = layers.Dropout(0.4, name="head_dropout")(x)
    # The reference pools over half of the input rounded down, 24 of the 25 rows there are.
    x = layers.AveragePooling2D((height, width), name="head_pool")(x)
    x = layers.Flatten(name="head_flatten")(x)
    return x if classes is None else layers.Dense(classes, name="head")(x)


@model("vww_mobilenet", 216_322, 221_794, 7_489_664, size=96, classes=2, mean=0, std=255,
       task="visual wake words", paper=_PAPER.format("visual wake words"))  # fmt: skip
def vww_mobilenet(x, classes):
    x = conv(x, 8, 3, 2, bias=True, name="stem")
    for name, (channels, stride) in zip(stage_names(s for _, s in V1), V1, strict=True):
        x = separable(x, channels // 4, stride, name=name)
    return classifier(x, classes)
