"""A Coral Edge TPU, here or on a machine behind ssh: the Python runner with Coral's delegate."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from pathlib import Path

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.lite.edgetpu import Compiled, compiled
from kzoo.measure.runners import PythonRunner
from kzoo.measure.statistics import median
from kzoo.measure.target import Setting, place_of
from kzoo.measure.targets.device import Device, Runner

FIRST_LONGER = 3.0
"""A first inference so many times longer than later ones is told of."""


def connect(where: str = "", machine: str = "host") -> Coral:
    """An Edge TPU; ``where`` is which one: "", "usb", "pci:1"; of several sticks, ":1" the second.

    ``machine`` is what it is attached to: "ssh:USER@HOST", "host", or "host:PYTHON", by the runtime
    of another environment here.

    Raises:
        UsageError: they are none of these.
        MissingError: as `kzoo.measure.targets.ssh.connect`.
    """
    attached = re.fullmatch("ssh:.+|host(:.+)?", machine)
    if not attached or not re.fullmatch(r"(usb|pci)?(:\d+)?", where):
        raise UsageError(
            "an Edge TPU is coral, coral:usb, coral:pci, coral::1 (the second), or one of these "
            f"and +ssh:USER@HOST or +host:PYTHON; not coral:{where}+{machine}"
        )
    there = place_of(machine)
    behind = importlib.import_module(f"kzoo.measure.targets.{there.scheme}")
    return Coral(behind.connect(there.where), where)


class Coral(Device):
    """A `Device` whose runner loads libedgetpu; it runs compiled files only."""

    operators = None

    def __init__(self, device: Device, which: str) -> None:
        super().__init__(device.transport, device.runner_for)
        behind = "" if self.name == "host" else f"+{self.name}"
        self.name = f"coral{f':{which}' if which else ''}{behind}"
        self._runner_there = device.runner_for
        self._options = (f"device={which}",) if which else ()
        self._compiled = functools.cache(compiled)
        self.runner_for = self._runner

    def check(self, setting: Setting) -> None:
        """As `Device.check`."""
        super().check(_by_edgetpu(setting))

    def time_runs(self, model: Path, setting: Setting) -> dict:
        """As `Device.time_runs`, with ``notes`` on the parts, the versions, the first inference."""
        record = super().time_runs(model, setting)
        return record | {"notes": _notes(self._compiled(model), record)}

    def _runner(self, setting: Setting) -> Runner:
        runner = self._runner_there(setting)
        if not isinstance(runner, PythonRunner):
            raise UsageError(f"{runner.name} has no Edge TPU; leave --runtime out, or name another")
        return dataclasses.replace(runner, delegate_options=self._options)

    def _run(self, model: Path, setting: Setting, options: list, timeout: float) -> dict:
        setting = _by_edgetpu(setting)
        if not self._compiled(model).parts:
            raise BadInputError(
                f"{str(model)!r} is not compiled for the Edge TPU (it has no edgetpu-custom-op); "
                f"kzoo compile {model} makes a file that is, of an int8 one"
            )
        try:
            return super()._run(model, setting, options, timeout)
        except BadInputError as error:
            if "crashed the runtime" not in str(error):
                raise
            raise MissingError(
                f"{error}. On an Edge TPU it is more often libedgetpu, built for another "
                "TensorFlow than the runtime (google-coral/edgetpu#401), or a stick without power"
            ) from error


def _by_edgetpu(setting: Setting) -> Setting:
    if setting.delegate not in (None, "edgetpu"):
        raise UsageError(f"coral runs by the delegate edgetpu, not {setting.delegate}")
    return dataclasses.replace(setting, delegate="edgetpu")


def _notes(file: Compiled, record: dict) -> list[str]:
    notes = []
    there = record.get("delegate_version")
    if file.min_runtime is not None:
        said = f"; its library says {there}" if there else ""
        notes.append(f"compiled for the Edge TPU's runtime {file.min_runtime} or newer{said}")
    if file.left:
        left = ", ".join(f"{count} {name}" for name, count in file.left.items())
        notes.append(f"{file.parts} part(s) on the Edge TPU; left on the CPU: {left}")
    later = median(record["samples_ns"]) / 1e6
    if record["first_ms"] > FIRST_LONGER * later:
        notes.append(
            f"the first inference took {record['first_ms'] / later:.0f} times as long as a later "
            "one: it sends the weights to the Edge TPU. So does the first after another model's"
        )
    return notes
