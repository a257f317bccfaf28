"""LeNets: LeCun, Bottou, Bengio, Haffner 1998, sections II.B and III.

Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE 86 (11).
``lenet5_caffe`` and ``lenet_300_100`` are the ReLU networks that Caffe made of two of them and that
papers on compression measure: Han, Mao, Dally 2015, Deep Compression (arXiv:1510.00149), table 1.
"""

from __future__ import annotations

from kzoo.errors import one_of
from kzoo.registry import model
from kzoo.zoo.blocks import layers

POOLS = ("AveragePooling2D", "MaxPooling2D")

_CAFFE = {
    "size": 28, "channels": 1, "classes": 10, "top1_data": "MNIST",
    "paper": "LeCun et al. 1998, as Caffe and Han et al. 2015 (arXiv:1510.00149) have it",
}  # fmt: skip


def dense_part(x, classes, widths: tuple[int, ...], act: str):
    """Hidden layers and the classifier: (n, h, w, c) -> (n, classes)."""
    x = layers.Flatten(name="head_flatten")(x)
    for i, width in enumerate(widths, start=1):
        x = layers.Dense(width, activation=act, name=f"head_fc{i}")(x)
    return x if classes is None else layers.Dense(classes, name="head")(x)


@model("lenet5", 61_706, 61_706, 416_520, size=32, min_size=16, channels=1, classes=10,
       paper="LeCun et al. 1998, section II.B; full C3, plain pooling, logits for RBF units",
       filters=(6, 16), pool="AveragePooling2D", widths=(120, 84),
       acts=("tanh", "tanh"))  # fmt: skip
@model("lenet5_caffe", 431_080, 431_080, 2_293_000, min_size=16, top1=99.20,
       top1_source="arXiv:1510.00149, table 1 (error 0.80 %)", **_CAFFE, filters=(20, 50),
       pool="MaxPooling2D", widths=(500,), acts=(None, "relu"))  # fmt: skip
def lenet(x, classes, *, filters, pool, widths, acts):
    one_of("pool", pool, POOLS)
    for i, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, 5, activation=acts[0], name=f"stage{i}_1_conv")(x)
        x = getattr(layers, pool)(2, name=f"stage{i}_1_pool")(x)
    return dense_part(x, classes, widths, acts[1])


@model("lenet_300_100", 266_610, 266_610, 266_200, min_size=1, top1=98.36,
       top1_source="arXiv:1510.00149, table 1 (error 1.64 %)", **_CAFFE)  # fmt: skip
def lenet_300_100(x, classes):
    return dense_part(x, classes, (300, 100), "relu")
