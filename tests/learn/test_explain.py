"""An explanation is of the image, the class and the layers that it names."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.data.photo import read_photo
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.network.model_file import save_model

NAMES = ("ape", "bee", "cat", "dog", "eel")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list:
    """Two photos of other sizes and shapes than the networks take."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, size in {"wide.png": (40, 60), "tall.png": (70, 50)}.items():
        coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(folder / name)
    return [folder / "wide.png", folder / "tall.png"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """file(name): a small network of that architecture with five named classes, as .keras."""
    folder = tmp_path_factory.mktemp("models")

    def write(name: str) -> Path:
        path = folder / f"{name}.keras"
        if not path.exists():
            model = kzoo.build(name, classes=5, seed=1)
            save_model(model, path, notes={"classes": NAMES, "crop": 0.8})
        return path

    return write


@pytest.mark.parametrize(
    ("name", "kernels", "cams", "parts"),
    [
        ("lenet5", (6, 5, 5, 1), {"stage1": (14, 14), "stage2": (5, 5)},
         ["stage1", "stage2"]),
        ("resnet8", (16, 3, 3, 3), {"stage1": (32, 32), "stage2": (16, 16), "stage3": (8, 8)},
         ["stage1"] * 2 + ["stage2"] * 2 + ["stage3"] * 2),
        ("mlp", None, {}, []),
    ],
)  # fmt: skip
def test_every_architecture_is_explained(name, kernels, cams, parts, file, photos):
    path = file(name)
    found = kzoo.explain(path, photos, stride=8)
    assert found.model == name
    assert (found.filters and found.filters.kernels.shape) == kernels
    predicted = kzoo.predict(path, photos)
    for seen, said, photo in zip(found.images, predicted, photos, strict=True):
        np.testing.assert_array_equal(seen.pixels, read_photo(photo, seen.pixels.shape, 0.8))
        assert seen.image == said["image"] == str(photo)
        assert [row["class"] for row in seen.top] == [row["class"] for row in said["top"]]
        for row, other in zip(seen.top, said["top"], strict=True):
            assert row["probability"] == pytest.approx(other["probability"], abs=2e-6)
        assert seen.name == NAMES[seen.index] == seen.top[0]["class"]
        assert {key: cam.shape for key, cam in seen.grad_cam.items()} == cams
        for cam in seen.grad_cam.values():
            assert np.isfinite(cam).all()
            assert cam.min() >= 0
        assert [each.part for each in seen.activations] == parts
        assert seen.occlusion.shape == (-(-len(seen.pixels) // 8),) * 2
        assert np.isfinite(seen.occlusion).all()
        assert np.abs(seen.occlusion).max() > 0
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_the_strongest_channels_and_the_kernels_are_shown(file, photos):
    path = file("resnet8")
    found = kzoo.explain(path, photos[:1], stride=16)
    (seen,) = found.images
    model = keras.saving.load_model(path)
    for each in seen.activations:
        part = keras.Model(model.input, model.get_layer(each.behind).output)
        values = np.asarray(part(seen.pixels[None].astype(np.float32)))[0]
        strength = np.abs(values).mean(axis=(0, 1))
        assert [*each.channels] == [*np.argsort(-strength)[:16]]
        np.testing.assert_allclose(each.maps, values[..., each.channels], atol=1e-5)
        assert each.count == values.shape[-1]
    kernel = model.get_layer(found.filters.layer).get_weights()[0]
    for i, tile in enumerate(found.filters.kernels):
        np.testing.assert_array_equal(tile, kernel[..., i])


@pytest.mark.parametrize(("size", "stride", "cells"), [(28, 2, 14), (64, 4, 16), (20, 1, 20)])
def test_a_square_of_three_strides_is_moved_sixteen_times_or_so(size, stride, cells, photos):
    image = keras.Input((size, size + 9, 1))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    found = kzoo.explain(model, photos[:1])
    assert (found.stride, found.patch) == (stride, 3 * stride)
    assert found.images[0].occlusion.shape == (cells, -(-(size + 9) // stride))


@pytest.mark.parametrize(
    ("layer", "channels", "tiles"),
    [
        (keras.layers.Conv2D(4, 3), 1, (4, 3, 3, 1)),
        (keras.layers.Conv2D(6, 3, groups=3), 3, (6, 3, 3, 1)),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), 3, (6, 3, 3, 1)),
        (keras.layers.DepthwiseConv2D(5), 1, (1, 5, 5, 1)),
        (keras.layers.SeparableConv2D(7, 3), 3, (3, 3, 3, 1)),
    ],
)
def test_kernels_that_see_one_channel_are_gray(layer, channels, tiles, photos):
    image = keras.Input((16, 16, channels))
    x = keras.layers.GlobalAveragePooling2D()(layer(image))
    model = keras.Model(image, keras.layers.Dense(3)(x))
    found = kzoo.explain(model, photos[:1], stride=8)
    assert found.filters.kernels.shape == tiles
    assert found.images[0].activations[0].part == "network"
    kernel = layer.get_weights()[0]
    np.testing.assert_array_equal(
        found.filters.kernels[..., 0], np.moveaxis(kernel.reshape(*kernel.shape[:2], -1), -1, 0)
    )


@pytest.mark.parametrize("target", ["dog", "3", 3])
def test_another_class_is_explained_by_name_or_number(target, file, photos):
    found = kzoo.explain(file("lenet5"), photos, target=target, patch=8, stride=16)
    shares = {}
    for seen in found.images:
        assert (seen.name, seen.index) == ("dog", 3)
        shares |= {row["class"]: row["probability"] for row in seen.top}
        assert seen.probability == pytest.approx(shares["dog"], abs=1e-6)
        assert seen.occlusion.shape == (2, 2)
    assert (found.patch, found.stride) == (8, 16)


def test_a_name_counts_before_a_number(file, photos):
    names = ["4", "3", "2", "1", "0"]
    found = kzoo.explain(file("mlp"), photos[:1], target="4", classes=names, stride=14)
    assert (found.images[0].name, found.images[0].index) == ("4", 0)


def test_a_model_inside_a_model_is_explained_as_it_is_alone(file, photos):
    model = keras.saving.load_model(file("lenet5"))
    image = keras.Input(model.inputs[0].shape[1:])
    nested = keras.Model(image, model(image, training=False), name="outer")
    alone, inside = (kzoo.explain(each, photos[:1], stride=8).images[0] for each in (model, nested))
    assert [*alone.grad_cam] == [*inside.grad_cam] == ["stage1", "stage2"]
    for name, cam in alone.grad_cam.items():
        np.testing.assert_allclose(inside.grad_cam[name], cam, rtol=1e-5, atol=1e-7)
    assert [each.layer for each in inside.activations] == ["stage1_1_conv", "stage2_1_conv"]


@pytest.mark.parametrize(
    ("error", "said", "options"),
    [
        (UsageError, "knows no class 'dgo'; did you mean dog", {"target": "dgo"}),
        (UsageError, "a number from 0 to 4", {"target": 5}),
        (UsageError, "knows no class '-1'", {"target": -1}),
        (UsageError, "patch is from 1 to 32 pixels; 0", {"patch": 0}),
        (UsageError, "patch is from 1 to 32 pixels; 33", {"patch": 33}),
        (UsageError, "stride is from 1 to 32 pixels; 0", {"stride": 0}),
        (UsageError, "crop is from 0.1 to 1", {"crop": 2.0}),
        (UsageError, "5 outputs, 2 names", {"classes": ["a", "b"]}),
        (UsageError, "list of image files", {"images": "cat.png"}),
        (UsageError, "list of image files", {"images": []}),
        (MissingError, "'no.png' does not exist", {"images": ["no.png"]}),
        (UsageError, "ends in .keras or .h5", {"model": __file__}),
        (UsageError, "explain the .keras", {"model": "net.tflite"}),
        (MissingError, "'no.keras' does not exist", {"model": "no.keras"}),
    ],
)
def test_mistakes_are_told(error, said, options, file, photos):
    given = {"model": file("lenet5"), "images": photos} | options
    with pytest.raises(error, match=said):
        kzoo.explain(**given)


def test_files_that_are_no_images_are_told_before_the_work(file, photos, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    told = []
    with pytest.raises(BadInputError, match=r"cannot use the image .*text\.png.*not an image"):
        kzoo.explain(
            file("lenet5"), [*photos, tmp_path / "text.png"], progress=lambda *now: told.append(now)
        )
    assert told == []


def test_progress_ends_for_every_image(file, photos):
    told = []
    kzoo.explain(file("lenet5"), photos, stride=8, progress=lambda *now: told.append(now))
    for photo in photos:
        task = [now[1:] for now in told if now[0] == f"occlude: {photo.name}"]
        assert task[0] == (0, 17)
        assert task[-1] == (17, 17)
