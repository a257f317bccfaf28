"""BN-Inception and Inception v2, GoogLeNet's successors.

BN-Inception: Ioffe & Szegedy 2015, Batch Normalization (arXiv:1502.03167), figure 5.
Inception v2: Szegedy et al. 2015, Rethinking the Inception Architecture for Computer Vision
(arXiv:1512.00567), table 1.
"""

from __future__ import annotations

import functools

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, concatenate, conv, layers, towers
from kzoo.zoo.inception_v3 import average_pool, modules

# stage: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection of its modules; those
# without 1x1 have stride 2. Modules 4c and 4d project to 128 channels as in the network that was
# released for Caffe; the figure has 96.
FIGURE_5 = {
    2: ((64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64)),
    3: (
        (0, 128, 160, 64, 96, 0), (224, 64, 96, 96, 128, 128), (192, 96, 128, 96, 128, 128),
        (160, 128, 160, 128, 160, 128), (96, 128, 192, 160, 192, 128),
    ),
    4: (
        (0, 128, 192, 192, 256, 0), (352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128),
    ),
}  # fmt: skip

biased = functools.partial(conv, bias=True)


def max_pool(x, stride=2, *, name):
    """3x3 maxima: (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), c)."""
    # Padded as TensorFlow does, which at even sizes is Caffe's window that hangs over the edge.
    return layers.MaxPooling2D(3, stride, "same", name=f"{name}_pool")(x)


def module(x, a, b, c, d, e, f, *, pool, name):
    """GoogLeNet's module with two 3x3 convolutions for its 5x5; with stride 2 where a is 0."""
    rows = [(b, 1), (c, 3)], [(d, 1), (e, 3), (e, 3)]
    if not a:
        branches = towers(x, *rows, unit=biased, stride=2, name=name)
        return concatenate([*branches, max_pool(x, name=name)], name)
    branches = towers(x, [(a, 1)], *rows, unit=biased, name=name)
    return concatenate([*branches, biased(pool(x, name=name), f, name=f"{name}_project")], name)


@model("bn_inception", 11_295_240, 11_315_272, 2_032_600_064, flavour="torch",
       paper="Ioffe & Szegedy 2015 (arXiv:1502.03167), figure 5, as released for Caffe",
       top1=73.522, top1_source="Cadene/pretrained-models.pytorch README")  # fmt: skip
def bn_inception(x, classes):
    x = biased(x, 64, 7, 2, name="stem")
    x = max_pool(x, name="stage1_1")
    x = biased(x, 64, name="stage1_1")
    x = biased(x, 192, 3, name="stage1_2")
    x = max_pool(x, name="stage2_1_input")
    for stage, rows in FIGURE_5.items():
        for j, filters in enumerate(rows, 1):
            name = f"stage{stage}_{j}"
            last = name == "stage4_3"
            pool = functools.partial(max_pool, stride=1) if last else average_pool
            x = module(x, *filters, pool=pool, name=name)
    return classifier(x, classes, dropout=0.2)


@model("inception_v2", 26_388_232, 26_427_080, 6_462_077_024, size=299, min_size=75, auxiliary=0.4,
       paper="Szegedy et al. 2015 (arXiv:1512.00567), table 1; filters of Inception v3",
       flavours={"torch": {"epsilon": 1e-3}})  # fmt: skip
def inception_v2(x, classes, *, auxiliary=False):
    x = conv(x, 32, 3, 2, padding="valid", name="stem_1")
    x = conv(x, 32, 3, padding="valid", name="stem_2")
    x = conv(x, 64, 3, name="stem_3")
    x = layers.MaxPooling2D(3, 2, name="stage1_1_pool")(x)
    x = conv(x, 80, 3, padding="valid", name="stage1_1")
    x = conv(x, 192, 3, 2, padding="valid", name="stage2_1_input")
    x = conv(x, 288, 3, name="stage2_1_wide")
    return modules(x, classes, kernel=3, widths=(128, 160, 160, 192, 192), auxiliary=auxiliary)
