"""TensorFlow Lite for Microcontrollers, its interpreter in a process on this machine.

What it tells of a microcontroller: whether the model runs, with which results, and in how much
memory. What it does not: how fast, as it runs the reference kernels on this machine's processor.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import BadInputError, MissingError, UsageError, one_of
from kzoo.lite.inspect import inspect
from kzoo.lite.lint import lint
from kzoo.measure.deploy import deploy_file
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import Device, Runner, Transport
from kzoo.measure.targets.host import Local

RUNTIME = "tflite-micro"
NO_KERNEL = re.compile(r"Failed to get registration from op code (\w+)")
REFUSED = re.compile(r"the model: [^:]*: (?:\S+\.cc(?::\d+)? )?(.*?) ?Node \w+ \(number (\d+)\)")
SHOWN = 3
"""Operators that a message names."""
TIMES = "the times are of reference kernels on this machine: a microcontroller's are others"


def connect(where: str = "") -> Device:
    """The interpreter of the package tflite-micro; ``where`` is empty."""
    if where:
        raise UsageError(f"micro runs on this machine and has no address: not {where!r}")
    transport = Local("micro")
    transport.kind = "emulated"
    return Micro(transport, runner_for)


def runner_for(setting: Setting) -> MicroRunner:
    """The only one. Raises UsageError for what a microcontroller has not, or MissingError."""
    if setting.runtime is not None:
        one_of("the runtime of micro", setting.runtime, [RUNTIME])
    if setting.threads != 1:
        raise UsageError(f"micro has one thread; {setting.threads} were asked for")
    if setting.delegate is not None:
        raise UsageError(f"micro has no delegates; {setting.delegate!r} was asked for")
    if importlib.util.find_spec("tflite_micro") is None:
        raise MissingError("micro needs the package tflite-micro; pip install 'kzoo[micro]'")
    return MicroRunner()


@dataclass(frozen=True)
class MicroRunner(Runner):
    """deploy/micro/benchmark_micro.py."""

    name: str = RUNTIME

    def command(self, _transport: Transport, _setting: Setting) -> tuple[list[str], dict]:
        """As `kzoo.measure.targets.device.Runner.command`."""
        script = deploy_file("micro/benchmark_micro.py")
        return [sys.executable, str(script), "--runtime", RUNTIME], {}


class Micro(Device):
    """A `Device` that tells of arenas, and names the layers that are refused."""

    operators = None

    def time_runs(self, model: Path, setting: Setting) -> dict:
        """As `Device.time_runs`."""
        return super().time_runs(model, setting) | {"notes": [TIMES]}

    def peak_memory(self, model: Path, setting: Setting) -> dict:
        """The smallest arena that the model runs in, as ``peak_bytes``."""
        found = super().peak_memory(model, setting)
        return found | {
            "notes": [
                f"the arena, told by {found['found_by']}: {found['head_bytes']:,} bytes of tensors "
                f"and {found['tail_bytes']:,} of structures, whose pointers are 8 bytes here and 4 "
                f"on a 32-bit device; the model itself takes {found['model_bytes']:,} of flash"
            ]
        }

    def _run(self, model: Path, setting: Setting, options: list, timeout: float) -> dict:
        try:
            return super()._run(model, setting, options, timeout)
        except BadInputError as error:
            raise BadInputError(_located(str(error), model)) from error


def _located(said: str, model: Path) -> str:
    """What the runner said of a model, with the names of its layers where it tells which."""
    missing, refused = NO_KERNEL.search(said), REFUSED.search(said)
    if not missing and not refused and "SIGABRT" not in said:
        return said
    rows = inspect(model, tensors=True, packed=False).tensors
    (predicted,) = lint(model, ["micro"]).predictions
    if missing:
        guilty = [row for row in rows if missing[1] in (row["operator"], _kind(row["operator"]))]
        told = f"tflite-micro has no kernel for {_named(guilty)}"
    elif refused:
        guilty = rows[int(refused[2]) :][:1]
        told = f"tflite-micro refuses {_named(guilty)} ({refused[1] or 'without a reason'})"
    else:
        guilty = [vars(each) for each in predicted.findings]
        told = "a kernel of tflite-micro took a number for impossible and ended it (SIGABRT)"
        if guilty:
            told += f", probably {_named(guilty)}: {guilty[0]['reason']}"
    indices = {row["index"] for row in guilty}
    advice = {each.advice for each in predicted.findings if each.index in indices}
    parts = [f"{str(model)!r}: {told}", *sorted(advice)]
    others = [vars(each) for each in predicted.findings if each.index not in indices]
    if others:
        parts.append(f"also predicted not to run: {_named(others)}")
    return "; ".join(parts)


def _kind(operator: str) -> str:
    """What the interpreter calls an operator: those that are not TensorFlow Lite's are CUSTOM."""
    from kzoo.lite.flatbuffer import OPERATORS

    return operator if operator in OPERATORS.values() else "CUSTOM"


def _named(rows: list[dict]) -> str:
    """ "GELU in gelu, TILE in tile"; the rows have ``operator`` and ``layer``."""
    names = list(dict.fromkeys(f"{row['operator']} in {row['layer']}" for row in rows))
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join(names[:SHOWN] + more)
