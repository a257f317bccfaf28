"""The programs of deploy/ that run a model on a device, and which of them a setting asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import MissingError, UsageError
from kzoo.measure.benchmark_model import benchmark_model
from kzoo.measure.deploy import deploy_file
from kzoo.measure.runtimes import (
    BENCHMARK_MODEL,
    C_RUNTIME,
    INSTALL,
    RUNTIMES,
    check_runtime,
    choose_runtime,
)
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import Ended, Runner, Transport


def runner_for(setting: Setting) -> Runner:
    """On this machine: deploy/linux/benchmark.py, but for the runtimes that need no Python."""
    if setting.runtime == C_RUNTIME:
        return CRunner()
    if setting.runtime == BENCHMARK_MODEL:
        return benchmark_model(os.uname().machine)
    return PythonRunner(choose_runtime(setting.runtime), sys.executable)


def python_runner(
    runtime: str | None, pythons: Mapping[str, Sequence[str]], place: str
) -> PythonRunner | None:
    """The first of a machine's Pythons that has the runtime, or the most preferred one for None.

    Args:
        runtime: of `kzoo.measure.runtimes.RUNTIMES`.
        pythons: interpreter → what `kzoo.measure.runtimes.FIND` printed in it.
        place: the machine, for the message.

    Returns None if no runtime is asked for and none is there.

    Raises:
        UsageError: no runtime has this name.
        MissingError: no Python has this one.
    """
    if runtime is not None:
        check_runtime(runtime)
    for wanted in [runtime] if runtime else RUNTIMES:
        for python, found in pythons.items():
            if wanted in found:
                return PythonRunner(wanted, python)
    if runtime:
        looked = ", ".join(pythons) or "no python3"
        raise MissingError(
            f"{place} has no Python with NumPy and {runtime} (looked at {looked}); "
            f"{INSTALL[runtime]}"
        )
    return None


@dataclass(frozen=True)
class PythonRunner(Runner):
    """deploy/linux/benchmark.py with a runtime for Python.

    Attributes:
        name: of the runtime.
        python: the interpreter there.
        delegate_options: what the delegate gets, such as ("device=usb",).
    """

    name: str
    python: str = "python3"
    delegate_options: tuple[str, ...] = ()

    def command(self, transport: Transport, setting: Setting) -> tuple[list[str], dict]:
        """As `kzoo.measure.targets.device.Runner.command`."""
        if setting.delegate not in (None, "xnnpack", "none", "edgetpu"):
            raise UsageError(
                f"{self.name} has no delegate {setting.delegate!r}; it has xnnpack, none, edgetpu"
            )
        script = transport.put(deploy_file("linux/benchmark.py"))
        command = [self.python, script, "--runtime", self.name]
        for option in self.delegate_options:
            command += ["--delegate-option", option]
        return command, {}


NO_GPU = "GPU accelerator could not be loaded"
"""In LiteRT's log; it goes on, on the CPU."""


@dataclass(frozen=True)
class CRunner(Runner):
    """deploy/runner/runner.c with libLiteRt.so: no Python is needed there.

    Attributes:
        loader: whether a C library goes with it, where the device's own is another's (Android) or
            too old.
    """

    name: str = C_RUNTIME
    loader: bool = False

    def command(self, transport: Transport, setting: Setting) -> tuple[list[str], dict]:
        """As `kzoo.measure.targets.device.Runner.command`."""
        from kzoo.measure.c_runner import files, runtime_version

        if setting.delegate not in (None, "xnnpack", "none", "gpu"):
            raise UsageError(
                f"{self.name} has no delegate {setting.delegate!r}; it has xnnpack, none, gpu"
            )
        parts = files(transport.abi, loader=self.loader)
        folder = transport.put_together(parts)
        start = [f"{folder}/runner"]
        for name in parts:
            if name.startswith("ld-linux"):
                start = [f"{folder}/{name}", "--library-path", folder, *start]
        return [
            *start, "--library", f"{folder}/libLiteRt.so", "--runtime-version", runtime_version()
        ], {}  # fmt: skip

    def record(self, ended: Ended, model: Path, setting: Setting) -> dict:
        """As `kzoo.measure.targets.device.Runner.record`; what ran on the CPU is no GPU's."""
        if setting.delegate == "gpu" and NO_GPU in ended.stderr:
            raise MissingError(
                f"{self.name} finds no GPU that it can use; --runtime {BENCHMARK_MODEL} may"
            )
        return super().record(ended, model, setting)
