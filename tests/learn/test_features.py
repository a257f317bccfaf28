"""Cached features equal live ones; whatever decides them is in the key; damage is repaired."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import cache_folder
from kzoo.learn.evaluate import softmax
from kzoo.learn.features import Engine, features, keras_engine
from kzoo.learn.fewshot import fewshot
from kzoo.learn.finetune import finetune
from kzoo.network.features import stage_features

CUTS = ("stage1", "stage2", "head", "logits")
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of features; the datasets' stores stay where they are."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "store").symlink_to(cache_folder() / "store")
    monkeypatch.setenv("KZOO_HOME", str(home))
    return home / "features"


@pytest.fixture
def counting():
    """An engine that is Keras' and lists how many outputs it was asked for, run by run."""
    real, runs = keras_engine(), []

    def run(model, images):
        runs.append(len(model.outputs))
        return real.run(model, images)

    return Engine("counting", "1", run), runs


def test_keras_runs_what_is_too_large_for_an_engine(counting, tiny, few_digits):
    engine, runs = counting
    model = tiny()
    size = 4 * model.count_params()
    found = [
        features(model, few_digits, ["logits"], engine=each)["logits"]
        for each in (
            dataclasses.replace(engine, most_bytes=size),
            dataclasses.replace(engine, most_bytes=size - 1),
            None,
        )
    ]
    assert runs == [1]
    assert found[1].filename == found[2].filename != found[0].filename


def test_few_shots_and_a_training_of_the_classifier_share_the_cache(counting, tiny, few_digits):
    engine, runs = counting
    study = {"shots": [1], "seeds": 1, "at": ["head"], "head": ["ridge"], "engine": engine}
    fewshot(tiny(), few_digits, **study)
    phases = [{"epochs": 1, "trainable": "classifier"}]
    finetune(tiny(), few_digits, phases=phases, engine=engine)
    assert runs == [1]


def equal(found: dict, other: dict) -> bool:
    return all(np.array_equal(found[cut], other[cut]) for cut in found)


@pytest.mark.parametrize("head", ["logits", "softmax"])
def test_cached_features_are_the_live_ones(head, tiny, few_digits):
    model = tiny(head)
    found = features(model, few_digits, CUTS)
    pixels = np.asarray(few_digits.images, np.float32)
    live = stage_features(model).predict(pixels, verbose=0)
    for stage in ("stage1", "stage2"):
        assert np.allclose(found[stage], live[stage].mean(axis=(1, 2)), atol=1e-5)
    assert np.array_equal(found["head"], found["stage2"])
    outputs = model.predict(pixels, verbose=0)
    logits = found["logits"]
    assert np.allclose(softmax(logits) if head == "softmax" else logits, outputs, atol=1e-5)
    for array in found.values():
        assert (array.dtype, len(array)) == (np.float32, len(few_digits.images))
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable


def test_all_cuts_take_one_pass_and_are_not_extracted_twice(tiny, few_digits, counting):
    engine, runs = counting
    model, seen = tiny(), []
    first = features(model, few_digits, ["stage1", "head"], engine=engine)
    assert runs == [2]
    found = features(
        model, few_digits, CUTS, engine=engine, progress=lambda *event: seen.append(event)
    )
    assert runs == [2, 2]  # of the four, those two that are new
    assert seen[-1] == ("extract features", 300, 300)
    assert equal(first, found)
    again = features(model, few_digits, CUTS, engine=engine)
    assert list(again) == list(CUTS)
    assert equal(found, again)
    assert runs == [2, 2]


def test_two_names_of_one_tensor_are_extracted_once(few_digits, counting):
    engine, runs = counting
    image = keras.Input((16, 16, 1))
    x = keras.layers.GlobalAveragePooling2D(name="stage1_1_pool")(image)
    model = keras.Model(image, keras.layers.Dense(3)(x))
    found = features(model, few_digits, ["stage1", "head"], engine=engine)
    assert runs == [1]
    assert np.array_equal(found["stage1"], found["head"])


def test_a_hit_costs_milliseconds(tiny, few_digits):
    model = tiny()
    features(model, few_digits, CUTS)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        features(model, few_digits, CUTS)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.05


def test_a_new_head_on_the_same_trunk_costs_no_extraction(tiny, few_digits, counting):
    engine, runs = counting
    model = tiny()
    features(model, few_digits, ["stage1", "stage2", "head"], engine=engine)
    model.get_layer("head").bias.assign(np.ones(10))
    model.get_layer("stage1_1_conv").trainable = False
    features(model, few_digits, ["stage1", "stage2", "head"], engine=engine)
    trunk = model.get_layer("head_pool").output
    other = keras.Model(model.inputs[0], keras.layers.Dense(7, name="head_new")(trunk))
    features(other, few_digits, ["stage1", "stage2", "head"], engine=engine)
    assert runs == [3]
    features(other, few_digits, ["logits"], engine=engine)
    assert runs == [3, 1]


def one_weight(model, data, engine):
    kernel = model.get_layer("stage1_1_conv").kernel
    value = np.array(kernel)
    value[0, 0, 0, 0] += 0.5
    kernel.assign(value)
    return model, data, engine


def one_statistic(model, data, engine):
    variance = model.get_layer("stage1_1_bn").moving_variance
    variance.assign(2 * np.asarray(variance))
    return model, data, engine


def one_pixel(model, data, engine):
    images = np.array(data.images)
    images[7, 8, 8, 0] ^= 255
    return model, dataclasses.replace(data, images=images), engine


def fewer_images(model, data, engine):
    return model, dataclasses.replace(data, images=data.images[:-1]), engine


