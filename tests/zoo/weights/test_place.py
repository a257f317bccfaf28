"""Weights of every library land where that library has them."""

from __future__ import annotations

import functools
import gzip
import json
import random
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from kzoo.registry import entry
from kzoo.zoo.build import drawn
from kzoo.zoo.weights.load import pretrained
from kzoo.zoo.weights.place import place
from kzoo.zoo.weights.table import find
from tests.zoo.test_parity import APPLICATIONS, parity_cases, random_weights, weights_by_graph


def flipped(model: keras.Model) -> keras.Model:
    """Takes blue first."""
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    first.kernel.assign(first.kernel[:, :, ::-1])
    return model


@pytest.mark.parametrize(
    ("name", "size"), [case for case in parity_cases() if case.values[1] % 32 == 11]
)
def test_a_file_of_keras_applications_is_loaded(name, size, tmp_path):
    function, arguments = APPLICATIONS[name]
    size = max(size, find(name, "keras_in1k").size) if name.startswith("vgg") else size
    theirs = getattr(keras.applications, function)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None,
        **arguments,
    )  # fmt: skip
    weights = weights_by_graph(theirs)
    for weight, value in zip(weights, random_weights(weights, seed=size), strict=True):
        weight.assign(value)
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    found = pretrained(name, tmp_path / "theirs.h5", classes=10, size=size)
    assert found.source.tag == "keras_in1k"
    model = flipped(found.model) if found.source.bgr else found.model
    for ours, reference in zip(weights_by_graph(model), weights, strict=True):
        expected = np.asarray(reference).reshape(ours.shape)
        np.testing.assert_array_equal(np.asarray(ours), expected, err_msg=ours.path)


@functools.cache
def torch_networks() -> dict:
    """Of networks of torchvision and timm: the shapes of their tensors, and which layer is which.

    The pairs were found by walking both graphs, and confirmed on logits.
    """
    file = Path(__file__).parent / "torch_layers.json.gz"
    return json.loads(gzip.decompress(file.read_bytes()))["networks"]


def torch_cases():
    """All names; all but the smallest of each builder are slow."""
    smallest = {}
    for name in sorted(torch_networks(), key=lambda n: -entry(n).macs):
        smallest[entry(name).builder] = name
    for name in torch_networks():
        marks = [] if name in smallest.values() else [pytest.mark.slow]
        yield pytest.param(name, marks=marks)


def in_keras_layout(layer: keras.Layer, kernel: np.ndarray) -> np.ndarray:
    if kernel.ndim == 4:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        return kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return kernel.T if kernel.ndim == 2 else kernel


@pytest.mark.parametrize("name", list(torch_cases()))
def test_a_state_dict_of_torch_is_loaded(name):
    """In any order: a file of safetensors is sorted by other rules than a pickle."""
    network = torch_networks()[name]
    rng, values = np.random.default_rng(0), {}
    for key, shape in network["shapes"].items():
        values[key] = rng.random(shape, np.float32)
    keys = [*values]
    random.Random(0).shuffle(keys)
    row = entry(name)
    model, made = drawn(row, None, flavour="torch")
    place(model, made, {key: values[key] for key in keys}, family=row.family, torch=True)
    for layer, theirs in network["layers"].items():
        layer = model.get_layer(layer)
        if isinstance(layer, keras.layers.Dense) and name.startswith(("alexnet", "vgg")):
            continue  # what is flattened: below
        kernel = in_keras_layout(layer, values.get(f"{theirs}.weight", values.get(theirs)))
        for weight in layer.weights:
            part = {
                "beta": "bias", "bias": "bias", "moving_mean": "running_mean",
                "moving_variance": "running_var",
            }.get(weight.name)  # fmt: skip
            expected = values[f"{theirs}.{part}"] if part else kernel
            found = np.asarray(weight)
            np.testing.assert_array_equal(found, expected.reshape(found.shape), err_msg=weight.path)
