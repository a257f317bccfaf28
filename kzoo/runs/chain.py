"""The section of a config that chains compressions: which, in which order, trained how."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from kzoo.compress.clusters import INITS, PER, Clustering
from kzoo.compress.masks import SCHEDULES, Pruning
from kzoo.compress.masks import SCOPES as PRUNING_SCOPES
from kzoo.compress.qat import RANGES, ROUNDED_PHASE
from kzoo.compress.slimming import IMPORTANCES, Slimming
from kzoo.compress.slimming import SCOPES as SLIMMING_SCOPES
from kzoo.compress.tune import PHASE, tuning_phases
from kzoo.errors import UsageError
from kzoo.learn.lessons import checked_losses
from kzoo.learn.phase import BATCH_NORM, MONITORS, Phase
from kzoo.measure.cost import KINDS

Shares = float | dict[str, float]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TuneConfig(_Section):
    """Fields of a phase and of a training; those without a value are as a compression has them."""

    epochs: int | None = Field(None, ge=1)
    trainable: str | list[str] | None = None
    optimizer: str | dict[str, object] | None = None
    learning_rate: float | None = Field(None, gt=0)
    schedule: str | dict[str, object] | None = None
    decay: float | None = Field(None, gt=0, le=1)
    batch_norm: Literal[BATCH_NORM] | None = None
    batch_size: int | None = Field(None, ge=1)
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    augment: str | list[str | dict[str, object]] | None = None
    early_stopping: int | None = Field(None, ge=1)
    monitor: Literal[tuple(MONITORS)] | None = None
    precision: Literal["float32", "mixed_bfloat16"] | None = None
    checkpoint_seconds: float | None = Field(None, ge=0)

    def changes(self) -> dict:
        """The fields of a training that have a value."""
        return self.model_dump(mode="json", include={*TuneConfig.model_fields}, exclude_none=True)


class Link(TuneConfig):
    """A compression of a chain.

    Attributes:
        verb: its name.
        phase: how it trains where nothing else is said.
    """

    verb: ClassVar[str]
    phase: ClassVar[Phase] = PHASE

    def options(self) -> dict:
        """The arguments of its function that are not of a training."""
        return self.model_dump(mode="json", exclude={*TuneConfig.model_fields})

    def prefixes(self) -> list[str]:
        """All that it says of layers' names."""
        options = self.options()
        shares = (options.get(name) for name in ("sparsity", "ratio"))
        found = [prefix for each in shares if isinstance(each, dict) for prefix in each]
        return [*found, *options.get("include", ()), *options.get("exclude", ())]

    def checked(self) -> None:
        """Raises UsageError for what its types do not tell."""

    @model_validator(mode="after")
    def _values(self) -> Link:
        try:
            self.checked()
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self


class SlimConfig(Link):
    """As the arguments of `kzoo.slim`; ``latency`` is the share that is left of ``latency_of``."""

    verb: ClassVar[str] = "slim"
    macs: float | None = None
    params: float | None = None
    latency: float | None = None
    latency_of: Literal[KINDS] = "int8"
    ratio: Shares | None = None
    importance: Literal[tuple(IMPORTANCES)] = "taylor"
    scope: Literal[SLIMMING_SCOPES] | None = None
    rounds: int = 1
    multiple: int = 8
    duplicates: float | None = None
    blocks: int = 0
    include: list[str] = []
    exclude: list[str] = []

    def checked(self) -> None:
        """As `Link`."""
        options = self.options()
        Slimming(**{name: options[name] for name in options if name != "latency_of"})


class PruneConfig(Link):
    """As the arguments of `kzoo.prune`."""

    verb: ClassVar[str] = "prune"
    sparsity: Shares = 0.8
    threshold: float | None = None
    scope: Literal[PRUNING_SCOPES] = "layer"
    pattern: str = "element"
    pruning_schedule: Literal[SCHEDULES] = "polynomial"
    begin: float = 0.0
    end: float = 0.75
    frequency: int = 20
    include: list[str] = []
    exclude: list[str] = []
    rewind: str | None = None

    def checked(self) -> None:
        """As `Link`."""
        options = self.options()
        del options["rewind"]
        Pruning(schedule=options.pop("pruning_schedule"), **options)


class ClusterConfig(Link):
    """As the arguments of `kzoo.cluster`."""

    verb: ClassVar[str] = "cluster"
    clusters: int = 16
    init: Literal[INITS] = "linear"
    per: Literal[PER] = "tensor"
    keep_zeros: bool = True
    fold: bool = True
    include: list[str] = []
    exclude: list[str] = []

    def checked(self) -> None:
        """As `Link`."""
        options = self.options()
        del options["fold"]
        Clustering(**options)


