"""Converts and measures every architecture on this machine; writes docs/zoo.md from the records.

python tools/zoo.py convert [NAME ...]    .tflite files into build/zoo, an hour or two for all
python tools/zoo.py measure [NAME ...]    their latency into docs/zoo.json; leave the machine alone
python tools/zoo.py write                 docs/zoo.md and docs/zoo.png from docs/zoo.json

Each goes on where it was stopped. Weights are random: they decide neither size nor latency. Int8
files are calibrated on crops of scikit-learn's two sample photos.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np

from kzoo.environment import environment
from kzoo.errors import KzooError
from kzoo.files import atomic
from kzoo.progress import silent
from kzoo.registry import Entry, entry, list_models, pair
from kzoo.report.table import milliseconds

sys.path.insert(0, str(Path(__file__).parent))
from results import conditions, markdown

ROOT = Path(__file__).parents[1]
FILES = ROOT / "build" / "zoo"
RECORDS = ROOT / "docs" / "zoo.json"
CALIBRATION_IMAGES = 8
MIN_RUNS, MIN_SECONDS = 20, 1.0
FORMATS = ("float32", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["convert", "measure", "write"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if options.action == "write":
        write()
        return
    work, done = (convert, made) if options.action == "convert" else (measure, read)
    for name in sorted(options.names or list_models(), key=lambda n: entry(n).macs):
        if name in done() and not options.names:
            continue
        print(name, flush=True)
        try:
            work(entry(name))
        except KzooError as error:
            print(f"  {error}", file=sys.stderr, flush=True)


def made() -> dict:
    """Name -> what `convert` noted about its files."""
    return {file.stem: json.loads(file.read_text()) for file in FILES.glob("*.json")}


def read() -> dict:
    return json.loads(RECORDS.read_text()) if RECORDS.exists() else {}


def convert(row: Entry) -> None:
    """Writes build/zoo/NAME.float32.tflite, NAME.int8.tflite and NAME.json."""
    from kzoo.lite.convert import write_lite
    from kzoo.network.model_file import save_model
    from kzoo.zoo.build import build

    FILES.mkdir(parents=True, exist_ok=True)
    record = {}
    with tempfile.TemporaryDirectory() as folder:
        model, shown = build(row.name, seed=0), photos(row)
        tame(model, shown)
        keras_file = save_model(model, f"{folder}/model.keras")
        for kind in FORMATS:
            file = FILES / f"{row.name}.{kind}.tflite"
            images = shown if kind == "int8" else None
            recipe = None if kind == "float32" else kind
            written = write_lite(keras_file, file, recipe, "uint8", "probabilities", images, silent)
            record[kind] = {
                "bytes": written.contents.bytes,
                "gzip_bytes": written.contents.gzip_bytes,
                "max_logit_error": round(written.max_logit_error, 7),
                "float_islands": len(written.contents.float_islands),
            }
    with atomic(FILES / f"{row.name}.json") as temporary:
        temporary.write_text(json.dumps(record))


def tame(model, images: np.ndarray) -> None:
    """Scales BatchNorm until the logits are small.

    The deepest networks of random weights amplify rounding errors along with the signal, past what
    the check of a conversion allows: EfficientNetV2's logits are 200 to 600,000.
    """
    import keras

    while np.std(model(images[:1].astype(np.float32))) > 10:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization) and layer.scale:
                layer.gamma.assign(0.8 * layer.gamma)


def measure(row: Entry) -> None:
    """Adds the latency of both files, one thread, to docs/zoo.json."""
    from kzoo.measure.profile import profile

    record = made().get(row.name)
    if record is None:
        print("  no files yet: python tools/zoo.py convert", file=sys.stderr)
        return
    for kind in FORMATS:
        file = FILES / f"{row.name}.{kind}.tflite"
        timed = profile(file, min_runs=MIN_RUNS, min_seconds=MIN_SECONDS)
        record |= {"date": timed.date, "conditions": conditions(environment())}
        record[kind] |= {
            "p50_ms": round(timed.runs[0].latency.p50_ms, 4),
            "runs": timed.runs[0].latency.count,
            "delegate": timed.delegate,
            "peak_bytes": timed.memory.peak_bytes - timed.memory.baseline_bytes,
            "notes": timed.notes,
        }
    records = read() | {row.name: record}
    with atomic(RECORDS) as temporary:
        rows = [f"{json.dumps(name)}: {json.dumps(records[name])}" for name in sorted(records)]
        temporary.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def photos(row: Entry) -> np.ndarray:
    """Crops of real photos at the architecture's input, uint8 (8, h, w, c)."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    height, width = pair(row.size)
    random = np.random.default_rng(0)
    found = []
    for index in range(CALIBRATION_IMAGES):
        photo = Image.fromarray(load_sample_images().images[index % 2])
        side = int(random.integers(200, min(photo.size)))
        left, top = (int(random.integers(0, length - side + 1)) for length in photo.size)
        crop = photo.crop((left, top, left + side, top + side)).resize((width, height))
        crop = crop.convert("L") if row.channels == 1 else crop
        found.append(np.asarray(crop).reshape(height, width, row.channels))
    return np.stack(found)


