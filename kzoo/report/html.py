"""The report of a run: one HTML file that needs no other, from the run's records."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from kzoo.files import disk_errors, sha256, write_bytes
from kzoo.report import accuracy_plots, plots, sections, summary
from kzoo.report.accuracy import class_names, evaluations
from kzoo.report.fewshot import study_csv, study_section
from kzoo.report.model import contents, model_section
from kzoo.report.page import data_uri, pixelated, template, tile
from kzoo.report.records import Records, damaged, ledger, read_records
from kzoo.report.table import rows


def write_report(folder: str | os.PathLike) -> Path:
    """Writes ``report.html`` into a run's folder, its figures as ``plots/*.png``.

    The heads of a few-shot study, their means and curves become ``tables/*.csv``.

    The file is self-contained: pictures are inside, nothing is requested, nothing is executed.
    Steps that were not done are named and left out. The same records give the same bytes.

    Raises:
        MissingError: the folder is no run's, or it cannot be written to.
        BadInputError: a record in it is damaged.
    """
    records = read_records(folder)
    found = rows(records)
    with disk_errors(records.folder / "plots"):
        (records.folder / "plots").mkdir(exist_ok=True)
    page = template("report.html").render(
        name=records.name,
        date=max((record["date"] for record in records.all()), default="")[:16].replace("T", " "),
        version=next(
            (r["environment"].get("packages", {}).get("kzoo") for r in records.all()), None
        ),
        verdict=_verdict(records, found),
        failures=[(row["model"], text) for row in found for text in row["failures"] or []],
        gates=sections.gates_set(records),
        notices=sections.notices(records, found),
        tables=summary.tables(records),
        models=[
            _model(records, model, row) for model, row in zip(records.models, found, strict=True)
        ],
        served=sections.served(records),
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


def _verdict(records: Records, found: list[dict]) -> str:
    """The run in a few lines; one that studies features alone has neither gates nor int8 files."""
    studies = summary.studies(records)
    trained = any(row["accuracy_float"] is not None for row in found)
    first = [sections.verdict(records, found)] if trained or not studies else []
    gained = [*summary.distillations(records, found), *summary.compressions(records, found)]
    return " ".join([*first, *gained, *studies])


def _model(records: Records, model: str, row: Mapping) -> dict:
    section = model_section(records, model, row)
    section["figures"] = _figures(records, model)
    with damaged(ledger(records.folder, model, "check")):
        section["samples"] = _samples(records, model)
    with damaged(ledger(records.folder, model, "fewshot")):
        section["study"] = _study(records, model)
    return section


def _study(records: Records, model: str) -> dict | None:
    result = records.result(model, "fewshot")
    if not result:
        return None
    section = study_section(result, records.folder / "plots", f"{model}.fewshot_")
    with disk_errors(records.folder / "tables"):
        (records.folder / "tables").mkdir(exist_ok=True)
    section["files"] = {}
    for name, table in study_csv(result).items():
        file = f"tables/{model}.fewshot{'' if name == 'heads' else f'_{name}'}.csv"
        write_bytes(records.folder / file, table)
        section["files"][name] = file
    return section


def _figures(records: Records, model: str) -> dict[str, str]:
    """Draws what the records allow; name → data URI."""
    drawn = {}

    def draw(name: str, step: str, plot: Callable[[Path], None]) -> None:
        path = records.folder / "plots" / f"{model}.{name}.png"
        with damaged(ledger(records.folder, model, step)):
            plot(path)
        drawn[name] = data_uri(path.read_bytes())

    trainer = records.trainer(model)
    if (trained := records.result(model, trainer)) and trained.get("history"):
        draw("curves", trainer, lambda path: plots.curves(trained["history"], path))
    step = "check" if records.result(model, "check") else trainer
    with damaged(ledger(records.folder, model, step)):
        judged = evaluations(records, model)
    if judged:

        def confusion(path: Path) -> None:
            matrix = list(judged.values())[-1]["confusion"]
            plots.confusion(matrix, class_names(records, model, len(matrix)), path)

        draw("confusion", step, confusion)
        known = {name: each for name, each in judged.items() if each.get("reliability")}
        # The float32 file computes what the Keras model does.
        known.pop("float32 file", None)
        if known:
            draw("reliability", step, lambda path: accuracy_plots.reliability(known, path))
    if inside := contents(records, model):
        draw("sizes", "convert", lambda path: plots.sizes(inside, path))
    if profiled := records.result(model, "profile"):
        draw("latency", "profile", lambda path: plots.latency(profiled, path))
    return drawn


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
    worst = samples.get("worst")
    return {
        "worst": shown[:worst] if worst else [],
        "shown": shown[worst:] if worst is not None else shown,
        "spread": worst is not None,
        "split": samples["split"],
        "pixelated": pixelated(samples["size"]),
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
            tiles.append(tile(image.crop((i * width, 0, (i + 1) * width, height))))
    return tiles
