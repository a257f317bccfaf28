"""Gradients are gradients, Grad-CAM is CAM where that exists, and what is unseen does not count."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from kzoo.errors import BadInputError
from kzoo.learn.attribution import GRAY, feature_maps, grad_cam, mean_gradients, occlude
from kzoo.learn.evaluate import softmax
from kzoo.network.graph import run
from kzoo.network.maps import last_maps
from kzoo.zoo.build import build

L = keras.layers
NETWORKS = {
    "lenet5": {},
    "resnet8": {},
    "vww_mobilenet": {"size": 64},
    "squeezenet1_1": {"size": 48},
}


FINE = keras.backend.backend() == "tensorflow"
"""In float64 differences are taken within one piece of a ReLU; Keras on JAX falls to float32."""


@pytest.fixture(scope="module")
def network():
    """network(name): 5 classes, the weights of a seed, moving statistics that are not 0 and 1."""

    @functools.cache
    def make(name: str) -> keras.Model:
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float64" if FINE else policy)
        try:
            model = build(name, classes=5, seed=1, **NETWORKS[name])
        finally:
            keras.config.set_dtype_policy(policy)
        rng = np.random.default_rng(0)
        for layer in model.layers:
            if isinstance(layer, L.BatchNormalization):
                layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
                # Fresh depthwise kernels give maps of small variance (zoo/blocks.py).
                scale = 0.07 if "depthwise" in layer.name else 1
                layer.moving_variance.assign(scale * rng.uniform(0.5, 2, layer.moving_mean.shape))
        return model

    return make


def noise(model: keras.Model, seed: int = 0) -> np.ndarray:
    """Pixels that are no plain noise: it would be averaged away."""
    high, wide, channels = model.inputs[0].shape[1:]
    coarse = np.random.default_rng(seed).uniform(0, 256, (4, 4, channels))
    return np.kron(coarse, np.ones((-(-high // 4), -(-wide // 4), 1)))[:high, :wide].astype("uint8")


def logit(model, pixels, index, shifts: dict) -> float:
    """The logit of a class, with numbers (c,) added to the maps of some calls."""

    def visit(node, *args, **kwargs):
        found = node.operation(*args, **kwargs)
        return found + shifts[id(node)] if id(node) in shifts else found

    given = run(model, [keras.ops.convert_to_tensor(pixels[None], "float32")], visit)
    return float(given[0][0, index])


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_agree_with_central_differences(name, network):
    model = network(name)
    first, *_, last = last_maps(model).values()
    pixels, nodes = noise(model), [first, last]
    found = mean_gradients(model, pixels, 3, nodes)
    rng, (step, near) = np.random.default_rng(1), (1e-6, 1e-4) if FINE else (1e-3, 0.05)
    for node, gradient in zip(nodes, found, strict=True):
        # Along the gradient, disturbed: a direction in which the logit changes measurably.
        way = gradient / np.linalg.norm(gradient)
        way += 0.5 * rng.normal(size=len(way)) / np.sqrt(len(way))
        ahead, back = (logit(model, pixels, 3, {id(node): by * way}) for by in (step, -step))
        _, high, wide, _ = node.outputs[0].shape
        assert (ahead - back) / (2 * step) == pytest.approx(high * wide * gradient @ way, rel=near)


@pytest.mark.parametrize("name", ["resnet8", "vww_mobilenet"])
def test_grad_cam_is_cam_behind_global_average_pooling(name, network):
    """Zhou et al. 2016: the map weighed by the classifier's weights; 1 / (h w) is the mean's."""
    model = network(name)
    pixels = noise(model)
    *_, node = last_maps(model).values()
    values, (gradient,) = (
        feature_maps(model, pixels, [node])[0],
        mean_gradients(model, pixels, 2, [node]),
    )
    weights = model.get_layer("head").get_weights()[0][:, 2]
    size = values.shape[0] * values.shape[1]
    np.testing.assert_allclose(gradient * size, weights, rtol=1e-5, atol=1e-7)
    cam = np.maximum(np.einsum("hwc,c->hw", values, weights), 0)
    found = grad_cam(values, gradient)
    np.testing.assert_allclose(found * size, cam, rtol=1e-4, atol=1e-5 * np.abs(values).max())
    assert found.dtype == np.float32


def test_an_added_constant_changes_the_logit_as_the_gradient_says(tiny):
    """Exactly, where the network is linear behind the map."""
    model = tiny()
    pixels = noise(model)
    node = last_maps(model)["stage2"]
    (gradient,) = mean_gradients(model, pixels, 1, [node])
    way = np.arange(16, dtype=np.float32)
    change = logit(model, pixels, 1, {id(node): way}) - logit(model, pixels, 1, {})
    assert change == pytest.approx(9 * gradient @ way, rel=1e-5)


@pytest.mark.parametrize("end", ["in the layer", "a layer", "nested"])
def test_the_logit_is_explained_where_the_model_gives_probabilities(end, tiny):
    model, plain = tiny("softmax" if end != "a layer" else "logits"), tiny()
    model.set_weights(plain.get_weights())
    image = keras.Input(model.inputs[0].shape[1:])
    if end == "a layer":
        model = keras.Model(model.input, L.Softmax()(model.output))
    if end == "nested":
        model = keras.Model(image, model(image))
    pixels = noise(plain)
    wanted, found = (
        mean_gradients(each, pixels, 4, [*last_maps(each).values()]) for each in (plain, model)
    )
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(wanted))
    for wanted, found in zip(
        occlude(plain, pixels, 4, 4), occlude(model, pixels, 4, 4), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_model_stays_as_it_is_and_is_run_as_for_prediction(tiny):
    model = tiny(dropout=0.5)
    before = [np.array(each) for each in model.get_weights()]
    pixels, nodes = noise(model), [*last_maps(model).values()]
    first = mean_gradients(model, pixels, 0, nodes)
    again = mean_gradients(model, pixels, 0, nodes)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(each.trainable for each in model.layers)
    assert getattr(model, "optimizer", None) is None


def test_a_map_that_is_passed_by_has_the_gradient_of_all_its_ways():
    """As in NASNet, where a model from the map on to the logits alone does not exist."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = L.Conv2D(4, 3, padding="same", name="stage1_1_conv")(image)
    y = L.Conv2D(4, 3, padding="same", activation="relu", name="stage2_1_conv")(x)
    pool = L.GlobalAveragePooling2D()
    model = keras.Model(image, L.Dense(3)(pool(y) + pool(x)))
    pixels, nodes = noise(model), last_maps(model)
    assert [*nodes][:2] == ["stage1", "stage2"]
    node = nodes["stage1"]
    (gradient,) = mean_gradients(model, pixels, 0, [node])
    for k, way in enumerate(np.eye(4, dtype=np.float32)):
        ahead, back = (logit(model, pixels, 0, {id(node): sign * way}) for sign in (0.5, -0.5))
        assert ahead - back == pytest.approx(64 * gradient[k], rel=0.05, abs=1e-2)


