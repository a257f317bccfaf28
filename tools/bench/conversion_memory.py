"""The memory that a conversion needs: kzoo's beside TFLiteConverter.from_keras_model.

Each runs alternately in a fresh process that loads the .keras file, converts it and writes the
.tflite; the figure is the most resident memory that process had (VmHWM, Linux).

    python tools/bench/conversion_memory.py [--model vgg16] [--rounds 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians

PEAK = "import re; print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
USUAL = """
import sys, keras, tensorflow as tf
model = keras.saving.load_model(sys.argv[1], compile=False)
made = tf.lite.TFLiteConverter.from_keras_model(model).convert()
open(sys.argv[2] + '/usual.tflite', 'wb').write(made)
"""
OURS = """
import sys
from kzoo.lite.translate import translate
translate(sys.argv[1], sys.argv[2] + '/ours.tflite', None, 'float32', 'logits', {}, sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    import kzoo
    from kzoo.lite.convert import LARGE, SPARING
    from kzoo.network.model_file import save_model

    with tempfile.TemporaryDirectory() as folder:
        file = save_model(kzoo.build(options.model, seed=0), Path(folder, "model.keras"))
        environ = SPARING if file.stat().st_size > LARGE else {}
        sides = {
            "TFLiteConverter.from_keras_model": (USUAL, {}),
            "kzoo's conversion": (OURS, environ),
        }
        peaks: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, (program, variables) in sides.items():
                done = subprocess.run(
                    [sys.executable, "-c", program + PEAK, str(file), folder],
                    env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                peaks[name].append(int(re.findall(r"\d+", done.stdout)[-1]) * 1024 / 1e9)
    finish(
        f"peak memory of converting {options.model}",
        "GB",
        medians(peaks),
        "TFLiteConverter.from_keras_model",
        options.json,
    )


if __name__ == "__main__":
    main()
