"""MobileOne: Vasu et al. 2023 (arXiv:2206.04040), section 3.3 and table 2, in its training form.

`kzoo.reparameterize` turns it into the deployed one: MobileNetV1's plain chain of convolutions.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from kzoo.registry import model
from kzoo.zoo.blocks import (
    activate,
    classifier,
    conv,
    depthwise,
    flavour,
    layers,
    normalize,
    using,
)  # fmt: skip


def block(x, filters, kernel, stride, k, *, name):
    """k normalized convolutions, a 1x1 beside larger ones and, where shapes allow, identity, summed
    (figure 3); depthwise where ``filters`` is None."""
    branch = functools.partial(conv, x, filters) if filters else functools.partial(depthwise, x)
    skip = stride == 1 and filters in (None, x.shape[-1])
    # As they are added, all scales begin smaller: 42 such sums would leave the range of float16.
    scale = 1 / math.sqrt(k + (kernel > 1) + skip)
    with using(dataclasses.replace(flavour(), gamma=scale)):
        branches = [branch(kernel, stride, act=None, name=f"{name}_{i}") for i in range(1, k + 1)]
        if kernel > 1:
            branches.append(branch(1, stride, act=None, name=f"{name}_scale"))
        if skip:
            branches.append(normalize(x, name=f"{name}_skip"))
    return activate(layers.Add(name=f"{name}_add")(branches), "relu", name)


_ROW = {
    "paper": "Vasu et al. 2023 (arXiv:2206.04040), tables 2 and 3", "flavour": "torch",
    "top1_source": "apple/ml-mobileone README", "blocks": (2, 8, 10, 1),
}  # fmt: skip


@model("mobileone_s0", 5_293_272, 5_381_464, 1_051_935_232, widths=(48, 128, 256, 1024), k=4,
       top1=71.4, **_ROW)  # fmt: skip
@model("mobileone_s1", 4_825_192, 4_893_544, 830_062_080, widths=(96, 192, 512, 1280), k=1,
       top1=75.9, **_ROW)  # fmt: skip
@model("mobileone_s2", 7_884_648, 7_971_688, 1_304_027_392, widths=(96, 256, 640, 2048), k=1,
       top1=77.4, **_ROW)  # fmt: skip
@model("mobileone_s3", 10_170_600, 10_275_304, 1_902_112_768, widths=(128, 320, 768, 2048), k=1,
       top1=78.1, **_ROW)  # fmt: skip
def mobileone(x, classes, *, blocks, widths, k):
    x = block(x, min(64, widths[0]), 3, 2, 1, name="stem")
    for i, (filters, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        for j in range(1, count + 1):
            name = f"stage{i}_{j}"
            x = block(x, None, 3, 2 if j == 1 else 1, k, name=f"{name}_depthwise")
            x = block(x, filters, 1, 1, k, name=f"{name}_pointwise")
    return classifier(x, classes)
