"""The page of an evaluation: how good one model is on labelled images, and its worst mistakes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kzoo.files import write_bytes
from kzoo.report import accuracy_plots, plots
from kzoo.report.accuracy import judged
from kzoo.report.page import data_uri, pixelated, template, tile
from kzoo.report.sections import environment_facts
from kzoo.report.table import percent


def write_evaluation(assessment, path: str | os.PathLike, about: Mapping) -> Path:
    """Writes an evaluation as a self-contained page.

    Args:
        assessment: a `kzoo.lite.evaluate.Assessment`.
        path: the ``.html``.
        about: "date" and "environment", as records have them.

    Raises:
        MissingError: it cannot be written.
    """
    path = Path(path)
    record = assessment.to_dict()
    kind = ".tflite file" if record["model"].endswith(".tflite") else "Keras model"
    found = {kind: record["evaluation"]}
    page = template("evaluation.html").render(
        name=f"{Path(record['model']).name} on {Path(record['data']).name or record['data']}",
        date=about["date"][:16].replace("T", " "),
        version=about["environment"].get("packages", {}).get("kzoo"),
        verdict=_verdict(record["evaluation"]),
        facts=_facts(record, assessment.images.shape[1:]),
        model={
            "name": Path(record["model"]).name,
            "figures": _figures(found, record["classes"]),
            **judged(found, record["classes"]),
        },
        mistakes=_mistakes(record["mistakes"], assessment.images),
        pixelated=pixelated(assessment.images.shape[1:3]),
        environment=environment_facts(about["environment"]),
    )
    # A name read from a file system may hold what UTF-8 cannot.
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def _verdict(found: Mapping) -> str:
    count = found["count"]
    low, high = (percent(edge, count) for edge in found["interval"])
    return (
        f"{percent(found['accuracy'], count)} of {count:,} {found['split']} images are right "
        f"(95 % interval: {low[:-2]} to {high})."
    )


def _facts(record: Mapping, image: tuple[int, int, int]) -> list[tuple[str, object]]:
    return [
        ("model", record["model"]),
        ("SHA-256", record["sha256"] and f"{record['sha256'][:16]}…"),
        ("data", record["data"]),
        ("input", " × ".join(map(str, image))),
        ("classes", f"{len(record['classes']):,}"),
        ("images", f"{record['evaluation']['count']:,} of {record['evaluation']['split']}"),
    ]


def _figures(found: Mapping[str, Mapping], classes: list[str]) -> dict[str, str]:
    """Draws the confusion matrix and the reliability diagram; name -> data URI."""
    (judged_one,) = found.values()
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        files = {name: Path(folder) / f"{name}.png" for name in ("confusion", "reliability")}
        plots.confusion(judged_one["confusion"], classes, files["confusion"])
        accuracy_plots.reliability(found, files["reliability"])
        return {name: data_uri(file.read_bytes()) for name, file in files.items()}


def _mistakes(rows: list[dict], images) -> list[dict]:
    """The tiles of parts.html, from uint8 (mistakes, h, w, c)."""
    from PIL import Image

    return [
        {
            "image": tile(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)),
            "path": row["path"],
            "label": row["label"],
            "outcome": None,
            "answers": [("answer", row["predicted"], f"{100 * row['probability']:.1f} %")],
        }
        for row, pixels in zip(rows, images, strict=True)
    ]
