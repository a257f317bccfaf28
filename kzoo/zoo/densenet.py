"""DenseNet: Huang, Liu, van der Maaten, Weinberger 2016, Densely Connected Convolutional Networks
(arXiv:1608.06993): DenseNet-BC for ImageNet, table 1, and the plain DenseNet for 32-pixel images,
section 3.
"""

from __future__ import annotations

from kzoo.errors import UsageError
from kzoo.registry import model
from kzoo.zoo.blocks import INITIALIZER, classifier, conv, flavour, layers, max_pool, normalize


def bare(x, filters, kernel=1, *, name):
    """A convolution whose normalization comes later, in front of the next."""
    return layers.Conv2D(
        filters, kernel, padding="same", use_bias=flavour().norm == "none",
        kernel_initializer=INITIALIZER, name=f"{name}_conv",
    )(x)  # fmt: skip


def dense_layer(x, growth, *, bottleneck, name):
    """x with ``growth`` new channels behind its own: (n, h, w, c) -> (n, h, w, c + growth)."""
    y = normalize(x, "relu", name=f"{name}_0")
    if bottleneck:
        y = conv(y, 4 * growth, name=f"{name}_1")
    y = bare(y, growth, 3, name=f"{name}_2")
    return layers.Concatenate(name=f"{name}_concat")([x, y])


def transition(x, compression, *, name):
    """(n, h, w, c) -> (n, h // 2, w // 2, compression * c)."""
    x = normalize(x, "relu", name=name)
    x = bare(x, int(x.shape[-1] * compression), name=name)
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def dense_blocks(x, classes, *, depths, growth, bottleneck, compression):
    """Dense blocks with transitions between them, and the classifier."""
    for i, depth in enumerate(depths, start=1):
        x = transition(x, compression, name=f"stage{i}_0") if i > 1 else x
        for j in range(1, depth + 1):
            x = dense_layer(x, growth, bottleneck=bottleneck, name=f"stage{i}_{j}")
    return classifier(normalize(x, "relu", name="head"), classes)


_TORCH = {
    "paper": "Huang et al. 2016 (arXiv:1608.06993), table 1", "flavour": "torch",
    "flavours": {"keras": {"symmetric": True, "epsilon": 1.001e-5}}, "top1_source": "torchvision",
}  # fmt: skip


@model("densenet121", 7_978_856, 8_062_504, 2_834_161_664, depths=(6, 12, 24, 16), growth=32,
       top1=74.434, **_TORCH)  # fmt: skip
@model("densenet161", 28_681_000, 28_900_936, 7_727_907_072, depths=(6, 12, 36, 24), growth=48,
       top1=77.138, **_TORCH)  # fmt: skip
@model("densenet169", 14_149_480, 14_307_880, 3_359_843_328, depths=(6, 12, 32, 32), growth=32,
       top1=75.6, **_TORCH)  # fmt: skip
@model("densenet201", 20_013_928, 20_242_984, 4_291_365_888, depths=(6, 12, 48, 32), growth=32,
       top1=76.896, **_TORCH)  # fmt: skip
def densenet(x, classes, *, depths, growth):
    x = conv(x, 2 * growth, 7, 2, name="stem")
    x = max_pool(x, name="stage1_0")
    return dense_blocks(
        x, classes, depths=depths, growth=growth, bottleneck=True, compression=0.5
    )  # fmt: skip


@model("densenet40_k12", 1_019_722, 1_037_818, 264_812_928, size=32, min_size=8, classes=10,
       flavour="torch", paper="Huang et al. 2016 (arXiv:1608.06993), section 3, L = 40, k = 12",
       top1=94.76, top1_data="CIFAR-10", top1_source="table 2 of the paper (error 5.24 % on C10+)",
       depth=40, growth=12)  # fmt: skip
def densenet_cifar(x, classes, *, depth, growth):
    # Three blocks; the stem, two transitions and the classifier are the other four layers.
    each, rest = divmod(depth - 4, 3)
    if rest or each < 1:
        near = " or ".join(str(4 + 3 * n) for n in (each, each + 1) if n > 0) or "7"
        raise UsageError(f"depth is 4 and three blocks alike, such as {near}; {depth} was given")
    x = bare(x, 16, 3, name="stem")
    depths = (each,) * 3
    return dense_blocks(
        x, classes, depths=depths, growth=growth, bottleneck=False, compression=1.0
    )  # fmt: skip
