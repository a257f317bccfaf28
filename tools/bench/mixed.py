"""What `--recipe mixed` gains over plain int8, and what it costs: agreement, divergence, latency.

A NAME is built with random weights for the data's classes, its BatchNorm set on the photos; a
.keras file is taken as it is. Both files are compared with the network on photos that neither was
made with, and measured in turns, one thread, each time in a fresh process; a ratio is mixed's over
int8's.

    python tools/bench/mixed.py efficientnet_b0 mobilenet_v3_small trained.keras --data photos/
        [--size 128] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from bench_record import write
from conversion import silenced
from zoo import tame

HELD_OUT = "validation"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import kzoo
    from kzoo.data.load import load_data
    from kzoo.learn.batch_norm import recalibrate
    from kzoo.measure.cost import file_share
    from kzoo.network.model_file import load_model, save_model
    from kzoo.zoo.build import build

    rows = {}
    print(f"{'':28s} {'agreement':>18s} {'divergence':>18s} {'latency':>8s}  left in float")
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(name)
            size = options.size if file.suffix != ".keras" else load_model(file).input_shape[1]
            data = load_data(options.data, size=size, bad="skip")
            if file.suffix != ".keras":
                model = build(name, size=size, classes=len(data.classes), seed=0)
                chosen = data.splits["train"][:64]
                recalibrate(model, data.images, chosen)
                tame(model, np.asarray(data.images[chosen]))
                file = save_model(model, Path(folder, f"{name}.keras"))
            with silenced():
                rows[name] = row = measured(kzoo, file, data, folder, options.rounds, file_share)
        cells = [f"{row['int8'][key]:.3f} -> {row['mixed'][key]:.3f}" for key in ("agreement",)]
        cells += [f"{row['int8']['divergence']:.4f} -> {row['mixed']['divergence']:.4f}"]
        kept = row["mixed"]["kept"]
        print(f"{name[-28:]:28s} {cells[0]:>18s} {cells[1]:>18s} {row['latency']:8.3f}  {kept}")
    if options.json:
        write(
            options.json,
            title="mixed beside int8",
            header=["", "agreement int8", "mixed", "divergence int8", "mixed", "latency", "float"],
            cells=[
                [
                    f"{Path(name).stem}, {'trained' if '.keras' in name else 'random weights'}",
                    *(f"{100 * row[kind]['agreement']:.1f} %" for kind in ("int8", "mixed")),
                    *(f"{row[kind]['divergence']:.4f}" for kind in ("int8", "mixed")),
                    f"{row['latency']:.3f}",
                    row["mixed"]["kept"].replace("--exclude ", "").replace("int8", "none"),
                ]
                for name, row in rows.items()
            ],
            note=f"On {HELD_OUT} photos of {Path(options.data).name}. Latency: mixed over int8, in "
            f"{options.rounds} alternated rounds. Float: the layers that mixed leaves so.",
        )


def measured(kzoo, file: Path, data, folder: str, rounds: int, file_share) -> dict:
    """Both files of a network: agreement and divergence on held-out photos; the latency's share."""
    row, lite = {}, {}
    for recipe in ("int8", "mixed"):
        lite[recipe] = Path(folder, f"{recipe}.tflite")
        more = {"cost": lambda a, b: file_share(a, b, pairs=1)} if recipe == "mixed" else {}
        made = kzoo.quantize(file, lite[recipe], calibrate=data, recipe=recipe, **more)
        found = kzoo.check(lite[recipe], against=file, data=data, split=HELD_OUT)
        p, q = (
            np.clip(each.astype(np.float64), 1e-12, 1)
            for each in (found.keras_probabilities, found.lite_probabilities)
        )
        row[recipe] = {
            "agreement": found.agreement,
            "divergence": float(np.mean(np.sum(p * np.log(p / q), axis=1))),
            "bytes": lite[recipe].stat().st_size,
        }
        if recipe == "mixed":
            row[recipe]["kept"] = next(trial["name"] for trial in made.tried if trial["written"])
    return row | {"latency": file_share(lite["mixed"], lite["int8"], pairs=rounds)}


if __name__ == "__main__":
    main()
