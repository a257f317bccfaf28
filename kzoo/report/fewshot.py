"""A few-shot study in words, tables and figures, and its page, from its record alone."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kzoo.files import disk_errors, existing, read_json, write_bytes
from kzoo.report import fewshot_plots as plots
from kzoo.report.page import data_uri, template
from kzoo.report.records import damaged
from kzoo.report.sections import environment_facts
from kzoo.report.table import NOTHING, best, duration

SETTING = ("cut", "head", "temperature", "shots")
COLUMNS = {
    "heads": (
        *SETTING, "seed", "train_accuracy", "accuracy", "log_loss", "penalty", "iterations",
        "seconds",
    ),
    "means": (
        *SETTING, "seeds", "accuracy", "accuracy_low", "accuracy_high", "log_loss", "log_loss_low",
        "log_loss_high",
    ),
    "curves": (
        *SETTING, "seed", "iteration", "train_loss", "train_accuracy", "loss", "accuracy",
    ),
}  # fmt: skip
"""Of the tables, by their names."""
RECORD, PAGE = "fewshot.json", "report.html"
TABLES = {"heads": "fewshot.csv", "means": "means.csv", "curves": "curves.csv"}


def write_fewshot(folder: str | os.PathLike) -> Path:
    """Writes the tables, ``plots/*.png`` and ``report.html`` beside ``fewshot.json``.

    The tables are ``fewshot.csv``, a line per head, ``means.csv``, over the draws with their 95 %
    intervals, and ``curves.csv``, a line per iteration of a head.

    The page is self-contained, and the same record gives the same bytes.

    Raises:
        MissingError: the record is not there, or the folder cannot be written to.
        BadInputError: the record is damaged.
    """
    folder = Path(folder)
    file = existing(folder / RECORD, "the record")
    record = read_json(file)
    with disk_errors(folder / "plots"):
        (folder / "plots").mkdir(exist_ok=True)
    with damaged(file, "kzoo fewshot"):
        result = record["result"]
        tables = study_csv(result)
        page = template("fewshot.html").render(
            name=f"{result['model']} with few images of {result['recipe']['source']}",
            date=record["date"][:16].replace("T", " "),
            version=record["environment"].get("packages", {}).get("kzoo"),
            facts=_facts(result),
            study=study_section(result, folder / "plots"),
            environment=environment_facts(record["environment"]),
            files={**TABLES, "record": RECORD},
        )
    for name, table in tables.items():
        write_bytes(folder / TABLES[name], table)
    path = folder / PAGE
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def study_section(result: Mapping, plots_folder: Path, prefix: str = "") -> dict:
    """What study.html shows of a `kzoo.learn.fewshot.Fewshot`; its figures are drawn.

    Args:
        result: the study as JSON values.
        plots_folder: where the figures are written, their names beginning with ``prefix``.
        prefix: "" or the model's name with a point.
    """
    return {
        "verdict": verdict(result["means"]),
        "tables": [_table(result["means"], head) for head in _heads(result)],
        "split": f"{result['count']:,} {result['split']} images",
        "seeds": result["recipe"]["seeds"],
        "seconds": duration(sum(result["seconds"].values())),
        "heads": f"{len(result['rows']):,}",
        "figures": _figures(result, plots_folder, prefix),
    }


def verdict(means: Sequence[Mapping]) -> str:
    """The best head at the most images per class, in a line."""
    found = best(means)
    images = f"{found['shots']} image{'s' * (found['shots'] > 1)} per class"
    name = head_name(found).replace("logits-T", "softmax over the source network's classes")
    return f"With {images}, {name} does best: {mean_accuracy(found)} right."


def head_name(row: Mapping) -> str:
    """A row of ``means`` in short: ``ridge on stage4``, ``logits-T at T = 8``."""
    if row["head"] == "logits-T":
        return f"logits-T at T = {row['temperature']:g}"
    return f"{row['head']} on {row['cut']}"


def mean_accuracy(row: Mapping) -> str:
    """``52.0 ± 5.0 %``: the mean over the draws and half of its interval, if there are several."""
    interval = row["accuracy_interval"]
    half = f" ± {50 * (interval[1] - interval[0]):.1f}" if interval else ""
    return f"{100 * row['accuracy']:.1f}{half} %"


def _heads(result: Mapping) -> list[str]:
    return list(dict.fromkeys(row["head"] for row in result["means"]))


def _facts(result: Mapping) -> list[tuple[str, object]]:
    recipe, seconds = result["recipe"], result["seconds"]
    height, width = recipe["size"]
    return [
        ("network", result["model"]),
        ("data", recipe["source"]),
        ("classes", f"{len(result['classes']):,}"),
        ("input", f"{height} × {width}"),
        ("tested on", f"{result['count']:,} {result['split']} images"),
        ("draws", recipe["seeds"]),
        ("features", f"{recipe['engine']}, {duration(seconds['features'])}"),
        ("heads trained", f"{len(result['rows']):,} in {duration(seconds['heads'])}"),
    ]


def _table(means: Sequence[Mapping], head: str) -> dict:
    """Accuracy and log-loss of a head: a row per cut or temperature, a column per shots."""
    rows = [row for row in means if row["head"] == head]
    shots = list(dict.fromkeys(row["shots"] for row in rows))
    key = "temperature" if head == "logits-T" else "cut"
    lines = []
    for value in dict.fromkeys(row[key] for row in rows):
        of_shots = {row["shots"]: row for row in rows if row[key] == value}
        lines.append(
            {
                "name": f"T = {value:g}" if key == "temperature" else value,
                "accuracy": [
                    mean_accuracy(of_shots[n]) if n in of_shots else NOTHING for n in shots
                ],
                "loss": [
                    f"{of_shots[n]['log_loss']:.3f}" if n in of_shots else NOTHING for n in shots
                ],
            }
        )
    return {"head": head, "shots": shots, "lines": lines}


def _figures(result: Mapping, folder: Path, prefix: str) -> list[dict]:
    """Draws what the rows allow: title and picture of each figure."""
    means, rows = result["means"], result["rows"]
    linear = [row for row in means if row["head"] != "logits-T"]
    softened = [row for row in means if row["head"] == "logits-T"]
    soft = [row for row in rows if row["head"] == "softmax"]
    softened_rows = [row for row in rows if row["head"] == "logits-T"]
    wanted = [
        (means, "shots", "Accuracy per shots", lambda path: plots.per_shots(means, path)),
        (linear, "depth", "Accuracy per depth", lambda path: plots.per_depth(linear, path)),
        (
            softened, "temperature", "Accuracy and log-loss per temperature",
            lambda path: plots.per_temperature(softened, path),
        ),
        (
            soft, "iterations", "Per iteration, softmax on features",
            lambda path: plots.per_iteration(soft, "cut", path),
        ),
        (
            softened_rows, "iterations_temperature", "Per iteration, softmax on logits over T",
            lambda path: plots.per_iteration(softened_rows, "temperature", path),
        ),
    ]  # fmt: skip
    found = []
    for needed, name, title, plot in wanted:
        if not needed or (name == "depth" and len({row["cut"] for row in linear}) < 2):
            continue
        path = folder / f"{prefix}{name}.png"
        plot(path)
        found.append({"title": title, "image": data_uri(path.read_bytes())})
    return found


def study_csv(result: Mapping) -> dict[str, bytes]:
    """The tables of COLUMNS: every head, the means over its draws, every iteration of a curve."""
    means = []
    for row in result["means"]:
        edges = {
            f"{key}_{edge}": value
            for key in ("accuracy", "log_loss")
            for edge, value in zip(("low", "high"), row[f"{key}_interval"] or (), strict=False)
        }
        means.append({**row, **edges})
    curves = [
        {**row, "iteration": i, **dict(zip(row["curve"], values, strict=True))}
        for row in result["rows"]
        if row["curve"]
        for i, values in enumerate(zip(*row["curve"].values(), strict=True), 1)
    ]
    tables = {"heads": result["rows"], "means": means, "curves": curves}
    return {name: _csv(rows, COLUMNS[name]) for name, rows in tables.items()}


def _csv(rows: Sequence[Mapping], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", errors="replace")
