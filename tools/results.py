"""Writes the tables of docs/results.md and of the README from the records of runs and benchmarks.

python tools/results.py runs/quickstart runs/photos --seeds runs/clothing runs/clothing_1 \\
    --seeds runs/small runs/small_1 --bench build/startup.json build/distillation.json ...

What is not given keeps its section. The run called quickstart is the README's, too. A few-shot
study or a distillation has tables of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from kzoo.errors import BadInputError, KzooError
from kzoo.report.records import Records, read_records
from kzoo.report.summary import tables
from kzoo.report.table import NOTHING
from kzoo.report.table import rows as rows_of

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- table written by tools/results.py -->\n", "<!-- end of table -->\n"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def conditions(environment: dict) -> str:
    """Where a figure was measured, and with which versions."""
    machine, packages = environment["machine"], environment["packages"]
    named = [name for name in ("tensorflow", "keras", "ai-edge-litert") if name in packages]
    versions = ", ".join(f"{name} {packages[name]}" for name in named)
    return (
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{' '.join(machine['simd'])}, {machine['system']}, "
        f"Python {environment['python']}, {versions}."
    )


def run_section(folder: Path) -> str:
    """A run's tables and their conditions.

    The folder's ledger may hold records of models that the config named once; they do not count.
    """
    records = read_records(folder)
    seconds = sum(record["seconds"] for record in records.all())
    shown = "\n".join(
        f"{markdown(table.header, table.cells)}\n{table.note}\n" for table in tables(records)
    )
    return (
        f"## {records.name}\n\n{shown}\n{run_conditions(records)} Its steps took {seconds:.0f} s.\n"
    )


def run_conditions(records: Records) -> str:
    """When and where a run's latencies were measured; of one without them, where it was run.

    Raises:
        BadInputError: latencies are missing, or not all of the same conditions.
    """
    if any("profile" in steps for steps in records.wanted.values()):
        return latency_conditions(records)
    record = records.all()[-1]
    return f"{record['date'][:10]}, {conditions(record['environment'])}"


def latency_conditions(records: Records) -> str:
    """When and where the models were profiled.

    Raises:
        BadInputError: no model was, or not all under the same conditions.
    """
    profiles = {
        model: steps["profile"] for model, steps in records.steps.items() if "profile" in steps
    }
    if not profiles:
        raise BadInputError(f"{str(records.folder)!r}: no model was profiled; kzoo run does it")
    models: dict[str, list[str]] = {}
    for model, record in profiles.items():
        models.setdefault(conditions(record["environment"]), []).append(model)
    if len(models) > 1:
        found = "\n".join(f"  {', '.join(named)}: {said}" for said, named in models.items())
        raise BadInputError(
            f"{str(records.folder)!r}: latencies of one table need the same conditions:\n{found}\n"
            "remove the *.profile.json of one or the other from its ledger/ and repeat kzoo run"
        )
    days = sorted({record["date"][:10] for record in profiles.values()})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{when}, {next(iter(models))}"


def seeds_section(folders: Sequence[Path]) -> str:
    """The same config from several seeds: a row each, and their mean."""
    found = [read_records(folder) for folder in folders]
    rows, figures = [], []
    for records in found:
        ((model, steps),) = records.steps.items()
        result = steps["finetune"]["result"]["evaluation"]
        seed = steps["finetune"]["settings"]["seed"]
        seconds = steps["finetune"]["seconds"]
        figures.append((result["accuracy"], result["log_loss"], seconds))
        rows.append([f"{model}, seed {seed}", *shown(figures[-1])])
    means = [statistics.mean(column) for column in zip(*figures, strict=True)]
    rows.append([f"**mean of {len(rows)}**", *shown(means)])
    header = ["", f"accuracy on {result['count']} {result['split']} images", "log-loss", "trained"]
    last = found[-1].all()[-1]
    told = f"{last['date'][:10]}, {conditions(last['environment'])}"
    return f"## {found[0].name}, from several seeds\n\n{markdown(header, rows)}\n{told}\n"


def chains_section(folders: Sequence[Path]) -> str:
    """The same chains of compressions from several seeds: a row per network, means of all seeds."""
    found = [read_records(folder) for folder in folders]
    of_seed = [{row["model"]: row for row in rows_of(records)} for records in found]
    cells = []
    for first, made in found[0].chains.items():
        for name in (first, *made):
            pairs = [(seed[first], seed[name]) for seed in of_seed]
            cells.append(
                [
                    name,
                    *(_accuracies(pairs, kind) for kind in ("float", "int8")),
                    _ratio(pairs, lambda row: row["macs"]),
                    _ratio(pairs, lambda row: row["p50_float_ms"]),
                    _ratio(pairs, lambda row: row["p50_int8_ms"], lambda row: row["p50_float_ms"]),
                    _ratio(pairs, lambda row: row["gzip_int8"], lambda row: row["bytes_float"]),
                    _ratio(pairs, lambda row: row["coded_bytes"], lambda row: 4 * row["params"]),
                ]
            )
    header = ["", "float", "int8", "MACs", "p50 float", "p50 int8", "int8 gzip", "Huffman"]
    keep = [i for i, _ in enumerate(header) if any(row[i] != NOTHING for row in cells)]
    cells = [[row[i] for i in keep] for row in cells]
    count = next(iter(of_seed[0].values()))["count"]
    of_what = {
        "MACs": "MACs",
        "p50 float": "p50, of its float file's",
        "int8 gzip": "int8 gzip, of its float file's bytes",
        "Huffman": "Huffman, of its float32 weights",
    }
    shares = "; ".join(said for name, said in of_what.items() if header.index(name) in keep)
    note = (
        f"Means of {len(found)} seeds, of the networks and of their compressions. Accuracy: on "
        f"{count} images, and the distance in points from the float network that came, whose seeds "
        f"are in brackets. Then shares of that network's: {shares}."
    )
    last = found[-1].all()[-1]
    told = f"{last['date'][:10]}, {conditions(last['environment'])}"
    table = markdown([header[i] for i in keep], cells)
    return f"## {found[0].name}, from several seeds\n\n{table}\n{note}\n\n{told}\n"


def _accuracies(pairs: Sequence[tuple], kind: str) -> str:
    each = [row[f"accuracy_{kind}"] for _, row in pairs]
    if None in each:
        return NOTHING
    mean, base = (statistics.mean(values) for values in (each, _floats(pairs)))
    if kind == "float" and all(first is row for first, row in pairs):
        return f"{100 * mean:.1f} % ({', '.join(f'{100 * value:.1f}' for value in each)})"
    return f"{100 * mean:.1f} %, {100 * (mean - base):+.2f}"


def _floats(pairs: Sequence[tuple]) -> list[float]:
    return [first["accuracy_float"] for first, _ in pairs]


def _ratio(pairs: Sequence[tuple], of, whole=None) -> str:
    each = [(of(row), (whole or of)(first)) for first, row in pairs]
    if any(None in values for values in each):
        return NOTHING
    mean = statistics.mean(own / first for own, first in each)
    return f"{mean:.2f}" if mean > 0.2 else f"{mean:.3f}"


def shown(figures: Sequence[float]) -> list[str]:
    accuracy, log_loss, seconds = figures
    return [f"{100 * accuracy:.1f} %", f"{log_loss:.3f}", f"{seconds / 60:.1f} min"]


def bench_section(path: Path) -> str:
    """A benchmark's table and its conditions."""
    record = json.loads(path.read_text())
    if "cells" in record:
        told = f"{record['date'][:10]}, {conditions(record['environment'])}"
        table = markdown(record["header"], record["cells"])
        return f"## {record['title']}\n\n{table}\n{record['note']}\n\n{told}\n"
    base = record["rows"][record["reference"]]["median"]
    rows = [
        [
            f"`{name}`",
            f"{row['median']:.3f}",
            f"{row['min']:.3f} to {row['max']:.3f}",
            f"{row['median'] / base:.3f}",
        ]
        for name, row in record["rows"].items()
    ]
    count = record["rows"][record["reference"]]["count"]
    return (
        f"## {record['title']}\n\n"
        f"{markdown(['', 'median, ' + record['unit'], 'range', 'ratio'], rows)}\n"
        f"{count} alternated rounds. {record['date'][:10]}, {conditions(record['environment'])}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--seeds", nargs="+", type=Path, action="append", default=[])
    parser.add_argument("--bench", nargs="*", type=Path, default=[])
    options = parser.parse_args()
    sections = [*map(run_section, options.runs)]
    for folders in options.seeds:
        chains = read_records(folders[0]).chains
        sections.append((chains_section if chains else seeds_section)(folders))
    sections += map(bench_section, options.bench)
    file = ROOT / "docs" / "results.md"
    known = {title(text): text for text in re.split(r"\n(?=## )", file.read_text())[1:]}
    known |= {title(text): text for text in sections}
    head = (
        "# Measured results\n\nWritten by tools/results.py (`make results`) from the records of "
        "runs, studies\nand benchmarks; nothing here is typed by hand. Latencies are of the "
        "machine named beside them.\n\n"
    )
    file.write_text(head + "\n".join(text.rstrip("\n") + "\n" for text in known.values()))
    for text in sections:
        if title(text) == "## quickstart":
            readme = ROOT / "README.md"
            before, rest = readme.read_text().split(BEGIN)
            table, after = text.split("\n", 2)[2], rest.split(END)[1]
            readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def title(section: str) -> str:
    return section.split("\n", 1)[0]


if __name__ == "__main__":
    try:
        main()
    except KzooError as error:
        sys.exit(f"error: {error}")