def other_order(model, data, engine):
    return model, dataclasses.replace(data, images=data.images[::-1]), engine


def other_engine(model, data, engine):
    return model, data, dataclasses.replace(engine, name="other")


def other_version(model, data, engine):
    return model, data, dataclasses.replace(engine, version="2")


@pytest.mark.parametrize(
    "change",
    [
        one_weight, one_statistic, one_pixel, fewer_images, other_order, other_engine,
        other_version,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_whatever_decides_the_features_is_in_the_key(change, tiny, few_digits, cache, counting):
    engine, runs = counting
    before = features(tiny(), few_digits, ["stage1"], engine=engine)["stage1"]
    model, data, engine = change(tiny(), few_digits, engine)
    found = features(model, data, ["stage1"], engine=engine)["stage1"]
    assert len(runs) == 2
    live = stage_features(model).predict(np.asarray(data.images, np.float32), verbose=0)["stage1"]
    assert np.allclose(found, live.mean(axis=(1, 2)), atol=1e-5)
    assert np.array_equal(found, before) == (change in (other_engine, other_version))
    assert len(list(cache.iterdir())) == 2


def test_photos_of_another_size_or_content_are_other_features(
    tiny, digits_folder, tmp_path, counting
):
    from kzoo.data.load import load_data

    engine, runs = counting
    folder = tmp_path / "digits"
    shutil.copytree(digits_folder, folder)
    options = {"channels": 1, "size": 16, "validation": 0.2}
    model = tiny()
    features(model, load_data(folder, **options), ["head"], engine=engine)
    # Another split of the same images is no other image.
    features(model, load_data(folder, **options, seed=5), ["head"], engine=engine)
    assert len(runs) == 1
    zeros, ones = sorted((folder / "0").iterdir()), sorted((folder / "1").iterdir())
    shutil.copy(ones[0], zeros[0])
    changed = load_data(folder, **options)
    features(model, changed, ["head"], engine=engine)
    assert len(runs) == 2
    with pytest.raises(BadInputError, match="load it with size"):
        features(model, load_data(folder, **{**options, "size": 20}), ["head"], engine=engine)


def cut(file: Path):
    os.truncate(file, file.stat().st_size - 4)


def flip(file: Path):
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


def header(file: Path):
    file.write_bytes(file.read_bytes().replace(b"(300, ", b"(299, "))


DAMAGES = {
    "cut": cut,
    "a bit": flip,
    "header": header,
    "empty": lambda file: file.write_bytes(b""),
    "no array": lambda file: file.write_text("<html>404</html>" * 100),
    "missing": Path.unlink,
    "no index": lambda file: file.with_name("index.json").unlink(),
    "cut index": lambda file: os.truncate(file.with_name("index.json"), 20),
    "other index": lambda file: file.with_name("index.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_extracted_again(damage, tiny, few_digits, cache, counting):
    engine, runs = counting
    model = tiny()
    kept = {
        cut: np.array(array)
        for cut, array in features(model, few_digits, CUTS, engine=engine).items()
    }
    file = next(cache.glob("*/features.npy"))
    DAMAGES[damage](file)
    assert equal(features(model, few_digits, CUTS, engine=engine), kept)
    assert runs == [4, 1]
    features(model, few_digits, CUTS, engine=engine)
    assert runs == [4, 1]


def test_what_stops_halfway_leaves_nothing(tiny, few_digits, cache):
    closed = []

    def run(model, images):  # noqa: ARG001
        try:
            yield [np.zeros((64, *each.shape[1:]), np.float32) for each in model.outputs]
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt):
        features(tiny(), few_digits, CUTS, engine=Engine("stopped", "1", run))
    assert closed
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_nan_in_the_weights_is_told_and_not_cached(tiny, few_digits, cache):
    model = tiny()
    model.get_layer("stage2_1_conv").bias.assign(np.full(16, np.nan))
    with pytest.raises(BadInputError, match="NaN"):
        features(model, few_digits, ["stage1", "stage2"])
    assert not list(cache.glob("*/*"))
    assert np.isfinite(features(model, few_digits, ["stage1"])["stage1"]).all()


def test_a_full_disk_is_named(few_digits, small_disk, monkeypatch):
    monkeypatch.setenv("KZOO_HOME", str(small_disk))
    # 300 x 640 x 4 bytes are 768 kB.
    image = keras.Input((16, 16, 1))
    x = keras.layers.Dense(640, name="stage1_1")(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))
    with pytest.raises(MissingError, match="no space left"):
        features(model, few_digits, ["stage1"])
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_no_cut_and_an_unknown_one_are_refused(tiny, few_digits):
    with pytest.raises(UsageError, match="no cut"):
        features(tiny(), few_digits, [])
    with pytest.raises(UsageError, match="its cuts are stage1, stage2, head, logits"):
        features(tiny(), few_digits, ["stage7"])


def test_features_of_photos_are_those_of_each_alone(shared):
    """Batches do not mix: real photos, a real network, in another order."""
    from kzoo.data.load import load_data
    from kzoo.zoo.build import build

    photos = load_data(shared / "clothing10" / "validation", size=64)
    model = build("mobilenet_v1_025", size=64, classes=5, seed=0)
    found = features(model, photos, ["stage2", "head"])
    chosen = np.random.default_rng(0).permutation(len(photos.images))[:100]
    part = dataclasses.replace(photos, images=np.asarray(photos.images)[chosen])
    other = features(model, part, ["stage2", "head"])
    for name, array in found.items():
        assert np.allclose(array[chosen], other[name], atol=1e-5 * array.std())