class QatConfig(Link):
    """As the arguments of `kzoo.qat`."""

    verb: ClassVar[str] = "qat"
    phase: ClassVar[Phase] = ROUNDED_PHASE
    ranges: Literal[RANGES] = "average"
    freeze: float = Field(0.5, ge=0, le=1)
    keep: bool = True


UNDONE = {
    "prune": "its zeros would be filled by a training that does not hold them",
    "cluster": "its shared values would move apart in a training that does not hold them",
    "qat": "its ranges are of the weights that it ends with, which would change",
}
"""Why a compression stands behind the others."""


class LinkConfig(_Section):
    """One compression by its name: ``{prune: {sparsity: 0.6}}``; ``qat`` alone is ``{qat: {}}``."""

    slim: SlimConfig | None = None
    prune: PruneConfig | None = None
    cluster: ClusterConfig | None = None
    qat: QatConfig | None = None

    @property
    def link(self) -> Link:
        """The one that is given."""
        return next(each for each in self._each() if each)

    def _each(self) -> Iterator[Link | None]:
        return (getattr(self, verb) for verb in ORDER)

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {key: {} if each is None else each for key, each in value.items()}
        return value

    @model_validator(mode="after")
    def _one(self) -> LinkConfig:
        if sum(each is not None for each in self._each()) != 1:
            raise ValueError(f"an item of a chain is one of {', '.join(ORDER)}, with its options")
        return self

    @model_serializer
    def _given(self) -> dict:
        return {self.link.verb: self.link.model_dump(mode="json", exclude_none=True)}


ORDER = tuple(LinkConfig.model_fields)
"""Each of them holds what those before it made, and none what those behind it made."""


class CompressConfig(_Section):
    """Compressions that every network of the run goes through, one after another.

    ``teacher`` is "none"; "self", the network as it was before the first; or a trained file.
    ``losses``, ``temperature``, ``at`` and ``augment_seeds`` are as for `kzoo.distill`. What stands
    in ``train`` is for all of ``chain``; what stands in an item of it, for that one.
    """

    teacher: str = "none"
    losses: dict[str, float] | None = None
    temperature: float = Field(4.0, gt=0, allow_inf_nan=False)
    at: list[Annotated[str, Field(pattern=r"^stage\d+$")]] = []
    augment_seeds: int = Field(4, ge=1)
    train: TuneConfig = TuneConfig()
    chain: list[LinkConfig] = Field(min_length=1)

    def links(self) -> list[Link]:
        """The compressions, in their order."""
        return [each.link for each in self.chain]

    def training(self, link: Link) -> dict:
        """The arguments of a compression's training, with its ``phases``."""
        changes = self.train.changes() | link.changes()
        own = {name: changes.pop(name) for name in Phase.__dataclass_fields__ if name in changes}
        if self.teacher != "none":
            changes |= {name: getattr(self, name) for name in LESSONS}
        return changes | {"phases": tuning_phases(own, link.phase)}

    @field_serializer("train")
    def _given(self, train: TuneConfig) -> dict:
        return train.changes()

    @model_validator(mode="after")
    def _in_order(self) -> CompressConfig:
        verbs = [link.verb for link in self.links()]
        for before, after in pairwise(verbs):
            if ORDER.index(after) < ORDER.index(before):
                raise ValueError(
                    f"{after} stands behind {before}: {UNDONE[before]}; the order is "
                    f"{', '.join(ORDER)}"
                )
        return self

    @model_validator(mode="after")
    def _taught(self) -> CompressConfig:
        if self.teacher == "none":
            for name in LESSONS:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is of a teacher's lessons; teacher: self gives one")
        return self

    @field_validator("teacher")
    @classmethod
    def _known_teacher(cls, teacher: str) -> str:
        if teacher not in ("none", "self") and Path(teacher).suffix not in (".keras", ".h5"):
            raise ValueError("a teacher is none, self (the network itself) or a .keras file")
        return teacher

    @field_validator("losses")
    @classmethod
    def _known_losses(cls, losses: dict[str, float] | None) -> dict[str, float] | None:
        return known_losses(losses)


LESSONS = ("losses", "temperature", "at", "augment_seeds")
"""The fields that only a teacher gives a meaning to."""


def known_losses(losses: dict[str, float] | None) -> dict[str, float] | None:
    """Returns them; raises ValueError for names and weights that there are not."""
    try:
        checked_losses(losses, True)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return losses


NAMED = {
    "compress": CompressConfig,
    "train": TuneConfig,
    "chain": LinkConfig,
    "slim": SlimConfig,
    "prune": PruneConfig,
    "cluster": ClusterConfig,
    "qat": QatConfig,
}
"""The sections inside this one, by the key that they stand at."""
