"""A machine that runs programs: one of deploy/'s runners at the end of a transport.

The host, a phone behind adb and a Pi behind ssh differ in how files get there and how a command is
started, so that is all a transport is. A damaged model may take the runner down; this lives on.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kzoo.child import LOG_LINES, ChildCrashed
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.measure.deploy import deploy_file
from kzoo.measure.target import Setting

STARTUP_SECONDS = 180.0
"""Time beside the warm-up and the timed runs: a cold import of TensorFlow, a slow init."""

STATE = {
    "governor": str,
    "frequency_mhz": float,
    "load_1min": float,
    "temperature_c": float,
    "thermal_status": int,
    "throttled": str,
    "battery_percent": float,
    "battery_status": str,
    "power_w": float,
}
"""What deploy/linux/state.sh tells of the moment; governors are joined, of the others the highest
counts. ``thermal_status`` is Android's (0 none to 6 shutdown), ``throttled`` a Raspberry Pi's."""


@dataclass(frozen=True)
class Ended:
    """A program that ended on the device; ``returncode`` is minus the signal that killed it."""

    returncode: int
    stdout: bytes
    stderr: str


class TimedOut(MissingError):
    """A program did not end in its time and was stopped."""


class Transport(Protocol):
    """How files get to a machine and programs are started there.

    Attributes:
        name, kind: of the target.
        abi: what ``uname -m`` says there.
    """

    name: str
    kind: str
    abi: str

    def put(self, file: Path) -> str:
        """The path there of a file with this content, copied if it is not there by its hash."""

    def remove(self, path: str) -> None:
        """Removes what `put` copied to this path; a file of this machine stays."""

    def put_together(self, files: dict[str, Path]) -> str:
        """A folder there that has these files by these names, and all may be run."""

    def run(self, argv: Sequence[str], *, timeout: float, environ: dict | None = None) -> Ended:
        """Runs a program to its end. Raises TimedOut, or MissingError if the device is gone."""

    def get(self, path: str) -> bytes:
        """Reads a file that a program wrote there, and removes it."""

    def scratch(self, name: str) -> str:
        """A path there, to be written by a program."""

    def close(self) -> None:
        """Removes what should not stay."""


class Runner(Protocol):
    """A program that runs a model; those of deploy/ take the options of deploy/linux/benchmark.py.

    Attributes:
        name: what records call it.
    """

    name: str

    def command(self, transport: Transport, setting: Setting) -> tuple[list[str], dict]:
        """Argv up to the model, and variables of its environment. Puts its files there first."""

    def argv(self, command: list[str], model: str, setting: Setting, options: list) -> list:
        """The whole of it: ``command``, the model's path there, the setting, further options."""
        argv = [*command, model, "--threads", setting.threads]
        if setting.cpus is not None:
            argv += ["--cpus", setting.cpus]
        if setting.delegate:
            argv += ["--delegate", setting.delegate]
        return [*argv, *options]

    def record(self, ended: Ended, model: Path, setting: Setting) -> dict:  # noqa: ARG002
        """What it told, or the error that its end stands for."""
        return _record(ended, model, self.name)


class Device:
    """A `kzoo.measure.target.Target` of a transport and, for each setting, a runner."""

    def __init__(self, transport: Transport, runner_for) -> None:
        """``runner_for`` gives the `Runner` of a `Setting`, or raises UsageError, MissingError."""
        self.transport, self.runner_for = transport, runner_for
        self.name, self.kind = transport.name, transport.kind

    def machine(self) -> dict:
        """Of the device; asked once."""
        return self._told_once["machine"]

    def state(self) -> dict:
        """Of this moment, each of `STATE`."""
        return self._told()["state"]

    def core_mhz(self) -> dict[int, float]:
        """The highest clock of each core; empty where it is hidden."""
        return self._told_once["core_mhz"]

    def cpus(self, asked: str | None) -> str | None:
        """ "big" and "little" as a list of the device's cores; lists as they are."""
        if asked not in ("big", "little"):
            return asked
        speeds = self.core_mhz()
        if len(set(speeds.values())) < 2:
            raise UsageError(f"{self.name} has cores of one speed: none is {asked}")
        wanted = max(speeds.values()) if asked == "big" else min(speeds.values())
        return ",".join(str(core) for core, speed in speeds.items() if speed == wanted)

    def check(self, setting: Setting) -> None:
        """As `kzoo.measure.target.Target.check`; the runner is put there, to be found by hash."""
        self.runner_for(setting).command(self.transport, setting)
        self.cpus(setting.cpus)

    def time_runs(self, model: Path, setting: Setting) -> dict:
        """Times the model in a fresh process; the record of the runner.

        Raises:
            MissingError: the runtime is not installed, or the device is gone.
            BadInputError: the runtime refuses the model, crashes on it or does not answer.
            ChildCrashed: the runner failed otherwise.
        """
        options = ["--warm-up", setting.warm_up, "--min-runs", setting.min_runs]
        options += ["--min-seconds", setting.min_seconds, "--max-seconds", setting.max_seconds]
        record = self._run(model, setting, options, setting.run_seconds + STARTUP_SECONDS)
        asked, told = setting.delegate, record["delegate"]
        if asked in ("gpu", "nnapi") and asked not in told.lower():
            note = f"asked for the delegate {asked}; the runtime tells of {told}"
            record["notes"] = [*record.get("notes", []), note]
        return record

    def peak_memory(self, model: Path, setting: Setting) -> dict | None:
        """Peak and baseline resident bytes, of a process that times nothing; None if not told."""
        record = self._run(model, setting, ["--memory"], STARTUP_SECONDS)
        return record if "peak_bytes" in record else None

    def operators(self, model: Path, setting: Setting, mode: str) -> dict:
        """The runner's record with ``operators``; ``mode`` is "delegate" or "node"."""
        options = ["--ops", mode, "--warm-up", setting.warm_up, "--min-runs", setting.min_runs]
        return self._run(model, setting, options, setting.run_seconds + STARTUP_SECONDS)

    def outputs(self, model: Path, inputs: bytes, setting: Setting) -> dict:
        """As `kzoo.measure.target.Target.outputs`."""
        name = hashlib.sha256(inputs).hexdigest()[:16]
        there = self.transport.scratch(f"{name}.out")
        with tempfile.NamedTemporaryFile(suffix=".in") as file:
            file.write(inputs)
            file.flush()
            sent = self.transport.put(Path(file.name))
            options = ["--inputs", sent, "--outputs", there]
            record = self._run(model, setting, options, setting.max_seconds + STARTUP_SECONDS)
        self.transport.remove(sent)  # a data set comes in many pieces, a device has little space
        return record | {"outputs": self.transport.get(there)}

    def close(self) -> None:
        self.transport.close()

    def _run(self, model: Path, setting: Setting, options: list, timeout: float) -> dict:
        runner = self.runner_for(setting)
        command, environ = runner.command(self.transport, setting)
        setting = dataclasses.replace(setting, cpus=self.cpus(setting.cpus))
        argv = runner.argv(command, self.transport.put(model), setting, options)
        argv = [str(part) for part in argv]
        try:
            ended = self.transport.run(argv, timeout=timeout, environ=environ)
        except TimedOut as error:
            raise BadInputError(
                f"{str(model)!r}: {runner.name} gave no answer in {timeout:g} s and was stopped"
            ) from error
        if ended.returncode < 0:
            raise BadInputError(f"{str(model)!r} {_crash(runner.name, -ended.returncode)}")
        return runner.record(ended, model, setting) | {"runner": runner.name}

    def _told(self) -> dict:
        script = self.transport.put(deploy_file("linux/state.sh"))
        return told(self.transport.run(["sh", script], timeout=30).stdout.decode(errors="replace"))

    @functools.cached_property
    def _told_once(self) -> dict:
        return self._told()


