"""Many devices from one file: each measures the same models, all at the same time."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from kzoo.errors import BadInputError, KzooError, UsageError
from kzoo.files import output_folder, read_json, sha256, write_json
from kzoo.lite.tflite_file import tflite_file
from kzoo.measure.profile import profile_all
from kzoo.measure.target import place_of
from kzoo.progress import Progress, silent
from kzoo.runs.config import read_values, valid

APART = ("adb", "ssh")
"""Targets on a machine of their own; what else there is shares the processor of this one."""
PLAIN = r"\w[\w.-]*"


class TargetConfig(BaseModel):
    """A device and how models are run on it, as for `kzoo.profile`; one may stand in several."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    name: str
    on: str
    threads: tuple[PositiveInt, ...] = Field((1,), min_length=1)
    cpus: str | None = None
    delegate: str | None = None
    runtime: str | None = None

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(PLAIN, name):
            raise ValueError("it names a folder: letters, digits, '_', '-' and '.' only")
        return name

    @field_validator("on")
    @classmethod
    def _known(cls, on: str) -> str:
        try:
            place_of(on)
        except UsageError as error:
            raise ValueError(str(error)) from error
        if on == "adb":
            raise ValueError(
                "of a phone name the serial number too: adb:SERIAL, as in kzoo devices"
            )
        return on

    @field_validator("threads", mode="before")
    @classmethod
    def _several(cls, threads: object) -> object:
        return (threads,) if isinstance(threads, int) else threads


