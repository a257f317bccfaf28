"""The runtimes that can run a .tflite file here, in the order they are preferred.

They are looked up and never imported: a runtime is imported in the process that is measured.
"""

from __future__ import annotations

import importlib.util
import json

from kzoo.errors import MissingError, UsageError, nearest

RUNTIMES = {
    "ai-edge-litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "tensorflow": "tensorflow",
}
"""Distribution → import name, of the runtimes for Python."""

C_RUNTIME = "litert-c"
"""The C runner of deploy/, which needs no Python where it runs."""

BENCHMARK_MODEL = "benchmark_model"
"""Google's program, of those who have it."""

INSTALL = {
    "ai-edge-litert": "pip install ai-edge-litert",
    "tflite-runtime": "pip install tflite-runtime 'numpy<2' in an environment of its own",
    "tensorflow": "pip install tensorflow",
}

FIND = f"""\
import importlib.util, json
def installed(name):
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None
known = {json.dumps(RUNTIMES)}
print(json.dumps([name for name in known if installed(known[name]) and installed("numpy")]))
"""
"""What any other Python is asked: which runtimes it has, as a JSON list. None without NumPy."""


def choose_runtime(name: str | None = None) -> str:
    """Returns ``name`` if that runtime is installed, or the first installed one for None.

    Raises:
        UsageError: no runtime has this name.
        MissingError: it is not installed, or none is; the message says which pip install.
    """
    if name is None:
        for known in RUNTIMES:
            if _installed(known):
                return known
        raise MissingError(f"no runtime for .tflite files is here; {INSTALL['ai-edge-litert']}")
    check_runtime(name)
    if not _installed(name):
        raise MissingError(
            f"the runtime {name} is not installed here; {INSTALL[name]}; "
            "--on host:ITS/bin/python measures with another environment's"
        )
    return name


def check_runtime(name: str) -> None:
    """Raises UsageError if no runtime for Python has this name."""
    if name not in RUNTIMES:
        known = [*RUNTIMES, C_RUNTIME, BENCHMARK_MODEL]
        raise UsageError(
            f"unknown runtime {name!r}; known: {', '.join(known)}{nearest(name, known)}"
        )


def _installed(name: str) -> bool:
    found = importlib.util.find_spec(RUNTIMES[name])
    # An uninstalled package may leave a folder behind, which is found without an origin.
    return found is not None and found.origin is not None
