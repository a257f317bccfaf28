"""How long the command line takes to start, beside an import of Keras. Alternated, medians.

python tools/bench/startup.py [--rounds 11] [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians

LIGHT = "from kzoo.light_keras import light_keras; light_keras()"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "kzoo --help": ["-m", "kzoo", "--help"],
    "kzoo list": ["-m", "kzoo", "list"],
    "kzoo info resnet8": ["-m", "kzoo", "info", "resnet8"],
    "kzoo build lenet5": ["-m", "kzoo", "build", "lenet5", "--force", "-o", "{folder}/x.keras"],
    "import keras, in kzoo's commands": ["-c", f"{LIGHT}; import keras"],
    "python -c 'import keras'": ["-c", "import keras"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, arguments in COMMANDS.items():
                command = [sys.executable, *(text.format(folder=folder) for text in arguments)]
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - started)
    finish("start-up", "s", medians(seconds), "python -c 'import keras'", options.json)


if __name__ == "__main__":
    main()
