"""Head training on features computed once beside the frozen network in Keras' `fit`, alternated.

Both sides train the last layer of the same network with the same optimizer and batch size on the
same images for the same epochs, and end with the same kind of model. kzoo's side is `kzoo.finetune`
from an empty cache: extraction, training, evaluation; LiteRT's conversion is in it. Keras' side is
`fit` of the frozen network, with validation. The first round of each is dropped. Without photos
the images are noise: the time is the same.

    python tools/bench/classifier.py [--model efficientnet_lite0] [--size 96] [--epochs 20]
                                     [--photos FOLDER | --images 1024] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians


def noise(folder: Path, count: int, size: int, classes: int = 10) -> Path:
    """A folder of as many images in as many classes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for index in range(count):
        place = folder / str(index % classes)
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import numpy as np

    import kzoo
    from kzoo.lite.extract import litert_engine

    with tempfile.TemporaryDirectory() as folder:
        photos = options.photos or noise(Path(folder), options.images, options.size)
        data = kzoo.load_data(photos, size=options.size, test=0.0, bad="skip")
        split = {name: data.splits[name] for name in ("train", "validation")}
        classes = len(data.classes)
        arrays = {
            name: (data.images[chosen], np.eye(classes, dtype=np.float32)[data.labels[chosen]])
            for name, chosen in split.items()
        }

        def fresh() -> keras.Model:
            return kzoo.build(options.model, size=options.size, classes=classes, seed=0)

        def cached() -> None:
            with tempfile.TemporaryDirectory() as home:
                os.environ["KZOO_HOME"] = home
                phase = {"epochs": options.epochs, "trainable": "classifier"}
                kzoo.finetune(fresh(), data, phases=[phase], engine=litert_engine())

        def frozen() -> None:
            model = fresh()
            last = [layer for layer in model.layers if layer.weights][-1]
            for layer in model.layers:
                layer.trainable = layer is last
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
            model.compile("adam", loss, metrics=["accuracy"])
            model.fit(
                *arrays["train"], epochs=options.epochs, batch_size=32, verbose=0,
                validation_data=arrays["validation"],
            )  # fmt: skip

        sides = {"keras fit, frozen": frozen, "kzoo, trainable: classifier": cached}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds + 1):
            for name, train in sides.items():
                started = time.perf_counter()
                train()
                seconds[name].append(time.perf_counter() - started)
    rows = medians({name: values[1:] for name, values in seconds.items()})
    title = (
        f"{options.epochs} epochs of the classifier of {options.model} at {options.size} pixels, "
        f"{len(data.images)} images"
    )
    finish(title, "s", rows, "keras fit, frozen", options.json)


if __name__ == "__main__":
    main()
