"""Networks whose BatchNormalization does something, and how far two networks differ."""

from __future__ import annotations

import numpy as np
import pytest

import kzoo
from kzoo.learn.finetune import finetune
from kzoo.network.graph import calls
from kzoo.registry import entry


@pytest.fixture(scope="session")
def smallest():
    """smallest(name): the size that makes a registered network quick, None for its own."""

    def size(name: str) -> int | None:
        own = entry(name)
        small = isinstance(own.size, tuple) or own.size <= 64
        return None if small else max(64, *own.card()["smallest_input"])

    return size


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


@pytest.fixture(scope="session")
def unread():
    """unread(found, keep): the whole network, with zeros wherever a kernel reads what goes."""

    def without(found, keep):
        """The whole network, with zeros in every kernel where it would read what does not stay."""
        import keras

        model = keras.models.clone_model(found.model)
        model.set_weights(found.model.get_weights())
        for node in calls(found.model):
            layer = node.operation
            if type(layer).__name__ not in ("Conv2D", "Dense", "SeparableConv2D"):
                continue
            (came, *_), _ = found.masks(keep, node)
            gone = ~came.ravel()[: came.size // getattr(layer, "groups", 1)]
            weights = layer.get_weights()
            axis = 2 if type(layer).__name__ == "SeparableConv2D" else weights[0].ndim - 2
            np.moveaxis(weights[0], axis, 0)[gone] = 0
            model.get_layer(layer.name).set_weights(weights)
        return model

    return without


@pytest.fixture
def network(shaken, smallest):
    """A registered network at a small size, where nothing is close to zero."""

    def make(name: str):
        model = shaken(kzoo.build(name, size=smallest(name), classes=7, seed=0))
        for layer in model.layers:
            if "scale" in layer.name and layer.weights:  # begins at 1e-6 and hides its branch
                layer.set_weights([np.ones_like(weight) for weight in layer.get_weights()])
        return model

    return make


ELSEWHERE = {
    "MobileNetV2": 64, "MobileNetV3Small": 64, "EfficientNetB0": 64, "EfficientNetV2B0": 64,
    "ResNet50V2": 64, "DenseNet121": 64, "InceptionV3": 80, "NASNetMobile": 64, "Xception": 80,
}  # fmt: skip
"""Of keras.applications, with the size of the images."""


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) for name in ELSEWHERE])
def elsewhere(request, shaken):
    """A network that is not kzoo's, where nothing is close to zero."""
    import keras

    keras.utils.set_random_seed(0)
    size = ELSEWHERE[request.param]
    make = getattr(keras.applications, request.param)
    return shaken(make(weights=None, input_shape=(size, size, 3), classes=7))


@pytest.fixture(scope="session")
def small(few_digits, tmp_path_factory):
    """A trained network without BatchNorm, whose training is deterministic, as a file."""
    import keras

    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 1))
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    for i, width in enumerate((12, 24), start=1):
        x = keras.layers.Conv2D(width, 3, 2, activation="relu", name=f"stage{i}_1_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    model = keras.Model(image, keras.layers.Dense(10, name="head")(x), name="small")
    path = tmp_path_factory.mktemp("small") / "small.keras"
    finetune(model, few_digits, phases=[{"epochs": 3, "learning_rate": 0.01}], output=path)
    return path
