"""The page of a localization: where an int8 file loses what its network knew, by operator."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from kzoo.files import write_bytes
from kzoo.report.page import template
from kzoo.report.sections import environment_facts
from kzoo.report.structure import stages_of
from kzoo.report.table import byte_size, percent

MOST_DB = 60.0
"""Decibels that fill a bar: of 8 bits no tensor has more by much."""
MOST_RATIO = 64.0
"""Times the median channel that fills a bar, at least."""
APART = 0.06
"""Of two numbers side by side, as a share of the strip's width on a phone."""
LEAST_CLIPPED = 0.01
"""Share of clipped values that fills a bar, at least."""


def write_localization(record: Mapping, path: str | os.PathLike, about: Mapping) -> Path:
    """Writes a localization as a self-contained page.

    Args:
        record: of `kzoo.localize`; with "tried" if `kzoo.lite.trials.cured` was called.
        path: the ``.html``.
        about: "date" and "environment", as records have them.

    Raises:
        MissingError: it cannot be written.
    """
    path = Path(path)
    alone = any("alone" in row for row in record["layers"])
    rows = _rows(record)
    by_tensor = {row["tensor"]: row for row in rows}
    findings = [
        {**finding, "row": by_tensor.get(finding["tensor"]), "said": _sentence(finding["text"]),
         "cured": _sentence(finding["cure"])}
        for finding in record["findings"]
    ]  # fmt: skip
    page = template("localization.html").render(
        name=Path(record["file"]).name,
        date=about["date"][:16].replace("T", " "),
        version=about["environment"].get("packages", {}).get("kzoo"),
        verdict=_verdict(record),
        facts=[
            ("int8 file", record["file"]),
            ("network", record["against"]),
            ("images", record["images"]),
            ("same top-1", percent(record["agreement"])),
            ("divergence", f"{nats(record['divergence'])} nats"),
            ("operators compared", len(rows)),
        ],
        findings=findings,
        rows=rows,
        alone=alone,
        whole=nats(record["divergence"]),
        full=nats(_scale(record)),
        stages=[
            {"name": name, "first": first, "count": last + 1 - first}
            for name, first, last in stages_of([row["layer"] for row in rows])
        ],
        calibration=_calibration(record),
        tried=[
            {
                "name": each["name"], "written": each["written"],
                "agreement": percent(each["agreement"]), "share": 100 * each["agreement"],
                "divergence": nats(each["divergence"]), "size": byte_size(each["bytes"]),
            }
            for each in record.get("tried", ())
        ],
        environment=environment_facts(about["environment"]),
    )  # fmt: skip
    # A name read from a file may hold what UTF-8 cannot.
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def nats(value: float) -> str:
    """A divergence: ``0.0123``, ``4e-06``."""
    return f"{value:.4f}" if value >= 0.0005 else f"{value:.0e}" if value else "0"


def _scale(record: Mapping) -> float:
    """Nats that fill a bar: all that the file loses, or what an operator costs alone if more."""
    costs = [row.get("alone", 0.0) for row in record["layers"]]
    return max(record["divergence"], *costs, 1e-9)


def _rows(record: Mapping) -> list[dict]:
    """The operators as the template shows them: texts, and per cent of a bar."""
    layers, full = record["layers"], _scale(record)
    left = max([record["divergence"], 1e-9] + [row.get("without", 0.0) for row in layers])
    clipped = max(LEAST_CLIPPED, *(row["clipped"] for row in layers))
    wide = math.log(max(MOST_RATIO, *(row["channel_ratio"] for row in layers)))
    numbers: dict[str, list[int]] = {}
    for number, finding in enumerate(record["findings"], 1):
        numbers.setdefault(finding["tensor"], []).append(number)

    def cell(value: float | None, text: str, share: float) -> dict:
        return {"text": "", "bar": 0} if value is None else {
            "text": text, "bar": round(100 * min(max(share, 0.0), 1.0), 2),
        }  # fmt: skip

    found = []
    for row in layers:
        cost, without = row.get("alone"), row.get("without")
        found.append(
            {
                "layer": row["layer"],
                "operator": row["operator"],
                "tensor": row["tensor"],
                "float": row["float"],
                "findings": numbers.get(row["tensor"], []),
                "level": 0,
                "told": _told(row),
                "alone": cell(cost, nats(cost or 0), (cost or 0) / full),
                "without": cell(without, nats(without or 0), (without or 0) / left),
                "db": cell(0, f"{row['sqnr_db']:.1f}", row["sqnr_db"] / MOST_DB),
                "clipped": cell(0, _share(row["clipped"]), row["clipped"] / clipped),
                "ratio": cell(
                    0,
                    f"{row['channel_ratio']:.1f}",
                    math.log(max(row["channel_ratio"], 1.0)) / wide,
                ),
            }
        )
    _apart(found)
    return found


def _apart(rows: list[dict]) -> None:
    """Sets the level of each finding's number above its bar: those side by side would overlap."""
    last: list[int] = []  # where the last number of every level stands
    for number, row in enumerate(rows):
        if row["findings"]:
            free = (i for i, place in enumerate(last) if number - place > APART * len(rows))
            row["level"] = next(free, len(last))
            last[row["level"] : row["level"] + 1] = [number]


def _told(row: Mapping) -> str:
    """The tooltip of an operator's bars."""
    told = [f"{row['layer']}: {row['operator']}", f"{row['sqnr_db']:.1f} dB"]
    if "alone" in row:
        told.append(f"{nats(row['alone'])} nats alone")
    if row["range"]:
        low, high = row["range"]
        seen = "{:.3g} to {:.3g}".format(*row["seen"])
        told.append(f"range {low:.3g} to {high:.3g}, seen {seen}")
    if row["weights_db"] is not None:
        told.append(f"kernel {row['weights_db']:.0f} dB")
    return "\n".join(told)


def _share(value: float) -> str:
    return "0" if value == 0 else "< 0.01 %" if value < 0.0001 else f"{100 * value:.2f} %"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _verdict(record: Mapping) -> str:
    said = (
        f"The int8 file has the network's top-1 on {percent(record['agreement'])} of "
        f"{record['images']:,} images, and its probabilities are {nats(record['divergence'])} nats "
        "from the network's."
    )
    if not record["findings"]:
        return f"{said} No operator stands out."
    first = record["findings"][0]
    what = "its ranges" if first["tensor"] == "image" else first["layer"]
    return f"{said} To look at first: {what} ({first['cause']})."


def _calibration(record: Mapping) -> dict:
    """How far the file's ranges are from those of the images, as each variant has them."""
    distances: Mapping[str, float] = record["calibration"]
    most = max([*distances.values(), 1e-9])
    finding = next((f for f in record["findings"] if f["tensor"] == "image"), None)
    now = distances["as they are"]
    if finding:
        said = _sentence(finding["text"])
    elif not any(distances.values()):
        said = "Too few ranges depend on the images to tell what the file was calibrated on."
    else:
        said = f"Its ranges fit these images: {now:.3f} apart."
        nearest = min(distances, key=distances.__getitem__)
        if distances[nearest] < now:
            said += f" {_sentence(nearest)[:-1]} they are {distances[nearest]:.3f} apart, too "
            said += "little nearer to tell."
    return {
        "said": said,
        "bad": finding is not None,
        "bars": [
            {"name": name, "text": f"{value:.3f}", "bar": round(100 * value / most, 2),
             "nearest": value == min(distances.values())}
            for name, value in distances.items()
        ],
    }  # fmt: skip
