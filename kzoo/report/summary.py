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
    """What a run has to show: its models, its distillation, its chains of compressions, its
    few-shot studies."""
    found = rows(records)
    studied = [row for row in found if row["fewshot"]]
    tables = []
    if not studied or any(row[key] is not None for row in found for key in RESULTS):
        tables.append(Table("Models", *format_rows(found), _note(found)))
    if records.distilled:
        tables.append(_distilled(records, found))
    tables += [_chain(first, made, found) for first, made in records.chains.items()]
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


def _chain(first: str, made: Sequence[str], found: Sequence[Mapping]) -> Table:
    """What every compression of a chain left, and what it is of the first network's."""
    of_model = {row["model"]: row for row in found}
    # Huffman's codewords are beside the weights as they are.
    whole = of_model[first] | {"coded_bytes": 4 * (of_model[first]["params"] or 0)}
    cells = []
    for name in (first, *made):
        row = of_model[name]
        figures = [
            NOTHING if row[key] is None else f"{shown(row[key])}{_less(whole[key], row[key])}"
            for key, shown in CHAINED.items()
        ]
        accuracies = (row[f"accuracy_{kind}"] for kind in ("float", "int8"))
        judged = [percent(accuracy, row["count"]) for accuracy in accuracies]
        cells.append([name, *judged, *figures])
    header = ["model", "float", "int8", "parameters", "MACs", "kB float", "gzip", "Huffman",
              "kB int8", "gzip", "p50 ms float", "p50 ms int8"]  # fmt: skip
    note = (
        f"Accuracy of both; ÷ is how many times less than {first}. Zeros and shared values shrink "
        "what is downloaded (gzip), not the latency."
    )
    return Table(f"Compression of {first}", header, cells, note)


CHAINED = {
    "params": lambda count: f"{count:,}",
    "macs": scaled,
    "bytes_float": kilobytes,
    "gzip_float": kilobytes,
    "coded_bytes": kilobytes,
    "bytes_int8": kilobytes,
    "gzip_int8": kilobytes,
    "p50_float_ms": milliseconds,
    "p50_int8_ms": milliseconds,
}
"""What a compression may make less, and how it is shown."""


def _less(whole: float | None, left: float) -> str:
    """``" ÷2.1"``; nothing where both are the same, or one is not known."""
    if not whole or not left or whole == left:
        return ""
    ratio = whole / left
    return f" ÷{ratio:.1f}" if 0.95 <= ratio < 9.95 else f" ÷{ratio:.2g}"


def compressions(records: Records, found: Sequence[Mapping]) -> list[str]:
    """What each chain of compressions bought in the end, in a sentence."""
    of_model = {row["model"]: row for row in found}
    sentences = []
    for first, made in records.chains.items():
        whole, left = of_model[first], of_model[made[-1]]
        bought = [
            f"{left[key] / whole[key]:.2f} of the {what}"
            for key, what in (("gzip_int8", "download (int8, gzip)"), ("p50_int8_ms", "latency"))
            if whole[key] and left[key]
        ]
        if not bought or whole["accuracy_int8"] is None or left["accuracy_int8"] is None:
            continue
        change = 100 * (left["accuracy_int8"] - whole["accuracy_int8"])
        sentences.append(
            f"{made[-1]} takes {' and '.join(bought)} of {first}, and its int8 file gets "
            f"{percent(left['accuracy_int8'], left['count'])} right ({change:+.2f} points)."
        )
    return sentences


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
