"""Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, Rethinking the Inception
Architecture for Computer Vision (arXiv:1512.00567), as released with its weights."""

from __future__ import annotations

from kzoo.errors import UsageError
from kzoo.registry import model
from kzoo.zoo.blocks import classifier, concatenate, conv, flavour, layers, towers


def average_pool(x, *, name):
    """Means of 3x3 pixels: (n, h, w, c) -> (n, h, w, c). Torch and Caffe count the padding."""
    padding = "same"
    if flavour().symmetric:
        x, padding = layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"
    return layers.AveragePooling2D(3, 1, padding, name=f"{name}_average")(x)


def inception(x, *rows, project, name):
    """Towers of convolutions beside a pooled projection: (n, h, w, c) -> (n, h, w, filters)."""
    pooled = conv(average_pool(x, name=name), project, name=f"{name}_project")
    return concatenate([*towers(x, *rows, name=name), pooled], name)


def reduction(x, *rows, name):
    """Figure 10: towers that end in stride 2 beside a max pooling; no padding.

    (n, h, w, c) -> (n, (h - 1) // 2, (w - 1) // 2, filters + c).
    """
    branches = towers(x, *rows, stride=2, padding="valid", name=name)
    return concatenate([*branches, layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)], name)


def split(x, *, name):
    """A 3x3 convolution as 1x3 and 3x1 side by side (figure 7): (n, h, w, c) -> (n, h, w, 768)."""
    return concatenate(towers(x, [(384, (1, 3))], [(384, (3, 1))], name=name), name)


def expanded(x, *, name):
    """Figure 7, for the coarsest grid: (n, h, w, c) -> (n, h, w, 2048)."""
    one, single, double = towers(x, [(320, 1)], [(384, 1)], [(448, 1), (384, 3)], name=name)
    single, double = split(single, name=f"{name}_single"), split(double, name=f"{name}_double")
    pooled = conv(average_pool(x, name=name), 192, name=f"{name}_project")
    return concatenate([one, single, double, pooled], name)


def auxiliary_head(x, classes):
    """Section 4's classifier on the last 17x17 grid: (n, h, w, c) -> logits (n, classes)."""
    if min(x.shape[1:3]) < 17:
        raise UsageError("the auxiliary classifier needs an input of at least 299 x 299 pixels")
    x = layers.AveragePooling2D(5, 3, name="head_aux1_pool")(x)
    x = conv(x, 128, name="head_aux1_1")
    x = conv(x, 768, 5, padding="valid", name="head_aux1_2")
    x = layers.GlobalAveragePooling2D(name="head_aux1_mean")(x)
    return layers.Dense(classes, name="head_aux1")(x)


def stem(x):
    """Convolutions and pools down to the 35x35 grid: (n, 299, 299, 3) -> (n, 35, 35, 192)."""
    x = conv(x, 32, 3, 2, padding="valid", name="stem_1")
    x = conv(x, 32, 3, padding="valid", name="stem_2")
    x = conv(x, 64, 3, name="stem_3")
    x = layers.MaxPooling2D(3, 2, name="stage1_1_pool")(x)
    x = conv(x, 80, name="stage1_1")
    x = conv(x, 192, 3, padding="valid", name="stage1_2")
    return layers.MaxPooling2D(3, 2, name="stage2_1_pool")(x)


def modules(x, classes, *, kernel, widths, auxiliary):
    """From the 35x35 grid to the logits. ``kernel``: of its modules' second row; ``widths``: of the
    factorized convolutions in the modules at 17x17."""
    for j, project in enumerate((32, 64, 64), 1):
        rows = [(64, 1)], [(48, 1), (64, kernel)], [(64, 1), (96, 3), (96, 3)]
        x = inception(x, *rows, project=project, name=f"stage2_{j}")
    x = reduction(x, [(384, 3)], [(64, 1), (96, 3), (96, 3)], name="stage3_1")
    high, wide = (7, 1), (1, 7)
    for j, c in enumerate(widths, 2):
        double = [(c, 1), (c, high), (c, wide), (c, high), (192, wide)]
        rows = [(192, 1)], [(c, 1), (c, wide), (192, high)], double
        x = inception(x, *rows, project=192, name=f"stage3_{j}")
    further = [auxiliary_head(x, classes)] if auxiliary else []
    factorized = [(192, 1), (192, wide), (192, high), (192, 3)]
    x = reduction(x, [(192, 1), (320, 3)], factorized, name="stage4_1")
    x = expanded(x, name="stage4_2")
    x = expanded(x, name="stage4_3")
    x = classifier(x, classes, dropout=0.2)
    return [x, *further] if auxiliary else x


@model("inception_v3", 23_817_352, 23_851_784, 5_713_216_096, size=299, min_size=75, auxiliary=0.4,
       paper="Szegedy et al. 2015 (arXiv:1512.00567), as released", top1=77.898,
       top1_source="keras-applications",
       flavours={"keras": {"scale": False}, "torch": {"epsilon": 1e-3}})  # fmt: skip
def inception_v3(x, classes, *, auxiliary=False):
    return modules(stem(x), classes, kernel=5, widths=(128, 160, 160, 192), auxiliary=auxiliary)
