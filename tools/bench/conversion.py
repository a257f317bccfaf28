"""kzoo's conversion beside TFLiteConverter.from_keras_model, in one process, alternated, medians.

Both sides start from a model in memory and end with the bytes of a .tflite; kzoo's side also writes
the signature and notes. The first round of each is dropped (it pays for TensorFlow's own start-up).

    python tools/bench/conversion.py [--model mobilenet_v2] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians


@contextlib.contextmanager
def silenced():
    """The converter writes to file descriptors 1 and 2 from C++."""
    sys.stdout.flush()
    saved = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    with silenced(), tempfile.TemporaryDirectory() as folder:
        import tensorflow as tf

        import kzoo
        from kzoo.lite.translate import translate
        from kzoo.network.model_file import load_model, save_model

        file = save_model(kzoo.build(options.model, seed=0), Path(folder, "model.keras"))
        model = load_model(file)
        sides: dict[str, list[float]] = {
            "TFLiteConverter.from_keras_model": [],
            "kzoo's conversion (frozen function, batch 1)": [],
        }
        for _ in range(options.rounds + 1):
            started = time.perf_counter()
            tf.lite.TFLiteConverter.from_keras_model(model).convert()
            sides["TFLiteConverter.from_keras_model"].append(time.perf_counter() - started)
            made = translate(
                str(file), f"{folder}/model.tflite", None, "float32", "logits", {}, folder
            )
            sides["kzoo's conversion (frozen function, batch 1)"].append(made["seconds"])
    rows = medians({name: values[1:] for name, values in sides.items()})
    finish(
        f"conversion of {options.model} at {model.inputs[0].shape[1]} pixels",
        "s",
        rows,
        "TFLiteConverter.from_keras_model",
        options.json,
    )


if __name__ == "__main__":
    main()
