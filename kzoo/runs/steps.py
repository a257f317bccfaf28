"""The steps of a run, each a call of one public function, recorded in the ledger."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml

from kzoo.data.dataset import Dataset
from kzoo.data.load import load_data
from kzoo.errors import MissingError, UsageError
from kzoo.files import atomic, disk_errors, sha256, write_bytes
from kzoo.learn.finetune import finetune
from kzoo.learn.optimizer import make_optimizer
from kzoo.lite.check import check
from kzoo.lite.convert import convert
from kzoo.lite.extract import litert_engine
from kzoo.lite.quantize import quantize
from kzoo.measure.profile import profile
from kzoo.measure.runtimes import choose_runtime
from kzoo.network.count import macs, parameters
from kzoo.network.model_file import save_model
from kzoo.progress import Progress, silent
from kzoo.registry import entry
from kzoo.report.html import write_report
from kzoo.report.table import summary_rows
from kzoo.runs.config import STEPS, PhaseConfig, RunConfig, load_config
from kzoo.runs.ledger import Ledger
from kzoo.zoo.build import build
from kzoo.zoo.weights.load import identity, pretrained

SAMPLES = 24
"""Images of the evaluation split that the report shows, the mistakes first."""

NEEDS = {
    "finetune": ("build",),
    "convert": ("finetune",),
    "quantize": ("finetune",),
    "check": ("convert", "quantize"),
    "profile": ("convert", "quantize"),
}
"""Step → the steps whose files it reads."""


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
    models = config.all_models()
    for name, model in models.items():
        entry(name).typed_arguments(model.arguments)
    if len(models) < len(config.models):
        raise UsageError(f"a model stands twice in the config; different ones: {', '.join(models)}")
    if "profile" in config.steps:
        choose_runtime(config.profile.runtime)
    folder = Path(output or Path("runs", config.name))
    _check_folder(folder, config)
    settings = config.data.model_dump()
    data = load_data(settings.pop("path"), seed=config.seed, progress=progress, **settings)
    resolved = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode()
    if not _holds(folder / "config.yaml", resolved):
        # Not for a config that was accepted before: Keras takes seconds to import.
        for model in models.values():
            for phase in config.train.all_phases(bool(model.weights)):
                make_optimizer(phase.optimizer, phase.learning_rate, phase.schedule, 1)
    with disk_errors(folder):
        (folder / "models").mkdir(parents=True, exist_ok=True)
        ledger = Ledger(folder, config.steps)
    try:
        return _done(config, resolved, data, ledger, progress)
    finally:
        ledger.close()


def _check_folder(folder: Path, config: RunConfig) -> None:
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
    for step in config.steps:
        for needed in NEEDS.get(step, ()):
            for name in config.all_models():
                done = (folder / "ledger" / f"{name}.{needed}.json").exists()
                if needed not in config.steps and not done:
                    raise UsageError(
                        f"step {step!r} needs {needed!r}, which is neither in steps nor done for "
                        f"{name} in {str(folder)!r}; add it to steps"
                    )


def _with_needs(steps: Sequence[str]) -> set[str]:
    found = set(steps)
    for step in reversed(STEPS):
        if step in found:
            found |= set(NEEDS.get(step, ()))
    return found


def _holds(file: Path, data: bytes) -> bool:
    return file.is_file() and file.read_bytes() == data


def _write_if_new(file: Path, data: bytes) -> None:
    if not _holds(file, data):
        write_bytes(file, data)


def _done(
    config: RunConfig, resolved: bytes, data: Dataset, ledger: Ledger, progress: Progress
) -> Run:
    folder = ledger.folder
    _write_if_new(folder / "config.yaml", resolved)
    summary = json.dumps({"name": config.name, "models": [*config.all_models()]}, indent=1)
    _write_if_new(folder / "run.json", f"{summary}\n".encode())
    work = _Steps(config, data, ledger, progress)
    # Steps that are left out are looked at too: what they wrote must fit this config.
    needed = _with_needs(config.steps)
    for name in config.all_models():
        for step in STEPS:
            if step in needed and step not in ("profile", "report"):
                work.do(step, name)
    # Measured last and one after another, so that no training shares the processor.
    if "profile" in config.steps:
        for name in config.all_models():
            work.do("profile", name)
    return Run(
        folder=str(folder),
        rows=summary_rows(folder),
        report=str(work.report()) if "report" in config.steps else None,
        failures=work.failures,
        ran=ledger.ran,
        kept=ledger.kept,
    )


class _Steps:
    """A run's config, dataset and ledger, and one method per step."""

    def __init__(self, config: RunConfig, data: Dataset, ledger: Ledger, progress: Progress):
        self.config, self.data, self.ledger, self.progress = config, data, ledger, progress
        self.folder = ledger.folder
        self.failures: list[str] = []
        ledger.step(
            "data",
            "dataset",
            inputs={"data": self.data.fingerprint},
            settings=config.data.model_dump(mode="json"),
            outputs=[],
            work=self.data.summary,
        )

    def do(self, step: str, name: str) -> None:
        """Does one step for one model."""
        getattr(self, f"_{step}")(name)

    def report(self) -> Path:
        """Writes the report, if a record has changed since it was written."""
        records = [*self.folder.glob("ledger/*.json"), *self.folder.glob("samples/*.png")]
        records += [self.folder / "run.json", self.folder / "config.yaml"]
        own = self.ledger.path("report", "run")
        self.ledger.step(
            "report",
            "run",
            inputs={
                file.relative_to(self.folder).as_posix(): sha256(file)
                for file in sorted(records)
                if file != own
            },
            settings={},
            outputs=["report.html", "plots/*.png"],
            work=lambda: {"report": write_report(self.folder).name},
        )
        return self.folder / "report.html"

    def _hash(self, step: str, name: str) -> str:
        """The hash of a step's output."""
        return next(iter(self.ledger.intact(step, name)["outputs"].values()))

    def _build(self, name: str) -> None:
        classes, channels = len(self.data.classes), self.data.channels
        file = f"models/{name}.init.keras"
        options = self.config.all_models()[name].model_dump(mode="json", exclude={"name"})
        arguments = options.pop("arguments")
        options |= {
            "classes": classes,
            "size": list(self.data.size),
            "channels": channels,
            "seed": self.config.seed,
        }
        weights = options.pop("weights")

        def work() -> dict:
            found = weights and pretrained(
                name, weights, progress=self.progress, **options, **arguments
            )
            model = found.model if found else build(name, **options, **arguments)
            save_model(model, self.folder / file, notes={"weights": weights or ""}, force=True)
            trainable, total = parameters(model)
            counts = {"params": trainable, "total_params": total, "macs": macs(model)}
            return counts | ({"weights": found.record()} if found else {})

        self.ledger.step(
            "build",
            name,
            inputs={},
            settings={
                **options,
                "arguments": arguments,
                "row": entry(name).card(),
                **({"weights": identity(name, weights)} if weights else {}),
            },
            outputs=[file],
            work=work,
        )

    def _finetune(self, name: str) -> None:
        file = f"models/{name}.keras"
        train = self.config.train
        weights = self.config.all_models()[name].weights
        phases = [asdict(phase) for phase in train.all_phases(bool(weights))]
        options = train.model_dump(mode="json", exclude={"phases", *PhaseConfig.model_fields})
        # How often a checkpoint is written is of no concern to the result.
        seconds = options.pop("checkpoint_seconds")
        weight = options.pop("auxiliary_weight")
        # Of no concern to a network that is built without auxiliary heads, nor to its key.
        if self.config.all_models()[name].auxiliary:
            options["auxiliary_weight"] = entry(name).auxiliary if weight is None else weight

        def work() -> dict:
            training = finetune(
                self.folder / "models" / f"{name}.init.keras",
                self.data,
                phases=phases,
                seed=self.config.seed,
                output=self.folder / file,
                force=True,
                checkpoint_seconds=seconds,
                engine=litert_engine(),
                progress=_named(self.progress, name),
                **options,
            )
            # Those of a training with other settings, which was cut short.
            shutil.rmtree(self.folder / f"{file}.checkpoints", ignore_errors=True)
            return training.to_dict()

        self.ledger.step(
            "finetune",
            name,
            inputs={"model": self._hash("build", name), "data": self.data.fingerprint},
            settings={"phases": phases, "seed": self.config.seed, **options},
            outputs=[file],
            work=work,
        )

    def _convert(self, name: str) -> None:
        file = f"models/{name}.tflite"
        self.ledger.step(
            "convert",
            name,
            inputs={"model": self._hash("finetune", name)},
            settings={},
            outputs=[file],
            work=lambda: convert(
                self.folder / "models" / f"{name}.keras",
                self.folder / file,
                force=True,
                progress=_named(self.progress, name),
            ).to_dict(),
        )

    def _quantize(self, name: str) -> None:
        file = f"models/{name}_int8.tflite"
        settings = self.config.quantize.model_dump(mode="json")
        self.ledger.step(
            "quantize",
            name,
            inputs={"model": self._hash("finetune", name), "data": self.data.fingerprint},
            settings={"seed": self.config.seed, **settings},
            outputs=[file],
            work=lambda: quantize(
                self.folder / "models" / f"{name}.keras",
                self.folder / file,
                calibrate=self.data,
                seed=self.config.seed,
                force=True,
                progress=_named(self.progress, name),
                **settings,
            ).to_dict(),
        )

    def _check(self, name: str) -> None:
        settings = self.config.check.model_dump(mode="json")
        samples = f"samples/{name}.png"

        def work() -> dict:
            found = {}
            for kind, file in (("float32", f"{name}.tflite"), ("int8", f"{name}_int8.tflite")):
                gates = settings if kind == "int8" else {"limit": settings["limit"]}
                found[kind] = check(
                    self.folder / "models" / file,
                    against=self.folder / "models" / f"{name}.keras",
                    data=self.data,
                    progress=_named(self.progress, name),
                    **gates,
                )
            shown = self._samples(found["int8"], self.folder / samples)
            return {**{kind: each.to_dict() for kind, each in found.items()}, "samples": shown}

        record = self.ledger.step(
            "check",
            name,
            inputs={
                "model": self._hash("finetune", name),
                "float32": self._hash("convert", name),
                "int8": self._hash("quantize", name),
                "data": self.data.fingerprint,
            },
            settings=settings,
            outputs=[samples],
            work=work,
        )
        self.failures += [f"{name}: {text}" for text in record["result"]["int8"]["failures"]]

    def _samples(self, checked, file: Path) -> dict:
        """Writes the images that the report shows, side by side; returns what was said of them."""
        from PIL import Image

        indices = checked.indices
        labels = self.data.labels[indices]
        right = checked.lite_probabilities.argmax(1) == labels
        order = np.concatenate([np.flatnonzero(~right), np.flatnonzero(right)])[:SAMPLES]
        tiles = self.data.images[indices[order]]
        tiles = np.repeat(tiles, 3, axis=3) if tiles.shape[3] == 1 else tiles
        file.parent.mkdir(exist_ok=True)
        with atomic(file) as temporary:
            Image.fromarray(np.concatenate(list(tiles), axis=1)).save(temporary)
        predictions = [
            {
                "path": self.data.paths[indices[i]],
                "label": self.data.classes[labels[i]],
                "keras": _top(checked.keras_probabilities[i], self.data.classes),
                "int8": _top(checked.lite_probabilities[i], self.data.classes),
            }
            for i in order
        ]
        return {
            "file": f"samples/{file.name}",
            "size": list(self.data.size),
            "split": checked.lite.split,
            "predictions": predictions,
        }

    def _profile(self, name: str) -> None:
        settings = self.config.profile.model_dump(mode="json")
        self.ledger.step(
            "profile",
            name,
            inputs={"float32": self._hash("convert", name), "int8": self._hash("quantize", name)},
            settings=settings,
            outputs=[],
            work=lambda: {
                kind: profile(
                    self.folder / "models" / file, progress=_named(self.progress, name), **settings
                ).to_dict()
                for kind, file in (("float32", f"{name}.tflite"), ("int8", f"{name}_int8.tflite"))
            },
        )


def _top(probabilities: np.ndarray, classes: Sequence[str]) -> dict:
    best = int(probabilities.argmax())
    return {"class": classes[best], "probability": round(float(probabilities[best]), 4)}


def _named(progress: Progress, name: str) -> Progress:
    return lambda task, done, total: progress(f"{name} {task}", done, total)
