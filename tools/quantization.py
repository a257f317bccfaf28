"""Makes every architecture in every recipe; writes the tables in docs/quantization.md.

python tools/quantization.py make [NAME ...]            docs/quantization.json, hours for all
python tools/quantization.py trained DATA NET.keras ... docs/quantization_trained.json, minutes each
python tools/quantization.py write                      the tables

What is trained are networks of several seeds, whose recipes are compared on validation images; what
was published of others stands beside them, from docs/published_quantization.csv.

`make` goes on where it was stopped. Networks have ten classes, their smallest input and random
weights: what is shown is what a recipe makes of the operators, and what it refuses, and not how
good it is. BatchNorm is of crops of scikit-learn's two sample photos and of noise, calibration of
the crops. A crash of the converter is a refusal, and the rest goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from results import conditions, markdown
from zoo import photos, tame

from kzoo.errors import KzooError
from kzoo.files import atomic, sha256
from kzoo.learn.batch_norm import recalibrate
from kzoo.lite.recipes import RECIPES
from kzoo.progress import silent
from kzoo.registry import Entry, entry, list_models

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "docs" / "quantization.json"
TRAINED = ROOT / "docs" / "quantization_trained.json"
PUBLISHED = ROOT / "docs" / "published_quantization.csv"
PAGE = ROOT / "docs" / "quantization.md"
ROUNDING = 1e-7
"""Of float32, about."""
BEGIN, END = "<!-- written by tools/quantization.py -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["make", "trained", "write"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if options.action == "write":
        write()
        return
    if options.action == "trained":
        data, *files = options.names
        for file in files:
            print(file, flush=True)
            kept(TRAINED, {sha256(file): trained(file, data)})
        return
    for name in sorted(options.names or list_models(), key=lambda n: entry(n).macs):
        if options.names or name not in read():
            print(name, flush=True)
            kept(RECORDS, {name: make(entry(name))})


def read(file: Path = RECORDS) -> dict:
    return json.loads(file.read_text()) if file.exists() else {}


def kept(file: Path, made: dict) -> None:
    records = read(file) | made
    with atomic(file) as temporary:
        rows = [f"{json.dumps(n)}: {json.dumps(records[n])}" for n in sorted(records)]
        temporary.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def trained(file: str, data: str) -> dict:
    """Of a trained network and each recipe: what `kzoo check` tells on its validation images."""
    from kzoo.environment import environment
    from kzoo.lite.check import check
    from kzoo.lite.quantize import quantize

    options = {"data_options": {"bad": "skip"}}
    record = {"conditions": conditions(environment()), "recipes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in RECIPES:
            made = Path(folder, f"{recipe}.tflite")
            done = quantize(file, made, calibrate=data, recipe=recipe, **options)
            found = check(made, against=file, data=data, **options)
            record |= {"model": done.contents.notes["model"], "data": Path(data).name}
            record |= {"images": found.keras.count, "float": found.keras.accuracy}
            record["recipes"][recipe] = {
                "accuracy": found.lite.accuracy,
                "agreement": found.agreement,
                "bytes": done.contents.bytes,
                "float_islands": len(done.contents.float_islands),
            }
    return record


def make(row: Entry) -> dict:
    """Of float32 and each recipe: bytes, the error of logits, float operators, or the refusal."""
    from kzoo.lite.convert import write_lite
    from kzoo.network.model_file import save_model
    from kzoo.zoo.build import build

    small = replace(row, size=row.min_size)
    record = {}
    with tempfile.TemporaryDirectory() as folder:
        model, shown = build(row.name, size=row.min_size, classes=10, seed=0), photos(small)
        # So that no signal grows or vanishes. Photos alone leave channels that hardly vary, which
        # BatchNorm blows up.
        noise = np.random.default_rng(0).integers(0, 256, shown.shape, np.uint8)
        seen = np.concatenate([shown, noise])
        recalibrate(model, seen, np.arange(len(seen)))
        tame(model, shown)
        keras_file = save_model(model, f"{folder}/model.keras")
        for recipe in (None, *RECIPES):
            file = Path(folder, "made.tflite")
            try:
                done = write_lite(keras_file, file, recipe, "uint8", "probabilities", shown, silent)
            except KzooError as error:
                record[recipe or "float32"] = {"refused": str(error).splitlines()[0][:300]}
                if recipe is None:
                    record["float32"]["moved"] = moved(model, shown)
                continue
            record[recipe or "float32"] = {
                "bytes": done.contents.bytes,
                "error": float(f"{done.max_logit_error:.3g}"),
                "float_islands": len(done.contents.float_islands),
                "seconds": done.seconds,
            }
    return record


def moved(model, images: np.ndarray) -> float:
    """How far logits move, in standard deviations, where a rounding moves the first kernel."""
    images = images.astype(np.float32)
    before = model.predict(images, verbose=0)
    kernel = next(layer.kernel for layer in model.layers if hasattr(layer, "kernel"))
    values = np.array(kernel)
    noise = np.random.default_rng(0).standard_normal(values.shape)
    kernel.assign(values * (1 + ROUNDING * noise))
    after = model.predict(images, verbose=0)
    kernel.assign(values)
    return float(f"{np.abs(after - before).max() / before.std():.2g}")


def write() -> None:
    """Puts the tables between their marks."""
    text = [*accuracies(), *architectures()]
    page = PAGE.read_text()
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    with atomic(PAGE) as temporary:
        temporary.write_text(page[:start] + "\n" + "\n\n".join(text) + "\n" + page[end:])


def accuracies() -> list[str]:
    """Points that each recipe loses, of our networks and of those that were published."""
    records = read(TRAINED)
    if not records:
        sys.exit(f"{TRAINED.name} has no records yet: trained DATA NET.keras ..., see --help")
    groups: dict[tuple, list[dict]] = {}
    for record in records.values():
        groups.setdefault((record["model"], record["data"], record["images"]), []).append(record)
    rows = []
    for (model, data, images), found in sorted(groups.items()):
        float_ = 100 * statistics.mean(record["float"] for record in found)
        seeds = f", {len(found)} seeds" if len(found) > 1 else ""
        cells = [f"{model}, {images} images of {data}{seeds}", f"{float_:.1f} %"]
        for recipe in RECIPES:
            made = [record["recipes"][recipe] for record in found]
            lost = 100 * statistics.mean(row["accuracy"] for row in made) - float_
            agreement = statistics.mean(row["agreement"] for row in made)
            cells.append(f"{lost:+.1f} ({100 * agreement:.1f} %)")
        rows.append(cells)
    sources = []
    with open(PUBLISHED) as lines:
        for row in csv.DictReader(lines):
            lost = [
                f"{float(row[recipe]) - float(row['float']):+.1f}" if row.get(recipe) else ""
                for recipe in RECIPES
            ]
            if row["source"] not in sources:
                sources.append(row["source"])
            name = f"*{row['network']}, ImageNet* [{sources.index(row['source']) + 1}]"
            rows.append([name, f"{float(row['float']):.1f} %", *lost])
    return [
        "Points of accuracy that a recipe loses, and in brackets the share of images that keep "
        "their class. In italics what others published of their files.",
        markdown(["network", "float", *(f"`{recipe}`" for recipe in RECIPES)], rows),
        " ".join(f"[{number}] {source}." for number, source in enumerate(sources, 1)),
        " ".join({record["conditions"]: None for record in records.values()}),
    ]


def architectures() -> list[str]:
    """What becomes of every architecture, with random weights."""
    records = {name: row for name, row in read().items() if name in list_models()}
    if not records:
        sys.exit("docs/quantization.json has no records yet: python tools/quantization.py make")
    header = ["recipe", "made", "of float's bytes", "whole", "refused"]
    rows, reasons = [], {}
    for recipe in ("float32", *RECIPES):
        found = {name: row[recipe] for name, row in records.items() if recipe in row}
        made = {name: row for name, row in found.items() if "refused" not in row}
        whole = {name: records[name]["float32"] for name in made}
        shares = [made[n]["bytes"] / whole[n]["bytes"] for n in made if "bytes" in whole[n]]
        for name in found.keys() - made.keys():
            reasons.setdefault((recipe, kind(found[name]["refused"])), []).append(name)
        integer = recipe in RECIPES and RECIPES[recipe].activations is not None
        rows.append(
            [
                f"`{recipe}`",
                f"{len(made)} of {len(found)}",
                f"{statistics.median(shares):.2f}",
                f"{sum(not row['float_islands'] for row in made.values())}" if integer else "",
                f"{len(found) - len(made)}",
            ]
        )
    missing = [name for name in list_models() if name not in records]
    text = [
        f"{len(records)} architectures with random weights, ten classes and their smallest input. "
        "Bytes are medians. Whole are files without a float operator.",
        *([f"Not made yet: {', '.join(missing)}."] if missing else []),
        markdown(header, rows),
    ]
    if reasons:
        text.append(
            "Refused, each before anything is written:\n\n"
            + "\n".join(
                f"- `{recipe}`: {reason} ({', '.join(sorted(names))})"
                for (recipe, reason), names in sorted(reasons.items())
            )
        )
    shares = sorted(
        row["float32"]["moved"] for row in records.values() if "moved" in row["float32"]
    )
    if shares:
        text.append(
            "Where a float32 file is refused, the random network itself amplifies what is "
            f"rounded: {ROUNDING:g} of each weight of its first kernel moves its logits by "
            f"{shares[0]:g} to {shares[-1]:g} standard deviations."
        )
    return text


def kind(reason: str) -> str:
    """A refusal without the names and numbers of the one network."""
    return re.sub(r"'[^']*'|/\S+|\d+", "…", reason)


if __name__ == "__main__":
    main()
