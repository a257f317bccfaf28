"""What distillation gains: two small networks trained alone and with a teacher, from several seeds.

Each student is trained from random weights on the labels alone and, from the same weights and on
the same augmented variants of the photos, with a teacher; the figures are those of the validation
photos. Hints are added to the soft classes for all seeds, other losses for the first one. An
interrupted study goes on where it was.

    python tools/distillation.py PHOTOS TEACHER.keras --json build/distillation.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from pathlib import Path

STUDENTS = {"mobilenet_v1_025": (96, 24), "resnet8": (64, 12)}
"""Their sizes in pixels and epochs: what two cores do in half an hour each."""
SOFT = {"soft": 0.9, "hard": 0.1}
MORE = ("hint", "attention", "fsp")
AUGMENT = [
    "random_flip",
    {"name": "random_translation", "height_factor": 0.1, "width_factor": 0.1},
]
RATE, BATCH, TEMPERATURE, VARIANTS = 2e-3, 16, 4.0, 6  # of 64 they see too few steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("teacher")
    parser.add_argument("--students", nargs="+", default=[*STUDENTS], choices=[*STUDENTS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--more", nargs="*", default=[*MORE])
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    from kzoo.environment import environment
    from kzoo.files import write_json

    jobs = [(name, seed, "") for seed in range(options.seeds) for name in options.students]
    jobs += [
        (name, seed, loss)
        for loss in options.more
        for seed in range(options.seeds if loss == "hint" else 1)
        for name in options.students
    ]
    found = json.loads(options.json.read_text())["trainings"] if options.json.exists() else []
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for name, seed, loss in jobs:
        if not any((row["name"], row["seed"], row["loss"]) == (name, seed, loss) for row in found):
            found.append(trained(name, seed, loss, options))
        record = {
            "title": "distillation",
            **tables(found),
            "trainings": found,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "environment": environment(),
        }
        write_json(options.json, record)


def trained(name: str, seed: int, loss: str, options: argparse.Namespace) -> dict:
    import kzoo
    from kzoo.learn.lessons import LOSSES
    from kzoo.lite.extract import litert_engine

    size, epochs = STUDENTS[name]
    student = kzoo.build(name, size=size, channels=3, classes=class_count(options), seed=seed)
    started = time.monotonic()
    found = kzoo.distill(
        student,
        options.photos,
        teacher=options.teacher,
        losses=SOFT | ({loss: LOSSES[loss]} if loss else {}),
        temperature=TEMPERATURE,
        alone=not loss,
        augment=AUGMENT,
        augment_seeds=VARIANTS,
        phases=[{"epochs": epochs, "learning_rate": RATE, "schedule": "one_cycle"}],
        batch_size=BATCH,
        output=options.json.with_name(f"{name}_{seed}{loss and '_'}{loss}.keras"),
        force=True,
        seed=seed,
        engine=litert_engine(),
        data_options={"bad": "skip"},
        progress=Told(),
    )
    row = {"name": name, "size": size, "epochs": epochs, "seed": seed, "loss": loss}
    row |= {"minutes": (time.monotonic() - started) / 60, "teacher": figures(found.teacher)}
    row["distilled"] = figures(found.evaluation)
    row["alone"] = figures(found.alone.evaluation) if found.alone else None
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def class_count(options: argparse.Namespace) -> int:
    from kzoo.network.model_file import read_notes

    return len(read_notes(options.teacher)["classes"])


def figures(evaluation) -> dict:
    return {name: getattr(evaluation, name) for name in ("accuracy", "log_loss", "count", "split")}


def tables(rows: list[dict]) -> dict:
    """A row per student and seed, and the means: alone, with soft classes, with hints besides."""
    header = ["student", "seed", "alone", "soft classes", "gain", "and hints", "gain", "and others"]
    cells = []
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        pairs = [row for row in mine if row["alone"]]
        found = {(row["seed"], row["loss"]): row["distilled"]["accuracy"] for row in mine}
        hinted = [found.get((row["seed"], "hint")) for row in pairs]
        for row, hints in zip(pairs, hinted, strict=True):
            others = [
                f"{loss} {percent(accuracy)}"
                for (seed, loss), accuracy in found.items()
                if seed == row["seed"] and loss not in ("", "hint")
            ]
            figures = row["alone"]["accuracy"], row["distilled"]["accuracy"], hints
            cells.append(
                [f"{name} at {row['size']} px", row["seed"], *line(*figures), ", ".join(others)]
            )
        means = [
            statistics.mean(row[side]["accuracy"] for row in pairs)
            for side in ("alone", "distilled")
        ]
        hints = statistics.mean(hinted) if all(hinted) else None
        cells.append([f"**{name}**", "mean", *line(*means, hints), ""])
    teacher = rows[0]["teacher"]
    note = (
        f"Accuracy on {teacher['count']} {teacher['split']} photos; the teacher has "
        f"{percent(teacher['accuracy'])}. Epochs: "
        + ", ".join(f"{STUDENTS[name][1]} of {name}" for name in STUDENTS)
        + f"; Adam, one cycle to {RATE}, batches of {BATCH}, {VARIANTS} variants of every photo "
        f"(flips, shifts), T = {TEMPERATURE:g}, soft {SOFT['soft']}, hard {SOFT['hard']}. "
        "Batches and rate were chosen on seed 0 of mobilenet_v1_025."
    )
    return {"header": header, "cells": cells, "note": note}


def line(alone: float, distilled: float, hinted: float | None) -> list[str]:
    cells = [percent(alone)]
    for accuracy in (distilled, hinted):
        told = accuracy is not None
        cells += [percent(accuracy), f"{100 * (accuracy - alone):+.1f}"] if told else ["", ""]
    return cells


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


class Told:
    """A line in half a minute, for a log."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, task: str, done: int, total: int) -> None:
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            print(f"{task}: {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
