"""Feature extraction by kzoo's engines beside Keras' predict, alternated, medians.

All sides start from the same network in memory, cut at its four stages and its head, and from uint8
images in memory; they end with float32 features. LiteRT's conversion, which is done once per cache
entry, is told apart. The first round of each is dropped (it pays for tracing and conversion).

    python tools/bench/features.py [--model mobilenet_v2] [--size 96] [--images 1024] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np

    import kzoo
    from kzoo.learn.features import cut_model, keras_engine
    from kzoo.lite.extract import converted

    model = kzoo.build(options.model, size=options.size, seed=0)
    part = cut_model(model, ["stage1", "stage2", "stage3", "stage4", "head"])
    shape = (options.images, *model.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    started = time.perf_counter()
    with converted(part, images[:1]) as lite:
        print(f"conversion and start of LiteRT: {time.perf_counter() - started:.1f} s")
        sides = {
            "keras.Model.predict": lambda: part.predict(images.astype(np.float32), verbose=0),
            "kzoo, engine keras": lambda: [*keras_engine().run(part, images)],
            "kzoo, engine litert": lambda: [*lite(images)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds + 1):
            for name, run in sides.items():
                started = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - started)
    rows = medians({name: values[1:] for name, values in seconds.items()})
    title = f"features of {options.images} images by {options.model} at {options.size} pixels"
    finish(title, "s", rows, "keras.Model.predict", options.json)


if __name__ == "__main__":
    main()
