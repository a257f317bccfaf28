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
    "jax",
    "ai-edge-litert",
    "tflite-runtime",
    "numpy",
    "pillow",
    "scikit-learn",
)

SIMD = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve",
)  # fmt: skip
"""Vector instructions, by their names in /proc/cpuinfo."""

BYTE_DOT = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""Those that make int8 fast: over float32, MobileNetV2 at 160 pixels gained 2.3 times with
AVX512-VNNI, and ResNet-8 lost 1.3 times with AVX2 alone."""


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


def cores() -> int:
    """The cores this process may use, which a container or ``taskset`` may have cut down."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict:
    """The processor's name and vector instructions, cores, memory in bytes, operating system."""
    return {
        "processor": _cpuinfo("model name", "Model") or platform.processor() or platform.machine(),
        "simd": [name for name in SIMD if name in _cpuinfo("flags", "Features").split()],
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _cpuinfo(*fields: str) -> str:
    """The first of the fields in /proc/cpuinfo; empty where there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in fields:
                return value.strip()
    except OSError:
        pass
    return ""
