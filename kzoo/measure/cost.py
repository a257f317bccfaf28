"""What a network costs when it is exported: bytes to download, milliseconds on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kzoo.child import call
from kzoo.data.dataset import Dataset
from kzoo.errors import UsageError, one_of
from kzoo.files import gzip_size
from kzoo.lite.convert import convert
from kzoo.lite.quantize import quantize
from kzoo.measure.profile import profile
from kzoo.measure.statistics import median
from kzoo.measure.target import Setting, open_target
from kzoo.progress import Progress, silent

KINDS = ("float32", "int8")


def cost(
    model: str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    kinds: Sequence[str] = KINDS,
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


def latency_share(
    model: object,
    data: Dataset | str | os.PathLike | None = None,
    *,
    kind: str = "int8",
    pairs: int = 3,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Callable[[object], float]:
    """Makes a function that measures the latency of a network as a share of this model's.

    Each call exports the network and measures both files in turns, on one thread of this machine,
    each time in fresh processes: what slows the machine down for a while slows down both. It
    returns the median of the shares of their medians.

    Args:
        model: what latencies are a share of, a functional Keras model or its file, as what the
            function takes.
        data: what int8 is calibrated on.
        kind: of the exports, "float32" or "int8".
        pairs: measurements of both.
        data_options: as for `kzoo.quantize`.
        progress: called at the stages of the work.

    Raises:
        UsageError: ``kind`` is unknown, or int8 has no ``data``.
        As `kzoo.convert`, `kzoo.quantize` and `kzoo.profile`.
    """
    one_of("kind", kind, KINDS)
    if kind == "int8" and data is None:
        raise UsageError("the latency of int8 needs data to calibrate on")

    def exported(network, file: Path) -> Path:
        if kind == "int8":
            quantize(network, file, calibrate=data, data_options=data_options)
        else:
            convert(network, file)
        return file

    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        whole = exported(model, Path(folder, "whole.tflite")).read_bytes()

    def share(network: object) -> float:
        with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
            files = Path(folder, "whole.tflite"), exported(network, Path(folder, "own.tflite"))
            files[0].write_bytes(whole)
            return file_share(files[1], files[0], pairs=pairs, progress=progress)

    return share


def file_share(
    file: str | os.PathLike,
    whole: str | os.PathLike,
    *,
    pairs: int = 3,
    progress: Progress = silent,
) -> float:
    """The latency of a .tflite as a share of another's, measured as `latency_share` tells."""
    found = []
    for done in range(pairs):
        progress("latency", done, pairs)
        base, own = p50(Path(whole)), p50(Path(file))
        found.append(own / base)
    progress("latency", pairs, pairs)
    return median(found)


def preprocessing_share(file: str | os.PathLike, progress: Progress = silent) -> float:
    """The share of a .tflite's latency that goes into preparing pixels, in [0, 1].

    It is measured beside the same file without these operators. 0 where there are none.
    """
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        rest = Path(folder, "rest.tflite")
        if not call("kzoo.lite.pixels:without_front", file=str(file), output=str(rest)):
            return 0.0
        return max(0.0, 1 - file_share(rest, file, progress=progress))


def p50(file: Path) -> float:
    """The median time of an inference, ns, from a process of its own that measures nothing else."""
    with open_target("host") as target:
        answer = target.time_runs(file, Setting(min_runs=50, min_seconds=0.5))
    return median(answer["samples_ns"])