def write() -> None:
    """docs/zoo.md and docs/zoo.png."""
    from kzoo.report.plots import accuracy_against_latency

    records = {name: found for name, found in read().items() if name in list_models()}
    if not records:
        sys.exit("docs/zoo.json has no records yet: python tools/zoo.py convert, then measure")
    points = []
    for name, record in records.items():
        row = entry(name)
        if row.top1 and row.top1_data == "ImageNet-1k":
            times = {kind: record[kind]["p50_ms"] for kind in FORMATS}
            points.append({"name": name, "top1": row.top1, **times})
    accuracy_against_latency(
        points,
        RECORDS.with_suffix(".png"),
        "Published top-1 against latency measured here, one thread",
    )
    with atomic(RECORDS.with_suffix(".md")) as temporary:
        temporary.write_text(page(records))


def page(records: dict) -> str:
    """The page: how it was made, the plot, the table of all names, sources."""
    names = list_models()
    machines = sorted({record["conditions"] for record in records.values()})
    days = sorted({record["date"][:10] for record in records.values()})
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    missing = [name for name in names if name not in records]
    introduction = textwrap.fill(
        f"{len(names)} architectures. Parameters are the trainable ones, MACs those of "
        "convolutions, dense and recurrent layers for one image, both counted on the network that "
        "`kzoo build NAME` gives. Top-1 is the figure published for pretrained weights, on "
        "ImageNet-1k unless said; kzoo has not measured it. Sizes are of `.tflite` files in "
        "megabytes (10^6 bytes). Latency is the median of at least "
        f"{MIN_RUNS} runs and {MIN_SECONDS:g} s with one thread, uint8 pixels in, probabilities "
        f"out, measured {when} on {' and '.join(machines)} The weights are random, which "
        "changes neither. * marks an int8 file in which some operators stay in float32; `kzoo info "
        "NAME` says why." + (f" Not measured yet: {', '.join(missing)}." if missing else ""),
        110,
    )
    header = ["name", "input", "parameters", "MMACs", "top-1 %", "float MB", "int8 MB"]
    header += ["float p50 ms", "int8 p50 ms"]
    papers: dict[str, list[str]] = {}
    for name in names:
        papers.setdefault(entry(name).paper, []).append(name)
    return f"""# The zoo

<!-- written by tools/zoo.py from the registry and docs/zoo.json; do not edit -->

{introduction}

![Published top-1 against measured latency](zoo.png)

{markdown(header, [cells(entry(name), records.get(name)) for name in names])}
## Where the figures come from

{markdown(["names", "paper", "top-1 from"], sources(papers))}"""


def cells(row: Entry, record: dict | None) -> list[str]:
    high, wide = pair(row.size)
    top1 = "" if row.top1 is None else f"{row.top1:.1f}"
    if top1 and row.top1_data != "ImageNet-1k":
        top1 += f" ({row.top1_data})"
    size = f"{high}" if high == wide else f"{high}x{wide}"
    found = [row.name, f"{size}x{row.channels}", f"{row.params:,}", f"{row.macs / 1e6:,.1f}", top1]
    if record is None:
        return [*found, "", "", "", ""]
    star = "*" if record["int8"]["float_islands"] else ""
    sizes = [f"{record[kind]['bytes'] / 1e6:.2f}" for kind in FORMATS]
    times = [milliseconds(record[kind]["p50_ms"]) for kind in FORMATS]
    return [*found, sizes[0], sizes[1] + star, times[0], times[1] + star]


def sources(papers: dict[str, list[str]]) -> list[list[str]]:
    rows = []
    for paper, names in papers.items():
        read_in = sorted({entry(name).top1_source for name in names} - {""})
        rows.append([", ".join(f"`{name}`" for name in names), paper, "; ".join(read_in)])
    return rows


if __name__ == "__main__":
    main()
