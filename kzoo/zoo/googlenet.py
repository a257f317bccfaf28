"""GoogLeNet: Szegedy et al. 2014, Going Deeper with Convolutions (arXiv:1409.4842), table 1.

`googlenet` is the network of the paper as the Caffe model zoo has it; torchvision's has BatchNorm,
no local response normalization, and 3x3 convolutions where the paper has 5x5.
"""

from __future__ import annotations

from kzoo.errors import UsageError
from kzoo.registry import model
from kzoo.zoo.blocks import (
    ceil_pool,
    classifier,
    concatenate,
    conv,
    layers,
    local_response,
    plain,
    towers,
)

# stage: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection of its modules
TABLE_1 = {
    2: ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    3: (
        (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
    ),
    4: ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
}  # fmt: skip
AUXILIARY = {"stage3_1": "head_aux1", "stage3_4": "head_aux2"}
"""Section 5: on modules 4a and 4d."""


def inception(x, a, b, c, d, e, f, *, unit, kernel, name):
    """Figure 2b: four branches. (n, h, w, channels) -> (n, h, w, a + c + e + f)."""
    branches = towers(x, [(a, 1)], [(b, 1), (c, 3)], [(d, 1), (e, kernel)], unit=unit, name=name)
    pooled = layers.MaxPooling2D(3, 1, "same", name=f"{name}_max")(x)
    return concatenate([*branches, unit(pooled, f, name=f"{name}_project")], name)


def respond(x, *, name):
    """Local response normalization over 5 channels, by which Caffe divides its alpha of 1e-4."""
    return local_response(x, k=1.0, n=5, alpha=1e-4 / 5, beta=0.75, name=name)


def auxiliary_head(x, classes, *, unit, name):
    """Section 5's classifier in the middle: (n, h, w, c) -> logits (n, classes)."""
    if unit is conv:
        x = layers.AdaptiveAveragePooling2D(4, name=f"{name}_pool")(x)
    elif min(x.shape[1:3]) < 5:
        raise UsageError("the auxiliary classifiers need an input of at least 79 x 79 pixels")
    else:
        x = layers.AveragePooling2D(5, 3, name=f"{name}_pool")(x)
    x = layers.Flatten(name=f"{name}_flatten")(unit(x, 128, name=f"{name}_reduce"))
    x = layers.Dense(1024, activation="relu", name=f"{name}_hidden")(x)
    x = layers.Dropout(0.7, name=f"{name}_dropout")(x)
    return layers.Dense(classes, name=name)(x)


_ROW = {
    "paper": "Szegedy et al. 2014 (arXiv:1409.4842), table 1", "auxiliary": 0.3,
    "flavour": "torch", "flavours": {"torch": {"epsilon": 1e-3}},
}  # fmt: skip


@model("googlenet", 6_998_552, 6_998_552, 1_582_671_872, top1=68.7,
       top1_source="Caffe bvlc_googlenet", **_ROW, unit=plain, kernel=5, pool=3,
       dropout=0.4)  # fmt: skip
@model("googlenet_tv", 6_624_904, 6_639_464, 1_498_376_192, top1=69.778, top1_source="torchvision",
       **_ROW, unit=conv, kernel=3, pool=2, dropout=0.2)  # fmt: skip
def googlenet(x, classes, *, unit, kernel, pool, dropout, auxiliary=False):
    further = []
    x = unit(x, 64, 7, 2, name="stem")
    x = ceil_pool(x, name="stage1_1")
    x = respond(x, name="stage1_1") if unit is plain else x
    x = unit(x, 64, name="stage1_1")
    x = unit(x, 192, 3, name="stage1_2")
    x = respond(x, name="stage1_2") if unit is plain else x
    for stage, modules in TABLE_1.items():
        x = ceil_pool(x, pool if stage == 4 else 3, name=f"stage{stage}_1")
        for j, filters in enumerate(modules, 1):
            name = f"stage{stage}_{j}"
            x = inception(x, *filters, unit=unit, kernel=kernel, name=name)
            if auxiliary and name in AUXILIARY:
                further.append(auxiliary_head(x, classes, unit=unit, name=AUXILIARY[name]))
    x = classifier(x, classes, dropout)
    return [x, *further] if auxiliary else x