class FleetConfig(BaseModel):
    """What `fleet` reads: the settings are those of `kzoo.profile`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: str
    models: tuple[str, ...] = Field(min_length=1)
    targets: tuple[TargetConfig, ...] = Field(min_length=1)
    warm_up: float = Field(10.0, ge=0, allow_inf_nan=False)
    min_runs: int = Field(100, ge=1)
    min_seconds: float = Field(1.0, ge=0, allow_inf_nan=False)
    rounds: int | None = Field(None, ge=1)
    cool_down: float = Field(0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _apart(self) -> FleetConfig:
        for what, names in (
            ("targets of the name", [each.name for each in self.targets]),
            ("models of the file name", [Path(each).stem for each in self.models]),
        ):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"two {what} {twice!r}: their records would be one file")
        return self


@dataclass(frozen=True)
class Fleet:
    """What all devices measured.

    Attributes:
        output: the folder; the record of a model on a target is ``NAME/MODEL.json`` in it.
        records: those of `kzoo.profile`, of this call and of earlier ones, each with the target's
            ``name`` and the ``setting`` that it was measured with.
        kept: how many of them are of earlier calls.
        failures: ``{"name", "on", "model", "error"}``; ``model`` is None where the device failed.
    """

    output: str
    records: list[dict]
    kept: int
    failures: list[dict]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def fleet(config: str | os.PathLike, *, progress: Progress = silent) -> Fleet:
    """Profiles models on many devices, each device in a thread of its own.

    Targets on one device are measured one after another, and the models of a target in turns, as
    `kzoo.measure.profile.profile_all` does. A record is written when the target is done. What has
    one already, of the same bytes of the model and the same setting, is not measured again.

    Args:
        config: a YAML file, see docs/devices/fleet.md.
        progress: told of every record.

    Raises:
        MissingError: the config or a model does not exist, or the output cannot be written.
        UsageError: the config is wrong, or the output is a file.
        BadInputError: a model is no .tflite.
        A device that fails raises nothing; it stands in ``failures``.
    """
    given = valid(FleetConfig, read_values(config, {}, "fleet file"), str(config), _fields)
    digests = {model: sha256(tflite_file(model)) for model in given.models}
    output_folder(given.output)
    todo = {
        each.name: [
            model for model, digest in digests.items() if not _kept(given, each, model, digest)
        ]
        for each in given.targets
    }
    machines: dict[str, list[TargetConfig]] = {}
    for each in given.targets:
        machines.setdefault(_machine(each.on), []).append(each)
    waiting = sum(map(len, todo.values()))
    work = _Work(given, waiting, progress)
    with ThreadPoolExecutor(len(machines)) as pool:
        threads = [pool.submit(work.machine, targets, todo) for targets in machines.values()]
        try:
            for each in as_completed(threads):
                each.result()
        except BaseException:  # Ctrl-C too: what runs is ended, what waits is not begun
            work.stopped.set()
            raise
    records = [
        read_json(_record_file(given, each, model))
        for each in given.targets
        for model, digest in digests.items()
        if _kept(given, each, model, digest)
    ]
    return Fleet(
        output=given.output,
        records=records,
        kept=len(given.targets) * len(digests) - waiting,
        failures=work.failures,
    )


class _Stopped(Exception):
    """The user ended the fleet."""


class _Work:
    """What the threads share."""

    def __init__(self, config: FleetConfig, waiting: int, progress: Progress) -> None:
        self.config, self.failures, self.stopped = config, [], threading.Event()
        self._lock, self._ended, self._waiting, self._told = threading.Lock(), 0, waiting, progress
        progress("fleet", 0, waiting)

    def machine(self, targets: Sequence[TargetConfig], todo: dict[str, list[str]]) -> None:
        """In a thread: the targets of one machine, one after another."""
        try:
            for each in targets:
                if todo[each.name]:
                    self._measure(each, todo[each.name])
        except _Stopped:
            pass

    def _measure(self, target: TargetConfig, models: list[str]) -> None:
        setting = _setting(self.config, target)
        try:
            found = profile_all(models, on=[target.on], progress=self._going_on, **setting)
            known = {"name": target.name, "on": target.on, "setting": setting}
            for each in found.records:
                file = _record_file(self.config, target, each.model)
                file.parent.mkdir(exist_ok=True)
                write_json(file, known | each.to_dict())
            for each in found.failures:
                self._failed(target, each.model, each.error)
        except KzooError as error:
            refused = isinstance(error, BadInputError)  # one model alone is raised
            self._failed(target, models[0] if refused else None, str(error))
        self._told_of(len(models))

    def _failed(self, target: TargetConfig, model: str | None, error: str) -> None:
        said = error.splitlines()[0]
        with self._lock:
            self.failures.append(
                {"name": target.name, "on": target.on, "model": model, "error": said}
            )

    def _told_of(self, records: int) -> None:
        with self._lock:
            self._ended += records
            self._told("fleet", self._ended, self._waiting)

    def _going_on(self, *_: object) -> None:
        if self.stopped.is_set():
            raise _Stopped


def _setting(config: FleetConfig, target: TargetConfig) -> dict:
    """The arguments of `profile_all` beside models and target."""
    return {
        "threads": list(target.threads),
        "runtime": target.runtime,
        "cpus": target.cpus,
        "delegate": target.delegate,
        "warm_up": config.warm_up,
        "min_runs": config.min_runs,
        "min_seconds": config.min_seconds,
        "rounds": config.rounds or (2 if len(config.models) > 1 else 1),
        "cool_down": config.cool_down,
    }


def _record_file(config: FleetConfig, target: TargetConfig, model: str) -> Path:
    return Path(config.output, target.name, f"{Path(model).stem}.json")


def _kept(config: FleetConfig, target: TargetConfig, model: str, digest: str) -> bool:
    """Whether there is a record of these bytes on this device with this setting."""
    file = _record_file(config, target, model)
    if not file.is_file():
        return False
    found = read_json(file)
    asked = (digest, target.on, _setting(config, target))
    return (found.get("model_sha256"), found.get("on"), found.get("setting")) == asked


def _machine(on: str) -> str:
    """What two targets have in common that must not run at the same time."""
    place = place_of(place_of(on).machine or on)
    user, _, machine = place.where.partition("@")
    return f"{place.scheme}:{machine or user}" if place.scheme in APART else "here"


def _fields(location: Sequence[object]) -> list[str]:
    inside = TargetConfig if location[:1] == ("targets",) else FleetConfig
    return list(inside.model_fields)
