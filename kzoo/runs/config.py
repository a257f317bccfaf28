"""A run's YAML config, checked before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kzoo.errors import MissingError, UsageError, nearest

MAX_BYTES = 1_000_000
STEPS = ("build", "finetune", "convert", "quantize", "check", "profile", "report")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """As the arguments of `kzoo.load_data`; ``path`` is its source."""

    path: str
    size: int | tuple[int, int] | None = None
    channels: int = 3
    validation: float = 0.15
    test: float = 0.15
    bad: Literal["fail", "skip"] = "fail"
    max_bad: float = 0.05


class PhaseConfig(_Section):
    """As `kzoo.learn.finetune.Phase`."""

    epochs: int = Field(15, ge=1)
    trainable: str | list[str] = "all"
    optimizer: str | dict[str, object] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    schedule: str | dict[str, object] = "cosine"


class TrainConfig(PhaseConfig):
    """One phase, or several in ``phases``, and the arguments of `kzoo.finetune`."""

    phases: list[PhaseConfig] | None = None
    batch_size: int = Field(32, ge=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    early_stopping: int | None = None
    monitor: Literal["val_loss", "val_accuracy"] = "val_loss"


class QuantizeConfig(_Section):
    """As the arguments of `kzoo.quantize`."""

    samples: int = Field(200, ge=1)
    io: Literal["uint8", "float32"] = "uint8"


class CheckConfig(_Section):
    """The gates of `kzoo.check`, for the int8 file; one that is not met ends the run with exit code 1."""

    limit: int | None = None
    min_agreement: float | None = None
    max_drop: float | None = None
    max_float_ops: int | None = None


class ProfileConfig(_Section):
    """As the arguments of `kzoo.profile`."""

    threads: list[int] = [1]
    runtime: str | None = None
    min_runs: int = Field(100, ge=1)
    min_seconds: float = Field(1.0, ge=0)


class RunConfig(_Section):
    """A whole run; see configs/quickstart.yaml."""

    name: str
    models: list[str] = Field(min_length=1)
    data: DataConfig
    train: TrainConfig = TrainConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    check: CheckConfig = CheckConfig()
    profile: ProfileConfig = ProfileConfig()
    steps: list[Literal[STEPS]] = list(STEPS)
    seed: int = 0

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w][\w.-]*", name):
            raise ValueError("it names a folder: letters, digits, '_', '-' and '.' only")
        return name


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a YAML config, applies ``a.b=value`` overrides, checks every key and value.

    ``path`` is a file, or the name of a config that ships with kzoo ("quickstart").

    Raises:
        MissingError: no such file.
        UsageError: not YAML, an unknown key (with the nearest), a wrong value.
    """
    file = _find(path)
    if file.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES:,} bytes; is it a config?")
    values = _parse(file.read_text(), str(path))
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no mapping of keys to values")
    for override in overrides:
        _apply(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(problem)}" for problem in error.errors())
        raise UsageError(f"{path} is not a valid config:\n{lines}") from error


def _find(path: str | os.PathLike) -> Path:
    package = Path(__file__).parents[1]
    shipped = [
        folder / f"{path}.yaml" for folder in (package / "_configs", package.parent / "configs")
    ]
    for file in (Path(path), *(shipped if re.fullmatch(r"\w+", str(path)) else ())):
        if file.is_file():
            return file
    known = sorted({file.stem for folder in shipped for file in folder.parent.glob("*.yaml")})
    raise MissingError(
        f"there is no config {str(path)!r}{nearest(str(path), known)} (shipped with kzoo: {', '.join(known)})"
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases are not allowed", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


# YAML 1.1 reads 1e-3, without a point, as text; people write learning rates so.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def _parse(text: str, source: str) -> object:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is not YAML: {error}") from error


def _apply(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"an override is key=value, such as train.epochs=3; {override!r} was given"
        )
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}
        values = values[parent]
    values[last] = _parse(text, f"the value of {override!r}")


def _explain(problem: dict) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _fields(problem["loc"][:-1])
        return f"unknown key {place!r}{nearest(str(problem['loc'][-1]), known)} (known: {', '.join(known)})"
    if problem["type"] == "missing":
        return f"{place} is missing"
    return f"{place}: {problem['msg']}; {problem['input']!r} was given"


def _fields(location: tuple) -> list[str]:
    sections = {
        (): RunConfig,
        ("data",): DataConfig,
        ("train",): TrainConfig,
        ("quantize",): QuantizeConfig,
        ("check",): CheckConfig,
        ("profile",): ProfileConfig,
    }
    section = sections.get(
        location, PhaseConfig if location[:2] == ("train", "phases") else RunConfig
    )
    return list(section.model_fields)
