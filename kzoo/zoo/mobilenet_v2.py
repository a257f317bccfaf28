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


@model("mobilenet_v2", size=224, alpha=1.0, top1=71.336,
       params=3_504_872, total_params=3_538_984, macs=300_774_272, **_KERAS)  # fmt: skip
@model("mobilenet_v2_035", size=224, alpha=0.35, top1=60.086,
       params=1_677_128, total_params=1_691_208, macs=59_285_808, **_KERAS)  # fmt: skip
@model("mobilenet_v2_050", size=224, alpha=0.5, top1=65.194,
       params=1_968_680, total_params=1_987_224, macs=97_131_840, **_KERAS)  # fmt: skip
@model("mobilenet_v2_075", size=224, alpha=0.75, top1=69.532,
       params=2_636_424, total_params=2_663_064, macs=209_069_792, **_KERAS)  # fmt: skip
@model("mobilenet_v2_130", size=224, alpha=1.3, top1=74.68,
       params=5_386_792, total_params=5_431_048, macs=509_374_560, **_KERAS)  # fmt: skip
@model("mobilenet_v2_140", size=224, alpha=1.4, top1=75.23,
       params=6_108_776, total_params=6_156_712, macs=582_195_824, **_KERAS)  # fmt: skip
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
