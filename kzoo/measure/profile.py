"""How fast a .tflite file is, and how much memory it takes, on a target."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from kzoo.environment import environment
from kzoo.errors import BadInputError, UsageError, nearest
from kzoo.files import sha256
from kzoo.lite.tflite_file import tflite_file
from kzoo.measure.runtimes import choose_runtime
from kzoo.measure.statistics import STEADY_TOLERANCE, Latency, latency, median
from kzoo.progress import Progress, silent

TARGETS = {"host": "kzoo.measure.targets.host"}
"""Target → the module with its ``KIND``, ``cores``, ``time_runs``, ``peak_memory``, ``state``."""

METHOD = (
    "a fresh process per thread count; after a warm-up, each interpreter.invoke() is timed alone, "
    "without pre- and post-processing, on one input set before: {input}; memory from a process of "
    "its own"
)


@dataclass(frozen=True)
class Run:
    """One thread count, in a process of its own. Times in milliseconds.

    Attributes:
        threads: as asked of the runtime.
        import_ms: importing the runtime.
        init_ms: the interpreter's constructor and ``allocate_tensors``.
        first_ms: the first inference of the process.
        warmup_runs: the runs between the first and the timed ones.
        steady: whether the warm-up ended because two windows' medians agreed within 2 %.
        stopped_by: what ended the timed runs: "minimum", or the cap "max-seconds" or "max-runs".
        latency: the summary of the timed runs.
        samples_ms: every timed run, in order.
        state_before: the device's governor, frequency, load and temperature.
        state_after: the same after the run.
    """

    threads: int
    import_ms: float
    init_ms: float
    first_ms: float
    warmup_runs: int
    steady: bool
    stopped_by: str
    latency: Latency
    samples_ms: list[float]
    state_before: dict
    state_after: dict


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process that only runs the model; no time in it is reported.

    Attributes:
        threads: as asked of the runtime.
        peak_bytes: the high-water mark after init and 10 runs, runtime and model file included.
        baseline_bytes: resident right after the runtime's import.
        source: where the peak comes from: "VmHWM", reset after the import; or "VmHWM, not reset" or
            "ru_maxrss", in which the import's own peak is included.
    """

    threads: int
    peak_bytes: int
    baseline_bytes: int
    source: str


@dataclass(frozen=True)
class Profile:
    """A measurement that can be quoted: what was measured, how, on what, and every sample.

    Attributes:
        model: the file's path as given.
        model_sha256: of the bytes that every process loaded.
        model_bytes: the file's size.
        target: where it ran.
        method: one sentence.
        kind: "measured"; other targets say "emulated" or "predicted". Never mix the three.
        runtime: the distribution's name.
        runtime_version: its version.
        delegate: "XNNPACK", "none", or "unknown" where the runtime does not tell.
        delegated_share: of the model's nodes, in [0, 1]; None where it does not tell.
        inputs: name, shape and dtype of each input.
        outputs: the same of each output.
        runs: one per thread count, in the order given.
        memory: peak and baseline.
        notes: what a reader must know before quoting: not steady, too few runs, a drift, a memory
            peak that is not the model's alone.
        environment: versions and machine.
        date: UTC, ISO 8601, of the start.
    """

    model: str
    model_sha256: str
    model_bytes: int
    target: str
    method: str
    kind: str
    runtime: str
    runtime_version: str
    delegate: str
    delegated_share: float | None
    inputs: list[dict]
    outputs: list[dict]
    runs: list[Run]
    memory: Memory
    notes: list[str]
    environment: dict
    date: str

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return dataclasses.asdict(self)


