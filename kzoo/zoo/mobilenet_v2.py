"""MobileNetV2: Sandler, Howard, Zhu, Zhmoginov, Chen 2018 (arXiv:1801.04381), table 2."""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import classifier, conv, divisible, inverted_residual

# stage (0 is the stem's own block, at stride 2), expansion t, channels c, repeats n, stride s
V2 = (
    (0, 1, 16, 1, 1),
    (1, 6, 24, 2, 2),
    (2, 6, 32, 3, 2),
    (3, 6, 64, 4, 2),
    (3, 6, 96, 3, 1),
    (4, 6, 160, 3, 2),
    (4, 6, 320, 1, 1),
)

_KERAS = {
    "paper": "Sandler et al. 2018 (arXiv:1801.04381), table 2",
    "top1_source": "keras-applications",
}


@model("mobilenet_v2", 3_504_872, 3_538_984, 300_774_272, alpha=1.0, top1=71.336, **_KERAS)
@model("mobilenet_v2_035", 1_677_128, 1_691_208, 59_285_808, alpha=0.35, top1=60.086, **_KERAS)
@model("mobilenet_v2_050", 1_968_680, 1_987_224, 97_131_840, alpha=0.5, top1=65.194, **_KERAS)
@model("mobilenet_v2_075", 2_636_424, 2_663_064, 209_069_792, alpha=0.75, top1=69.532, **_KERAS)
@model("mobilenet_v2_130", 5_386_792, 5_431_048, 509_374_560, alpha=1.3, top1=74.68, **_KERAS)
@model("mobilenet_v2_140", 6_108_776, 6_156_712, 582_195_824, alpha=1.4, top1=75.23, **_KERAS)
def mobilenet_v2(x, classes, *, alpha):
    x = conv(x, divisible(32 * alpha), 3, 2, act="relu6", name="stem")
    blocks = [0] * 5
    for stage, expand, channels, repeats, stride in V2:
        for repeat in range(repeats):
            blocks[stage] += 1
            name = f"stage{stage}_{blocks[stage]}" if stage else "stem_1"
            filters, middle = divisible(channels * alpha), expand * x.shape[-1]
            x = inverted_residual(x, filters, 3, 1 if repeat else stride, middle, name=name)
    # The last convolution is not thinned below 1280 channels (section 6.1, footnote of the code).
    x = conv(x, divisible(1280 * max(1.0, alpha)), act="relu6", name="head_expand")
    return classifier(x, classes, dropout=0.2)
