"""The steps of a run, each a call of one public function, recorded in the ledger."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from kzoo.data.dataset import Dataset
from kzoo.files import existing, sha256
from kzoo.learn.distill import distill
from kzoo.learn.fewshot import fewshot
from kzoo.learn.finetune import finetune
from kzoo.learn.variants import decoded_at
from kzoo.lite.check import check
from kzoo.lite.convert import convert
from kzoo.lite.extract import fast_engine
from kzoo.lite.quantize import quantize
from kzoo.measure.profile import profile
from kzoo.network.count import macs, parameters
from kzoo.network.model_file import save_model
from kzoo.progress import Progress
from kzoo.registry import entry, pair
from kzoo.report.html import write_report
from kzoo.runs.given import take_over
from kzoo.runs.ledger import Ledger
from kzoo.runs.link import link_files, link_settings, linked
from kzoo.runs.members import Member
from kzoo.runs.samples import write_samples
from kzoo.runs.schema import PhaseConfig, RunConfig
from kzoo.zoo.build import build
from kzoo.zoo.weights.load import identity, pretrained


class Steps:
    """A run's config, networks, dataset and ledger, and one method per step.

    Attributes:
        failures: gates that were not met.
    """

    def __init__(
        self,
        config: RunConfig,
        members: Mapping[str, Member],
        data: Dataset,
        ledger: Ledger,
        progress: Progress,
    ):
        self.config, self.members, self.data = config, members, data
        self.ledger, self.progress, self.folder = ledger, progress, ledger.folder
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
            outputs=["report.html", "plots/*.png", "tables/*.csv"],
            work=lambda: {"report": write_report(self.folder).name},
        )
        return self.folder / "report.html"

    def _hash(self, step: str, name: str) -> str:
        """The hash of a step's output."""
        return next(iter(self.ledger.intact(step, name)["outputs"].values()))

    def _trained(self, name: str) -> str:
        """The hash of a network's ``.keras``."""
        return self._hash(self.members[name].trainer, name)

    def _data_of(self, name: str) -> Dataset:
        """The run's photos at the network's own size."""
        name = self.members[name].first or name
        size = self.members[name].size
        if self.members[name].given:
            size = self.ledger.intact("build", name)["result"]["size"]
        if size is None:
            return self.data
        return decoded_at(self.data, pair(size), self.progress)

    def _build(self, name: str) -> None:
        member = self.members[name]
        if member.given:
            self._take_over(name)
            return
        file = f"models/{name}.init.keras"
        options = member.model.model_dump(mode="json")
        architecture, arguments = options.pop("name"), options.pop("arguments")
        options |= {
            # A network that is only looked at keeps its own classes: logits-T stands on them.
            "classes": len(self.data.classes) if self.config.trains else None,
            "size": list(self._data_of(name).size),
            "channels": self.data.channels,
            "seed": self.config.seed,
        }
        weights = options.pop("weights")

        def work() -> dict:
            found = weights and pretrained(
                architecture, weights, progress=self.progress, **options, **arguments
            )
            model = found.model if found else build(architecture, **options, **arguments)
            notes = found.notes_of_file(weights) if found else {}
            save_model(model, self.folder / file, notes=notes, force=True)
            trainable, total = parameters(model)
            counts = {"params": trainable, "total_params": total, "macs": macs(model)}
            counts |= {"classes": model.outputs[0].shape[-1]}
            return counts | ({"weights": found.record()} if found else {})

        self.ledger.step(
            "build",
            name,
            inputs={},
            settings={
                **options,
                "arguments": arguments,
                "row": entry(architecture).card(),
                **({"weights": identity(architecture, weights)} if weights else {}),
            },
            outputs=[file],
            work=work,
        )

    def _take_over(self, name: str) -> None:
        source, file = self.members[name].given, f"models/{name}.keras"
        self.ledger.step(
            "build",
            name,
            inputs={"model": sha256(existing(source, "the model"))},
            settings={},
            outputs=[file],
            work=lambda: take_over(source, self.folder / file),
        )

    def _fewshot(self, name: str) -> None:
        settings = self.config.fewshot.model_dump(mode="json")
        self.ledger.step(
            "fewshot",
            name,
            inputs={"model": self._hash("build", name), "data": self.data.fingerprint},
            settings={"seed": self.config.seed, **settings},
            outputs=[],
            work=lambda: fewshot(
                self.folder / "models" / f"{name}.init.keras",
                self.data,
                seed=self.config.seed,
                engine=fast_engine(),
                progress=_named(self.progress, name),
                **settings,
            ).to_dict(),
        )

    def _finetune(self, name: str) -> None:
        member = self.members[name]
        options = self._training(member)
        weight = member.train.auxiliary_weight
        # Of no concern to a network that is built without auxiliary heads, nor to its key.
        if member.model.auxiliary:
            card = entry(member.model.name).auxiliary
            options["auxiliary_weight"] = card if weight is None else weight
        data = self._data_of(name)
        self._train(
            "finetune",
            name,
            inputs={"model": self._hash("build", name), "data": data.fingerprint},
            settings=options,
            work=lambda **given: finetune(
                self.folder / "models" / f"{name}.init.keras",
                data,
                checkpoint_seconds=member.train.checkpoint_seconds,
                force=True,
                **options,
                **given,
            ).to_dict(),
        )

    def _distill(self, name: str) -> None:
        member = self.members[name]
        options = self._training(member)
        options |= self.config.distill.model_dump(mode="json", exclude={"teacher", "teacher_train"})
        models = self.folder / "models"
        self._train(
            "distill",
            name,
            inputs={
                "model": self._hash("build", member.alone),
                "teacher": self._trained(member.teacher),
                "data": self.data.fingerprint,
            },
            settings=options,
            work=lambda **given: distill(
                models / f"{member.alone}.init.keras",
                self.data,
                teacher=models / f"{member.teacher}.keras",
                alone=False,
                checkpoint_seconds=member.train.checkpoint_seconds,
                force=True,
                **options,
                **given,
            ).to_dict(),
        )

    def _compress(self, name: str) -> None:
        member, config, models = self.members[name], self.config.compress, self.folder / "models"
        data = self._data_of(name)
        inputs = {"model": self._trained(member.before), "data": data.fingerprint}
        if config.teacher == "self":
            inputs["teacher"] = self._trained(member.first)
        self._train(
            "compress",
            name,
            inputs=inputs | link_files(config, member.link),
            settings=link_settings(config, member.link) | {"seed": self.config.seed},
            work=lambda **given: linked(
                config,
                member.link,
                models / f"{member.before}.keras",
                models / f"{member.first}.keras",
                data,
                seed=self.config.seed,
                **given,
            ),
        )

    def _training(self, member: Member) -> dict:
        """The settings that `finetune` and `distill` share."""
        phases = member.train.all_phases(bool(member.model.weights))
        # How often a checkpoint is written is of no concern to the result, nor to its key.
        own = {"phases", "checkpoint_seconds", "auxiliary_weight", *PhaseConfig.model_fields}
        return {
            "phases": [asdict(phase) for phase in phases],
            "seed": self.config.seed,
            **member.train.model_dump(mode="json", exclude=own),
        }

    def _train(
        self,
        step: str,
        name: str,
        *,
        inputs: Mapping[str, str],
        settings: Mapping[str, object],
        work: Callable[..., dict],
    ) -> None:
        file = f"models/{name}.keras"

        def trained() -> dict:
            found = work(
                output=self.folder / file,
                engine=fast_engine(),
                progress=_named(self.progress, name),
            )
            # Those of a training with other settings, which was cut short.
            for kept in ("checkpoints", "rounds"):
                shutil.rmtree(self.folder / f"{file}.{kept}", ignore_errors=True)
            return found

        self.ledger.step(step, name, inputs=inputs, settings=settings, outputs=[file], work=trained)

    def _convert(self, name: str) -> None:
        file = f"models/{name}.tflite"
        self.ledger.step(
            "convert",
            name,
            inputs={"model": self._trained(name)},
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
        settings, data = self.config.quantize.model_dump(mode="json"), self._data_of(name)
        self.ledger.step(
            "quantize",
            name,
            inputs={"model": self._trained(name), "data": data.fingerprint},
            settings={"seed": self.config.seed, **settings},
            outputs=[file],
            work=lambda: quantize(
                self.folder / "models" / f"{name}.keras",
                self.folder / file,
                calibrate=data,
                seed=self.config.seed,
                force=True,
                progress=_named(self.progress, name),
                **settings,
            ).to_dict(),
        )

    def _check(self, name: str) -> None:
        settings, data = self.config.check.model_dump(mode="json"), self._data_of(name)
        if any(member.teacher == name for member in self.members.values()):
            settings = {"limit": settings["limit"]}  # no gate is a teacher's: it is not exported
        samples = f"samples/{name}.png"

        def work() -> dict:
            found = {}
            for kind, file in (("float32", f"{name}.tflite"), ("int8", f"{name}_int8.tflite")):
                gates = settings if kind == "int8" else {"limit": settings["limit"]}
                found[kind] = check(
                    self.folder / "models" / file,
                    against=self.folder / "models" / f"{name}.keras",
                    data=data,
                    progress=_named(self.progress, name),
                    **gates,
                )
            shown = write_samples(found["int8"], data, self.folder / samples)
            return {**{kind: each.to_dict() for kind, each in found.items()}, "samples": shown}

        record = self.ledger.step(
            "check",
            name,
            inputs={
                "model": self._trained(name),
                "float32": self._hash("convert", name),
                "int8": self._hash("quantize", name),
                "data": data.fingerprint,
            },
            settings=settings,
            outputs=[samples],
            work=work,
        )
        self.failures += [f"{name}: {text}" for text in record["result"]["int8"]["failures"]]

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


def _named(progress: Progress, name: str) -> Progress:
    return lambda task, done, total: progress(f"{name} {task}", done, total)
