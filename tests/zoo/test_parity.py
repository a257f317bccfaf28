"""The same weights give the same logits as in the library a row is taken from.

Logits, not probabilities: a wrong padding hid at 2.5e-6 in the softmax and showed at 1.7e-3 there.
"""

from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest

from kzoo.learn.evaluate import softmax
from kzoo.lite.interpret import lite_outputs
from kzoo.zoo.build import build


def random_weights(model: keras.Model, seed: int) -> list[np.ndarray]:
    """Weights of a trained net's scale; BatchNorm's statistics are away from 0 and 1."""
    rng = np.random.default_rng(seed)
    found = []
    for weight in model.weights:
        if weight.path.endswith(("gamma", "moving_variance")):
            value = rng.uniform(0.5, 1.5, weight.shape)
        elif len(weight.shape) == 1:
            value = rng.normal(0, 0.1, weight.shape)
        else:
            value = np.asarray(weight)
        found.append(value.astype(np.float32))
    return found


@pytest.mark.parametrize(
    ("name", "alpha", "size"),
    [
        ("mobilenet_v2_035", 0.35, 64),
        ("mobilenet_v2_035", 0.35, 75),
        pytest.param("mobilenet_v2", 1.0, 64, marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", 1.0, 75, marks=pytest.mark.slow),
    ],
)
def test_mobilenet_v2_is_that_of_keras_applications(name, alpha, size):
    theirs = keras.applications.MobileNetV2(
        (size, size, 3), alpha=alpha, weights=None, classes=10, classifier_activation=None
    )
    ours = build(name, size=size, classes=10)
    weights = random_weights(theirs, seed=size)
    theirs.set_weights(weights)
    ours.set_weights(weights)
    images = np.random.default_rng(1).integers(0, 256, (4, size, size, 3)).astype(np.float32)
    expected = np.asarray(theirs(images / 127.5 - 1))
    assert np.abs(np.asarray(ours(images)) - expected).max() <= 1e-4 * expected.std()


def test_resnet8_is_the_one_of_mlperf_tiny(shared, tmp_path):
    stages = [f"stage{i}_1_{part}" for i in (2, 3) for part in ("1_conv", "2_conv", "shortcut")]
    convolutions = ["stem_conv", "stage1_1_1_conv", "stage1_1_2_conv", *stages]
    norms = ["stem_bn", *(f"stage{i}_1_{j}_bn" for i in (1, 2, 3) for j in (1, 2))]
    model = build("resnet8")
    with h5py.File(shared / "mlperf-tiny" / "pretrainedResnet.h5") as file:
        for kind, names in (
            ("conv2d", convolutions),
            ("batch_normalization", norms),
            ("dense", ["head"]),
        ):
            for number, name in enumerate(names):
                group = f"{kind}_{number}" if number else kind
                values = file[f"model_weights/{group}/{group}"]
                layer = model.get_layer(name)
                layer.set_weights([values[f"{weight.name}:0"][:] for weight in layer.weights])
    # Their network takes pixels as they are: ours is entered behind the normalization.
    bare = keras.Model(model.get_layer("preprocess").output, model.output)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    images[:4] = np.kron(images[:4, ::8, ::8], np.ones((8, 8, 1), np.uint8))  # smooth ones too
    np.save(tmp_path / "images.npy", images)
    expected, _ = lite_outputs(
        shared / "mlperf-tiny" / "pretrainedResnet.tflite", tmp_path / "images.npy", np.arange(8)
    )
    found = softmax(np.asarray(bare(images.astype(np.float32))))
    assert len(set(expected.argmax(axis=1))) > 1
    assert np.abs(found - expected).max() <= 1e-4
