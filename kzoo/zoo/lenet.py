"""LeNet-5: LeCun, Bottou, Bengio, Haffner 1998, section II.B.

Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE 86 (11).
"""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import layers


@model(
    "lenet5", size=32, min_size=16, channels=1, classes=10,
    params=61_706, total_params=61_706, macs=416_520,
    paper="LeCun et al. 1998, section II.B; C3 fully connected, plain average pooling, "
          "logits for RBF units",
)  # fmt: skip
def lenet5(x, classes):
    for i, filters in enumerate((6, 16), start=1):
        x = layers.Conv2D(filters, 5, activation="tanh", name=f"stage{i}_1_conv")(x)
        x = layers.AveragePooling2D(2, name=f"stage{i}_1_pool")(x)
    x = layers.Flatten(name="head_flatten")(x)
    x = layers.Dense(120, activation="tanh", name="head_fc1")(x)
    x = layers.Dense(84, activation="tanh", name="head_fc2")(x)
    return x if classes is None else layers.Dense(classes, name="head")(x)
