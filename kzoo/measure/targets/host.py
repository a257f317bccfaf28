"""This machine as a target: every measurement is a fresh process of deploy/linux/benchmark.py.

A damaged model may take that process down; this one lives and says so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from kzoo.child import LOG_LINES, ChildCrashed
from kzoo.environment import cores  # noqa: F401 `profile` asks a target for it
from kzoo.errors import BadInputError, MissingError
from kzoo.measure.deploy import deploy_file

KIND = "measured"
MAX_SECONDS = 60.0
STARTUP_SECONDS = 180.0
"""Time beside the timed runs: a cold import of TensorFlow, a slow init, the warm-up."""


def time_runs(
    model: Path, *, runtime: str, threads: int, min_runs: int, min_seconds: float
) -> dict:
    """Times the model in a fresh process and returns the script's record.

    The timed part ends at 60 s, or at ``min_seconds`` if that is longer, even before ``min_runs``.

    Raises:
        MissingError: the runtime is not installed, or cannot be imported.
        BadInputError: the runtime refuses the model, crashes on it or does not answer.
        ChildCrashed: the script failed otherwise.
    """
    longest = max(MAX_SECONDS, min_seconds)
    options = ["--min-runs", min_runs, "--min-seconds", min_seconds, "--max-seconds", longest]
    return _benchmark(model, runtime, threads, options, timeout=longest + STARTUP_SECONDS)


def peak_memory(model: Path, *, runtime: str, threads: int) -> dict:
    """Peak and baseline resident bytes, of a process that times nothing. Raises as `time_runs`."""
    return _benchmark(model, runtime, threads, ["--memory"], timeout=STARTUP_SECONDS)


def _benchmark(model: Path, runtime: str, threads: int, options: list, timeout: float) -> dict:
    script = deploy_file("linux/benchmark.py")
    command = [sys.executable, script, model.resolve()]
    command += ["--runtime", runtime, "--threads", threads, *options]
    try:
        ended = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BadInputError(
            f"{str(model)!r}: {runtime} gave no answer in {timeout:g} s and was stopped"
        ) from error
    if ended.returncode == 0:
        return _last_line(ended)
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        hint = "is there memory enough?" if name == "SIGKILL" else "the file is probably damaged"
        raise BadInputError(f"{str(model)!r} crashed the runtime {runtime} ({name}); {hint}")
    said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    if ended.returncode == BadInputError.exit_code and said:
        raise BadInputError(f"{str(model)!r}: {said[-1].removeprefix('error: ')}")
    if ended.returncode == MissingError.exit_code and said:
        raise MissingError(said[-1].removeprefix("error: "))
    raise ChildCrashed(f"{script} ended with exit code {ended.returncode}", _tail(ended.stderr))


def _last_line(ended: subprocess.CompletedProcess) -> dict:
    try:
        return json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise ChildCrashed("benchmark.py printed no record", _tail(ended.stderr)) from error


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-LOG_LINES:])


def state(sys_folder: Path = Path("/sys")) -> dict:
    """What slows or hastens a run right now; None for each value that this machine hides.

    Returns:
        ``governor`` and ``frequency_mhz`` (of the fastest core) from cpufreq, ``load_1min``, and
        ``temperature_c``, the hottest thermal zone.
    """
    cpus = sys_folder / "devices/system/cpu"
    governors = sorted(set(_readings(cpus, "cpu[0-9]*/cpufreq/scaling_governor")))
    frequencies = _numbers(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq")
    temperatures = _numbers(sys_folder / "class/thermal", "thermal_zone*/temp")
    return {
        "governor": ", ".join(governors) or None,
        "frequency_mhz": max(frequencies) / 1000 if frequencies else None,
        "load_1min": _load(),
        "temperature_c": max(temperatures) / 1000 if temperatures else None,
    }


def _readings(folder: Path, pattern: str) -> list[str]:
    found = []
    for path in folder.glob(pattern):
        try:
            found.append(path.read_text().strip())
        except OSError:  # a zone that is switched off answers with an I/O error
            continue
    return found


def _numbers(folder: Path, pattern: str) -> list[int]:
    return [int(text) for text in _readings(folder, pattern) if text.lstrip("-").isdigit()]


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None
