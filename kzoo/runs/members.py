"""The networks of a run: those that its config names, and those that a distillation adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kzoo.runs.schema import DistillConfig, ModelConfig, RunConfig, TeacherConfig, TrainConfig

FILES = ("convert", "quantize", "check", "profile")
"""What is done with every network that was trained, in this order."""


@dataclass(frozen=True)
class Member:
    """A network of a run.

    Attributes:
        name: of its files and records.
        steps: those that it goes through where the config asks for them.
        model, train: how it is built and trained; None where it is given. A distilled network is
            built as ``alone``.
        size: of its images; None: as the run's.
        given: the file that it is, or "".
        alone, teacher: of a distilled network, the names of the same one trained alone and of its
            teacher, else "".
    """

    name: str
    steps: tuple[str, ...]
    model: ModelConfig | None = None
    train: TrainConfig | None = None
    size: int | tuple[int, int] | None = None
    given: str = ""
    alone: str = ""
    teacher: str = ""

    @property
    def trainer(self) -> str:
        """The step that writes its ``.keras``."""
        return next(step for step in ("distill", "finetune", "build") if step in self.steps)


def members(config: RunConfig) -> dict[str, Member]:
    """Every network of a run by its name, a teacher before those that it teaches."""
    found = []
    teacher = _teacher(config.distill) if config.distill else None
    if teacher:
        found.append(teacher)
    steps = ("build", *["fewshot"] * (config.fewshot is not None))
    if config.trains:
        steps = (*steps, "finetune", *FILES)
    for name, model in config.all_models().items():
        found.append(Member(name, steps, model, config.train))
        if teacher:
            pair = {"alone": name, "teacher": teacher.name}
            found.append(
                Member(f"{name}_distilled", ("distill", *FILES), model, config.train, **pair)
            )
    return {member.name: member for member in found}


def _teacher(distill: DistillConfig) -> Member:
    teacher = distill.teacher
    if isinstance(teacher, str):
        if Path(teacher).suffix in (".keras", ".h5"):
            return Member(f"{Path(teacher).stem}_teacher", ("build", *FILES), given=teacher)
        teacher = TeacherConfig(name=teacher)
    model = ModelConfig(**teacher.model_dump(exclude={"size"}))
    steps = ("build", "finetune", *FILES)
    return Member(f"{model.name}_teacher", steps, model, distill.teacher_train, teacher.size)


def needs(known: Mapping[str, Member], name: str, step: str) -> tuple[tuple[str, str], ...]:
    """The (network, step) whose files a step reads."""
    member = known[name]
    if step in ("fewshot", "finetune"):
        return ((name, "build"),)
    if step == "distill":
        return ((member.alone, "build"), (member.teacher, known[member.teacher].trainer))
    if step in ("convert", "quantize"):
        return ((name, member.trainer),)
    return ((name, "convert"), (name, "quantize")) if step in ("check", "profile") else ()


def asked(known: Mapping[str, Member], steps: Iterable[str]) -> set[tuple[str, str]]:
    """The (network, step) that some steps are."""
    wanted = set(steps)
    return {(name, step) for name in known for step in known[name].steps if step in wanted}


def with_needs(known: Mapping[str, Member], pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """These (network, step) and all that stand before them."""
    found, ahead = set(), list(pairs)
    while ahead:
        pair = ahead.pop()
        if pair not in found:
            found.add(pair)
            ahead += needs(known, *pair)
    return found
