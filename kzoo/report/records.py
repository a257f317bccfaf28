"""What a run wrote down: its ledgers, read and found to be records."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import BadInputError, MissingError
from kzoo.files import read_json

STEPS = (
    "build", "fewshot", "finetune", "distill", "compress", "convert", "quantize", "check",
    "profile",
)  # fmt: skip
"""The steps that leave a record for a model, in the order they are done."""
PIPELINE = tuple(step for step in STEPS if step not in ("fewshot", "distill", "compress"))
"""Those that every model of a run went through before there were others."""

MADE_BY = {
    "fewshot": {"model": "build"},
    "finetune": {"model": "build"},
    "convert": {"model": "finetune"},
    "quantize": {"model": "finetune"},
    "check": {"model": "finetune", "float32": "convert", "int8": "quantize"},
    "profile": {"float32": "convert", "int8": "quantize"},
}
"""Step → the inputs that are another step's output, by the names that its record gives them."""


SERVED = "ledger/*.served-*.json"
"""What `kzoo serve` keeps in a run's folder."""


@dataclass(frozen=True)
class Records:
    """A run's folder, as far as it was written.

    Attributes:
        folder: where it stands.
        name: the run's name.
        models: in the order of the config.
        config: the resolved config as text; empty where there is none.
        data: the record of the dataset, or None.
        steps: model → step → record; a step that was not done is absent.
        wanted: model → the steps that it goes through.
        distilled: a distilled model → the names of its "teacher" and of the same network trained
            "alone".
        chains: a network → those that compressions made of it, each of the one before.
        served: the file and the record of each measurement that came through `kzoo serve`.
    """

    folder: Path
    name: str
    models: tuple[str, ...]
    config: str
    data: dict | None
    steps: dict[str, dict[str, dict]]
    wanted: dict[str, tuple[str, ...]]
    distilled: dict[str, dict[str, str]]
    chains: dict[str, tuple[str, ...]]
    served: tuple[tuple[Path, dict], ...]

    def all(self) -> list[dict]:
        """Every record, the dataset's first."""
        found = [record for steps in self.steps.values() for record in steps.values()]
        found += [record for _, record in self.served]
        return [self.data, *found] if self.data else found

    def trainer(self, model: str) -> str:
        """The step that trained a model."""
        if self.before(model):
            return "compress"
        return "distill" if model in self.distilled else "finetune"

    def before(self, model: str) -> str:
        """The network that a compressed one was made of, or ""."""
        for first, made in self.chains.items():
            if model in made:
                return (first, *made)[made.index(model)]
        return ""

    def counted(self, model: str) -> tuple[str, str]:
        """The (model, step) whose record counts a model's parameters."""
        if self.before(model):
            return model, "compress"
        # A distilled network is built as the one that is trained alone.
        return self.distilled.get(model, {}).get("alone", model), "build"

    def result(self, model: str, step: str) -> dict | None:
        """What a step returned, or None where it was not done."""
        return self.steps[model].get(step, {}).get("result")


def read_records(folder: str | os.PathLike) -> Records:
    """Reads the records of a run.

    Raises:
        MissingError: the folder does not exist or is no run's folder.
        BadInputError: a record is damaged.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file() or not (folder / "ledger").is_dir():
        what = "has no run.json with a ledger/ beside it" if folder.is_dir() else "is no folder"
        raise MissingError(
            f"{str(folder)!r} {what}: a report is made from a run's folder, such as "
            "runs/quickstart; make one with: kzoo run quickstart"
        )
    run = read_json(folder / "run.json")
    with damaged(folder / "run.json"):
        name, models = str(run["name"]), tuple(run["models"])
        for model in models:
            # The name becomes part of file names.
            if Path(model).name != model:
                raise ValueError(f"{model!r} is no model's name")
        given = run.get("steps", {})
        wanted = {model: tuple(given.get(model, PIPELINE)) for model in models}
        distilled = {
            model: {role: pair[role] for role in ("teacher", "alone")}
            for model, pair in run.get("distilled", {}).items()
        }
        chains = {first: tuple(made) for first, made in run.get("chains", {}).items()}
        named = {*distilled, *chains}
        named |= {name for pair in distilled.values() for name in pair.values()}
        named |= {name for made in chains.values() for name in made}
        if strangers := named - {*models}:
            raise ValueError(f"{sorted(strangers)[0]!r} is none of its models")
    config = folder / "config.yaml"
    return Records(
        folder=folder,
        name=name,
        models=models,
        config=config.read_text(errors="replace") if config.is_file() else "",
        data=_read(ledger(folder, "dataset", "data")),
        steps={
            model: {step: found for step in STEPS if (found := _read(ledger(folder, model, step)))}
            for model in models
        },
        wanted=wanted,
        distilled=distilled,
        chains=chains,
        served=tuple((path, _read(path)) for path in sorted(folder.glob(SERVED))),
    )


def _read(path: Path) -> dict | None:
    if not path.is_file():
        return None
    record = read_json(path)
    with damaged(path):
        fields = {"result": dict, "inputs": dict, "settings": dict, "outputs": dict}
        fields |= {"environment": dict, "date": str}
        for field, kind in fields.items():
            if not isinstance(record[field], kind):
                raise TypeError(f"{field!r} is no {kind.__name__}")
    return record


def ledger(folder: Path, model: str, step: str) -> Path:
    """Where the record of a step stands."""
    return folder / "ledger" / f"{model}.{step}.json"


@contextlib.contextmanager
def damaged(path: Path, command: str = "kzoo run") -> Iterator[None]:
    """Turns what a record with a missing or a wrong field causes into a BadInputError naming it.

    ``command`` is what writes the record again.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise BadInputError(
            f"{str(path)!r} is damaged ({reason}); remove it and do its step again with {command}"
        ) from error


def made_by(records: Records, model: str, step: str) -> dict[str, tuple[str, str]]:
    """A step's inputs that are another step's output → the model and the step that made them."""
    if step == "compress" and (before := records.before(model)):
        first = next(name for name, made in records.chains.items() if model in made)
        return {
            key: (name, _writer(records, name))
            for key, name in (("model", before), ("teacher", first))
        }
    pair = records.distilled.get(model)
    if step == "distill" and pair:
        teacher = pair["teacher"]
        return {"model": (pair["alone"], "build"), "teacher": (teacher, _writer(records, teacher))}
    return {
        key: (model, _writer(records, model) if maker == "finetune" else maker)
        for key, maker in MADE_BY.get(step, {}).items()
    }


def _writer(records: Records, model: str) -> str:
    """The step that wrote the trained network; a teacher that was given is not trained here."""
    step = records.trainer(model)
    return step if step in records.wanted[model] else "build"


def stale(records: Records, model: str) -> list[str]:
    """Steps whose record is about another file than the one that now stands before them.

    A run that was cut short after a change leaves new models beside old measurements.
    """
    found = []
    for step in STEPS:
        inputs = records.steps[model].get(step, {}).get("inputs", {})
        for key, (other, maker) in made_by(records, model, step).items():
            written = records.steps[other].get(maker, {}).get("outputs", {}).values()
            if key in inputs and written and inputs[key] not in written and step not in found:
                found.append(step)
    return found
