"""What this machine can do. Nothing heavy is imported: packages are looked up, not loaded."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from kzoo.environment import environment, version
from kzoo.files import cache_folder

NEEDED = {
    "tensorflow": "converts to .tflite and trains",
    "keras": "builds and trains",
    "ai-edge-litert": "runs .tflite files",
    "litert-quantizer": "quantizes, in all recipes but int8",
    "flatbuffers": "reads and writes .tflite files",
    "numpy": "holds images and weights",
    "pillow": "decodes images",
    "scikit-learn": "carries the digits",
    "scipy": "fits classifiers, finds what belongs together",
    "threadpoolctl": "keeps linear algebra to the cores that are asked for",
    "click": "reads the command line",
    "rich": "draws the progress bar",
    "pydantic": "checks configs",
    "PyYAML": "reads configs",
    "matplotlib": "draws the report's figures",
    "Jinja2": "writes the report",
}
OPTIONAL = {
    "tflite-runtime": (
        "an older runtime to measure with",
        "pip install 'kzoo[tflite-runtime]', in an environment of its own",
    ),
}
ENOUGH_DISK = 2_000_000_000


def doctor() -> dict:
    """The record ``{"ready", "items", "environment"}``.

    An item is ``{"what", "state", "found", "advice"}``; its state is "ok", "missing" (needed),
    "absent" (optional) or "note" (works, but measurements or large work suffer).
    """
    items = [_item("python", "ok", platform.python_version())]
    for package, purpose in NEEDED.items():
        found = version(package)
        items.append(
            _item(package, "ok", found)
            if found
            else _item(package, "missing", "not installed", f"pip install {package} ({purpose})")
        )
    for package, (purpose, advice) in OPTIONAL.items():
        found = version(package)
        items.append(
            _item(package, "ok", found)
            if found
            else _item(package, "absent", f"not installed: {purpose}", advice)
        )
    items += _machine()
    return {
        "ready": all(item["state"] != "missing" for item in items),
        "items": items,
        "environment": environment(),
    }


def _machine() -> list[dict]:
    machine = environment()["machine"]
    items = [
        _item(
            "processor",
            "ok",
            f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['simd'])}",
        ),
        _item("memory", "ok", f"{machine['memory_bytes'] / 1e9:.1f} GB"),
    ]
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    name = governor.read_text().strip() if governor.is_file() else None
    if name and name != "performance":
        items.append(
            _item(
                "governor",
                "note",
                name,
                "for steady latencies: cpupower frequency-set -g performance",
            )
        )
    else:
        items.append(_item("governor", "ok", name or "not readable here"))
    load = os.getloadavg()[0]
    busy = load > 0.5 * machine["cores"]
    items.append(
        _item(
            "load",
            "note" if busy else "ok",
            f"{load:.2f}",
            "latencies measured now are too high" if busy else "",
        )
    )
    cache = cache_folder()
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    items.append(
        _item(
            "cache",
            "ok" if writable and free > ENOUGH_DISK else "note",
            f"{cache}, {free / 1e9:.1f} GB free",
            ""
            if writable and free > ENOUGH_DISK
            else "set KZOO_HOME to a folder with space that you may write to",
        )
    )
    return items


def _item(what: str, state: str, found: str, advice: str = "") -> dict:
    return {"what": what, "state": state, "found": found, "advice": advice}
