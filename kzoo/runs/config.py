"""A run's YAML config, checked before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from kzoo.errors import MissingError, UsageError, nearest
from kzoo.learn.phase import BATCH_NORM, MONITORS, Phase, recipe_phases
from kzoo.runs.shipped import shipped_configs
from kzoo.zoo.blocks import FLAVOURS, NORMS
from kzoo.zoo.build import MAX_SEED

MAX_BYTES = 1_000_000
SHOWN = 80
"""Characters of a wrong value that a message repeats."""
STEPS = ("build", "finetune", "convert", "quantize", "check", "profile", "report")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """As the arguments of `kzoo.load_data`; ``path`` is its source, and the seed is the run's."""

    path: str
    size: int | tuple[int, int] | None = None
    channels: Literal[1, 3] = 3
    validation: float = Field(0.15, ge=0, lt=1)
    test: float = Field(0.15, ge=0, lt=1)
    bad: Literal["fail", "skip"] = "fail"
    max_bad: float = Field(0.05, ge=0, le=1)


class ModelConfig(_Section):
    """A model that is not built as its card says; see `kzoo.build`."""

    name: str
    norm: Literal[NORMS] = "batch"
    flavour: Literal[tuple(FLAVOURS)] | None = None
    auxiliary: bool = False
    weights: str | None = None
    arguments: dict[str, object] = {}


class PhaseConfig(_Section):
    """As `kzoo.learn.phase.Phase`."""

    epochs: int = Field(15, ge=1)
    trainable: str | list[str] = "all"
    optimizer: str | dict[str, object] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    schedule: str | dict[str, object] = "cosine"
    decay: float = Field(1.0, gt=0, le=1)
    batch_norm: Literal[BATCH_NORM] = "batch"


class TrainConfig(PhaseConfig):
    """The arguments of `kzoo.finetune`.

    Without ``phases``, those of `kzoo.learn.phase`'s recipe for random or for pretrained weights;
    the fields of a phase that stand here and are not the defaults change its last one.
    Without ``auxiliary_weight``, every network has that of its card.
    """

    phases: list[PhaseConfig] | None = Field(None, min_length=1)
    batch_size: int = Field(32, ge=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    augment: str | list[str | dict[str, object]] = "none"
    auxiliary_weight: float | None = Field(None, ge=0, allow_inf_nan=False)
    early_stopping: int | None = Field(None, ge=1)
    monitor: Literal[tuple(MONITORS)] = "val_loss"
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    checkpoint_seconds: float = Field(60.0, ge=0)

    @model_validator(mode="after")
    def _one_or_several(self) -> TrainConfig:
        if self.phases:
            default = PhaseConfig()
            for key in PhaseConfig.model_fields:
                if getattr(self, key) != getattr(default, key):
                    raise ValueError(f"phases are given, so {key} stands in each of them, not here")
        return self

    def all_phases(self, pretrained: bool) -> list[Phase]:
        """``phases``, or those of the recipe for such weights, changed by the section's fields."""
        if self.phases:
            return [Phase(**phase.model_dump(mode="json")) for phase in self.phases]
        default = PhaseConfig()
        own = {key: getattr(self, key) for key in PhaseConfig.model_fields}
        changes = {key: value for key, value in own.items() if value != getattr(default, key)}
        return [*recipe_phases("auto", pretrained, changes)]


class QuantizeConfig(_Section):
    """As the arguments of `kzoo.quantize`."""

    samples: int = Field(200, ge=1)
    io: Literal["uint8", "float32"] = "uint8"


class CheckConfig(_Section):
    """The gates of `kzoo.check`, for the int8 file; exit code 1 if one is not met."""

    limit: int | None = Field(None, ge=1)
    min_agreement: float | None = Field(None, ge=0, le=1)
    max_drop: float | None = None
    max_float_ops: int | None = Field(None, ge=0)


class ProfileConfig(_Section):
    """As the arguments of `kzoo.profile`."""

    threads: list[Annotated[int, Field(ge=1)]] = Field([1], min_length=1)
    runtime: str | None = None
    min_runs: int = Field(100, ge=1)
    min_seconds: float = Field(1.0, ge=0)


def _form(model: object) -> str:
    return "<section>" if isinstance(model, (dict, ModelConfig)) else "<name>"


# Tagged, so that a mistake is told of the form that was meant and not of both.
NameOrModel = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[ModelConfig, Tag("<section>")], Discriminator(_form)
]


