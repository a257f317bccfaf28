"""What a network costs when it is exported: bytes to download, milliseconds on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kzoo.data.dataset import Dataset
from kzoo.files import gzip_size
from kzoo.lite.convert import convert
from kzoo.lite.quantize import quantize
from kzoo.measure.profile import profile
from kzoo.progress import Progress, silent


def cost(
    model: str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    kinds: Sequence[str] = ("float32", "int8"),
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> dict[str, dict]:
    """Exports a network to temporary files and measures them on this machine.

    Args:
        model: the ``.keras`` file.
        data: what int8 is calibrated on.
        kinds: of the exports: "float32", "int8".
        data_options: as for `kzoo.quantize`.
        progress: called at the stages of the work.

    Returns:
        Of each kind ``bytes`` of the .tflite, raw and as ``gzip_bytes``, and ``p50_ms``, the median
        of single inferences on one thread.

    Raises:
        As `kzoo.convert`, `kzoo.quantize` and `kzoo.profile`.
    """
    found = {}
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        for kind in kinds:
            lite = Path(folder, f"{kind}.tflite")
            if kind == "int8":
                quantize(model, lite, calibrate=data, data_options=data_options, progress=progress)
            else:
                convert(model, lite, progress=progress)
            (run,) = profile(lite, progress=progress).runs
            content = lite.read_bytes()
            found[kind] = {
                "bytes": len(content),
                "gzip_bytes": gzip_size(content),
                "p50_ms": run.latency.p50_ms,
            }
    return found
