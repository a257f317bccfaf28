"""A checkpoint is whole or it is not used."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.errors import MissingError
from kzoo.learn.checkpoint import drop_checkpoints, load_checkpoint, save_checkpoint


def save(folder, step: int, size: int = 100) -> None:
    arrays = {"v0": np.full((size,), step, np.float32), "v1": np.arange(3, dtype=np.uint32)}
    save_checkpoint(folder, step, arrays, {"position": [0, 1, step], "loss": 0.1 + 0.2})


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path) -> None:
    path.write_bytes(b"")


damages = pytest.mark.parametrize("damage", [flip, truncate, empty])


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "c", 7)
    arrays, state = load_checkpoint(tmp_path / "c")
    assert state == {"position": [0, 1, 7], "loss": 0.1 + 0.2}
    assert set(arrays) == {"v0", "v1"}
    assert np.array_equal(arrays["v0"], np.full((100,), 7, np.float32))
    assert arrays["v1"].dtype == np.uint32


def test_no_folder_and_no_checkpoint_are_none(tmp_path):
    assert load_checkpoint(tmp_path / "c") is None
    (tmp_path / "other.npz").write_bytes(b"x")
    assert load_checkpoint(tmp_path) is None


def test_the_last_two_are_kept_by_number_and_not_by_name(tmp_path):
    for step in (9, 10, 99, 100, 1_000_000_000):
        save(tmp_path, step)
        assert load_checkpoint(tmp_path)[1]["position"][2] == step
    assert len(list(tmp_path.iterdir())) == 2


@damages
def test_a_damaged_one_falls_back_to_the_one_before(damage, tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    damage(max(tmp_path.iterdir()))
    assert load_checkpoint(tmp_path)[1]["position"][2] == 1
    damage(min(tmp_path.iterdir()))
    assert load_checkpoint(tmp_path) is None


@damages
def test_a_damaged_one_does_not_count_as_kept(damage, tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 20)
    damage(max(tmp_path.iterdir()))
    for step in (11, 12):
        save(tmp_path, step)
    damage(max(tmp_path.iterdir()))
    assert load_checkpoint(tmp_path)[1]["position"][2] == 11


def test_a_full_disk_keeps_the_one_before(small_disk):
    folder = small_disk / "c"
    save(folder, 1)
    with pytest.raises(MissingError, match="no space left"):
        save(folder, 2, size=1_000_000)
    assert load_checkpoint(folder)[1]["position"][2] == 1
    assert len(list(folder.iterdir())) == 1


def test_dropping_leaves_the_neighbours(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / "all" / name, 1)
    drop_checkpoints(tmp_path / "all" / "a")
    assert load_checkpoint(tmp_path / "all" / "b")
    drop_checkpoints(tmp_path / "all" / "b")
    assert not (tmp_path / "all").exists()
