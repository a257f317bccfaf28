"""The report of a run: one HTML file that needs no other, from the run's records."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kzoo.files import disk_errors, sha256, write_bytes
from kzoo.report import plots, sections
from kzoo.report.records import Records, damaged, ledger, read_records
from kzoo.report.table import format_rows, rows

if TYPE_CHECKING:
    import jinja2

LARGEST_TILE = 192
"""Pixels; the report shows samples at half of it, and 24 of them should not weigh megabytes."""


def write_report(folder: str | os.PathLike) -> Path:
    """Writes ``report.html``, and its figures as ``plots/*.png``, into a run's folder.

    The file is self-contained: pictures are inside, nothing is requested, nothing is executed.
    Steps that were not done are named and left out. The same records give the same bytes.

    Raises:
        MissingError: the folder is no run's, or it cannot be written to.
        BadInputError: a record in it is damaged.
    """
    records = read_records(folder)
    summary = rows(records)
    with disk_errors(records.folder / "plots"):
        (records.folder / "plots").mkdir(exist_ok=True)
    header, cells = format_rows(summary)
    page = template("report.html").render(
        name=records.name,
        date=max((record["date"] for record in records.all()), default="")[:16].replace("T", " "),
        version=next(
            (r["environment"].get("packages", {}).get("kzoo") for r in records.all()), None
        ),
        verdict=sections.verdict(records, summary),
        failures=[(row["model"], text) for row in summary for text in row["failures"] or []],
        gates=sections.gates_set(records),
        notices=sections.notices(records, summary),
        header=header,
        cells=cells,
        evaluated=next((row for row in summary if row["count"]), None),
        models=[
            _model(records, model, row) for model, row in zip(records.models, summary, strict=True)
        ],
        data=sections.data_section(records),
        environments=sections.environments(records),
        states=sections.device_states(records),
        config=records.config,
        artifacts=sections.artifacts(records),
    )
    path = records.folder / "report.html"
    # A name read from a file system may hold what UTF-8 cannot.
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def template(name: str) -> jinja2.Template:
    """One of the pages of this room. What is put into it is text, whatever it holds."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _model(records: Records, model: str, row: Mapping) -> dict:
    section = sections.model_section(records, model, row)
    section["figures"] = _figures(records, model)
    section["classes"] = []
    if section["mistakes"]:
        matrix = records.result(model, "check")["int8"]["lite"]["confusion"]
        section["classes"] = sections.class_names(records, model, len(matrix))
    with damaged(ledger(records.folder, model, "check")):
        section["samples"] = _samples(records, model)
    return section


def _figures(records: Records, model: str) -> dict[str, str]:
    """Draws what the records allow; name → data URI."""
    drawn = {}

    def draw(name: str, step: str, plot: Callable[[Path], None]) -> None:
        path = records.folder / "plots" / f"{model}.{name}.png"
        with damaged(ledger(records.folder, model, step)):
            plot(path)
        drawn[name] = data_uri(path.read_bytes())

    if (trained := records.result(model, "finetune")) and trained.get("history"):
        draw("curves", "finetune", lambda path: plots.curves(trained["history"], path))
    if checked := records.result(model, "check"):

        def confusion(path: Path) -> None:
            matrix = checked["int8"]["lite"]["confusion"]
            plots.confusion(matrix, sections.class_names(records, model, len(matrix)), path)

        draw("confusion", "check", confusion)
    if inside := sections.contents(records, model):
        draw("sizes", "convert", lambda path: plots.sizes(inside, path))
    if profiled := records.result(model, "profile"):
        draw("latency", "profile", lambda path: plots.latency(profiled, path))
    return drawn


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _samples(records: Records, model: str) -> dict | None:
    """The sample images with what was said of them, or why they cannot be shown."""
    record = records.steps[model].get("check")
    samples = record["result"].get("samples") if record else None
    if not samples:
        return None
    tiles = _tiles(records.folder / samples["file"], record["outputs"], samples)
    shown = []
    for i, prediction in enumerate(samples["predictions"]):
        right = {
            kind: prediction[kind]["class"] == prediction["label"] for kind in ("keras", "int8")
        }
        if right["keras"] == right["int8"]:
            outcome = "right" if right["int8"] else "WRONG in both"
        else:
            outcome = "int8 right, float WRONG" if right["int8"] else "int8 WRONG, float right"
        shown.append(
            {
                "image": tiles[i] if tiles else None,
                "path": prediction["path"],
                "label": prediction["label"],
                "outcome": outcome,
                "answers": [
                    (
                        name,
                        prediction[kind]["class"],
                        f"{100 * prediction[kind]['probability']:.1f} %",
                    )
                    for name, kind in (("float", "keras"), ("int8", "int8"))
                ],
            }
        )
    return {
        "shown": shown,
        "split": samples["split"],
        "pixelated": max(samples["size"]) <= LARGEST_TILE // 2,
        "lost": tiles is None,
    }


def _tiles(strip: Path, outputs: Mapping[str, str], samples: Mapping) -> list[str] | None:
    """Cuts the strip of samples; None unless it is the file that the record speaks of."""
    from PIL import Image

    if not strip.is_file() or sha256(strip) != outputs.get(samples["file"]):
        return None
    height, width = samples["size"]
    tiles = []
    with Image.open(strip) as image:
        if image.size != (width * len(samples["predictions"]), height):
            return None
        for i in range(len(samples["predictions"])):
            tile = image.crop((i * width, 0, (i + 1) * width, height))
            tile.thumbnail((LARGEST_TILE, LARGEST_TILE))
            buffer = io.BytesIO()
            tile.save(buffer, "PNG")
            tiles.append(data_uri(buffer.getvalue()))
    return tiles
