"""This machine as a target: files are where they are, and a program is a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kzoo.errors import UsageError
from kzoo.measure.runners import runner_for
from kzoo.measure.targets.device import Device, Ended, TimedOut


def connect(where: str = "") -> Device:
    """This machine; ``where`` is empty."""
    if where:
        raise UsageError(f"host is this machine and has no address: not {where!r}")
    return Device(Local("host"), runner_for)


class Local:
    """A `kzoo.measure.targets.device.Transport` to the machine that kzoo runs on."""

    kind = "measured"
    abi = os.uname().machine

    def __init__(self, name: str) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="kzoo-")

    def put(self, file: Path) -> str:
        """It is there already."""
        return str(Path(file).resolve())

    def put_together(self, files: dict[str, Path]) -> str:
        """Links in a folder of their own."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        for name, file in files.items():
            (folder / name).symlink_to(file.resolve())
        return str(folder)

    def run(self, argv: Sequence[str], *, timeout: float, environ: dict | None = None) -> Ended:
        """A child process in a group of its own: what it started ends with it."""
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException as error:  # Ctrl-C too: it must not outlive the question
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TimedOut from error
                raise
        return Ended(process.returncode, out, err.decode(errors="replace"))

    def scratch(self, name: str) -> str:
        return str(Path(self._folder.name, name))

    def get(self, path: str) -> bytes:
        content = Path(path).read_bytes()
        Path(path).unlink()
        return content

    def close(self) -> None:
        self._folder.cleanup()
