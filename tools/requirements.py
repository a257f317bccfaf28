"""Prints what kzoo needs where TensorFlow is not, with the extras that are named.

python tools/requirements.py [EXTRA ...]
"""

from __future__ import annotations

import configparser
import sys
from pathlib import Path

SETUP = Path(__file__).parents[1] / "setup.cfg"
OF_TENSORFLOW = ("tensorflow", "tf-keras", "ai-edge-litert", "litert-quantizer")
"""They need it, convert to .tflite, or run that."""


def requirements(*extras: str) -> list[str]:
    """As setup.cfg has them."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    found = setup["options"]["install_requires"].split()
    for extra in extras:
        found += setup["options.extras_require"][extra].split()
    return [each for each in found if not each.startswith(OF_TENSORFLOW)]


if __name__ == "__main__":
    print(*requirements(*sys.argv[1:]), sep="\n")
