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

_VGG = {"size": 224, "flavour": "torch", "paper": "Simonyan & Zisserman 2014 (arXiv:1409.1556)"}
_TORCH = _VGG | {"block": plain, "lrn": False, "top1_source": "torchvision"}
_BN = _TORCH | {"block": conv}
_PAPER = _VGG | {"block": plain, "top1_data": "ImageNet-1k"}


@model("vgg11", kernels=A, top1=69.02, **_TORCH,
       params=132_863_336, total_params=132_863_336, macs=7_609_090_048)  # fmt: skip
@model("vgg11_lrn", kernels=A, lrn=True, top1=70.3, **_PAPER,
       top1_source="table 3 of the paper (error 29.7 %)",
       params=132_863_336, total_params=132_863_336, macs=7_609_090_048)  # fmt: skip
@model("vgg13", kernels=B, top1=69.928, **_TORCH,
       params=133_047_848, total_params=133_047_848, macs=11_308_466_176)  # fmt: skip
@model("vgg16_c", kernels=C, lrn=False, top1=71.9, **_PAPER,
       top1_source="table 3 of the paper (error 28.1 %)",
       params=133_638_952, total_params=133_638_952, macs=11_770_888_192)  # fmt: skip
@model("vgg16", kernels=D, top1=71.592, **_TORCH,
       params=138_357_544, total_params=138_357_544, macs=15_470_264_320)  # fmt: skip
@model("vgg19", kernels=E, top1=72.376, **_TORCH,
       params=143_667_240, total_params=143_667_240, macs=19_632_062_464)  # fmt: skip
@model("vgg11_bn", kernels=A, top1=70.37, **_BN,
       params=132_868_840, total_params=132_874_344, macs=7_609_090_048)  # fmt: skip
@model("vgg13_bn", kernels=B, top1=71.586, **_BN,
       params=133_053_736, total_params=133_059_624, macs=11_308_466_176)  # fmt: skip
@model("vgg16_bn", kernels=D, top1=73.36, **_BN,
       params=138_365_992, total_params=138_374_440, macs=15_470_264_320)  # fmt: skip
@model("vgg19_bn", kernels=E, top1=74.218, **_BN,
       params=143_678_248, total_params=143_689_256, macs=19_632_062_464)  # fmt: skip
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
