"""Network in Network: Lin, Chen, Yan 2013 (arXiv:1312.4400), section 3, in its authors' Caffe nets.

Every convolution is followed by 1x1 convolutions; the last gives a map per class, whose mean is the
logit.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import ceil_pool, layers, plain

# pooling in front, kernel and stride of the first convolution, channels of it and of the 1x1 ones
IMAGENET = (
    (None, 11, 4, (96, 96, 96)),
    ("max", 5, 1, (256, 256, 256)),
    ("max", 3, 1, (384, 384, 384)),
    ("max", 3, 1, (1024, 1024)),
)
CIFAR = (
    (None, 5, 1, (192, 160, 96)),
    ("max", 5, 1, (192, 192, 192)),
    ("average", 3, 1, (192, 192)),
)


@model("nin", 7_595_176, 7_595_176, 1_100_188_800, min_size=39,
       paper="Lin et al. 2013 (arXiv:1312.4400), the authors' ImageNet model for Caffe",
       blocks=IMAGENET, dropouts=(4,))  # fmt: skip
@model("nin_cifar10", 966_986, 966_986, 222_486_528, size=32, min_size=2, classes=10,
       paper="Lin et al. 2013 (arXiv:1312.4400), section 4.2", top1=89.6, top1_data="CIFAR-10",
       top1_source="Caffe model zoo, cifar10_nin (no augmentation)", blocks=CIFAR,
       dropouts=(2, 3))  # fmt: skip
def nin(x, classes, *, blocks, dropouts):
    for i, (pool, kernel, stride, channels) in enumerate(blocks, start=1):
        if pool == "max":
            x = ceil_pool(x, name=f"stage{i}_1")
        elif pool == "average":
            x = layers.AveragePooling2D(3, 2, "same", name=f"stage{i}_1_pool")(x)
        if i in dropouts:
            x = layers.Dropout(0.5, name=f"stage{i}_1_dropout")(x)
        padding = "valid" if stride > 1 else None
        x = plain(x, channels[0], kernel, stride, padding=padding, name=f"stage{i}_1")
        for j, filters in enumerate(channels[1:], start=2):
            x = plain(x, filters, name=f"stage{i}_{j}")
    x = plain(x, classes, name="head") if classes else x
    return layers.GlobalAveragePooling2D(name="head_pool")(x)
