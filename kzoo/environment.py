"""What a measurement ran on: versions and machine, for every record. Standard library only."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = (
    "kzoo",
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "tflite-runtime",
    "numpy",
    "pillow",
    "scikit-learn",
)


def version(package: str) -> str | None:
    """The installed version of a distribution, or None; nothing is imported."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment() -> dict:
    """Versions of the packages that decide a result, and the machine they ran on."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := version(name))},
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "machine": machine(),
    }


def machine() -> dict:
    """The processor's name, its usable cores, memory in bytes, and the operating system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
