"""How long the command line takes to start, beside an import of Keras. Alternated, medians.

python tools/bench/startup.py [--rounds 11] [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench_record import finish, medians

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "kzoo --help": ["-m", "kzoo", "--help"],
    "kzoo list": ["-m", "kzoo", "list"],
    "kzoo info resnet8": ["-m", "kzoo", "info", "resnet8"],
    "python -c 'import keras'": ["-c", "import keras"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.rounds):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    finish("start-up", "s", medians(seconds), "python -c 'import keras'", options.json)


if __name__ == "__main__":
    main()
