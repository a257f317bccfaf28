"""Latency of kzoo's files beside those of keras.applications by Keras' own export.

Of each network the same architecture, with random weights: built by kzoo, converted and quantized
by it; and built by keras.applications, exported by ``model.export(format="litert")``, and made int8
by TensorFlow's default post-training quantization. All take pixels: those of keras.applications
that leave their normalization to the caller get kzoo's layer in front. All four files are measured
in turns, one thread, each time in a fresh process. A ratio is kzoo's over theirs: the median of all
rounds, and the least and the most.

    python tools/bench/export.py [NAME ...] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import write
from conversion import silenced

NAMES = {
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3Small",
    "mobilenet_v3_large": "MobileNetV3Large",
    "efficientnet_b0": "EfficientNetB0",
    "efficientnet_v2_b0": "EfficientNetV2B0",
    "nasnet_mobile": "NASNetMobile",
    "densenet121": "DenseNet121",
    "resnet50": "ResNet50",
    "inception_v3": "InceptionV3",
}
"""Ten architectures, and what keras.applications calls them."""
CALIBRATION = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*NAMES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    rows = []
    print(f"{'':20s} {'float kzoo':>11s} {'theirs':>8s} {'ratio':>22s}", end="")
    print(f" {'int8 kzoo':>10s} {'theirs':>8s} {'ratio':>22s}   (ms, median)")
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder, silenced():
            files = made(name, Path(folder))
            times = timed(files, options.rounds)
        cells = [name.ljust(20)]
        for kind, width in (("float32", 11), ("int8", 10)):
            ours, theirs = times[f"kzoo {kind}"], times[f"keras {kind}"]
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            told = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            medians = map(statistics.median, (ours, theirs))
            cells += [*(f"{each:{width}.3f}" for each in medians), f"{told:>22s}"]
        print(" ".join(cells), flush=True)
        rows.append([cell.strip() for cell in cells])
        if options.json:  # after each, as all take long
            write(
                options.json,
                title="latency beside keras.applications and Keras' export",
                header=["ms", "float kzoo", "theirs", "ratio", "int8 kzoo", "theirs", "ratio"],
                cells=rows,
                note=f"Random weights, one thread, {options.rounds} alternated rounds: medians, "
                "and of a round's ratio the least and the most.",
            )


def made(name: str, folder: Path) -> dict[str, Path]:
    """The four files, each by "kzoo float32", "keras int8", ..."""
    import keras
    import numpy as np
    import tensorflow as tf

    import kzoo
    from kzoo.lite.convert import write_lite
    from kzoo.network.model_file import save_model
    from kzoo.progress import silent

    own = save_model(kzoo.build(name, flavour="keras", seed=0), folder / "own.keras")
    files = {f"{who} {kind}": folder / f"{who}_{kind}.tflite"
             for who in ("kzoo", "keras") for kind in ("float32", "int8")}  # fmt: skip
    net = keras.saving.load_model(own, compile=False)
    shape = net.input_shape[1:]  # some of Keras have none where they have no weights
    theirs = getattr(keras.applications, NAMES[name])(weights=None, input_shape=shape)
    inside = {type(layer).__name__ for layer in theirs.layers}
    if not inside & {"Rescaling", "Normalization"}:
        image = keras.Input(shape)
        theirs = keras.Model(image, theirs(net.get_layer("preprocess")(image)))
    pixels = np.random.default_rng(0).integers(0, 256, (CALIBRATION, *shape), np.uint8)
    for recipe, kind in ((None, "float32"), ("int8", "int8")):
        # Keras' files take and give float32, so both do here.
        images = pixels if recipe else None
        output = files[f"kzoo {kind}"]
        write_lite(own, output, recipe, "float32", "probabilities", images, silent)
    theirs.export(str(files["keras float32"]), format="litert", verbose=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(theirs)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [image[None].astype(np.float32)] for image in pixels
    )
    files["keras int8"].write_bytes(converter.convert())
    return files


def timed(files: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each file, measured in turns."""
    from kzoo.measure.cost import p50

    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, file in files.items():
            times[name].append(p50(file) / 1e6)
    return times


if __name__ == "__main__":
    main()