def profile(
    model: str | os.PathLike,
    *,
    threads: Sequence[int] = (1,),
    runtime: str | None = None,
    min_runs: int = 100,
    min_seconds: float = 1.0,
    target: str = "host",
    progress: Progress = silent,
) -> Profile:
    """Measures latency at each thread count, and peak memory, each in a fresh process.

    Args:
        model: a .tflite file.
        threads: thread counts, each at least 1, measured in this order.
        runtime: "ai-edge-litert", "tflite-runtime" or "tensorflow"; None takes the first installed.
        min_runs: timed runs per thread count, at least. 64 are needed for a p90.
        min_seconds: summed time of the timed runs, at least. Timing stops at 60 s (or
            ``min_seconds`` if longer) and at 100,000 runs, and the record says so.
        target: "host", this machine.
        progress: told after each process.

    Raises:
        UsageError: an unknown target or runtime, a thread count or a minimum out of range.
        MissingError: no such file, or the runtime is not installed.
        BadInputError: not a .tflite file, or one that the runtime refuses or crashes on.
    """
    _check_options(threads, min_runs, min_seconds, target)
    path = tflite_file(model)
    device = importlib.import_module(TARGETS[target])
    runtime = choose_runtime(runtime)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    digest = sha256(path)
    total = len(threads) + 1
    progress("profile", 0, total)
    runs, answers, notes = [], [], []
    for done, count in enumerate(threads, start=1):
        before = device.state()
        answer = device.time_runs(
            path, runtime=runtime, threads=count, min_runs=min_runs, min_seconds=min_seconds
        )
        runs.append(_run(answer, before, device.state()))
        answers.append(answer)
        notes += _notes(runs[-1], min_runs, min_seconds, device.cores())
        progress("profile", done, total)
    memory = device.peak_memory(path, runtime=runtime, threads=threads[0])
    progress("profile", total, total)
    if any(answer["model_sha256"] != digest for answer in [*answers, memory]):
        raise BadInputError(f"{str(path)!r} was changed while it was measured; measure it again")
    first = answers[0]
    if memory["source"] != "VmHWM":
        notes.append(
            f"memory from {memory['source']}: the peak includes that of the runtime's import, "
            "which may hide what the model needs"
        )
    return Profile(
        model=str(model),
        model_sha256=digest,
        model_bytes=first["model_bytes"],
        target=target,
        method=METHOD.format(input=first["input"]),
        kind=device.KIND,
        runtime=runtime,
        runtime_version=first["runtime_version"],
        delegate=first["delegate"],
        delegated_share=first["delegated_share"],
        inputs=first["inputs"],
        outputs=first["outputs"],
        runs=runs,
        memory=Memory(**{field.name: memory[field.name] for field in dataclasses.fields(Memory)}),
        notes=notes,
        environment=environment(),
        date=date,
    )


def _check_options(threads: Sequence[int], min_runs: int, min_seconds: float, target: str) -> None:
    if target not in TARGETS:
        known = ", ".join(TARGETS)
        raise UsageError(f"unknown target {target!r}; known: {known}{nearest(target, TARGETS)}")
    if not threads or any(not isinstance(count, int) or count < 1 for count in threads):
        raise UsageError(f"threads are whole numbers from 1, such as (1, 2); not {threads!r}")
    if min_runs < 1:
        raise UsageError(f"min_runs is at least 1, not {min_runs}")
    if not (math.isfinite(min_seconds) and min_seconds >= 0):
        raise UsageError(f"min_seconds is 0 or more, not {min_seconds}")


def _run(answer: dict, before: dict, after: dict) -> Run:
    samples_ms = [nanoseconds / 1e6 for nanoseconds in answer["samples_ns"]]
    copied = ("threads", "import_ms", "init_ms", "first_ms", "warmup_runs", "steady", "stopped_by")
    return Run(
        **{name: answer[name] for name in copied},
        latency=latency(samples_ms),
        samples_ms=samples_ms,
        state_before=before,
        state_after=after,
    )


def _notes(run: Run, min_runs: int, min_seconds: float, cores: int) -> list[str]:
    notes = []
    if run.threads > cores:
        notes.append(f"more threads than the {cores} usable cores: they wait for each other")
    if not run.steady:
        notes.append(f"not steady after {run.warmup_runs} warm-up runs")
    if run.stopped_by != "minimum":
        notes.append(
            f"stopped by {run.stopped_by} at {run.latency.count} runs, "
            f"before {min_runs} runs and {min_seconds:g} s were both reached"
        )
    if not run.latency.valid:
        notes.append(f"p90 is INVALID: {run.latency.count} runs, and it takes 64")
    half = run.latency.count // 2
    if half >= 20:  # shorter halves differ by chance
        early, late = median(run.samples_ms[:half]), median(run.samples_ms[half:])
        if abs(late - early) > 5 * STEADY_TOLERANCE * early:
            change = "slower" if late > early else "faster"
            notes.append(
                f"drifted: the second half's median is {abs(late / early - 1):.0%} {change}; "
                "the clock rate or another program's load changed"
            )
    return [f"threads {run.threads}: {note}" for note in notes]
