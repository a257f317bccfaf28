"""Inception-ResNet v2: Szegedy, Ioffe, Vanhoucke, Alemi 2016, Inception-v4, Inception-ResNet and
the Impact of Residual Connections on Learning (arXiv:1602.07261), as released with its weights."""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, concatenate, conv, layers, plain, residual_add, towers
from kzoo.zoo.inception_v3 import reduction, stem


def residual(x, *rows, scale, act="relu", name):
    """Section 3.3: a module's output, projected to x's channels and scaled down, added to x."""
    y = concatenate(towers(x, *rows, name=name), name)
    y = plain(y, x.shape[-1], act=None, name=f"{name}_project")
    y = layers.Rescaling(scale, name=f"{name}_scale")(y) if scale != 1 else y
    return residual_add(x, y, act, name=name)


@model("inception_resnet_v2", 55_813_192, 55_873_736, 13_155_794_016, size=299, min_size=75,
       paper="Szegedy et al. 2016 (arXiv:1602.07261), as released", top1=80.256,
       top1_source="keras-applications",
       flavours={"keras": {"scale": False}, "torch": {"epsilon": 1e-3}})  # fmt: skip
def inception_resnet_v2(x, classes):
    x = stem(x)
    rows = [(96, 1)], [(48, 1), (64, 5)], [(64, 1), (96, 3), (96, 3)]
    pooled = layers.AveragePooling2D(3, 1, "same", name="stage2_1_average")(x)
    pooled = conv(pooled, 64, name="stage2_1_project")
    x = concatenate([*towers(x, *rows, name="stage2_1"), pooled], "stage2_1")
    rows = [(32, 1)], [(32, 1), (32, 3)], [(32, 1), (48, 3), (64, 3)]
    for j in range(2, 12):
        x = residual(x, *rows, scale=0.17, name=f"stage2_{j}")
    x = reduction(x, [(384, 3)], [(256, 1), (256, 3), (384, 3)], name="stage3_1")
    rows = [(192, 1)], [(128, 1), (160, (1, 7)), (192, (7, 1))]
    for j in range(2, 22):
        x = residual(x, *rows, scale=0.1, name=f"stage3_{j}")
    rows = [(256, 1), (384, 3)], [(256, 1), (288, 3)], [(256, 1), (288, 3), (320, 3)]
    x = reduction(x, *rows, name="stage4_1")
    rows = [(192, 1)], [(192, 1), (224, (1, 3)), (256, (3, 1))]
    for j in range(2, 11):
        x = residual(x, *rows, scale=0.2, name=f"stage4_{j}")
    x = residual(x, *rows, scale=1, act=None, name="stage4_11")
    x = conv(x, 1536, name="head_expand")
    return classifier(x, classes, dropout=0.2)
