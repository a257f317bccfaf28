"""The programs of deploy/ that run a model on a device, and which of them a setting asks for."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from kzoo.errors import UsageError
from kzoo.measure.benchmark_model import benchmark_model
from kzoo.measure.deploy import deploy_file
from kzoo.measure.runtimes import BENCHMARK_MODEL, C_RUNTIME, choose_runtime
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import Runner, Transport


def runner_for(setting: Setting) -> Runner:
    """On this machine: deploy/linux/benchmark.py, but for the runtimes that need no Python."""
    if setting.runtime == C_RUNTIME:
        return CRunner()
    if setting.runtime == BENCHMARK_MODEL:
        return benchmark_model(os.uname().machine)
    return PythonRunner(choose_runtime(setting.runtime), sys.executable)


@dataclass(frozen=True)
class PythonRunner(Runner):
    """deploy/linux/benchmark.py with a runtime for Python.

    Attributes:
        name: of the runtime.
        python: the interpreter there.
    """

    name: str
    python: str = "python3"

    def command(self, transport: Transport, setting: Setting) -> tuple[list[str], dict]:
        """As `kzoo.measure.targets.device.Runner.command`."""
        if setting.delegate not in (None, "xnnpack", "none", "edgetpu"):
            raise UsageError(
                f"{self.name} has no delegate {setting.delegate!r}; it has xnnpack, none, edgetpu"
            )
        script = transport.put(deploy_file("linux/benchmark.py"))
        return [self.python, script, "--runtime", self.name], {}


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
