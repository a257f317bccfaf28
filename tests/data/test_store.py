"""Decoded once, whole or not there, and never stale."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from kzoo.data import rows, store
from kzoo.data.load import load_data
from kzoo.errors import BadInputError, MissingError


def load(source, **options):
    return load_data(source, **{"size": 8, **options})


@pytest.fixture
def folder(photos):
    return photos({"cat": 5, "dog": 5})


@pytest.fixture
def no_decoding(monkeypatch):
    """Call it, and from then on decoding fails the test."""

    def forbid():
        def decode(*_):
            raise AssertionError("decoded again")

        monkeypatch.setattr(rows, "decode", decode)

    return forbid


def leftovers(home):
    return [path for path in home.rglob("*") if path.is_file() or path.name.startswith(".building")]


def test_the_rows_are_the_files(folder):
    dataset = load(folder, size=(10, 12))
    for row, path in zip(dataset.images, dataset.paths, strict=True):
        assert np.array_equal(row, np.asarray(Image.open(folder / path)))


def test_the_images_are_a_read_only_map_that_another_process_can_open(folder):
    dataset = load(folder)
    assert isinstance(dataset.images, np.memmap)
    assert not dataset.images.flags.writeable
    assert np.array_equal(np.load(dataset.images_file), dataset.images)


def test_the_second_load_decodes_nothing(folder, no_decoding):
    (folder / "cat" / "bad.jpg").write_bytes(b"")
    first = load(folder, bad="skip", max_bad=1)
    before = first.images_file.stat()
    no_decoding()
    second = load(folder, bad="skip", max_bad=1)
    after = second.images_file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert second.summary() == first.summary()
    assert np.array_equal(second.images, first.images)


def test_the_policy_is_applied_at_each_load(folder, no_decoding):
    (folder / "cat" / "bad.jpg").write_bytes(b"")
    load(folder, bad="skip", max_bad=1)
    no_decoding()
    with pytest.raises(BadInputError, match=r"cat/bad\.jpg"):
        load(folder)
    with pytest.raises(BadInputError, match="max-bad"):
        load(folder, bad="skip", max_bad=0)


def test_a_copy_elsewhere_is_the_same_dataset(folder, tmp_path, no_decoding):
    first = load(folder)
    shutil.copytree(folder, tmp_path / "copy")
    no_decoding()
    assert load(tmp_path / "copy").fingerprint == first.fingerprint


@pytest.mark.parametrize("change", ["pixel", "name", "label", "another", "fewer"])
def test_another_content_is_another_dataset(folder, photo, change):
    first = load(folder)
    file = folder / "cat" / "0.png"
    if change == "pixel":
        image = Image.open(file)
        image.putpixel((0, 0), tuple(255 - value for value in image.getpixel((0, 0))))
        image.save(file)
    elif change == "name":
        file.rename(folder / "cat" / "new.png")
    elif change == "label":
        file.rename(folder / "dog" / "new.png")
    elif change == "another":
        photo(folder / "cat" / "new.png", 99)
    else:
        file.unlink()
    second = load(folder)
    assert second.fingerprint != first.fingerprint
    assert second.images_file != first.images_file


@pytest.mark.parametrize("options", [{"size": 9}, {"size": (8, 9)}, {"channels": 1}])
def test_another_size_is_another_store(folder, options):
    assert load(folder, **options).images_file != load(folder).images_file


def test_another_seed_is_another_fingerprint_in_the_same_store(photos, no_decoding):
    folder = photos({"cat": 20, "dog": 20})
    first = load(folder)
    no_decoding()
    second = load(folder, seed=1)
    assert second.images_file == first.images_file
    assert second.fingerprint != first.fingerprint
    assert load(folder, seed=0).fingerprint == first.fingerprint


def without(index, key):
    """As a kzoo wrote it that did not know of ``key``."""
    index.write_text(
        json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k != key})
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "images.npy", 500),
        lambda folder: os.truncate(folder / "images.npy", 0),
        lambda folder: (folder / "images.npy").open("ab").write(b"more"),
        lambda folder: (folder / "images.npy").unlink(),
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "index.json").write_text("{"),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: without(folder / "index.json", "plain"),
        lambda folder: (shutil.rmtree(folder), folder.write_text("a file")),
    ],
)
def test_a_damaged_store_is_built_again(folder, home, damage):
    first = load(folder)
    pixels, summary = np.array(first.images), first.summary()
    size = first.images_file.stat().st_size
    damage(first.images_file.parent)
    second = load(folder)
    assert np.array_equal(second.images, pixels)
    assert second.images_file.stat().st_size == size
    assert second.summary() == summary
    assert len(list((home / "store").iterdir())) == 1


@pytest.mark.parametrize("text", ["{", '{"train": [0], "validation": [0], "test": []}', "[]"])
def test_a_damaged_split_is_made_again(folder, text):
    first = load(folder)
    (file,) = (first.images_file.parent / "splits").iterdir()
    file.write_text(text)
    assert load(folder).fingerprint == first.fingerprint


def test_the_split_is_kept_and_read_back(folder, monkeypatch):
    first = load(folder)
    monkeypatch.setattr("kzoo.data.split.split", None)
    assert load(folder).fingerprint == first.fingerprint


def test_another_process_may_win_the_race(folder, home):
    won = []

    def rival(task, done, total):
        if task == "decoding" and done == total and not won:
            won.append(None)
            won[0] = load(folder).images_file.stat().st_ino

    dataset = load(folder, progress=rival)
    assert dataset.images_file.stat().st_ino == won[0]
    assert len(list((home / "store").iterdir())) == 1


def test_a_file_that_changes_while_it_is_read_is_refused(folder, photo, home):
    def meddle(task, done, total):
        if task == "reading" and done == total:
            photo(folder / "dog" / "4.png", 77)

    with pytest.raises(BadInputError, match=r"dog/4\.png.*changed"):
        load(folder, progress=meddle)
    assert leftovers(home) == []


def test_progress_counts_every_image(folder):
    told = []
    load(folder, progress=lambda *report: told.append(report))
    for task in ("reading", "decoding"):
        assert [r for r in told if r[0] == task] == [(task, i, 10) for i in range(1, 11)]
    told.clear()
    load(folder, progress=lambda *report: told.append(report))
    assert {task for task, _, _ in told} == {"reading"}


def test_an_interrupted_build_leaves_nothing(folder, home):
    def interrupt(task, done, total):
        if task == "decoding" and done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(folder, progress=interrupt)
    assert leftovers(home) == []


def test_what_a_killed_build_left_is_swept_after_a_day(folder, home):
    for name, age in ((".building-old", 2 * 86400), (".building-new", 60)):
        (home / "store" / name).mkdir(parents=True)
        now = (home / "store").stat().st_mtime
        os.utime(home / "store" / name, (now - age, now - age))
    load(folder)
    assert [path.name for path in (home / "store").glob(".building-*")] == [".building-new"]


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A cache on a disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here (it needs root)")
    monkeypatch.setenv("KZOO_HOME", str(disk))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_too_small_is_told_before_the_work(folder, small_disk, no_decoding):
    no_decoding()
    with pytest.raises(MissingError, match=r"1,920,000 bytes.*KZOO_HOME"):
        load(folder, size=(200, 320))
    assert leftovers(small_disk) == []


def test_a_disk_that_fills_up_in_the_middle(folder, small_disk, monkeypatch):
    real = shutil.disk_usage
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: real(path)._replace(free=2**40))
    with pytest.raises(MissingError, match="no space left"):
        load(folder, size=(200, 320))
    assert leftovers(small_disk) == []
    assert real(small_disk).used < 20_000


def test_a_cache_that_may_not_be_written(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store.Path, "mkdir", refuse)
    with pytest.raises(MissingError, match="no permission"):
        load(folder)


@pytest.mark.parametrize("place", ["home", "home/store"])
def test_a_file_in_the_place_of_the_cache(folder, tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file")
    with pytest.raises(MissingError, match="set KZOO_HOME"):
        load(folder)
