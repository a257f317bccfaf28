"""Writes the tables of docs/results.md and of the README from the records of runs and benchmarks.

python tools/results.py runs/quickstart [runs/photos] --bench build/startup.json ...
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kzoo.report.table import format_rows, summary_rows

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- table written by tools/results.py -->\n", "<!-- end of table -->\n"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def conditions(environment: dict, date: str) -> str:
    """Where and when a figure was measured."""
    machine, packages = environment["machine"], environment["packages"]
    named = [name for name in ("tensorflow", "keras", "ai-edge-litert") if name in packages]
    versions = ", ".join(f"{name} {packages[name]}" for name in named)
    return (
        f"{date[:10]}, {machine['processor']}, {machine['cores']} cores, "
        f"{' '.join(machine['simd'])}, {machine['system']}, "
        f"Python {environment['python']}, {versions}."
    )


def run_section(folder: Path) -> str:
    """A run's table and its conditions."""
    records = [json.loads(path.read_text()) for path in sorted((folder / "ledger").glob("*.json"))]
    last = max(records, key=lambda record: record["date"])
    seconds = sum(record["seconds"] for record in records)
    name = json.loads((folder / "run.json").read_text())["name"]
    return (
        f"## {name}\n\n{markdown(*format_rows(summary_rows(folder)))}\n"
        f"{conditions(last['environment'], last['date'])} Its steps took {seconds:.0f} s.\n"
    )


def bench_section(path: Path) -> str:
    """A benchmark's table and its conditions."""
    record = json.loads(path.read_text())
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
        f"{count} alternated rounds. {conditions(record['environment'], record['date'])}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--bench", nargs="*", type=Path, default=[])
    options = parser.parse_args()
    sections = [*map(run_section, options.runs), *map(bench_section, options.bench)]
    head = (
        "# Measured results\n\nWritten by `make results` from the records of runs and benchmarks; "
        "nothing here is typed by hand.\nLatencies are of the machine named beside them.\n\n"
    )
    (ROOT / "docs" / "results.md").write_text(head + "\n".join(sections))
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    table = run_section(options.runs[0]).split("\n", 2)[2]
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