def test_pixels_that_change_places_change_places_in_the_heat_map():
    """Of a network that looks at each pixel alone."""
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 5, 3))
    x = L.Conv2D(8, 1, activation="tanh")(L.Rescaling(1 / 255)(image))
    model = keras.Model(image, L.Dense(4)(L.GlobalAveragePooling2D()(x)))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    order = np.random.default_rng(1).permutation(30)
    shuffled = pixels.reshape(30, 3)[order].reshape(6, 5, 3)

    def cam(pixels):
        (node,) = last_maps(model).values()
        return grad_cam(
            *feature_maps(model, pixels, [node]), *mean_gradients(model, pixels, 1, [node])
        )

    np.testing.assert_allclose(
        cam(pixels).reshape(30)[order], cam(shuffled).reshape(30), rtol=1e-5, atol=1e-7
    )


def corner_reader(size: int = 12, seen: int = 6) -> keras.Model:
    """Sees the upper left corner only."""
    keras.utils.set_random_seed(0)
    image = keras.Input((size, size, 1))
    x = L.Cropping2D(((0, size - seen), (0, size - seen)))(L.Rescaling(1 / 255)(image))
    x = L.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(image, L.Dense(3)(L.Flatten()(x)))


def test_hiding_what_the_network_does_not_see_changes_nothing():
    model = corner_reader()
    _, drops = occlude(model, noise(model), patch=2, stride=2)
    assert drops.shape == (6, 6, 3)
    assert (drops[3:] == 0).all()
    assert (drops[:, 3:] == 0).all()
    assert (drops[:3, :3] != 0).any(axis=2).all()


@pytest.mark.parametrize(("patch", "stride"), [(3, 2), (4, 3), (5, 7), (12, 12), (2, 5)])
def test_a_drop_is_that_of_a_square_in_the_middle_of_its_cell(patch, stride):
    model = corner_reader(seen=12)
    pixels = noise(model).astype(np.float32)
    told = []
    whole, drops = occlude(model, pixels, patch, stride, lambda *now: told.append(now))
    cells = -(-12 // stride)
    assert drops.shape == (cells, cells, 3)
    np.testing.assert_allclose(whole, softmax(np.asarray(model(pixels[None])))[0], atol=1e-6)
    for row in range(cells):
        for column in range(cells):
            hidden = pixels.copy()
            y, x = (at * stride + (stride - patch) // 2 for at in (row, column))
            for i in range(12):
                for j in range(12):
                    if y <= i < y + patch and x <= j < x + patch:
                        hidden[i, j] = GRAY
            now = softmax(np.asarray(model(hidden[None])))[0]
            np.testing.assert_allclose(drops[row, column], whole - now, atol=1e-6)
    assert told[-1] == ("occlude", 1 + cells**2, 1 + cells**2)


def test_a_gray_image_has_nothing_to_hide():
    model = corner_reader()
    _, drops = occlude(model, np.full((12, 12, 1), GRAY, np.float32), 4, 4)
    assert (drops == 0).all()


def test_a_model_of_nan_is_told():
    model = corner_reader()
    model.layers[-1].set_weights([np.full((64, 3), np.nan), np.zeros(3)])
    with pytest.raises(BadInputError, match="NaN"):
        occlude(model, noise(model), 4, 4)


def test_nothing_asked_is_nothing_done(tiny):
    model = tiny()
    assert feature_maps(model, noise(model), []) == []
    assert mean_gradients(model, noise(model), 0, []) == []
