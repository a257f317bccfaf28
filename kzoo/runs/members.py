"""The networks of a run: those that its config names, and what distills and compresses adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import UsageError
from kzoo.runs.chain import Link
from kzoo.runs.schema import (
    DistillConfig,
    ModelConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    is_file,
)

FILES = ("convert", "quantize", "check", "profile")
"""What is done with every network that was trained, in this order."""


@dataclass(frozen=True)
class Member:
    """A network of a run.

    Attributes:
        name: of its files and records.
        steps: those that it goes through where the config asks for them.
        model, train: how it is built and trained; None where it is given or compressed. A distilled
            network is built as ``alone``.
        size: of its images; None: as the run's.
        given: the file that it is, or "".
        alone, teacher: of a distilled network, the names of the same one trained alone and of its
            teacher, else "".
        link: of a compressed network, how it was made of ``before``, else None.
        before, first: the network before it in its chain, and that before all compressions.
    """

    name: str
    steps: tuple[str, ...]
    model: ModelConfig | None = None
    train: TrainConfig | None = None
    size: int | tuple[int, int] | None = None
    given: str = ""
    alone: str = ""
    teacher: str = ""
    link: Link | None = None
    before: str = ""
    first: str = ""

    @property
    def trainer(self) -> str:
        """The step that writes its ``.keras``."""
        makers = ("compress", "distill", "finetune", "build")
        return next(step for step in makers if step in self.steps)


def members(config: RunConfig) -> dict[str, Member]:
    """Every network of a run by its name, behind those that it is made of or taught by.

    Where a network is distilled, that is the one that is compressed.
    """
    found = []
    teacher = _teacher(config.distill) if config.distill else None
    if teacher:
        found.append(teacher)
    steps = ("build", *["fewshot"] * (config.fewshot is not None))
    if config.trains:
        steps = (*steps, "finetune", *FILES)
    for name, model in config.all_models().items():
        if is_file(model.name):
            found.append(Member(name, ("build", *FILES), given=model.name))
        else:
            found.append(Member(name, steps, model, config.train))
        if teacher:
            pair = {"alone": name, "teacher": teacher.name}
            found.append(
                Member(f"{name}_distilled", ("distill", *FILES), model, config.train, **pair)
            )
        if config.compress and config.trains:
            found += _chain(found[-1].name, name, config.compress.links())
    names = [member.name for member in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two networks of the run would be called {twice[0]!r}")
    return {member.name: member for member in found}


def _chain(first: str, name: str, links: Iterable[Link]) -> list[Member]:
    """What is made of a trained network, each of the one before."""
    found, before = [], first
    for number, link in enumerate(links, start=1):
        own = f"{name}_{number}_{link.verb}"
        steps = ("compress", *FILES)
        found.append(Member(own, steps, link=link, before=before, first=first))
        before = own
    return found


def chains(known: Mapping[str, Member]) -> dict[str, list[str]]:
    """By the name of a network, those that compressions made of it, in their order."""
    found = {}
    for name, member in known.items():
        if member.first:
            found.setdefault(member.first, []).append(name)
    return found


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
    if step == "compress":
        return tuple(
            (each, known[each].trainer) for each in dict.fromkeys((member.before, member.first))
        )
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
