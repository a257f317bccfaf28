"""The sections of a run's config: which keys there are, of what type, with which defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from kzoo.learn.fewshot import HEADS
from kzoo.learn.phase import BATCH_NORM, MONITORS, Phase, recipe_phases
from kzoo.runs import chain
from kzoo.runs.chain import CompressConfig, known_losses
from kzoo.zoo.blocks import FLAVOURS, NORMS
from kzoo.zoo.build import MAX_SEED

STEPS = (
    "build", "fewshot", "finetune", "distill", "compress", "convert", "quantize", "check",
    "profile", "report",
)  # fmt: skip
"""In the order in which they are done."""
SECTIONS = {
    "train": ("finetune", "distill"),
    "fewshot": ("fewshot",),
    "distill": ("distill",),
    "compress": ("compress",),
    "quantize": ("quantize",),
    "check": ("check",),
    "profile": ("profile",),
}
"""Section -> the steps whose settings stand in it."""


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


class FewshotConfig(_Section):
    """As the arguments of `kzoo.fewshot`."""

    shots: list[Annotated[int, Field(ge=1)]] = Field([1, 2, 4, 8, 16], min_length=1)
    seeds: int = Field(5, ge=1)
    at: list[Annotated[str, Field(pattern=r"^(stage\d+|head|logits)$")]] = []
    head: list[Literal[HEADS]] = Field(["softmax", "ridge"], min_length=1)
    temperature: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        [1.0, 2.0, 4.0, 8.0, 16.0], min_length=1
    )


def _form(model: object) -> str:
    return "<section>" if isinstance(model, (dict, ModelConfig)) else "<name>"


# Tagged, so that a mistake is told of the form that was meant and not of both.
NameOrModel = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[ModelConfig, Tag("<section>")], Discriminator(_form)
]


class TeacherConfig(ModelConfig):
    """A teacher that the run builds and trains; its images may have another size."""

    size: int | tuple[int, int] | None = None


NameOrTeacher = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[TeacherConfig, Tag("<section>")], Discriminator(_form)
]


class DistillConfig(_Section):
    """As the arguments of `kzoo.distill`; what it shares with `kzoo.finetune` stands in ``train``.

    ``teacher`` is a ``.keras`` file, or a network that is trained as ``teacher_train`` says.
    """

    teacher: NameOrTeacher
    teacher_train: TrainConfig = TrainConfig()
    losses: dict[str, float] | None = None
    temperature: float = Field(4.0, gt=0, allow_inf_nan=False)
    at: list[Annotated[str, Field(pattern=r"^stage\d+$")]] = []
    augment_seeds: int = Field(4, ge=1)

    @field_validator("losses")
    @classmethod
    def _known_losses(cls, losses: dict[str, float] | None) -> dict[str, float] | None:
        return known_losses(losses)


class QuantizeConfig(_Section):
    """As the arguments of `kzoo.quantize`."""

    samples: int | None = Field(None, ge=1)
    ranges: Literal["minmax", "average", "percentile", "mse", "kl"] = "minmax"
    exclude: list[str] = []
    equalize: bool = False
    adaround: bool = False
    io: Literal["uint8", "int8", "float32"] | None = None


CHANGES = ("equalize", "adaround")
"""The fields of `QuantizeConfig` that make another network of the one that is exported."""


class CheckConfig(_Section):
    """The gates of `kzoo.check`, for the int8 file; exit code 1 if one is not met."""

    limit: int | None = Field(None, ge=1)
    min_agreement: float | None = Field(None, ge=0, le=1)
    max_drop: float | None = Field(None, ge=-100, le=100)
    max_float_ops: int | None = Field(None, ge=0)


class ProfileConfig(_Section):
    """As the arguments of `kzoo.profile`."""

    threads: list[Annotated[int, Field(ge=1)]] = Field([1], min_length=1)
    runtime: str | None = None
    warm_up: float = Field(10.0, ge=0, allow_inf_nan=False)
    min_runs: int = Field(100, ge=1)
    min_seconds: float = Field(1.0, ge=0, allow_inf_nan=False)


class RunConfig(_Section):
    """A whole run; see configs/quickstart.yaml.

    A model is a name, a section, or a trained ``.keras`` file, which is not trained any more.

    Without ``steps``, those that its sections ask for: "fewshot", "distill" and "compress" where
    there are sections of these names; and all others, unless "fewshot" stands without any section
    of theirs.
    """

    name: str
    models: list[NameOrModel] = Field(min_length=1)
    data: DataConfig
    train: TrainConfig = TrainConfig()
    fewshot: FewshotConfig | None = None
    distill: DistillConfig | None = None
    compress: CompressConfig | None = None
    quantize: QuantizeConfig = QuantizeConfig()
    check: CheckConfig = CheckConfig()
    profile: ProfileConfig = ProfileConfig()
    steps: list[Literal[STEPS]]
    seed: int = Field(0, ge=0, le=MAX_SEED)

    def all_models(self) -> dict[str, ModelConfig]:
        """Every model by its name; a trained file by that of the file, without the ending."""
        models = [ModelConfig(name=m) if isinstance(m, str) else m for m in self.models]
        return {Path(m.name).stem if is_file(m.name) else m.name: m for m in models}

    @property
    def trains(self) -> bool:
        """Whether the networks learn the classes of the data, rather than being looked at alone."""
        return self.fewshot is None or bool({*self.steps} - {"build", "fewshot", "report"})

    def resolved(self) -> dict:
        """The config as JSON values, without sections that no step reads and that say nothing."""
        unread = {
            section
            for section, steps in SECTIONS.items()
            if not set(steps) & set(self.steps)
            and getattr(self, section) == type(self).model_fields[section].default
        }
        return self.model_dump(mode="json", exclude=unread)

    @model_validator(mode="before")
    @classmethod
    def _steps_asked_for(cls, values: object) -> object:
        if not isinstance(values, dict) or "steps" in values:
            return values
        given = {section for section in SECTIONS if values.get(section) is not None}
        if given == {"fewshot"}:
            return values | {"steps": ["build", "fewshot", "report"]}
        absent = {"fewshot", "distill", "compress"} - given
        models = values.get("models")
        if isinstance(models, list) and all(map(is_file, models)):
            absent.add("finetune")
        return values | {"steps": [step for step in STEPS if step not in absent]}

    @model_validator(mode="after")
    def _sections_of_steps(self) -> RunConfig:
        for step in ("fewshot", "distill", "compress"):
            if step in self.steps and getattr(self, step) is None:
                raise ValueError(f"step {step!r} needs a section of that name")
        for model in self.models:
            if is_file(getattr(model, "name", "")):
                raise ValueError(f"models: a trained file stands alone, as {model.name!r}")
            if is_file(model) and (self.fewshot or self.distill):
                raise ValueError(
                    f"models: {model!r} is trained; fewshot and distill work on networks that the "
                    "run builds"
                )
        made = [name for name in CHANGES if getattr(self.quantize, name)]
        if made and "compress" in self.steps and self.compress.links()[-1].verb == "qat":
            raise ValueError(
                f"quantize: {', '.join(made)} changes a network before it is exported; the chain "
                "ends with qat, whose rounding is exported as it was trained: leave out one of them"
            )
        if "fewshot" in self.steps and self.trains and "logits-T" in self.fewshot.head:
            raise ValueError(
                "fewshot: head 'logits-T' stands on the network's own classes, and a run that "
                "trains the network gives it others; steps: [build, fewshot, report] goes with it"
            )
        return self

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w][\w.-]*", name):
            raise ValueError("it names a folder: letters, digits, '_', '-' and '.' only")
        return name


def is_file(model: object) -> bool:
    """Whether what stands for a model is a trained network's file."""
    return isinstance(model, str) and Path(model).suffix in (".keras", ".h5")


NAMED = {
    "data": DataConfig,
    "models": ModelConfig,
    "train": TrainConfig,
    "phases": PhaseConfig,
    "fewshot": FewshotConfig,
    "distill": DistillConfig,
    "teacher": TeacherConfig,
    "teacher_train": TrainConfig,
    "quantize": QuantizeConfig,
    "check": CheckConfig,
    "profile": ProfileConfig,
}


def fields(location: Sequence[object]) -> list[str]:
    """The keys that are known at a place in a config, ``("train", "phases", 0)``."""
    named = chain.NAMED if location[:1] == ("compress",) else NAMED
    inside = [named[part] for part in location if part in named]
    return list((inside[-1] if inside else RunConfig).model_fields)
