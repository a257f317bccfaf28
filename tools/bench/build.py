"""Building kzoo's networks beside those of keras.applications, in one process, alternated, medians.

Both sides end with a model of the same size and random weights. The first round is dropped.

    python tools/bench/build.py [--models resnet50 ...] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians

APPLICATIONS = {
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "resnet50v2": "ResNet50V2",
    "inception_v3": "InceptionV3",
    "inception_resnet_v2": "InceptionResNetV2",
    "xception": "Xception",
    "densenet121": "DenseNet121",
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "nasnet_mobile": "NASNetMobile",
    "efficientnet_b0": "EfficientNetB0",
    "efficientnet_v2_b0": "EfficientNetV2B0",
    "convnext_tiny": "ConvNeXtTiny",
}
"""One name of each family that both have."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(APPLICATIONS), choices=APPLICATIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from kzoo.zoo.build import build, skeleton

    slower = []
    for name in options.models:
        theirs = getattr(keras.applications, APPLICATIONS[name])
        size = build(name, flavour="keras").input_shape[1:]
        sides = {
            f"keras.applications.{APPLICATIONS[name]}": lambda t=theirs, s=size: t(
                weights=None, input_shape=s
            ),
            "kzoo.build": lambda n=name: build(n, flavour="keras"),
            "kzoo skeleton (no weights)": lambda n=name: skeleton(n, flavour="keras"),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.rounds + 1):
            for side, make in sides.items():
                keras.utils.clear_session()
                gc.collect()
                started = time.perf_counter()
                make()
                seconds[side].append(time.perf_counter() - started)
        rows = medians({side: values[1:] for side, values in seconds.items()})
        reference, ours, _ = rows
        path = options.json and options.json.with_suffix(f".{name}.json")
        finish(f"build of {name}", "s", rows, reference, path)
        if rows[ours]["median"] > rows[reference]["median"]:
            slower.append(name)
    print(f"slower than keras.applications: {', '.join(slower) or 'none'}")


if __name__ == "__main__":
    main()
