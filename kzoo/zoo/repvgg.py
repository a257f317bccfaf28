"""RepVGG: Ding et al. 2021 (arXiv:2101.03697), section 3 and table 2, in its training form.

`kzoo.reparameterize` turns it into the deployed one: a 3x3 convolution and a ReLU per block.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import activate, classifier, conv, layers, normalize


def block(x, filters, stride, *, name):
    """3x3, 1x1 and, where shapes allow, identity, each normalized, summed: figure 2 (b)."""
    branches = [
        conv(x, filters, kernel, stride, act=None, name=f"{name}_{kernel}x{kernel}")
        for kernel in (3, 1)
    ]
    if stride == 1 and filters == x.shape[-1]:
        branches.append(normalize(x, name=f"{name}_identity"))
    return activate(layers.Add(name=f"{name}_add")(branches), "relu", name)


_ROW = {
    "paper": "Ding et al. 2021 (arXiv:2101.03697), table 2", "flavour": "torch",
    "top1_source": "table 4 of the paper",
}  # fmt: skip
_A = _ROW | {"blocks": (2, 4, 14, 1)}


@model("repvgg_a0", 9_108_968, 9_132_616, 1_512_581_120, a=0.75, b=2.5, top1=72.41, **_A)
@model("repvgg_a1", 14_092_264, 14_122_088, 2_626_488_320, a=1.0, b=2.5, top1=74.46, **_A)
@model("repvgg_a2", 28_210_600, 28_253_160, 5_685_345_280, a=1.5, b=2.75, top1=76.48, **_A)
@model("repvgg_b0", 15_817_960, 15_853_160, 3_397_191_680, blocks=(4, 6, 16, 1), a=1.0, b=2.5,
       top1=75.14, **_ROW)  # fmt: skip
def repvgg(x, classes, *, blocks, a, b):
    """``a`` widens all stages but the last, which ``b`` widens."""
    x = block(x, min(64, int(64 * a)), 2, name="stem")
    widths = [int(64 * a), int(128 * a), int(256 * a), int(512 * b)]
    for i, (filters, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        for j in range(1, count + 1):
            x = block(x, filters, 2 if j == 1 else 1, name=f"stage{i}_{j}")
    return classifier(x, classes)
