"""Another processor, emulated by qemu: whether a model runs there and what it computes.

Never how fast: an emulator's time says nothing of a device's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kzoo.errors import MissingError, UsageError
from kzoo.measure.runners import CRunner
from kzoo.measure.runtimes import C_RUNTIME
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import STATE, Device, Ended
from kzoo.measure.targets.host import Local

QEMU = "qemu-aarch64-static"
PROCESSOR = "cortex-a72"
"""A Raspberry Pi 4's."""
CPUINFO = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
"""Of one core, as a Raspberry Pi 4 has it. On what qemu shows instead, this machine's, LiteRT ends
by SIGSEGV."""
NOTE = "emulated by qemu: the outputs are those of the processor, the latency means nothing"


def connect(where: str = "") -> Emulated:
    """A 64-bit ARM processor; ``where`` is "arm64".

    Raises:
        UsageError: another processor.
        MissingError: qemu is not installed.
    """
    if where != "arm64":
        raise UsageError(f"what is emulated is emulated:arm64, not {where!r}")
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise MissingError(f"{QEMU} is not installed; apt-get install qemu-user-static")
    return Emulated(Qemu(qemu))


class Qemu(Local):
    """This machine's files, and programs of another processor."""

    kind = "emulated"
    abi = "aarch64"

    def __init__(self, qemu: str) -> None:
        super().__init__("emulated:arm64")
        self._qemu = qemu
        proc = Path(self._folder.name, "root", "proc")
        proc.mkdir(parents=True)
        cores = len(os.sched_getaffinity(0))
        cpuinfo = "".join(CPUINFO.format(number=number) for number in range(cores))
        (proc / "cpuinfo").write_text(cpuinfo)

    def run(self, argv: Sequence[str], *, timeout: float, environ: dict | None = None) -> Ended:
        """As `Local.run`, by qemu."""
        root = Path(self._folder.name, "root")
        return super().run(
            [self._qemu, "-cpu", PROCESSOR, "-L", root, *argv], timeout=timeout, environ=environ
        )


class Emulated(Device):
    """A `Device` whose times and memory are the emulator's."""

    def __init__(self, transport: Qemu) -> None:
        super().__init__(transport, runner_for)

    def time_runs(self, model: Path, setting: Setting) -> dict:
        """As `Device.time_runs`."""
        return super().time_runs(model, setting) | {"notes": [NOTE]}

    def peak_memory(self, model: Path, setting: Setting) -> None:
        """Not told: it would be that of the emulator and the program it runs, together."""

    def _told(self) -> dict:
        machine = {
            "processor": f"ARM {PROCESSOR} (qemu)",
            "simd": ["asimd"],
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": None,
            "architecture": self.transport.abi,
            "system": "qemu's user mode on Linux",
        }
        return {"machine": machine, "state": dict.fromkeys(STATE), "core_mhz": {}}


def runner_for(setting: Setting) -> CRunner:
    """The C runner: there is no Python for this processor here."""
    if setting.runtime not in (None, C_RUNTIME):
        raise UsageError(f"emulated:arm64 runs {C_RUNTIME}, not {setting.runtime}")
    return CRunner(loader=True)
