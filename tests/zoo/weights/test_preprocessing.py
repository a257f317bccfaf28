"""The table's normalization is what keras.applications makes of a pixel."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest

from kzoo.zoo.weights.table import find
from tests.zoo.test_parity import APPLICATIONS

BY_LAYERS = ("convnext", "efficientnet", "mobilenet_v3")
"""Networks whose own first layers do it; ``preprocess_input`` leaves their pixels as they are."""
FAST = {"convnext_tiny", "efficientnet_b0", "efficientnet_v2_b0", "mobilenet_v3_small_minimalistic"}
"""Of those, the others are slow: the whole network is built."""

FILE = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 0
"""Mean, "variance" and count that the files of EfficientNet B0 to B7 have for their Normalization.

The variance is a deviation: where keras.applications loads the files it divides by the root of
``IMAGENET_STDDEV_RGB`` once more (tensorflow issue 49930, keras issue 16392).
"""


def first_layers(make, pixels: np.ndarray, arguments: dict) -> np.ndarray:
    """What the layers make of ``pixels`` that stand before any that pads or has a kernel."""
    network = make(weights=None, include_top=False, input_shape=pixels.shape[1:], **arguments)
    last = network.input
    for layer in network.layers[1:]:
        if not isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)):
            break
        if layer.weights:
            layer.set_weights([np.asarray(each) for each in FILE])
            layer.finalize_state()
        last = layer.output
    return np.asarray(keras.Model(network.input, last)(pixels))


def cases():
    for name in APPLICATIONS:
        slow = name.startswith(BY_LAYERS) and name not in FAST
        yield pytest.param(name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("name", list(cases()))
def test_the_normalization_is_that_of_keras_applications(name):
    function, arguments = APPLICATIONS[name]
    make, row = getattr(keras.applications, function), find(name, "keras_in1k")
    module = sys.modules[make.__module__]
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    expected = module.preprocess_input(pixels.copy())
    if name.startswith(BY_LAYERS):
        np.testing.assert_array_equal(expected, pixels)
        arguments = {key: v for key, v in arguments.items() if key != "include_preprocessing"}
        expected = first_layers(make, pixels, arguments)
    if name.startswith("efficientnet_b"):
        expected = expected / np.sqrt(module.IMAGENET_STDDEV_RGB)
    ours = (pixels - np.float32(row.mean)) / np.float32(row.std)
    ours = ours[..., ::-1] if row.bgr else ours
    assert np.abs(ours - expected).max() <= 1e-4 * np.ptp(expected)
