"""MobileNet: Howard, Zhu, Chen, Kalenichenko, Wang et al. 2017 (arXiv:1704.04861), table 1."""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, depthwise, flavour, layers, stage_names

# channels, stride
V1 = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
    (1024, 2), (1024, 1),
)  # fmt: skip

_KERAS = {
    "paper": "Howard et al. 2017 (arXiv:1704.04861), table 1",
    "top1_source": "keras-applications",
}


def depthwise_separable(x, filters, stride, *, act, name):
    """3x3 depthwise, 1x1: (n, h, w, c) -> (n, h / stride, w / stride, filters)."""
    padding = None
    if stride > 1 and not flavour().symmetric and (x.shape[1] % 2 or x.shape[2] % 2):
        # keras.applications pads odd sizes too at the bottom right only, unlike "same".
        x, padding = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x), "valid"
    x = depthwise(x, 3, stride, act=act, padding=padding, name=f"{name}_depthwise")
    return conv(x, filters, act=act, name=f"{name}_pointwise")


@model("mobilenet_v1", 4_231_976, 4_253_864, 568_740_352, alpha=1.0, act="relu6", top1=70.424,
       **_KERAS)  # fmt: skip
@model("mobilenet_v1_075", 2_585_560, 2_601_976, 325_400_448, alpha=0.75, act="relu6", top1=68.412,
       **_KERAS)  # fmt: skip
@model("mobilenet_v1_050", 1_331_592, 1_342_536, 149_497_088, alpha=0.5, act="relu6", top1=64.292,
       **_KERAS)  # fmt: skip
@model("mobilenet_v1_025", 470_072, 475_544, 41_030_272, alpha=0.25, act="relu6", top1=51.582,
       **_KERAS)  # fmt: skip
def mobilenet_v1(x, classes, *, alpha, act):
    x = conv(x, int(32 * alpha), 3, 2, act=act, name="stem")
    for name, (channels, stride) in zip(stage_names(s for _, s in V1), V1, strict=True):
        x = depthwise_separable(x, int(channels * alpha), stride, act=act, name=name)
    return classifier(x, classes, dropout=1e-3)
