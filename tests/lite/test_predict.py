"""What a model says of image files."""

from __future__ import annotations

import shutil
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.network.model_file import read_notes, save_model


@pytest.fixture(scope="module")
def place(trained, lite_float, digits, tmp_path_factory):
    """A folder with a model of digits, its .tflite and the test images as files."""
    folder = tmp_path_factory.mktemp("predict")
    shutil.copy(trained, folder / "good.keras")
    shutil.copy(lite_float, folder / "good.tflite")
    for i in digits.splits["test"][:12]:
        Image.fromarray(digits.images[i, ..., 0]).save(folder / f"{i}_{digits.labels[i]}.png")
    return folder


@pytest.mark.parametrize("model", ["good.keras", "good.tflite"])
def test_files_are_classified_as_the_dataset_is(model, place, digits):
    files = sorted(place.glob("*.png"))
    found = kzoo.predict(place / model, files, top=10)
    assert [one["image"] for one in found] == [str(file) for file in files]
    network = keras.saving.load_model(place / "good.keras")
    indices = [int(file.stem.split("_")[0]) for file in files]
    logits = np.asarray(network(digits.images[indices].astype(np.float32)))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for one, values in zip(found, expected, strict=True):
        assert {each["class"] for each in one["top"]} == set(digits.classes)
        shares = [each["probability"] for each in one["top"]]
        assert shares == sorted(shares, reverse=True)
        for each in one["top"]:
            wanted = values[digits.classes.index(each["class"])]
            assert each["probability"] == pytest.approx(wanted, abs=1e-4)
    right = [
        one["top"][0]["class"] == file.stem[-1] for one, file in zip(found, files, strict=True)
    ]
    assert np.mean(right) > 0.8


def test_the_middle_is_looked_at_where_the_file_says_so(tmp_path):
    """A white square on black: of the whole a quarter is white, of the middle half all is."""
    image = keras.Input((8, 8, 1))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.Dense(2, name="head")(mean))
    model.get_layer("head").set_weights([np.array([[0.0, 1.0]]), np.zeros(2)])
    pixels = np.zeros((64, 64), np.uint8)
    pixels[16:48, 16:48] = 2
    Image.fromarray(pixels).save(tmp_path / "square.png")

    def share(crop):
        notes = {"classes": ["dark", "light"], "crop": crop}
        file = save_model(model, tmp_path / f"{crop}.keras", notes=notes)
        assert read_notes(file)["crop"] == crop
        by_keras = kzoo.predict(file, [tmp_path / "square.png"])[0]["top"]
        kzoo.convert(file, tmp_path / f"{crop}.tflite")
        by_lite = kzoo.predict(tmp_path / f"{crop}.tflite", [tmp_path / "square.png"])[0]["top"]
        shares = [{one["class"]: one["probability"] for one in top} for top in (by_keras, by_lite)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-4)
        return shares[0]["light"]

    assert share(0.5) == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-3)
    assert share(1.0) == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.02)


def test_outputs_without_names_are_numbered(place, tmp_path):
    with zipfile.ZipFile(place / "good.keras") as whole, zipfile.ZipFile(
        tmp_path / "bare.keras", "w"
    ) as bare:  # fmt: skip
        for name in whole.namelist():
            if name != "kzoo.json":
                bare.writestr(name, whole.read(name))
    image = next(place.glob("*.png"))
    found = kzoo.predict(tmp_path / "bare.keras", [image], top=3)
    assert all(each["class"].startswith("class ") for each in found[0]["top"])


@pytest.mark.parametrize(
    ("image", "options", "error", "said"),
    [
        ("missing.png", {}, MissingError, "the image .*missing.png.* does not exist"),
        ("broken.png", {}, BadInputError, "cannot use the image .*broken.png.*truncated"),
        ("good.keras", {}, BadInputError, "not an image"),
        ("one.png", {"top": 0}, UsageError, "top is at least 1"),
        ("one.png", {"classes": ["a", "b"]}, UsageError, "10 outputs, 2 names"),
    ],
)
def test_mistakes_are_told(image, options, error, said, place):
    shutil.copy(next(place.glob("*_*.png")), place / "one.png")
    (place / "broken.png").write_bytes((place / "one.png").read_bytes()[:90])
    with pytest.raises(error, match=said):
        kzoo.predict(place / "good.keras", [place / image], **options)
