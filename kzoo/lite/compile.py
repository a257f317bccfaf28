"""A .tflite compiled for the Edge TPU by Coral's own compiler, and what that says of a prediction.

The compiler is not part of kzoo. Its options and log: https://coral.ai/docs/edgetpu/compiler/
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from kzoo.child import LOG_LINES
from kzoo.errors import BadInputError, MissingError, UsageError, one_of
from kzoo.files import atomic, new_output, sha256
from kzoo.lite.edgetpu import compiled
from kzoo.lite.lint import lint
from kzoo.lite.tflite_file import tflite_file

TARGETS = ("edgetpu",)
COMPILER = "edgetpu_compiler"
INSTALL = (
    "https://coral.ai/docs/edgetpu/compiler/ tells how to install the Debian package "
    "edgetpu-compiler from Coral's repository; it exists for x86-64 alone"
)
SECONDS = 180
"""The compiler's own limit for a compilation."""
SPARE_SECONDS = 60
"""What it gets beside, to read, to write and to fail by itself."""
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
FAILURES = re.compile(
    r"^(Invalid model: .*|Internal .*|Compilation failed.*|ERROR: .*|Error: .*|Model not .*)$", re.M
)
"""What the compiler says when it gives up, in all versions that were seen."""


@dataclass(frozen=True)
class Compilation:
    """What the compiler did.

    Attributes:
        file, sha256: what was compiled.
        target, compiler: "edgetpu", and the compiler's version.
        output, output_sha256, output_bytes: the file it wrote.
        seconds: what it took, the compiler's start included.
        on_chip_used, on_chip_left: bytes of the Edge TPU's memory that parameters take, and that
            are left; to the three figures of the log. None where it does not tell.
        off_chip: bytes of parameters that are sent at every inference.
        subgraphs: how many parts run on the Edge TPU.
        operators: rows of the log, ``{"operator", "count", "status"}``; the status is why it is not
            mapped, or "Mapped to Edge TPU".
        on_tpu, on_cpu: how many operators run where.
        compared: for each type of operator of which the compiler, or `kzoo.lite.lint.lint`, leaves
            some on the CPU: ``{"operator", "compiled", "predicted"}``, how many.
        as_predicted: whether these are the same.
    """

    file: str
    sha256: str
    target: str
    compiler: str
    output: str
    output_sha256: str
    output_bytes: int
    seconds: float
    on_chip_used: int | None
    on_chip_left: int | None
    off_chip: int | None
    subgraphs: int | None
    operators: list[dict]
    on_tpu: int
    on_cpu: int
    compared: list[dict]
    as_predicted: bool

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def compile(
    file: str | os.PathLike,
    *,
    target: str = "edgetpu",
    output: str | os.PathLike | None = None,
    timeout: float = SECONDS,
    force: bool = False,
) -> Compilation:
    """Compiles an int8 .tflite for the Edge TPU with ``edgetpu_compiler``, which must be installed.

    Args:
        file: the .tflite.
        target: "edgetpu".
        output: the file to write; by default that of `default_output`.
        timeout: seconds for the compilation.
        force: whether an existing output is replaced.

    Raises:
        UsageError: another target, a wrong timeout, or the output exists.
        MissingError: the file does not exist, or the compiler is not installed.
        BadInputError: the file is no .tflite; the compiler refuses it, crashes or hangs.
    """
    one_of("the target", target, TARGETS)
    if not 1 <= timeout < float("inf"):
        raise UsageError(f"timeout is at least 1 second; {timeout} was given")
    path = tflite_file(file)
    output = new_output(output or default_output(path), force=force)
    if output.resolve() == path.resolve():
        raise UsageError(f"the output {str(output)!r} is the model itself; give another -o")
    program = shutil.which(COMPILER)
    if program is None:
        raise MissingError(
            f"the compiler {COMPILER} is not installed; {INSTALL}. Without it, "
            f"kzoo lint --target {target} predicts what it would do"
        )
    (predicted,) = lint(path, [target]).predictions
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        code, log = _run(program, path, folder, timeout)
        seconds = time.perf_counter() - started
        made = list(Path(folder).glob("*_edgetpu.tflite"))
        if code or len(made) != 1:
            raise BadInputError(
                f"{COMPILER} refuses {str(file)!r}: {_failure(log)}; kzoo lint --target {target} "
                "tells what it does not take"
            )
        try:
            left = compiled(made[0]).left
        except BadInputError as error:
            raise BadInputError(f"{COMPILER} wrote a damaged file: {error}") from error
        with atomic(output) as temporary:
            shutil.copyfile(made[0], temporary)
    told = read_log(log)
    operators = told.pop("operators")
    on_cpu = sum(left.values())
    return Compilation(
        file=str(file),
        sha256=sha256(path),
        target=target,
        **told,
        output=str(output),
        output_sha256=sha256(output),
        output_bytes=output.stat().st_size,
        seconds=round(seconds, 3),
        operators=operators,
        on_tpu=predicted.operators - on_cpu,
        on_cpu=on_cpu,
        compared=[
            {
                "operator": name,
                "compiled": left.get(name, 0),
                "predicted": predicted.left.get(name, 0),
            }
            for name in sorted({*left, *predicted.left})
        ],
        as_predicted=left == predicted.left,
    )


