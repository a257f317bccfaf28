"""Corrected biases leave no mean error of a layer, whatever reads, writes and stores it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kzoo
from kzoo.lite import flatbuffer
from kzoo.lite.bias_correction import IMAGES
from kzoo.lite.quantize import stratified
from kzoo.lite.recipes import RECIPES
from kzoo.lite.tensors import Runner, paired

L = keras.layers
KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@pytest.fixture(scope="module")
def network():
    """Every kind of kernel, each reading what no kernel made, and one that reads their means.

    Biases of convolutions are zeros, which the converter stores once.
    """
    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 1), name="image")
    x = L.Rescaling(1 / 255, name="preprocess")(image)
    pooled = [L.MaxPooling2D(n, 1, "same", name=f"pool{n}")(x) for n in (2, 3, 5)]
    x = L.Concatenate(name="join")([x, *pooled])
    made = [
        L.Conv2D(8, 3, 2, "same", name="strided"),
        L.Conv2D(8, (1, 4), name="valid"),
        L.Conv2D(8, 3, padding="same", dilation_rate=2, name="dilated"),
        L.Conv2D(8, 3, padding="same", groups=4, name="grouped"),
        L.DepthwiseConv2D(5, padding="same", depth_multiplier=3, name="deep"),
        L.DepthwiseConv2D(3, 2, name="deep_strided"),
    ]
    means = [L.GlobalAveragePooling2D(name=f"{each.name}_mean")(each(x)) for each in made]
    means.append(L.Dense(12, name="dense", bias_initializer="ones")(L.Flatten(name="flat")(x)))
    x = L.Concatenate(name="all")(means)
    x = L.Dense(10, name="head", bias_initializer="ones")(x)
    return keras.Model(image, x, name="kinds")


@pytest.fixture(scope="module")
def exact(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "m.tflite"
    kzoo.convert(network, path, head="logits")
    return path.read_bytes()


def mean_errors(exact: bytes, rounded: bytes, images) -> dict[str, float]:
    """Of each layer the largest mean error of a channel, in its standard deviations."""
    runners = Runner(exact, lambda image: image), Runner(rounded, lambda image: image)
    float_, other = runners
    pairs = [
        [int(runner.graph.operators[i].outputs[0]) for runner, i in zip(runners, pair, strict=True)]
        for pair in paired(exact, rounded)
        if flatbuffer.operator(float_.model, float_.graph.operators[pair[0]]) in KERNELS
    ]
    wanted, found = (
        [runner.run(image, [pair[side] for pair in pairs]) for image in images]
        for side, runner in enumerate((float_, other))
    )
    errors = {}
    for place, (tensor, _) in enumerate(pairs):
        a, b = (np.concatenate([run[place] for run in runs]) for runs in (wanted, found))
        axes = tuple(range(a.ndim - 1))
        name = flatbuffer.layer_names(float_.graph)[tensor][0]
        errors[name] = float(np.abs((b - a).mean(axes)).max() / a.std())
    return errors


@pytest.fixture
def made(network, tmp_path):
    """made(recipe, data): the file."""

    def make(recipe: str, data=None) -> bytes:
        path = tmp_path / f"{recipe}{data is None}.tflite"
        kzoo.quantize(network, path, recipe=recipe, calibrate=data, samples=IMAGES, head="logits")
        return path.read_bytes()

    return make


@pytest.mark.parametrize(
    ("recipe", "most"),
    # Where activations are rounded their errors stay, those of 8 bits and of 16.
    [("weights8", 1e-6), ("dynamic", 1e-2), ("int4", 1e-2), ("int16x8", 1e-4), ("int8", 1e-2)],
)
def test_rounded_kernels_leave_no_mean_error(recipe, most, made, exact, few_digits):
    images = stratified(few_digits, IMAGES, 0)
    found = mean_errors(exact, made(recipe, few_digits), images)
    assert len(found) == 8
    assert max(found.values()) < most
    if RECIPES[recipe].activations is None:
        plain = mean_errors(exact, made(recipe), images)
        assert sum(plain.values()) > 5 * sum(found.values())
