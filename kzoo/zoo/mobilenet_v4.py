"""MobileNetV4: Qin, Leichner, Delakis et al. 2024 (arXiv:2404.10518), the convolutional ones."""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, depthwise, layers, residual_add

# The stem's channels; stages of one plain 3x3 convolution at stride 2 and one 1x1: the channels of
# both and the activation of the latter; stages of universal inverted bottlenecks: channels, and for
# each block the kernels of its two depthwise convolutions (0 for none) and its expansion.
V4 = {
    "small": (
        32,
        ((32, 32, "relu"), (96, 64, "relu")),
        (
            (96, ((5, 5, 3), *[(0, 3, 2)] * 4, (3, 0, 4))),
            (128, ((3, 3, 6), (5, 5, 4), (0, 5, 4), (0, 5, 3), *[(0, 3, 4)] * 2)),
        ),
    ),
    "medium": (
        32,
        ((128, 48, None),),
        (
            (80, ((3, 5, 4), (3, 3, 2))),
            (160, ((3, 5, 6), *[(3, 3, 4)] * 2, (3, 5, 4), (3, 3, 4), (3, 0, 4), (0, 0, 2),
                   (3, 0, 4))),
            (256, ((5, 5, 6), (5, 5, 4), *[(3, 5, 4)] * 2, (0, 0, 4), (3, 0, 4), (3, 5, 2),
                   (5, 5, 4), *[(0, 0, 4)] * 2, (5, 0, 2))),
        ),
    ),
    "large": (
        24,
        ((96, 48, None),),
        (
            (96, ((3, 5, 4), (3, 3, 4))),
            (192, ((3, 5, 4), *[(3, 3, 4)] * 3, (3, 5, 4), *[(5, 3, 4)] * 5, (3, 0, 4))),
            (512, (*[(5, 5, 4)] * 4, (5, 0, 4), (5, 3, 4), *[(5, 0, 4)] * 2, (5, 3, 4), (5, 5, 4),
                   *[(5, 0, 4)] * 3)),
        ),
    ),
}  # fmt: skip

_TIMM = {
    "paper": "Qin et al. 2024 (arXiv:2404.10518)", "flavour": "torch", "top1_source": "timm",
}  # fmt: skip


def universal_inverted_bottleneck(x, filters, stride, kernels, expand, *, name):
    """An inverted residual with depthwise convolutions before and after its expansion, or without:
    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters)."""
    before, after = kernels
    y = x
    if before:
        y = depthwise(y, before, 1 if after else stride, act=None, name=f"{name}_before")
    y = conv(y, expand * x.shape[-1], name=f"{name}_expand")
    if after:
        y = depthwise(y, after, stride, name=f"{name}_depthwise")
    y = conv(y, filters, act=None, name=f"{name}_project")
    return residual_add(x, y, name=name) if stride == 1 and filters == x.shape[-1] else y


@model("mobilenet_v4_conv_small", 3_774_024, 3_799_112, 186_005_568, layout="small", top1=73.730,
       **_TIMM)  # fmt: skip
@model("mobilenet_v4_conv_medium", 9_715_512, 9_783_416, 827_649_984, layout="medium", top1=79.092,
       **_TIMM)  # fmt: skip
@model("mobilenet_v4_conv_large", 32_590_864, 32_740_416, 2_835_269_632, size=256, layout="large",
       top1=81.864, **_TIMM)  # fmt: skip
def mobilenet_v4(x, classes, *, layout):
    stem, fused, stages = V4[layout]
    x = conv(x, stem, 3, 2, name="stem")
    for i, (middle, filters, act) in enumerate(fused, start=1):
        x = conv(x, middle, 3, 2, name=f"stage{i}_1_expand")
        x = conv(x, filters, act=act, name=f"stage{i}_1_project")
    for i, (filters, blocks) in enumerate(stages, start=len(fused) + 1):
        for j, (*kernels, expand) in enumerate(blocks, start=1):
            x = universal_inverted_bottleneck(
                x, filters, 2 if j == 1 else 1, kernels, expand, name=f"stage{i}_{j}"
            )
    x = conv(x, 960, name="head_expand")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="head_pool")(x)
    x = conv(x, 1280, name="head_hidden")
    return classifier(layers.Flatten(name="head_flatten")(x), classes, dropout=0.2)
