"""ResNet V2: He, Zhang, Ren, Sun 2016, Identity Mappings in Deep Residual Networks
(arXiv:1603.05027), figure 1b, as in keras.applications.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, layers, max_pool, normalize, plain, residual_add


def preactivated(x, filters, stride, *, project, name):
    """Activation, then 1x1, 3x3, 1x1: (n, h, w, c) -> (n, h/stride, w/stride, 4 filters).

    The shortcut carries x as it is; ``project``: a 1x1 convolution of what is activated.
    """
    y = normalize(x, "relu", name=f"{name}_0")
    if project:
        x = plain(y, 4 * filters, 1, stride, act=None, name=f"{name}_shortcut")
    elif stride > 1:
        x = layers.MaxPooling2D(1, stride, name=f"{name}_shortcut")(x)
    y = conv(y, filters, name=f"{name}_1")
    y = conv(y, filters, 3, stride, name=f"{name}_2")
    y = plain(y, 4 * filters, act=None, name=f"{name}_3")
    return residual_add(x, y, name=name)


_KERAS = {
    "paper": "He et al. 2016 (arXiv:1603.05027), figure 1b", "top1_source": "keras",
    "flavours": {"keras": {"symmetric": True, "epsilon": 1.001e-5}},
}  # fmt: skip


@model("resnet50v2", 25_568_360, 25_613_800, 3_482_255_360, depths=(3, 4, 6, 3), top1=76.0,
       **_KERAS)  # fmt: skip
@model("resnet101v2", 44_577_896, 44_675_560, 7_194_476_544, depths=(3, 4, 23, 3), top1=77.2,
       **_KERAS)  # fmt: skip
@model("resnet152v2", 60_236_904, 60_380_648, 10_906_697_728, depths=(3, 8, 36, 3), top1=78.0,
       **_KERAS)  # fmt: skip
def resnet_v2(x, classes, *, depths):
    x = plain(x, 64, 7, 2, act=None, name="stem")
    x = max_pool(x, name="stage1_0")
    stage, block = 1, 0
    for i, depth in enumerate(depths):
        for j in range(depth):
            # The last block of a width strides, so it opens the next stage, of half the resolution.
            stride = 2 if j == depth - 1 and i < 3 else 1
            stage, block = (stage + 1, 1) if stride == 2 else (stage, block + 1)
            name = f"stage{stage}_{block}"
            x = preactivated(x, 64 << i, stride, project=not j, name=name)
    return classifier(normalize(x, "relu", name="head"), classes)
