"""Networks whose BatchNormalization does something, and how far two networks differ."""

from __future__ import annotations

import numpy as np
import pytest


def outputs(model, count: int = 3) -> list[np.ndarray]:
    """What a model gives on random pixels, one array per output."""
    import keras

    draw = np.random.default_rng(1)

    def pixels(tensor):
        return draw.integers(0, 256, (count, *tensor.shape[1:])).astype(np.float32)

    found = model(keras.tree.map_structure(pixels, getattr(model, "_functional", model).input))
    return [np.asarray(each) for each in keras.tree.flatten(found)]


@pytest.fixture(scope="session")
def difference():
    """difference(a, b): the largest between their outputs, in standard deviations of a's."""

    def compare(first, second) -> float:
        pairs = list(zip(outputs(first), outputs(second), strict=True))
        assert all(np.isfinite(a).all() and a.std() > 1e-6 for a, _ in pairs)
        return max(np.abs(a - b).max() / a.std() for a, b in pairs)

    return compare


@pytest.fixture(scope="session")
def shaken():
    """shaken(model): itself, with random weights and statistics in every BatchNormalization."""
    import keras

    def shake(model):
        draw = np.random.default_rng(0)
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                low = {"gamma": (0.5, 1.5), "moving_variance": (2.0, 8.0)}
                for weight in layer.weights:
                    weight.assign(draw.uniform(*low.get(weight.name, (-0.5, 0.5)), weight.shape))
        return model

    return shake
