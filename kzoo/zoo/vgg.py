"""VGG: Simonyan & Zisserman 2014 (arXiv:1409.1556), table 1, columns A to E.

The ``_bn`` forms are torchvision's: BatchNorm behind every convolution, which keeps its bias.
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.alexnet import LRN, dense_part
from kzoo.zoo.blocks import conv, layers, local_response, plain

# The kernels of the five blocks' convolutions.
A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
B = ((3, 3),) * 5
C = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
D = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
E = ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))

_VGG = {"flavour": "torch", "paper": "Simonyan & Zisserman 2014 (arXiv:1409.1556)"}
_TORCH = _VGG | {"block": plain, "lrn": False, "top1_source": "torchvision"}
_BN = _TORCH | {"block": conv}
_PAPER = _VGG | {
    "block": plain,
}


@model("vgg11", 132_863_336, 132_863_336, 7_609_090_048, kernels=A, top1=69.02, **_TORCH)
@model("vgg11_lrn", 132_863_336, 132_863_336, 7_609_090_048, kernels=A, lrn=True, top1=70.3,
       **_PAPER, top1_source="table 3 of the paper (error 29.7 %)")  # fmt: skip
@model("vgg13", 133_047_848, 133_047_848, 11_308_466_176, kernels=B, top1=69.928, **_TORCH)
@model("vgg16_c", 133_638_952, 133_638_952, 11_770_888_192, kernels=C, lrn=False, top1=71.9,
       **_PAPER, top1_source="table 3 of the paper (error 28.1 %)")  # fmt: skip
@model("vgg16", 138_357_544, 138_357_544, 15_470_264_320, kernels=D, top1=71.592, **_TORCH)
@model("vgg19", 143_667_240, 143_667_240, 19_632_062_464, kernels=E, top1=72.376, **_TORCH)
@model("vgg11_bn", 132_868_840, 132_874_344, 7_609_090_048, kernels=A, top1=70.37, **_BN)
@model("vgg13_bn", 133_053_736, 133_059_624, 11_308_466_176, kernels=B, top1=71.586, **_BN)
@model("vgg16_bn", 138_365_992, 138_374_440, 15_470_264_320, kernels=D, top1=73.36, **_BN)
@model("vgg19_bn", 143_678_248, 143_689_256, 19_632_062_464, kernels=E, top1=74.218, **_BN)
def vgg(x, classes, *, kernels, block, lrn):
    bias = {"bias": True} if block is conv else {}
    # Blocks 1 and 2 are at strides 1 and 2; the pooling to stride 4 begins stage1.
    names = ("stem_1", "stem_2", "stage1", "stage2", "stage3")
    for i, (name, row) in enumerate(zip(names, kernels, strict=True)):
        for j, kernel in enumerate(row, start=1):
            x = block(x, min(64 << i, 512), kernel, **bias, name=f"{name}_{j}")
        x = local_response(x, **LRN, name=name) if lrn and i == 0 else x
        after = ("stem_2", "stage1_1", "stage2_1", "stage3_1", "stage4_1")[i]
        x = layers.MaxPooling2D(2, name=f"{after}_pool")(x)
    return dense_part(x, classes)
