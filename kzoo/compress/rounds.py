"""The rounds of slimming: what each begins with, kept in files, so that a stopped one goes on."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kzoo.compress.branches import without_branches
from kzoo.compress.channels import channels
from kzoo.compress.duplicates import without_duplicates
from kzoo.compress.groups import groups
from kzoo.compress.narrow import narrowed
from kzoo.compress.slimming import Slimming, Whole, remaining
from kzoo.data.dataset import Dataset
from kzoo.errors import KzooError, UsageError
from kzoo.files import digest, disk_errors, read_json, write_json
from kzoo.learn.checkpoint import drop_checkpoints
from kzoo.learn.phase import Phase
from kzoo.network.count import macs as macs_of
from kzoo.network.count import parameters
from kzoo.network.model_file import load_model, save_model
from kzoo.progress import Progress

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def workplace(output: Path | None, recipe: dict) -> Iterator[Path]:
    """A folder for what stands between the rounds: beside the output, and gone when it is done."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
            yield Path(folder)
        return
    folder = output.with_name(f"{output.name}.rounds") / digest(recipe)[:16]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except KzooError:
        if not any(folder.glob("1_trained*")):  # what was asked is wrong: nothing is left of it
            drop_checkpoints(folder)
        raise
    drop_checkpoints(folder)


def renumbered(rows: Sequence[dict], before: Sequence[dict]) -> list[dict]:
    """Epochs and phases of a round as those behind the rounds before it."""
    phases, epochs = (before[-1][key] if before else 0 for key in ("phase", "epoch"))
    return [row | {"phase": row["phase"] + phases, "epoch": row["epoch"] + epochs} for row in rows]


@dataclass(frozen=True)
class Asked:
    """What every round goes by."""

    slimming: Slimming
    cost: Callable[[keras.Model], float] | None
    data: Dataset
    seed: int
    notes: Mapping[str, object]
    progress: Progress


def prepared(folder: Path, model: keras.Model, asked: Asked) -> dict:
    """Keeps what the rounds begin with, 0.keras, and tells what was removed for it."""
    told = folder / "0.json"
    if not told.exists():
        slimming = asked.slimming
        whole = {"params": parameters(model)[1], "macs": macs_of(model)}
        whole["cost"] = asked.cost(model) if slimming.latency else None
        model, blocks = without_branches(
            model, slimming.blocks, asked.data, asked.seed, asked.progress
        )
        joined = 0
        if slimming.duplicates is not None:
            found = channels(model)
            among = groups(found, slimming.include, slimming.exclude)
            model, joined = without_duplicates(found, slimming.duplicates, among)
        save_model(model, folder / "0.keras", notes=asked.notes, force=True)
        write_json(told, {**whole, "blocks": blocks, "duplicates": joined})
    return read_json(told)


def narrowed_for(folder: Path, i: int, began: Mapping[str, object], asked: Asked) -> tuple:
    """Keeps what is trained in round ``i``; gives its file and its counts."""
    start, told = folder / f"{i}.keras", folder / f"{i}.json"
    if not told.exists():
        slimming = asked.slimming
        first = channels(load_model(folder / "0.keras"))
        found = channels(load_model(folder / f"{i - 1}_trained.keras")) if i > 1 else first
        whole = Whole(
            *(began[name] for name in ("params", "macs", "cost")),
            {
                group.layers: len(group.roots)
                for group in groups(first, slimming.include, slimming.exclude)
            },
        )
        part = i / slimming.rounds
        keep = remaining(found, slimming, whole, part, asked.data, asked.seed + i, asked.cost)
        small = narrowed(found, keep)
        save_model(small, start, notes=asked.notes, force=True)
        write_json(told, {"params": parameters(small)[1], "macs": macs_of(small)})
    return start, read_json(told)


def shared_out(phases: Sequence[Phase], rounds: int) -> list[list[Phase]]:
    """The phases of each round, with its part of their epochs."""
    found = []
    for i in range(rounds):
        epochs = [(i + 1) * p.epochs // rounds - i * p.epochs // rounds for p in phases]
        found.append(
            [replace(p, epochs=count) for p, count in zip(phases, epochs, strict=True) if count]
        )
    if phases and not all(found):
        raise UsageError(
            f"{rounds} rounds need at least as many epochs in a phase; "
            f"{max(p.epochs for p in phases)} was given"
        )
    return found
