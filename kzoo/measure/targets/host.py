"""This machine as a target: files are where they are, and a program is a child process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kzoo.errors import MissingError, UsageError
from kzoo.measure.runners import python_runner, runner_for
from kzoo.measure.runtimes import FIND, INSTALL, RUNTIMES
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import Device, Ended, Runner, TimedOut, last_line


def connect(where: str = "") -> Device:
    """This machine; ``where`` is empty, or the Python of another environment here."""
    if not where:
        return Device(Local("host"), runner_for)
    if "@" in where or not (python := shutil.which(Path(where).expanduser())):
        raise UsageError(
            f"host is this machine and has no address, but takes the Python of an environment "
            f"here, such as host:tflite/bin/python; {where!r} is none"
        )
    python = os.path.abspath(python)  # not resolved: the link makes it the environment's
    told = subprocess.run([python, "-c", FIND], capture_output=True, text=True, check=False)
    found = last_line(told.stdout)
    if told.returncode or not found.startswith("["):
        raise UsageError(f"host:{where} is no Python that starts: {last_line(told.stderr)}")
    pythons = {python: json.loads(found)}

    def runner(setting: Setting) -> Runner:
        if setting.runtime not in (None, *RUNTIMES):  # those that need no Python
            return runner_for(setting)
        found = python_runner(setting.runtime, pythons, where)
        if found is None:
            raise MissingError(f"{where} has no runtime with NumPy; {INSTALL['ai-edge-litert']}")
        return found

    return Device(Local(f"host:{where}"), runner)


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

    def remove(self, path: str) -> None:
        """It is a file of this machine."""

    def put_together(self, files: dict[str, Path]) -> str:
        """Links in a folder of their own."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        for name, file in files.items():
            (folder / name).symlink_to(file.resolve())
        return str(folder)

    def run(self, argv: Sequence[str], *, timeout: float, environ: dict | None = None) -> Ended:
        """A child process in a group of its own: what it started ends with it."""
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )
        except OSError as error:  # it may not be run, is for another processor, or is not there
            program = os.path.realpath(argv[0])
            raise MissingError(f"{program} does not start: {error.strerror}") from error
        with process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException as error:  # Ctrl-C too: it must not outlive the question
                with contextlib.suppress(ProcessLookupError):  # it may have ended at this moment
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TimedOut(f"{argv[0]} gave no answer in {timeout:g} s") from error
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
