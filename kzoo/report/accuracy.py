"""How good a network is, in words and rows: as a whole, class by class, in its confidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from kzoo.report.records import Records
from kzoo.report.table import NOTHING, percent

FILES = ("float32", "int8")
MISTAKES = 8
"""Confused pairs that are listed."""
JUDGED = ("judged", "accuracy", "calibration", "class_names", "class_table", "mistakes")
"""The parts of `judged`, None where there is nothing to judge."""
FURTHER: dict[str, Callable[[Mapping], str | None]] = {
    "top-5": lambda found: (
        percent(found["top5_accuracy"], found["count"])
        if found.get("top5_accuracy") is not None
        else None
    ),
    "macro-F1": lambda found: percent(found["macro_f1"]) if "macro_f1" in found else None,
    "log-loss (nats)": lambda found: f"{found['log_loss']:.4f}",
    "ECE": lambda found: percent(found["ece"]) if "ece" in found else None,
}
"""Columns beside the accuracy; older records lack some, and few classes have no top-5."""


def evaluations(records: Records, model: str) -> dict[str, dict]:
    """The figures of a model and its files by name, the Keras model's first.

    From its check, or, where it was not checked, from its training alone.
    """
    if checked := records.result(model, "check"):
        files = {f"{kind} file": checked[kind]["lite"] for kind in FILES}
        return {"Keras model": checked["int8"]["keras"], **files}
    trained = records.result(model, records.trainer(model))
    return {"Keras model": trained["evaluation"]} if trained else {}


def judged(
    found: Mapping[str, Mapping], classes: Sequence[str], checks: Mapping | None = None
) -> dict:
    """What accuracy.html shows: of the last one of ``found``, beside the others where there are.

    Args:
        found: name -> record of a `kzoo.learn.evaluate.Evaluation`, as `evaluations` returns them.
        classes: their names.
        checks: the result of the check, or None.
    """
    name, last = list(found.items())[-1]
    return {
        "judged": name,
        "accuracy": accuracy_section(found, checks),
        "calibration": calibration_section(found),
        "class_names": list(classes),
        "class_table": class_section(found, classes),
        "mistakes": confused(last["confusion"]),
    }


def accuracy_section(found: Mapping[str, Mapping], checks: Mapping | None) -> dict:
    """The table of accuracies, each with its interval on a common scale.

    Args:
        found: as `evaluations` returns them.
        checks: the result of the check, or None.
    """
    low = min(each["interval"][0] for each in found.values())
    low = int(100 * max(0, low - 0.01)) / 100
    columns = [name for name, cell in FURTHER.items() if any(cell(each) for each in found.values())]
    first = next(iter(found.values()))
    section = {
        "rows": [
            _row(name, each, low, columns, checks and checks.get(name.removesuffix(" file")))
            for name, each in found.items()
        ],
        "columns": columns,
        "split": first["split"],
        "count": f"{first['count']:,}",
        "scale": f"{100 * low:.0f} to 100 %",
        "floor": max(each.get("floor", 0) for each in found.values()),
    }
    return section | (_compared(checks["int8"]) if checks else {})


def _row(name: str, found: Mapping, low: float, columns: list[str], check: Mapping | None) -> dict:
    accuracy, (lower, upper), count = found["accuracy"], found["interval"], found["count"]
    left, middle, right = (100 * (x - low) / (1 - low) for x in (lower, accuracy, upper))
    return {
        "name": name,
        "accuracy": percent(accuracy, count),
        "interval": f"{percent(lower, count)[:-2]} to {percent(upper, count)}",
        "left": f"{left:.2f}",
        "width": f"{right - left:.2f}",
        "middle": f"{middle:.2f}",
        "further": [FURTHER[column](found) or NOTHING for column in columns],
        "agreement": percent(check["agreement"], count) if check else NOTHING,
        "max_error": f"{check['max_logit_error']:.3g}" if check else NOTHING,
        "mean_error": f"{check['mean_logit_error']:.3g}" if check else NOTHING,
    }


def _compared(check: Mapping) -> dict:
    """What int8 costs, and how far its outputs are off."""
    drop = 100 * (check["keras"]["accuracy"] - check["lite"]["accuracy"])
    change = "loses 0"
    if abs(drop) >= 0.005:
        change = f"loses {drop:.2f}" if drop > 0 else f"gains {-drop:.2f}"
    wrong = round((1 - check["agreement"]) * check["lite"]["count"])
    return {
        "summary": f"int8 {change} points; it answers differently from the Keras model on "
        f"{wrong:,} of {check['lite']['count']:,} images",
        "compared": check["compared"],
        "logit_std": f"{check['logit_std']:.3g}",
    }


def class_names(records: Records, model: str, size: int) -> list[str]:
    """The names of a model's classes, or their numbers where no record has as many."""
    trained = records.result(model, records.trainer(model)) or {}
    for names in (
        trained.get("classes"),
        list((records.data or {}).get("result", {}).get("classes", [])),
    ):
        if names and len(names) == size:
            return [str(name) for name in names]
    return [f"#{i}" for i in range(size)]


def class_section(found: Mapping[str, Mapping], classes: Sequence[str]) -> dict | None:
    """Precision, recall and F1 of every class, the lowest F1 first; None in older records.

    They are those of the last one of ``found``, which is the int8 file where there is one; the
    Keras model's F1 stands beside them.
    """
    name, last = list(found.items())[-1]
    first = next(iter(found.values()))
    if not last.get("per_class") or not first.get("per_class"):
        return None
    rows = [
        {
            "name": label,
            "count": f"{figures['count']:,}",
            "cells": [_share(figures[key]) for key in ("precision", "recall", "f1")],
            "before": _share(before["f1"]) if first is not last else None,
            "f1": figures["f1"],
        }
        for label, figures, before in zip(
            classes, last["per_class"], first["per_class"], strict=True
        )
    ]
    rows.sort(key=lambda row: math.inf if row["f1"] is None else row["f1"])
    return {"of": name, "rows": rows}


def _share(value: float | None) -> str:
    return NOTHING if value is None else percent(value)


def calibration_section(found: Mapping[str, Mapping]) -> dict | None:
    """How far confidence is from accuracy, in words; None in older records."""
    known = {name: each for name, each in found.items() if each.get("reliability")}
    if not known:
        return None
    name, last = list(known.items())[-1]
    bins = [each for each in last["reliability"] if each["count"]]
    surer = sum(each["count"] * (each["confidence"] - each["accuracy"]) for each in bins)
    surer *= 100 / last["count"]
    how = f"{'more' if surer > 0 else 'less'} confident than it is right by {abs(surer):.1f} points"
    return {
        "summary": f"The {name} is {how} on average",
        # Of a calibrated model, see `kzoo.learn.evaluate.Evaluation`.
        "chance": percent(math.sqrt(len(last["reliability"]) / last["count"]) / 2),
        "count": f"{last['count']:,}",
    }


def confused(matrix: Sequence[Sequence[int]]) -> dict:
    """The pairs of classes that are confused most, by number."""
    pairs = [
        (count, label, predicted, sum(row))
        for label, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if count and label != predicted
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return {
        "pairs": pairs[:MISTAKES],
        "more": len(pairs) - MISTAKES,
        "wrong": sum(pair[0] for pair in pairs),
        "count": sum(map(sum, matrix)),
    }
