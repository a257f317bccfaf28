"""The ledger: a JSON record for every step, with the hashes of what went in and what came out."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from kzoo import __version__
from kzoo.environment import environment
from kzoo.files import digest, read_json, sha256, write_json


class Ledger:
    """The records in a run's folder; paths in them are relative to it.

    Attributes:
        folder: the run's folder.
        ran, kept: the steps that were run and those that were found done, in this session.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.ran: list[str] = []
        self.kept: list[str] = []
        self._environment = environment()
        (folder / "ledger").mkdir(parents=True, exist_ok=True)

    def path(self, step: str, model: str) -> Path:
        """Where the record of a step stands."""
        return self.folder / "ledger" / f"{model}.{step}.json"

    def read(self, step: str, model: str) -> dict:
        """The record of a step."""
        return read_json(self.path(step, model))

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
            outputs: the files it writes, relative to the folder.
            work: does it, and returns its record as JSON values.

        Returns:
            The record: ``result`` is what ``work`` returned.
        """
        key = digest(
            {
                "step": step,
                "inputs": inputs,
                "settings": settings,
                "kzoo": __version__,
                "packages": self._environment["packages"],
                # A latency belongs to a machine; weights and files do not.
                "machine": self._environment["machine"] if step == "profile" else None,
            }
        )
        known = self._intact(step, model, key, outputs)
        if known:
            self.kept.append(f"{model}.{step}")
            return known
        started = time.monotonic()
        result = work()
        record = {
            "step": step,
            "model": model,
            "key": key,
            "inputs": dict(inputs),
            "settings": dict(settings),
            "outputs": {name: sha256(self.folder / name) for name in outputs},
            "result": result,
            "seconds": round(time.monotonic() - started, 2),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "environment": self._environment,
        }
        write_json(self.path(step, model), record)
        self.ran.append(f"{model}.{step}")
        return record

    def _intact(self, step: str, model: str, key: str, outputs: list[str]) -> dict | None:
        path = self.path(step, model)
        if not path.exists():
            return None
        record = read_json(path)
        whole = record.get("key") == key and all(
            (self.folder / name).is_file()
            and sha256(self.folder / name) == record["outputs"].get(name)
            for name in outputs
        )
        return record if whole else None
