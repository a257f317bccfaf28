"""What is measured on: a name that a user types, opened as an object with the same questions."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from kzoo.errors import UsageError, nearest

TARGETS = {
    "host": "this machine; host:PYTHON with another environment's Python",
    "adb": "an Android phone: adb, or adb:SERIAL where there are several",
    "ssh": "a Raspberry Pi or any Linux machine: ssh:USER@HOST, or a name of ~/.ssh/config",
    "coral": "a Coral Edge TPU here, or coral+ssh:USER@HOST",
    "browser": "a browser on this machine; other devices open the page of kzoo serve",
    "micro": "TensorFlow Lite for Microcontrollers, in a process here",
    "emulated": "emulated:arm64, the C runner for arm64 under qemu; never a latency to quote",
}
"""Scheme → what it is. Each is `kzoo/measure/targets/SCHEME.py` with ``connect(where)``, see
`place_of`."""


@dataclass(frozen=True)
class Setting:
    """How a model is to be run; what a target cannot do it refuses by UsageError.

    Attributes:
        runtime: of `kzoo.measure.runtimes.RUNTIMES`, "litert-c" or "benchmark_model"; None takes
            what the target has.
        threads: of the runtime.
        cpus: the cores it may run on, such as "4-7" or "0,2"; "big" or "little"; None: any.
        delegate: "xnnpack", "none", "gpu", "nnapi" or "edgetpu"; None: the runtime's default.
        warm_up: seconds of runs before the timed ones, at most: they end when two windows' medians
            agree within 2 %. 0: none but the first inference.
        min_runs: timed runs, at least.
        min_seconds: of timed runs, at least; timing ends at 60 s or at this, if it is longer.
    """

    runtime: str | None = None
    threads: int = 1
    cpus: str | None = None
    delegate: str | None = None
    warm_up: float = 10.0
    min_runs: int = 100
    min_seconds: float = 1.0

    @property
    def max_seconds(self) -> float:
        return max(60.0, self.min_seconds)

    @property
    def run_seconds(self) -> float:
        """Of the warm-up and the timed runs, at most."""
        return self.warm_up + self.max_seconds


class Target(Protocol):
    """An open target. `Device` is most of them; a browser and a microcontroller are their own.

    Attributes:
        name: as typed, completed by what tells it from others: "adb:R58N123".
        kind: "measured" or "emulated".
    """

    name: str
    kind: str

    def machine(self) -> dict:
        """``processor``, ``simd``, ``cores``, ``memory_bytes``, ``architecture``, ``system``."""

    def state(self) -> dict:
        """What slows or hastens a run now, None where it is hidden: see `device.STATE`."""

    def check(self, setting: Setting) -> None:
        """Before anything runs: raises UsageError or MissingError for what it cannot do."""

    def time_runs(self, model: Path, setting: Setting) -> dict:
        """The record of deploy/linux/benchmark.py, from a fresh process (or page)."""

    def peak_memory(self, model: Path, setting: Setting) -> dict | None:
        """The same with ``--memory``; None where the target does not tell."""

    def outputs(self, model: Path, inputs: bytes, setting: Setting) -> dict:
        """Runs images one by one; ``inputs`` are raw tensors in the model's own type.

        Returns ``outputs``, the raw output tensors as bytes, beside the runtime and its version.
        """

    def close(self) -> None:
        """Leaves the target as it was found."""


class Place(NamedTuple):
    """A target's name, taken apart.

    Attributes:
        scheme: of `TARGETS`.
        where: what stands behind its colon: "pi@a", "usb:0", or "".
        machine: what an Edge TPU is attached to, a target's name too: "ssh:pi@a"; or "", of this
            machine and of all other schemes.
    """

    scheme: str
    where: str
    machine: str


def place_of(name: str) -> Place:
    """Takes ``SCHEME[:WHERE][+MACHINE]`` apart.

    Raises:
        UsageError: no target has this name.
    """
    scheme = re.match("[^:+]*", name)[0]
    where, machine = name.removeprefix(scheme), ""
    if scheme == "coral":
        where, _, machine = where.partition("+")
    if scheme not in TARGETS or not re.match("(:|$)", where):
        known = ", ".join(TARGETS)
        raise UsageError(f"unknown target {name!r}; known: {known}{nearest(scheme, TARGETS)}")
    return Place(scheme, where.removeprefix(":"), machine)


@contextlib.contextmanager
def open_target(name: str) -> Iterator[Target]:
    """Connects to a target and closes it after the block.

    Raises:
        UsageError: no target has this name.
        MissingError: it is not there, or a tool to reach it is not; the message says what to do.
    """
    place = place_of(name)
    connect = importlib.import_module(f"kzoo.measure.targets.{place.scheme}").connect
    target = connect(place.where, place.machine) if place.machine else connect(place.where)
    try:
        yield target
    finally:
        target.close()
