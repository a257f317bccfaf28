"""The ledger: a JSON record for every step, with the hashes of what went in and what came out."""

from __future__ import annotations

import datetime
import fcntl
import functools
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from kzoo.environment import environment
from kzoo.errors import BadInputError, UsageError
from kzoo.files import digest, read_json, sha256, write_json
from kzoo.measure.deploy import deploy_file

_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")
"""What `kzoo.files.atomic` leaves when its process is killed."""

ROOMS = {
    "data": ("data",),
    "build": ("zoo", "network", "registry.py"),
    "fewshot": ("learn",),
    "finetune": ("learn",),
    "distill": ("learn",),
    "compress": ("compress", "learn"),
    "convert": ("lite", "compress"),
    "quantize": ("lite", "compress"),
    "check": ("lite", "compress"),
    "profile": ("measure",),
    "report": ("report",),
}
"""Step → the rooms whose code decides its result, beside what comes to it by hashes."""


@functools.cache
def _code(step: str) -> str:
    """The hash of a step's code, so that another kzoo does its work again, where it differs."""
    places = [Path(__file__).parents[1] / room for room in ROOMS[step]]
    files = [
        file for place in places for file in (place.rglob("*.*") if place.is_dir() else [place])
    ]
    if step == "profile":
        files.append(deploy_file("linux/benchmark.py"))
    return digest([sha256(file) for file in sorted(files) if file.suffix in (".py", ".html")])


class Ledger:
    """The records in a run's folder; paths in them are relative to it.

    One process at a time has it: another is refused as long as this one lives.

    Attributes:
        folder: the run's folder.
        steps: those that may be done; others must have been done before, with the same settings.
        ran, kept: the steps that were run and those that were found done, in this session.
    """

    def __init__(self, folder: Path, steps: Collection[str]):
        self.folder = folder
        self.steps = {"data", "report", *steps}
        self.ran: list[str] = []
        self.kept: list[str] = []
        self._environment = environment()
        (folder / "ledger").mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise UsageError(
                f"another kzoo run works in {str(folder)!r}; wait for it, or give another -o"
            ) from error
        for file in folder.rglob(".*"):
            if _TEMPORARY.fullmatch(file.name) and file.is_file():
                file.unlink()

    def close(self) -> None:
        """Lets the next process have the folder."""
        os.close(self._lock)

    def path(self, step: str, model: str) -> Path:
        """Where the record of a step stands."""
        return self.folder / "ledger" / f"{model}.{step}.json"

    def intact(self, step: str, model: str) -> dict | None:
        """The record of a step if it is whole and its outputs are as they were written."""
        try:
            record = read_json(self.path(step, model))
            whole = bool(record["key"]) and all(
                (self.folder / name).is_file() and sha256(self.folder / name) == written
                for name, written in record["outputs"].items()
            )
        except (BadInputError, OSError, LookupError, TypeError, AttributeError):
            return None
        return record if whole else None

    def step(
        self,
        step: str,
        model: str,
        *,
        inputs: Mapping[str, str],
        settings: Mapping[str, object],
        outputs: list[str],
        work: Callable[[], dict],
    ) -> dict:
        """Does a step's work unless it was done with the same inputs and its outputs are intact.

        Args:
            step, model: its name.
            inputs: hashes of what it reads.
            settings: all else that decides its result, JSON values.
            outputs: the files it writes, relative to the folder; patterns such as "plots/*.png".
            work: does it, and returns its record as JSON values.

        Returns:
            The record: ``result`` is what ``work`` returned.
        """
        key = digest(
            {
                "step": step,
                "inputs": inputs,
                "settings": settings,
                "code": _code(step),
                "packages": self._environment["packages"] | {"kzoo": None},
                "backend": self._environment["backend"],
                # A latency belongs to a machine; weights and files do not.
                "machine": self._environment["machine"] if step == "profile" else None,
            }
        )
        known = self.intact(step, model)
        if known and known["key"] == key:
            self.kept.append(f"{model}.{step}")
            return known
        if step not in self.steps:
            raise UsageError(
                f"what {step!r} wrote for {model} in {str(self.folder)!r} is missing or damaged, "
                f"or was made with other settings or versions; add {step!r} to steps"
            )
        started = time.monotonic()
        result = work()
        record = {
            "step": step,
            "model": model,
            "key": key,
            "inputs": dict(inputs),
            "settings": dict(settings),
            "outputs": {
                file.relative_to(self.folder).as_posix(): sha256(file)
                for pattern in outputs
                for file in sorted(self.folder.glob(pattern))
            },
            "result": result,
            "seconds": round(time.monotonic() - started, 2),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "environment": self._environment,
        }
        write_json(self.path(step, model), record)
        self.ran.append(f"{model}.{step}")
        return record
