"""A run from its config to its report: each model through the steps, in their order."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from kzoo.data.dataset import Dataset
from kzoo.data.load import load_data
from kzoo.errors import MissingError, UsageError
from kzoo.files import disk_errors, write_bytes
from kzoo.learn.augment import augmentation
from kzoo.learn.lessons import AT_STAGES, checked_losses, chosen_cuts
from kzoo.learn.optimizer import make_optimizer
from kzoo.measure.runtimes import choose_runtime
from kzoo.network.model_file import load_model
from kzoo.network.named import layers_named
from kzoo.progress import Progress, silent
from kzoo.registry import entry
from kzoo.report.table import summary_rows
from kzoo.runs.chain import CompressConfig
from kzoo.runs.config import load_config
from kzoo.runs.given import check_given, check_split
from kzoo.runs.ledger import Ledger
from kzoo.runs.link import link_files
from kzoo.runs.members import Member, asked, chains, members, needs, with_needs
from kzoo.runs.schema import STEPS, RunConfig
from kzoo.runs.steps import Steps
from kzoo.zoo.build import skeleton


@dataclass(frozen=True)
class Run:
    """What `run` did.

    Attributes:
        folder: the run's folder.
        rows: one row per model, see `kzoo.report.table.summary_rows`.
        report: the HTML file, or None where the step was not asked for.
        failures: gates that were not met.
        ran, kept: the steps that were run, and those found done.
    """

    folder: str
    rows: list[dict]
    report: str | None
    failures: list[str]
    ran: list[str]
    kept: list[str]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return dict(vars(self))


def run(
    config: RunConfig | str | os.PathLike,
    overrides: Sequence[str] = (),
    *,
    output: str | os.PathLike | None = None,
    progress: Progress = silent,
) -> Run:
    """Runs a config: data in, trained, quantized, checked and measured models and a report out.

    A step whose inputs, settings and outputs are unchanged is not run again; a run that was killed
    goes on where it was, also inside a training. The order of the config's ``steps`` is of no
    concern. Names and values are checked before anything is written.

    Args:
        config: a config, its file, or the name of one that ships with kzoo.
        overrides: ``"train.epochs=3"`` and the like, when ``config`` is a file.
        output: the run's folder, ``runs/<name>`` by default.
        progress: called all along.

    Raises:
        KzooError: as the functions behind the steps do; what was done before stays.
    """
    if not isinstance(config, RunConfig):
        config = load_config(config, overrides)
    networks = members(config)
    for member in networks.values():
        if member.model:
            entry(member.model.name).typed_arguments(member.model.arguments)
    models = config.all_models()
    if len(models) < len(config.models):
        raise UsageError(f"a model stands twice in the config; different ones: {', '.join(models)}")
    if "profile" in config.steps:
        choose_runtime(config.profile.runtime)
    folder = Path(output or Path("runs", config.name))
    _check_folder(folder, config, networks)
    settings = config.data.model_dump()
    data = load_data(settings.pop("path"), seed=config.seed, progress=progress, **settings)
    resolved = yaml.safe_dump(config.resolved(), sort_keys=False).encode()
    if not _holds(folder / "config.yaml", resolved):
        # Not for a config that was accepted before: Keras takes seconds to import.
        _check_training(config, networks, data)
    with disk_errors(folder):
        (folder / "models").mkdir(parents=True, exist_ok=True)
        ledger = Ledger(folder, config.steps)
    try:
        return _done(config, resolved, networks, data, ledger, progress)
    finally:
        ledger.close()


def _check_folder(folder: Path, config: RunConfig, networks: Mapping[str, Member]) -> None:
    """Refuses a folder that is something else, and steps that lack one before them."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the run's folder {str(folder)!r} is a file; give another -o")
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(place, os.W_OK):
        raise MissingError(
            f"no permission to write the run's folder {str(folder)!r}; give another place as -o"
        )
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "ledger").is_dir():
        raise UsageError(
            f"{str(folder)!r} holds other files and no run; give the name of a new folder as -o"
        )
    for name, step in sorted(asked(networks, config.steps)):
        for other, needed in needs(networks, name, step):
            done = (folder / "ledger" / f"{other}.{needed}.json").exists()
            if needed not in config.steps and not done:
                raise UsageError(
                    f"step {step!r} needs {needed!r}, which is neither in steps nor done for "
                    f"{other} in {str(folder)!r}; add it to steps"
                )


