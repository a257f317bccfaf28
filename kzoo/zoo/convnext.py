"""ConvNeXt: Liu, Mao, Wu, Feichtenhofer, Darrell, Xie 2022, A ConvNet for the 2020s
(arXiv:2201.03545), figure 4 and table 9.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import depthwise_initializer, layers, plain, residual_add


def layer_norm(x, name):
    """Over the channels of each pixel; no BatchNorm stands here, so the flavour has no say."""
    return layers.LayerNormalization(epsilon=1e-6, name=f"{name}_ln")(x)


def convnext_block(x, *, drop, name):
    """7x7 depthwise, 1x1 to four times the channels, 1x1 back; the shape (n, h, w, c) stays."""
    y = layers.DepthwiseConv2D(
        7, padding="same", name=f"{name}_depthwise",
        depthwise_initializer=depthwise_initializer(x.shape[-1], 7),
    )(x)  # fmt: skip
    y = layer_norm(y, name)
    y = plain(y, 4 * x.shape[-1], act="gelu", name=f"{name}_expand")
    y = plain(y, x.shape[-1], act=None, name=f"{name}_project")
    # Layer scale (Touvron et al. 2021): one factor per channel, which a 1x1 depthwise layer holds.
    y = layers.DepthwiseConv2D(
        1, use_bias=False, name=f"{name}_scale",
        depthwise_initializer={"class_name": "Constant", "config": {"value": 1e-6}},
    )(y)  # fmt: skip
    return residual_add(x, y, drop=drop, name=name)


_ALL = {
    "top1_source": "torchvision",
    "paper": "Liu et al. 2022 (arXiv:2201.03545), table 9",
    "islands": "LayerNormalization negates the means, and NEG has no int8 kernel",
}  # fmt: skip


@model("convnext_tiny", 28_589_128, 28_589_128, 4_457_676_288, width=96, depths=(3, 3, 9, 3),
       drop=0.1, top1=82.52, **_ALL)  # fmt: skip
@model("convnext_small", 50_223_688, 50_223_688, 8_687_212_032, width=96, depths=(3, 3, 27, 3),
       drop=0.4, top1=83.616, **_ALL)  # fmt: skip
@model("convnext_base", 88_591_464, 88_591_464, 15_359_395_840, width=128, depths=(3, 3, 27, 3),
       drop=0.5, top1=84.062, **_ALL)  # fmt: skip
def convnext(x, classes, *, width, depths, drop):
    before = 0
    for i, depth in enumerate(depths):
        name, patch = f"stage{i + 1}_0", 2 if i else 4
        x = layer_norm(x, name) if i else x
        x = plain(x, width << i, patch, patch, act=None, padding="valid", name=name)
        x = x if i else layer_norm(x, name)
        for j in range(depth):
            # Stochastic depth grows linearly with depth, from 0.
            rate = drop * (before + j) / (sum(depths) - 1)
            x = convnext_block(x, drop=rate, name=f"stage{i + 1}_{j + 1}")
        before += depth
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = layer_norm(x, "head")
    return x if classes is None else layers.Dense(classes, name="head")(x)
