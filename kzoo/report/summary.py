"""A run in short: its tables, for a terminal, a report and docs, and the lines above them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kzoo.report.fewshot import head_name, mean_accuracy, verdict
from kzoo.report.records import Records, damaged, ledger, read_records
from kzoo.report.table import NOTHING, format_rows, kilobytes, milliseconds, percent, rows, scaled

RESULTS = ("accuracy_float", "accuracy_int8", "bytes_float", "bytes_int8", "p50_int8_ms")
"""A run without any of them has nothing to show in its first table."""


@dataclass(frozen=True)
class Table:
    """A table in words.

    Attributes:
        title: what it is about.
        header: a name per column.
        cells: a row per model, a cell per column; the first names the model.
        note: what its figures are.
    """

    title: str
    header: list[str]
    cells: list[list[str]]
    note: str


def run_tables(folder: str | os.PathLike) -> list[Table]:
    """The tables of the run in a folder; raises as `kzoo.report.table.summary_rows`."""
    return tables(read_records(folder))


def tables(records: Records) -> list[Table]:
    """What a run has to show: its models, its distillation, its few-shot studies."""
    found = rows(records)
    studied = [row for row in found if row["fewshot"]]
    tables = []
    if not studied or any(row[key] is not None for row in found for key in RESULTS):
        tables.append(Table("Models", *format_rows(found), _note(found)))
    if records.distilled:
        tables.append(_distilled(records, found))
    if studied:
        tables.append(_few(records, studied))
    return tables


def _note(found: Sequence[Mapping]) -> str:
    evaluated = next((row for row in found if row["count"]), None)
    accuracy = (
        f"Accuracy: top-1 on {evaluated['count']:,} {evaluated['split']} images; float is the "
        "Keras model. "
        if evaluated
        else ""
    )
    return (
        f"{accuracy}Sizes: .tflite files, kB of 1000 bytes. p50: the median of single inferences."
    )


def _few(records: Records, studied: Sequence[Mapping]) -> Table:
    """The best head of each network, and what it gets right with fewer images."""
    shots, cells, tested = {}, [], ""
    for row in studied:
        with damaged(ledger(records.folder, row["model"], "fewshot")):
            result = records.result(row["model"], "fewshot")
            same = {
                mean["shots"]: mean_accuracy(mean)
                for mean in result["means"]
                if all(mean[key] == row["fewshot"][key] for key in ("cut", "head", "temperature"))
            }
            draws = result["recipe"]["seeds"]
            tested = (
                f"{result['count']:,} {result['split']} images, "
                f"the mean of {draws} draw{'s' * (draws > 1)}"
            )
        shots |= dict.fromkeys(same)
        cells.append((row, same))
    return Table(
        "Few images per class",
        ["model", "parameters", "best head", *(f"{count} per class" for count in sorted(shots))],
        [
            [
                row["model"],
                NOTHING if row["params"] is None else f"{row['params']:,}",
                head_name(row["fewshot"]),
                *(same.get(count, NOTHING) for count in sorted(shots)),
            ]
            for row, same in cells
        ],
        f"Right answers on {tested} of the training images.",
    )


def _distilled(records: Records, found: Sequence[Mapping]) -> Table:
    """Teacher, the network trained alone, and distilled, one below the other."""
    of_model = {row["model"]: row for row in found}
    cells, teachers = [], set()
    for model, pair in records.distilled.items():
        trio = [("teacher", pair["teacher"]), ("alone", pair["alone"]), ("distilled", model)]
        for role, name in trio[pair["teacher"] in teachers :]:
            row = of_model[name]
            seconds = row["training_seconds"]
            cells.append(
                [
                    name,
                    role,
                    percent(row["accuracy_float"], row["count"]),
                    NOTHING if row["log_loss_float"] is None else f"{row['log_loss_float']:.4f}",
                    NOTHING if row["params"] is None else f"{row['params']:,}",
                    NOTHING if row["macs"] is None else scaled(row["macs"]),
                    kilobytes(row["bytes_int8"]),
                    milliseconds(row["p50_int8_ms"]),
                    NOTHING if seconds is None else f"{seconds:,.0f}",
                ]
            )
        teachers.add(pair["teacher"])
    return Table(
        "Distillation",
        ["model", "trained", "accuracy", "log-loss", "parameters", "MACs", "kB int8",
         "p50 ms int8", "training s"],
        cells,
        "Accuracy and log-loss (nats) of the Keras models. Training: the seconds spent in epochs; "
        "a distilled network's do not contain its teacher's.",
    )  # fmt: skip


def studies(records: Records) -> list[str]:
    """What the few-shot studies found, a sentence for each network."""
    found = {}
    for model in records.models:
        with damaged(ledger(records.folder, model, "fewshot")):
            if result := records.result(model, "fewshot"):
                found[model] = verdict(result["means"])
    if len(records.models) == 1:
        return [*found.values()]
    return [f"{model}: {sentence}" for model, sentence in found.items()]


def distillations(records: Records, found: Sequence[Mapping]) -> list[str]:
    """What each distilled network gained over the same one trained alone, in a sentence."""
    of_model = {row["model"]: row for row in found}
    sentences = []
    for model, pair in records.distilled.items():
        teacher, alone, distilled = (
            of_model[name] for name in (pair["teacher"], pair["alone"], model)
        )
        if distilled["accuracy_float"] is None or alone["accuracy_float"] is None:
            continue
        gain = 100 * (distilled["accuracy_float"] - alone["accuracy_float"])
        own = percent(alone["accuracy_float"], alone["count"])
        sentence = (
            f"{pair['alone']} gets {percent(distilled['accuracy_float'], distilled['count'])} "
            f"right distilled and {own} alone ({gain:+.2f} points"
        )
        intervals = [row["accuracy_float_interval"] for row in (alone, distilled)]
        if max(low for low, _ in intervals) <= min(high for _, high in intervals):
            sentence += "; the 95 % intervals overlap"
        if teacher["accuracy_float"] is not None:
            right = percent(teacher["accuracy_float"], teacher["count"])
            sentence += f"); its teacher {pair['teacher']} gets {right}."
        else:
            sentence += ")."
        sentences.append(sentence)
    return sentences
