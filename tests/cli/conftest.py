"""Small disks, a worked folder, and the laws of a message."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def disk(tmp_path):
    """disk("2m"): a folder on a disk of that size; disk(options="ro"): one that is read-only."""
    mounted = []

    def mount(size: str = "1m", options: str = "rw") -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},{options}", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("needs mount(8) for a small disk")
        if done.returncode:
            pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def contents(folder: Path) -> dict[str, str]:
    """Every path below ``folder`` with its content's hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(kzoo_command):
    """refused(code, said, *arguments, cwd): the command ends so, with one message and no trace."""

    def check(code: int, said: str, *arguments: object, cwd: Path, **options) -> str:
        before = contents(cwd)
        done = kzoo_command(*arguments, cwd=cwd, **options)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        starts = [line for line in done.stderr.splitlines() if line.startswith(("kzoo:", "Error:"))]
        assert len(starts) == 1, done.stderr
        assert said in done.stderr
        assert done.stdout == ""
        assert contents(cwd) == before
        return done.stderr

    return check


@pytest.fixture(scope="session")
def environment_without_terminal() -> dict:
    """The environment of a command whose width is known."""
    return {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
