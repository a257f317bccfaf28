"""Learned rounding is no worse than the nearest."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kzoo.compress.activations import computed, walk
from kzoo.compress.adaround import adaround
from kzoo.compress.apart import apart, linear_calls
from kzoo.compress.grid import on_grid, rounded, scales
from kzoo.compress.patches import places


@pytest.fixture(scope="module")
def network():
    """Strides, padding, groups, dilation, depthwise, separable, a skip, dense; BatchNorm inside."""
    keras.utils.set_random_seed(0)
    image = keras.Input((17, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(name="stem_act")(layers.BatchNormalization(name="stem_bn")(x))
    x = skip = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="deep")(x)
    x = layers.Conv2D(8, 3, padding="same", groups=2, dilation_rate=2, name="grouped")(x)
    x = layers.Add(name="add")([x, skip])
    x = layers.SeparableConv2D(12, 3, depth_multiplier=2, activation="relu", name="sep")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(5, name="head")(x), name="several")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 17, 16, 3), np.uint8)


def baked(model, bits: int):
    model = apart(model)
    for node in linear_calls(model):
        kernel, bias = node.operation.get_weights()
        deep = type(node.operation).__name__ == "DepthwiseConv2D"
        node.operation.set_weights([on_grid(kernel, depthwise=deep, bits=bits), bias])
    return model


def layer_outputs(model, images) -> dict:
    nodes = linear_calls(model)
    return {
        node.operation.name: computed(node, tensors)[0]
        for node, tensors in walk(model, images)
        if node in nodes
    }


def test_the_walk_computes_what_the_model_does(network, images):
    for node, tensors in walk(network, images):
        if node is None:
            found = tensors[id(network.outputs[0])]
            assert len(tensors) == 1
    np.testing.assert_allclose(found, network.predict(images, verbose=0), atol=1e-5)


def test_places_times_matrix_is_the_layer(network, images):
    model = apart(network)
    for node, tensors in walk(model, images):
        if node in linear_calls(model):
            at = places(node, len(images), 50, 1 << 20, np.random.default_rng(0))
            kernel, bias = node.operation.get_weights()
            rows = at.inputs(tensors[id(node.input_tensors[0])]).swapaxes(0, 1)
            found = (rows @ at.matrix(kernel)).swapaxes(0, 1).reshape(len(at.at), -1) + bias
            np.testing.assert_allclose(found, at.outputs(computed(node, tensors)[0]), atol=1e-4)
            assert np.array_equal(at.kernel(at.matrix(kernel)), kernel)


@pytest.fixture(scope="module")
def learned(network, images):
    return adaround(network, images, bits=4, steps=60)


def test_learned_rounding_stays_on_the_grid_and_next_to_the_weight(network, learned):
    for before, after in zip(linear_calls(apart(network)), linear_calls(learned), strict=True):
        kernel, now = (node.operation.get_weights()[0] for node in (before, after))
        deep = type(before.operation).__name__ == "DepthwiseConv2D"
        scale = scales(kernel, depthwise=deep, bits=4)
        np.testing.assert_allclose(now / scale, np.rint(now / scale), atol=1e-4)
        assert (np.abs(now - kernel) < 1.001 * scale).all()
        np.testing.assert_allclose(scales(now, depthwise=deep, bits=4), scale, rtol=1e-6)


def test_a_layer_errs_no_more_than_with_the_nearest(network, images, learned):
    """The first one, whose inputs are the same in both."""
    wanted = layer_outputs(apart(network), images)["stem"]
    near, found = (
        np.square(
            np.maximum(layer_outputs(model, images)["stem"], 0) - np.maximum(wanted, 0)
        ).mean()
        for model in (baked(network, 4), learned)
    )
    assert found <= near * (1 + 1e-6)
    # And so the whole: what it is for.
    float_, near, found = (
        model.predict(images, verbose=0) for model in (network, baked(network, 4), learned)
    )
    assert np.square(found - float_).mean() < np.square(near - float_).mean()


def test_the_seed_decides(network, images, learned):
    again = adaround(network, images, bits=4, steps=60)
    assert all(map(np.array_equal, learned.get_weights(), again.get_weights()))


def test_what_is_baked_and_what_is_zero_stays(network, images):
    model = baked(network, 4)
    again = adaround(model, images, bits=4, steps=3)
    for before, after in zip(linear_calls(model), linear_calls(again), strict=True):
        kernel, now = (node.operation.get_weights()[0] for node in (before, after))
        np.testing.assert_allclose(now, kernel, rtol=1e-6)
        assert np.array_equal(now == 0, kernel == 0)


def test_baked_kernels_are_exported_bit_by_bit(network, images, tmp_path):
    pytest.importorskip("tensorflow")
    from kzoo.lite import flatbuffer
    from kzoo.lite.convert import write_lite
    from kzoo.progress import silent

    model, file = adaround(network, images, steps=5), tmp_path / "baked.tflite"
    write_lite(model, file, "int8", "uint8", "logits", images, silent)
    lite = flatbuffer.parse(file.read_bytes())
    graph = lite.subgraphs[0]
    found = []
    for op in graph.operators:
        if flatbuffer.operator(lite, op) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            tensor = graph.tensors[op.inputs[1]]
            data = np.array(lite.buffers[tensor.buffer].data, np.uint8).view(np.int8)
            found.append((data.reshape(tensor.shape), tensor.quantization.scale))
    nodes = linear_calls(model)
    assert len(found) == len(nodes)
    for node, (written, scale) in zip(nodes, found, strict=True):
        kernel = node.operation.get_weights()[0]
        deep = type(node.operation).__name__ == "DepthwiseConv2D"
        ours = scales(kernel, depthwise=deep)
        whole = rounded(kernel, ours)
        np.testing.assert_allclose(scale, ours.ravel(), rtol=1e-6)
        if deep:
            assert np.array_equal(written[0], whole.reshape(*whole.shape[:2], -1))
        else:
            assert np.array_equal(written, np.moveaxis(whole, -1, 0))
