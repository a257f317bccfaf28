"""AlexNet: Krizhevsky, Sutskever, Hinton 2012, section 3.

``alexnet_2012`` is that network, its two towers as grouped convolutions. ``alexnet`` is the one of
torchvision: the single tower of Krizhevsky 2014 (arXiv:1404.5997), footnote 1, without LRN.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import layers, local_response, plain

LRN = {"k": 2, "n": 5, "alpha": 1e-4, "beta": 0.75}
"""Krizhevsky 2012, section 3.3; VGG's A-LRN has the same."""


def dense_part(x, classes, *, dropouts=(2, 3)):
    """Two hidden layers of 4096 and the classifier: (n, h, w, c) -> (n, classes).

    ``dropouts``: which of the three have dropout in front.
    """
    x = layers.Flatten(name="head_flatten")(x)
    for i in (1, 2, 3):
        if i in dropouts:
            x = layers.Dropout(0.5, name=f"head_dropout{i}")(x)
        if i < 3:
            x = layers.Dense(4096, "relu", name=f"head_fc{i}")(x)
    return x if classes is None else layers.Dense(classes, name="head")(x)


@model("alexnet", 61_100_840, 61_100_840, 714_188_480, min_size=63, flavour="torch", top1=56.522,
       top1_source="torchvision", paper="Krizhevsky 2014 (arXiv:1404.5997), footnote 1",
       filters=(64, 192, 384, 256, 256), pad=2, groups=1, lrn=False, dropouts=(1, 2))  # fmt: skip
@model("alexnet_2012", 60_965_224, 60_965_224, 724_406_816, size=227, min_size=67, top1=59.3,
       top1_source="table 2 of the paper, 1 CNN (error 40.7 %, mean of ten crops)",
       paper="Krizhevsky, Sutskever, Hinton 2012, section 3", filters=(96, 256, 384, 384, 256),
       pad=0, groups=2, lrn=True, dropouts=(2, 3))  # fmt: skip
def alexnet(x, classes, *, filters, pad, groups, lrn, dropouts):
    if pad:
        x = layers.ZeroPadding2D(pad, name="stage1_1_pad")(x)
    x = plain(x, filters[0], 11, 4, padding="valid", name="stage1_1")
    x = local_response(x, **LRN, name="stage1_1") if lrn else x
    x = layers.MaxPooling2D(3, 2, name="stage2_1_pool")(x)
    x = plain(x, filters[1], 5, groups=groups, name="stage2_1")
    x = local_response(x, **LRN, name="stage2_1") if lrn else x
    x = layers.MaxPooling2D(3, 2, name="stage3_1_pool")(x)
    # The third convolution is the one that sees both towers.
    x = plain(x, filters[2], 3, name="stage3_1")
    x = plain(x, filters[3], 3, groups=groups, name="stage3_2")
    x = plain(x, filters[4], 3, groups=groups, name="stage3_3")
    x = layers.MaxPooling2D(3, 2, name="stage4_1_pool")(x)
    return dense_part(x, classes, dropouts=dropouts)
