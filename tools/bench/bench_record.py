"""What every benchmark here ends with: medians, ratios, a table, a record."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from kzoo.environment import environment


def medians(samples: Mapping[str, list[float]]) -> dict[str, dict]:
    """Median, extremes and count of each side's samples."""
    return {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "count": len(values),
        }
        for name, values in samples.items()
    }


def finish(
    title: str, unit: str, rows: Mapping[str, dict], reference: str, path: Path | None
) -> None:
    """Prints the table, ratios being to ``reference``, and writes the record where asked."""
    base = rows[reference]["median"]
    print(f"{title} ({unit}, median of {rows[reference]['count']} alternated rounds)")
    for name, row in rows.items():
        spread = f"[{row['min']:.4f}, {row['max']:.4f}]"
        print(f"  {name:42s} {row['median']:9.4f}  {spread:20s} x {row['median'] / base:.3f}")
    if path:
        write(path, title=title, unit=unit, reference=reference, rows=rows)


def write(path: Path, **record: object) -> None:
    """The record of a benchmark, with its date and environment.

    It has a title, and rows by name with a reference, as `finish` makes them, or a table: a header,
    cells and a note. `tools/results.py` shows both.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    record |= {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment(),
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