def default_output(file: str | os.PathLike) -> Path:
    """``X_edgetpu.tflite`` beside ``X.tflite``."""
    path = Path(file)
    return path.with_name(f"{path.stem}_edgetpu.tflite")


def _run(program: str, path: Path, folder: str, timeout: float) -> tuple[int, str]:
    """Runs the compiler, which starts a process of its own: its exit code, all that it prints."""
    command = [program, "-s", "-o", folder, str(path.resolve())]
    if timeout != SECONDS:  # versions before the limit do not know the option
        command[2:2] = ["-t", str(round(timeout))]
    # Not a pipe: whoever is left of its processes would keep it open.
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout + SPARE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BadInputError(
                f"{COMPILER} gave no answer in {timeout + SPARE_SECONDS:g} s and was stopped; a "
                "larger --timeout gives it more"
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        text = log.read().decode(errors="replace")
    if code < 0:
        raise BadInputError(f"{COMPILER} crashed ({signal.Signals(-code).name})")
    return code, text


def _failure(log: str) -> str:
    """The compiler's own words on why it stopped."""
    if said := FAILURES.findall(log):
        return "; ".join(dict.fromkeys(line.strip() for line in said))
    return "\n".join(log.strip().splitlines()[-LOG_LINES:]) or "it printed nothing"


def read_log(log: str) -> dict:
    """What the compiler's output says: the fields of `Compilation` that are its own.

    Returns:
        ``compiler`` ("" if it does not tell), ``on_chip_used``, ``on_chip_left``, ``off_chip`` in
        bytes, ``subgraphs``, each None if it does not tell, and ``operators``.
    """
    version = re.search(r"Edge TPU Compiler version (\S+)", log)
    subgraphs = re.search(r"Number of Edge TPU subgraphs: (\d+)", log)
    table = re.search(r"^Operator\s+Count\s+Status\s*$", log, re.M)
    rows = re.findall(r"^(\S+)\s+(\d+)\s+(\S.*?)\s*$", log[table.end() :] if table else "", re.M)
    return {
        "compiler": version[1] if version else "",
        "on_chip_used": _size(log, "On-chip memory used for caching model parameters"),
        "on_chip_left": _size(log, "On-chip memory remaining for caching model parameters"),
        "off_chip": _size(log, "Off-chip memory used for streaming uncached model parameters"),
        "subgraphs": int(subgraphs[1]) if subgraphs else None,
        "operators": [
            {"operator": name, "count": int(count), "status": status}
            for name, count, status in rows
        ],
    }


def _size(log: str, what: str) -> int | None:
    found = re.search(rf"{what}: ([\d.]+) ?({'|'.join(UNITS)})\b", log)
    return round(float(found[1]) * UNITS[found[2]]) if found else None