def _check_training(config: RunConfig, networks: Mapping[str, Member], data: Dataset) -> None:
    """Refuses what would else be found out after hours of training."""
    for member in networks.values():
        if member.trainer in {"finetune", "distill"} & {*config.steps}:
            for phase in member.train.all_phases(bool(member.model.weights)):
                make_optimizer(phase.optimizer, phase.learning_rate, phase.schedule, 1)
        if member.given and not any(other.teacher == member.name for other in networks.values()):
            check_given(member.given, data, "the model")
    if config.compress and "compress" in config.steps:
        _check_chains(config.compress, networks, data)
    pairs = [member for member in networks.values() if member.teacher]
    if not pairs or "distill" not in config.steps:
        return
    teacher = networks[pairs[0].teacher]
    if teacher.given:
        check_split(teacher.given, data, "the teacher")
    losses = checked_losses(config.distill.losses, True)
    if config.distill.at or losses.keys() & {*AT_STAGES}:
        large = _outline(teacher)
        for member in pairs:
            chosen_cuts(_outline(member), large, losses, config.distill.at)


def _check_chains(config: CompressConfig, networks: Mapping[str, Member], data: Dataset) -> None:
    for link in config.links():
        training = config.training(link)
        for phase in training["phases"]:
            make_optimizer(phase.optimizer, phase.learning_rate, phase.schedule, 1)
        augmentation(training.get("augment", "none"))
        link_files(config, link)
    for first in chains(networks):
        network = _outline(networks[first])
        for link in config.links():
            layers_named(network, link.prefixes())
    if config.teacher not in ("none", "self"):
        check_given(config.teacher, data, "the teacher")


def _outline(member: Member):
    """Its network for the names of its layers; without weights where it is not given."""
    if member.given:
        return load_model(member.given)
    options = member.model.model_dump(include={"name", "norm", "flavour"})
    return skeleton(**options, **member.model.arguments)


def _holds(file: Path, data: bytes) -> bool:
    return file.is_file() and file.read_bytes() == data


def _write_if_new(file: Path, data: bytes) -> None:
    if not _holds(file, data):
        write_bytes(file, data)


def _done(
    config: RunConfig,
    resolved: bytes,
    networks: Mapping[str, Member],
    data: Dataset,
    ledger: Ledger,
    progress: Progress,
) -> Run:
    folder = ledger.folder
    _write_if_new(folder / "config.yaml", resolved)
    summary = {
        "name": config.name,
        "models": [*networks],
        "steps": {name: list(member.steps) for name, member in networks.items()},
    }
    distilled = {
        name: {"teacher": member.teacher, "alone": member.alone}
        for name, member in networks.items()
        if member.teacher
    }
    summary |= {"distilled": distilled} if distilled else {}
    summary |= {"chains": found} if (found := chains(networks)) else {}
    _write_if_new(folder / "run.json", f"{json.dumps(summary, indent=1)}\n".encode())
    work = Steps(config, networks, data, ledger, progress)
    # Steps that are left out are looked at too: what they wrote must fit this config.
    needed = with_needs(networks, asked(networks, config.steps))
    for name in networks:
        for step in STEPS:
            if (name, step) in needed and step != "profile":
                work.do(step, name)
    # Measured last and one after another, so that no training shares the processor.
    for name in networks:
        if (name, "profile") in needed:
            work.do("profile", name)
    return Run(
        folder=str(folder),
        rows=summary_rows(folder),
        report=str(work.report()) if "report" in config.steps else None,
        failures=work.failures,
        ran=ledger.ran,
        kept=ledger.kept,
    )
