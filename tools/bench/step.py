"""What a compression adds to a training step: the same network's step, plain and held, alternated.

Every side is a copy of one network, compiled alike, that is given the same batch in turns by
``train_on_batch``. Masks keep 80 % of zeros, clusters 16 values per kernel; the last side rounds
weights and activations as int8 does. The first steps of each are dropped.

    python tools/bench/step.py [--model mobilenet_v2_035] [--size 96] [--batch 32] [--steps 30]
                               [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians

WARM = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenet_v2_035")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    import kzoo
    from kzoo.compress.clusters import Clustering, Clusters
    from kzoo.compress.masks import Masks, Pruning
    from kzoo.compress.ranges import rounding, spread
    from kzoo.learn.projection import Projection

    def whole() -> keras.Model:
        return kzoo.build(options.model, size=options.size, classes=10, seed=0)

    sides = {
        "plain": (whole(), lambda _: Projection()),
        "masks": (whole(), lambda model: Masks(model, Pruning(sparsity=0.8, schedule="one_shot"))),
        "clusters": (whole(), lambda model: Clusters(model, Clustering(clusters=16), 0)),
        "int8 rounding": (rounding(spread(whole())), lambda _: Projection()),
    }
    draw = np.random.default_rng(0)
    shape = sides["plain"][0].inputs[0].shape[1:]
    images = draw.integers(0, 256, (options.batch, *shape)).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[draw.integers(0, 10, options.batch)]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with contextlib.ExitStack() as stack:
        for model, held in sides.values():
            projection = held(model)
            model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
            model.optimizer.build(model.trainable_variables)
            stack.enter_context(projection.attached(model.optimizer))
            projection.update(0, 1)
        for step in range(WARM + options.steps):
            for name, (model, _) in sides.items():
                started = time.perf_counter()
                model.train_on_batch(images, labels)
                if step >= WARM:
                    seconds[name].append(time.perf_counter() - started)
    rows = medians({name: [1000 * each for each in times] for name, times in seconds.items()})
    title = f"A training step of {options.model} at {options.size} pixels, {options.batch} images"
    finish(title, "ms", rows, "plain", options.json)


if __name__ == "__main__":
    main()
