"""A split is a partition, stratified, stable, and never has one content on two sides."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.data.load import load_data
from kzoo.data.rows import Entry
from kzoo.data.split import SPLITS, boundaries, split
from kzoo.errors import BadInputError

fractions = st.sampled_from([0.0, 0.01, 0.1, 0.15, 0.2, 0.33, 0.45])
seeds = st.integers(0, 5)


def entries_of(counts: list[int], copies: int = 1) -> list[Entry]:
    return [
        Entry(f"{label}/{i}-{copy}", f"class{label}", "", f"{label}-{i}")
        for label, count in enumerate(counts)
        for i in range(count)
        for copy in range(copies)
    ]


def side_of(entries, splits):
    return {entries[i].path: name for name, indices in splits.items() for i in indices}


@given(st.lists(st.integers(3, 60), min_size=2, max_size=4), fractions, fractions, seeds)
def test_a_stratified_partition(counts, validation, test, seed):
    entries = entries_of(counts)
    splits = split(entries, validation=validation, test=test, seed=seed)
    assert tuple(splits) == SPLITS
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(len(entries)))
    for label, count in enumerate(counts):
        got = {
            name: sum(entries[i].label == f"class{label}" for i in indices)
            for name, indices in splits.items()
        }
        # Two roundings make at most 1; "one at least" adds to it where a share is below a half.
        small = count < 10 or any(0 < fraction * count < 0.5 for fraction in (validation, test))
        tolerance = 1.5 if small else 1 + 1e-9
        for name, fraction in (("validation", validation), ("test", test)):
            assert (got[name] > 0) == (fraction > 0)
            assert abs(got[name] - fraction * count) <= tolerance
        assert got["train"] >= 1


@given(st.integers(3, 80), st.integers(1, 5), fractions, fractions, seeds)
def test_added_photos_move_at_most_two_others_each(count, added, validation, test, seed):
    before = entries_of([count, 3])
    after = entries_of([count + added, 3])
    sides = side_of(after, split(after, validation=validation, test=test, seed=seed))
    old = side_of(before, split(before, validation=validation, test=test, seed=seed))
    assert sum(sides[path] != side for path, side in old.items()) <= 2 * added


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=40), fractions, fractions)
@settings(max_examples=60)
def test_one_content_is_on_one_side(drawn, validation, test):
    # contents 0..12 are drawn again and again, some of them under both labels
    entries = entries_of([4, 4]) + [
        Entry(f"x{i}", f"class{int(second)}", "", f"c{content}")
        for i, (content, second) in enumerate(drawn)
    ]
    sides = side_of(entries, split(entries, validation=validation, test=test, seed=0))
    found, labels = defaultdict(set), defaultdict(set)
    for entry in entries:
        found[entry.sha256].add(sides[entry.path])
        labels[entry.sha256].add(entry.label)
    assert all(len(each) == 1 for each in found.values())
    assert all(found[content] == {"train"} for content in found if len(labels[content]) == 2)


def test_the_order_of_files_and_their_names_do_not_matter():
    entries = entries_of([20, 20])
    shuffled = [entries[i] for i in np.random.default_rng(0).permutation(40)]
    first = split(entries, validation=0.2, test=0.2, seed=3)
    second = split(shuffled, validation=0.2, test=0.2, seed=3)
    assert side_of(entries, first) == side_of(shuffled, second)
    assert side_of(entries, first) != side_of(
        entries, split(entries, validation=0.2, test=0.2, seed=4)
    )


@given(st.integers(3, 500), fractions, fractions)
def test_the_cuts_move_by_one_at_most(count, validation, test):
    steps = np.subtract(
        boundaries(count + 1, validation, test), boundaries(count, validation, test)
    )
    assert set(steps) <= {0, 1}


def test_copies_do_not_count_as_images():
    with pytest.raises(BadInputError, match="'class1' has 2 different images"):
        split(entries_of([5, 2], copies=9), validation=0.1, test=0.1, seed=0)


def test_copied_files_are_told_and_stay_on_one_side(photos):
    folder = photos({"cat": 9, "dog": 9})
    for i in range(9):
        shutil.copy(folder / "cat" / f"{i}.png", folder / "cat" / f"copy{i}.png")
    dataset = load_data(folder, size=8, validation=0.3, test=0.3)
    assert dataset.duplicates == tuple((f"cat/{i}.png", f"cat/copy{i}.png") for i in range(9))
    assert dataset.problems == ()
    side = {dataset.paths[i]: name for name, each in dataset.splits.items() for i in each}
    assert all(side[f"cat/{i}.png"] == side[f"cat/copy{i}.png"] for i in range(9))
    assert Counter(side.values()) == {"train": 8 + 4, "validation": 4 + 2, "test": 6 + 3}


def test_one_content_under_two_labels_is_noted_and_never_judged(photos):
    folder = photos({"cat": 6, "dog": 6})
    shutil.copy(folder / "cat" / "0.png", folder / "dog" / "wrong.png")
    for seed in range(8):
        dataset = load_data(folder, size=8, validation=0.3, test=0.3, seed=seed)
        (problem,) = dataset.problems
        assert problem.outcome == "note"
        assert problem.path == "cat/0.png"
        assert "dog/wrong.png" in problem.reason
        train = {dataset.paths[i] for i in dataset.splits["train"]}
        assert {"cat/0.png", "dog/wrong.png"} <= train


def test_a_leak_between_given_splits_is_noted(photos):
    folder = photos({f"{split}/{c}": 3 for split in ("train", "validation") for c in ("a", "b")})
    shutil.copy(folder / "train" / "a" / "0.png", folder / "validation" / "a" / "again.png")
    (problem,) = load_data(folder, size=8).problems
    assert problem.outcome == "note"
    assert "validation/a/again.png" in problem.reason
    assert "leak" in problem.reason
