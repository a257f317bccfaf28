"""Networks of dense layers alone.

Perceptron: Rosenblatt 1958, The Perceptron, Psychological Review 65 (6); one layer on the pixels.
MLP: Rumelhart, Hinton, Williams 1986, Nature 323, with the hidden units that came since.
"""

from __future__ import annotations

from kzoo.errors import one_of
from kzoo.registry import model
from kzoo.zoo.blocks import layers

ACTIVATIONS = ("sigmoid", "tanh", "relu", "elu", "maxout")


def hidden(x, width: int, activation: str, name: str):
    """A dense layer of ``width`` units: (n, d) -> (n, width).

    "maxout" is the larger of two affine maps (Goodfellow et al. 2013, arXiv:1302.4389, section 3).
    """
    if activation != "maxout":
        return layers.Dense(width, activation, name=f"{name}_fc")(x)
    x = layers.Dense(2 * width, name=f"{name}_fc")(x)
    x = layers.Reshape((2, width), name=f"{name}_pieces")(x)
    return layers.GlobalMaxPooling1D(name=f"{name}_max")(x)


_DIGITS = {"size": 28, "min_size": 1, "channels": 1, "classes": 10}


@model("perceptron", 7_850, 7_850, 7_840, **_DIGITS,
       paper="Rosenblatt 1958, Psychological Review 65 (6)", depth=0, width=0,
       activation="relu")  # fmt: skip
@model("mlp", 669_706, 669_706, 668_672, **_DIGITS,
       paper="Rumelhart, Hinton, Williams 1986, Nature 323; two hidden layers", depth=2, width=512,
       activation="relu")  # fmt: skip
def mlp(x, classes, *, depth, width, activation):
    one_of("activation", activation, ACTIVATIONS)
    x = layers.Flatten(name="stem_flatten")(x)
    for i in range(1, depth + 1):
        x = hidden(x, width, activation, f"stage{i}_1")
    return x if classes is None else layers.Dense(classes, name="head")(x)
