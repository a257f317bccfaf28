"""What a loaded dataset answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kzoo.data.load import load_data
from kzoo.data.rows import one_colour
from kzoo.errors import UsageError

CLOTHING = Path(__file__).parents[2].parent / "shared" / "data" / "clothing10"


@pytest.fixture
def dataset(photos):
    return load_data(photos({"cat": 20, "dog": 20}), size=(6, 8), channels=1)


def test_order_is_a_permutation_and_a_function_of_seed_and_epoch(dataset):
    for split, indices in dataset.splits.items():
        assert np.array_equal(np.sort(dataset.order(split, 1, 2)), indices)
    first = dataset.order("train", 1, 2)
    np.random.seed(0)
    assert np.array_equal(dataset.order("train", 1, 2), first)
    assert not np.array_equal(dataset.order("train", 1, 3), first)
    assert not np.array_equal(dataset.order("train", 2, 2), first)
    assert not np.array_equal(dataset.order("train", 2, 1), first)


def test_an_unknown_split(dataset):
    with pytest.raises(UsageError, match="did you mean validation"):
        dataset.order("validaton", 0, 0)


def test_shapes_and_types(dataset):
    assert dataset.images.shape == (40, 6, 8, 1)
    assert dataset.size == (6, 8)
    assert dataset.channels == 1
    assert dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    for array in (dataset.labels, *dataset.splits.values()):
        assert not array.flags.writeable
        assert array.dtype == np.int64


def test_the_summary_is_json_and_adds_up(dataset):
    summary = json.loads(json.dumps(dataset.summary()))
    assert summary["images"] == 40
    assert sum(sum(counts.values()) for counts in summary["classes"].values()) == 40
    assert summary["classes"]["cat"] == {"train": 14, "validation": 3, "test": 3}
    assert summary["splits"] == {"train": 28, "validation": 6, "test": 6}
    assert summary["size"] == [6, 8]
    assert Path(summary["store"], "images.npy") == dataset.images_file


def test_the_room_imports_no_framework():
    code = (
        "import sys, kzoo.data.load; print({'keras', 'tensorflow', 'sklearn'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


@pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"the clothing photos are not in {CLOTHING}")
def test_real_photos():
    dataset = load_data(CLOTHING, size=32)
    assert len(dataset.classes) == 10
    assert len(dataset.images) == 3409
    assert [len(dataset.splits[name]) for name in ("train", "validation", "test")] == [3068, 341, 0]
    assert dataset.evaluation_split == "validation"
    assert 80 < dataset.images.mean() < 220
    assert not [problem for problem in dataset.problems if problem.outcome == "left out"]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_one_colour_are_kept_and_noted_once(photos, channels):
    folder = photos({"cat": 4, "dog": 4})
    for name, colour in (("dog/a.png", "black"), ("dog/b.jpg", "red"), ("cat/c.png", (1, 2, 3))):
        Image.new("RGB", (40, 30), colour).save(folder / name)
    almost = Image.new("RGB", (8, 8), "white")
    almost.putpixel((7, 7), (255, 255, 250))
    almost.save(folder / "cat" / "almost.png")
    for _ in range(2):  # decoded, and from the store
        data = load_data(folder, size=8, channels=channels)
        assert {"cat/almost.png", "cat/c.png", "dog/a.png", "dog/b.jpg"} < set(data.paths)
        (note,) = data.problems
        assert (note.path, note.outcome) == ("cat/c.png", "note")
        assert note.reason == "all its pixels are of one colour, and those of 2 more images"


@given(
    count=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    values=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    other=st.integers(0, 59),
)
def test_one_colour_is_what_all_pixels_have(count, channels, values, other):
    pixels = np.tile(np.array(values[:channels], np.uint8), (count, 1))
    assert one_colour(pixels.tobytes(), channels)
    if count > 1:
        pixels.flat[other % pixels.size] += 1
        assert not one_colour(pixels.tobytes(), channels)
