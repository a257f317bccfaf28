"""What a loaded dataset answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kzoo.data.load import load_data
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