def told(text: str) -> dict:
    """What deploy/linux/state.sh printed: ``machine``, ``state`` and ``core_mhz``."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if separator and value.strip():
            values.setdefault(name, []).append(value.strip())

    def largest(name: str, divisor: float) -> float | None:
        numbers = [float(v) for v in values.get(name, []) if _is_number(v)]
        return max(numbers) / divisor if numbers else None

    def text_of(name: str) -> str:
        return " ".join(values.get(name, [""])[0].split())

    current, volts = largest("current_ua", 1e6), largest("voltage_uv", 1e6)
    thermal = largest("thermal_status", 1)
    flags = text_of("flags").split()
    memory = largest("memory_kb", 1)
    speeds = {}
    for pair in values.get("core_khz", []):
        core, _, khz = pair.partition(" ")
        if core.isdigit() and khz.isdigit():
            speeds[int(core)] = int(khz) / 1000
    from kzoo.environment import SIMD

    return {
        "state": {
            "governor": ", ".join(sorted(set(values.get("governor", [])))) or None,
            "frequency_mhz": largest("frequency_khz", 1000),
            "load_1min": largest("load", 1),
            "temperature_c": largest("temperature_mc", 1000),
            "thermal_status": None if thermal is None else int(thermal),
            "throttled": text_of("throttled") or None,
            "battery_percent": largest("battery_percent", 1),
            "battery_status": text_of("battery_status") or None,
            "power_w": None if None in (current, volts) else round(abs(current * volts), 3),
        },
        "machine": {
            "processor": text_of("processor") or text_of("architecture"),
            "model": text_of("model") or None,
            "simd": [name for name in SIMD if name in flags],
            "cores": int(largest("cores", 1) or 1),
            "memory_bytes": None if memory is None else int(memory) * 1024,
            "architecture": text_of("architecture"),
            "system": text_of("system"),
        },
        "core_mhz": dict(sorted(speeds.items())),
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _crash(runner: str, number: int) -> str:
    name = {each.value: each.name for each in signal.Signals}.get(number, f"signal {number}")
    hint = "is there memory enough?" if name == "SIGKILL" else "the file is probably damaged"
    return f"crashed the runtime {runner} ({name}); {hint}"


def _record(ended: Ended, model: Path, runner: str) -> dict:
    """The last line of stdout, or the error that the exit code stands for."""
    if ended.returncode == 0:
        try:
            # A damaged model's names are bytes of any kind.
            return json.loads(ended.stdout.decode(errors="replace").splitlines()[-1])
        except (IndexError, ValueError) as error:
            raise ChildCrashed(f"{runner} printed no record", _tail(ended.stderr)) from error
    said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    if ended.returncode == BadInputError.exit_code and said:
        raise BadInputError(f"{str(model)!r}: {said[-1].removeprefix('error: ')}")
    if ended.returncode == MissingError.exit_code and said:
        raise MissingError(said[-1].removeprefix("error: "))
    if ended.returncode == UsageError.exit_code and said:
        raise UsageError(said[-1].removeprefix("error: "))
    raise ChildCrashed(f"{runner} ended with exit code {ended.returncode}", _tail(ended.stderr))


def last_line(text: str) -> str:
    """What a program said last, or that it said nothing."""
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-LOG_LINES:])
