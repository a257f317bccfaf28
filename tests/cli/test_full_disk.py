"""A full disk: exit code 3, the place is named, and what was half-written is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MISSING = 3
ONE_EPOCH = ["--epochs", 1]


def files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def full(kzoo_command, disk, tmp_path):
    """full("100k", *arguments): the command is refused, and no file is on the disk."""

    def check(size: str, *arguments: object, home: bool = False) -> None:
        folder = disk(size)
        given = [str(text).format(disk=folder) for text in arguments]
        environment = {**os.environ, **({"KZOO_HOME": str(folder / "home")} if home else {})}
        done = kzoo_command(*given, cwd=tmp_path, env=environment)
        assert done.returncode == MISSING, done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("kzoo:")
        assert str(folder) in last
        assert files(folder) == []

    return check


def test_build(full):
    full("100k", "build", "lenet5", "-o", "{disk}/lenet5.keras")


@pytest.mark.slow
def test_convert(full, trained):
    full("100k", "convert", trained, "-o", "{disk}/lenet5.tflite")


def test_the_store_of_a_dataset(full):
    full("1m", "data", "digits", "--size", 64, home=True)


def test_checkpoints(full, trained):
    output = ["-o", "{disk}/lenet5.keras", "--checkpoint-seconds", 0]
    full("200k", "finetune", trained, "digits", *ONE_EPOCH, *output)


@pytest.mark.slow
def test_finetune(full, trained):
    full("200k", "finetune", trained, "digits", *ONE_EPOCH, "-o", "{disk}/lenet5.keras")


@pytest.mark.slow
def test_a_run_keeps_the_steps_that_were_done(kzoo_command, disk, tmp_path):
    folder = disk("600k")
    arguments = ["run", "quickstart", "models=[lenet5]", "train.epochs=1", "-o", folder / "run"]
    done = kzoo_command(*arguments, cwd=tmp_path)
    assert done.returncode == MISSING, done.stderr
    assert "Traceback" not in done.stderr
    assert str(folder) in done.stderr.splitlines()[-1]
    written = files(folder)
    assert "run/ledger/lenet5.build.json" in written
    assert not [name for name in written if Path(name).name.startswith(".")]