class RunConfig(_Section):
    """A whole run; see configs/quickstart.yaml."""

    name: str
    models: list[NameOrModel] = Field(min_length=1)
    data: DataConfig
    train: TrainConfig = TrainConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    check: CheckConfig = CheckConfig()
    profile: ProfileConfig = ProfileConfig()
    steps: list[Literal[STEPS]] = list(STEPS)
    seed: int = Field(0, ge=0, le=MAX_SEED)

    def all_models(self) -> dict[str, ModelConfig]:
        """Every model by its name."""
        models = [ModelConfig(name=m) if isinstance(m, str) else m for m in self.models]
        return {model.name: model for model in models}

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
    try:
        text = file.read_text()
    except ValueError as error:
        raise UsageError(f"{path} is not a text file: {error}") from error
    values = _parse(text, str(path))
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
    shipped = shipped_configs()
    if Path(path).is_file():
        return Path(path)
    if str(path) in shipped:
        return shipped[str(path)]
    raise MissingError(
        f"there is no config {str(path)!r}{nearest(str(path), shipped)} "
        f"(shipped with kzoo: {', '.join(shipped)})"
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
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the date 2026-99-99
        raise UsageError(f"{source} is not YAML: {error}") from error


def read_arguments(arguments: Sequence[str]) -> dict[str, object]:
    """Reads ``("depth=3", "activation=tanh")`` as ``{"depth": 3, "activation": "tanh"}``.

    Raises:
        UsageError: no ``key=value``, a key twice, a value that is not YAML.
    """
    values: dict[str, object] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise UsageError(
                f"an argument is NAME=VALUE, such as alpha=0.5; {argument!r} was given"
            )
        if key in values:
            raise UsageError(f"the argument {key!r} is given twice")
        values[key] = _parse(text, f"the value of {argument!r}")
    return values


def _apply(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"an override is key=value, such as train.epochs=3; {override!r} was given"
        )
    value = _parse(text, f"the value of {override!r}")
    *parents, last = key.split(".")
    for parent in parents:
        place = _place(values, parent, override)
        inside = values[place] if isinstance(values, list) else values.get(place)
        if not isinstance(inside, (dict, list)):
            inside = values[place] = {}
        values = inside
    values[_place(values, last, override)] = value


def _place(values: dict | list, part: str, override: str) -> str | int:
    if isinstance(values, dict):
        return part
    if not part.isdecimal() or int(part) >= len(values):
        raise UsageError(
            f"{override!r}: there is a list of {len(values)} before {part!r}; "
            f"its items are called 0 to {len(values) - 1}"
        )
    return int(part)


def _explain(problem: dict) -> str:
    location = tuple(part for part in problem["loc"] if not str(part).startswith("<"))
    place = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _fields(location[:-1])
        close = nearest(str(location[-1]), known)
        return f"unknown key {place!r}{close} (known: {', '.join(known)})"
    if problem["type"] == "missing":
        return f"{place} is missing"
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        return f"{place}: {text}"
    given = repr(problem["input"])
    given = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
    return f"{place}: {text}; {given} was given"


def _fields(location: tuple) -> list[str]:
    sections = {
        (): RunConfig,
        ("data",): DataConfig,
        ("train",): TrainConfig,
        ("quantize",): QuantizeConfig,
        ("check",): CheckConfig,
        ("profile",): ProfileConfig,
    }
    inside = PhaseConfig if location[:2] == ("train", "phases") else RunConfig
    inside = ModelConfig if location[:1] == ("models",) else inside
    section = sections.get(location, inside)
    return list(section.model_fields)
