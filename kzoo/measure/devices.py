"""What can be measured on from here: this machine, phones behind adb, a Coral Edge TPU on USB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kzoo.errors import KzooError, MissingError
from kzoo.measure.benchmark_model import benchmark_model
from kzoo.measure.c_runner import compiler
from kzoo.measure.runtimes import BENCHMARK_MODEL, C_RUNTIME, RUNTIMES, choose_runtime
from kzoo.measure.target import open_target
from kzoo.measure.targets import adb
from kzoo.progress import Progress, silent

USB = Path("/sys/bus/usb/devices")
CORAL = {("1a6e", "089a"): "not yet started", ("18d1", "9302"): "ready"}
"""USB vendor and product of an Edge TPU: before the first use has loaded its firmware, and then."""


@dataclass(frozen=True)
class Found:
    """Something to measure on.

    Attributes:
        target: for ``--on``.
        usable: whether it answers and has a runtime. An Edge TPU is not asked.
        trouble: why not, and what to do; None if it is.
        kind: "measured" or "emulated"; None of what is not usable.
        machine: as in a record's ``device``, and ``core_mhz``, the highest clock of each core.
        state: as in a record's ``state_before``.
        runtimes: for ``--runtime``; the C runner, if there is a compiler, is built for it when it
            is first used.
    """

    target: str
    usable: bool
    trouble: str | None = None
    kind: str | None = None
    machine: dict | None = None
    state: dict | None = None
    runtimes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Devices:
    """What `devices` found, this machine first; ``notes`` is what could not be looked for."""

    devices: list[Found]
    notes: list[str]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def devices(*, progress: Progress = silent) -> Devices:
    """Lists this machine and what is attached to it, usable or not.

    Machines behind ssh are not looked for: they are named. Nothing is copied to a phone but the
    script that tells of it, which is removed again.
    """
    notes, phones = [], []
    try:
        phones = adb.attached()
    except MissingError as error:
        notes.append(f"no phones were looked for: {error}")
    found = []
    for number, (name, trouble) in enumerate(
        [("host", None), *((f"adb:{each.serial}", each.trouble) for each in phones)]
    ):
        progress("devices", number, 1 + len(phones))
        found.append(Found(name, usable=False, trouble=trouble) if trouble else _asked(name))
    return Devices(devices=[*found, *_coral()], notes=notes)


def _asked(name: str) -> Found:
    try:
        with open_target(name) as target:
            speeds = {str(core): speed for core, speed in target.core_mhz().items()}
            machine = target.machine() | {"core_mhz": speeds}
            runtimes = _runtimes(name, target.transport.abi)
            return Found(
                name,
                usable=bool(runtimes),
                trouble=None if runtimes else _trouble(compiler, target.transport.abi),
                kind=target.kind,
                machine=machine,
                state=target.state(),
                runtimes=runtimes,
            )
    except KzooError as error:
        return Found(name, usable=False, trouble=str(error).removeprefix(f"{name} is "))


def _runtimes(name: str, abi: str) -> list[str]:
    """Those for Python are looked for here alone: Android has no Python."""
    pythons = [each for each in RUNTIMES if name == "host" and not _trouble(choose_runtime, each)]
    own = [C_RUNTIME] if not _trouble(compiler, abi) else []
    google = [BENCHMARK_MODEL] if not _trouble(benchmark_model, abi) else []
    return [*pythons, *own, *google]


def _trouble(look: Callable[[str], object], what: str) -> str | None:
    """Why it is not there, or None."""
    try:
        look(what)
    except KzooError as error:
        return str(error)
    return None


def _coral() -> list[Found]:
    found = []
    for device in sorted(USB.glob("*/idVendor")):
        ids = device.read_text().strip(), device.with_name("idProduct").read_text().strip()
        if ids in CORAL:
            machine = {"processor": "Coral Edge TPU", "system": f"USB, {CORAL[ids]}"}
            name = f"coral:usb:{len(found)}" if found else "coral"
            found.append(Found(name, usable=True, kind="measured", machine=machine))
    return found
