"""Networks from elsewhere, as users bring them."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def foreign():
    """foreign(kind): untrained networks that kzoo did not build, 16 x 16 x 1 to 10 classes."""
    import keras

    layers = keras.layers

    def body(first, last, norm=None):
        yield from first
        yield layers.Conv2D(8, 3, 2, activation="relu", name="body_conv")
        if norm:
            yield norm
        yield layers.Conv2D(8, 3, 2, activation="relu", name="body_conv2")
        yield layers.Flatten()
        yield from last

    kinds = {
        "no preprocess": lambda: body([], [layers.Dense(10)]),
        "softmax inside": lambda: body([], [layers.Dense(10, "softmax")]),
        "layer norm": lambda: body([], [layers.Dense(10)], layers.LayerNormalization(name="ln")),
        "per channel": lambda: body([], [layers.Dense(10)]),
        "sequential": lambda: body([layers.Rescaling(1 / 255)], [layers.Dense(10)]),
    }

    def make(kind: str) -> keras.Model:
        keras.utils.set_random_seed(0)
        image = x = keras.Input((16, 16, 1), name="pixels")
        if kind == "sequential":
            return keras.Sequential([image, *kinds[kind]()])
        if kind == "nested softmax":
            inner = keras.Sequential([keras.Input((16, 16, 1)), *kinds["softmax inside"]()])
            return keras.Model(image, inner(image))
        if kind == "per channel":
            x = layers.Concatenate()([x, x, x])
            x = layers.Rescaling([1 / 64, 1 / 99, 1 / 255], [-1.0, 0.0, -0.5], name="preprocess")(x)
        for layer in kinds[kind]():
            x = layer(x)
        return keras.Model(image, x, name="foreign")

    return make


@pytest.fixture(scope="session")
def gray():
    """The digits at 16 x 16 x 1."""
    from kzoo.data.load import load_data

    return load_data("digits", channels=1, size=16)
