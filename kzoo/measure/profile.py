"""How fast a .tflite file is, and how much memory it takes, on a target."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from kzoo.environment import environment
from kzoo.errors import BadInputError, KzooError, MissingError, UsageError, one_of
from kzoo.files import sha256
from kzoo.lite.tflite_file import tflite_file
from kzoo.measure.operators import MODES, Operators, operator_times
from kzoo.measure.runtimes import C_RUNTIME
from kzoo.measure.statistics import STEADY_TOLERANCE, Latency, latency, median
from kzoo.measure.target import Setting, Target, open_target
from kzoo.progress import Progress, silent

METHOD = (
    "a fresh process per thread count and round; after a warm-up, each {call} is timed alone, "
    "without pre- and post-processing, on one input set before: {input}"
)
MEMORY = "; memory from a process of its own"
THROTTLED = ("under-voltage", "clock capped", "throttled", "soft temperature limit")
"""Bits 0 to 3 of vcgencmd's get_throttled, and 16 to 19 of what was once since the start:
https://www.raspberrypi.com/documentation/computers/os.html#get_throttled"""
WARMER_C, SLOWER = 5.0, 0.1
"""A run whose device got so many degrees warmer, or lost this share of its clock, is marked."""


@dataclass(frozen=True)
class Run:
    """One thread count, in a process of its own. Times in milliseconds.

    Attributes:
        threads: as asked of the runtime.
        round: from 0; later ones repeat the measurement after the other models had their turn.
        import_ms: importing the runtime; None where it is not told.
        init_ms: the interpreter's constructor and ``allocate_tensors``.
        first_ms: the first inference of the process.
        warmup_runs: the runs between the first and the timed ones.
        steady: whether the warm-up ended because two windows' medians agreed within 2 %; None where
            it is not told.
        stopped_by: what ended the timed runs: "minimum", or the cap "max-seconds" or "max-runs".
        latency: the summary of the timed runs.
        samples_ms: every timed run, in order; empty where a runner tells their summary alone.
        state_before: the device's governor, frequency, load and temperature.
        state_after: the same after the run.
    """

    threads: int
    round: int
    import_ms: float | None
    init_ms: float
    first_ms: float
    warmup_runs: int
    steady: bool | None
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
        kind: "measured" or "emulated". Never mix the two.
        runner: which program ran it: a runtime for Python, "litert-c", "benchmark_model", or what
            the target is.
        runtime: the distribution's name.
        runtime_version: its version.
        cpus: the cores it was kept on, as asked; None: any.
        delegate: "XNNPACK", "none", or "unknown" where the runtime does not tell.
        delegated_share: of the model's nodes, in [0, 1]; None where it does not tell.
        inputs: name, shape and dtype of each input.
        outputs: the same of each output.
        runs: one per thread count, in the order given.
        memory: peak and baseline; None where the target does not tell.
        notes: what a reader must know before quoting: not steady, too few runs, a drift, a memory
            peak that is not the model's alone.
        device: the processor, cores, memory and system of what was measured.
        environment: versions and machine of the one that kzoo ran on.
        date: UTC, ISO 8601, of the start.
        operators: the time by operator, from further processes; None if not asked for.
    """

    model: str
    model_sha256: str
    model_bytes: int
    target: str
    method: str
    kind: str
    runner: str
    runtime: str
    runtime_version: str
    cpus: str | None
    delegate: str
    delegated_share: float | None
    inputs: list[dict]
    outputs: list[dict]
    runs: list[Run]
    memory: Memory | None
    notes: list[str]
    device: dict
    environment: dict
    date: str
    operators: Operators | None = None

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Failure:
    """What could not be measured.

    Attributes:
        target: its name.
        model: the file's path as given; None where the target failed before any.
        error: why, in one line.
        exit_code: that of the error.
    """

    target: str
    model: str | None
    error: str
    exit_code: int


@dataclass(frozen=True)
class Profiles:
    """Several models on several targets: what was measured, target by target, and what was not."""

    records: list[Profile]
    failures: list[Failure]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return dataclasses.asdict(self)


def profile(
    model: str | os.PathLike,
    *,
    on: str = "host",
    threads: Sequence[int] = (1,),
    runtime: str | None = None,
    cpus: str | None = None,
    delegate: str | None = None,
    min_runs: int = 100,
    min_seconds: float = 1.0,
    rounds: int | None = None,
    cool_down: float = 0.0,
    ops: str | None = None,
    progress: Progress = silent,
) -> Profile:
    """Measures latency at each thread count, and peak memory, each in a fresh process.

    Args:
        model: a .tflite file.
        on: a target, see `kzoo.measure.target.TARGETS`.
        threads: thread counts, each at least 1, measured in this order.
        runtime: "ai-edge-litert", "tflite-runtime", "tensorflow", or "litert-c" for the C runner;
            None takes what the target has.
        cpus: the cores it may run on, such as "4-7"; "big" or "little" where there are two kinds.
        delegate: "xnnpack", "none", "gpu", "nnapi", "edgetpu"; None: the runtime's default.
        min_runs: timed runs per thread count, at least. 64 are needed for a p90.
        min_seconds: summed time of the timed runs, at least. Timing stops at 60 s (or
            ``min_seconds`` if longer) and at 100,000 runs, and the record says so.
        rounds: how often all of it is measured; once, if not said.
        cool_down: seconds to rest before each run but the first, at most: where the device tells
            its temperature, until it is within 2 degrees of what it was.
        ops: "delegate" or "node", to measure the time by operator too, see
            `kzoo.measure.operators`. All of it runs by the C runner then, three times if
            ``rounds`` does not say otherwise; operators by the first thread count.
        progress: told after each process.

    Raises:
        UsageError: an unknown target or runtime, a thread count or a minimum out of range.
        MissingError: no such file or device, or the runtime is not installed.
        BadInputError: not a .tflite file, or one that the runtime refuses or crashes on.
    """
    (found,) = profile_all(
        [model],
        on=[on],
        threads=threads,
        runtime=runtime,
        cpus=cpus,
        delegate=delegate,
        min_runs=min_runs,
        min_seconds=min_seconds,
        rounds=rounds,
        cool_down=cool_down,
        ops=ops,
        progress=progress,
    ).records
    return found


def profile_all(
    models: Sequence[str | os.PathLike],
    *,
    on: Sequence[str] = ("host",),
    threads: Sequence[int] = (1,),
    runtime: str | None = None,
    cpus: str | None = None,
    delegate: str | None = None,
    min_runs: int = 100,
    min_seconds: float = 1.0,
    rounds: int | None = None,
    cool_down: float = 0.0,
    ops: str | None = None,
    progress: Progress = silent,
) -> Profiles:
    """As `profile`, of several models on several targets; in turns on each: A B A B.

    ``rounds`` is 2 for several models unless it is said. Raises as `profile` for what is wrong
    before anything is measured. Then a model that a target refuses, or a target that is not there,
    is a `Failure` and the others go on; of one model on one target it is raised.
    """
    rounds = rounds or (3 if ops else 2 if len(models) > 1 else 1)
    runtime = _runtime_of(ops, runtime, delegate)
    _check_options(models, on, threads, min_runs, min_seconds, rounds, cool_down)
    paths = [tflite_file(model) for model in models]
    setting = Setting(
        runtime=runtime, cpus=cpus, delegate=delegate, min_runs=min_runs, min_seconds=min_seconds
    )
    settings = [dataclasses.replace(setting, threads=count) for count in threads]
    more = {None: 0, "delegate": 1, "node": 2}[ops]
    steps = rounds * (len(threads) + more) + 1
    total, done = len(on) * len(paths) * steps, 0
    records: list[Profile] = []
    failures: list[Failure] = []

    def went(further: int) -> None:
        nonlocal done
        done += further
        progress("profile", done, total)

    def failed(error: KzooError, target: str, model: str | None) -> None:
        if len(on) == len(paths) == 1:
            raise error
        said = str(error).splitlines()[0].removeprefix(f"{model!r}: ")
        failures.append(Failure(target, model, said, error.exit_code))

    went(0)
    with contextlib.ExitStack() as stack:
        targets = []
        for name in on:  # all before the first is measured: what is wrong is told now, not in hours
            try:
                target = stack.enter_context(open_target(name))
                if ops and getattr(target, "operators", None) is None:
                    raise UsageError(f"{target.name} does not tell the time of operators")
                for used in settings:
                    target.check(used)
                targets.append((target, target.state()["temperature_c"] if cool_down else None))
            except MissingError as error:
                failed(error, name, None)
                went(len(paths) * steps)
        for target, cool in targets:
            measured = [Measured(*each) for each in zip(map(str, models), paths, strict=True)]
            refused = []
            turns = itertools.product(range(rounds), settings, measured)
            for turn, (number, used, each) in enumerate(turns):
                told = more if used.threads == threads[0] else 0
                if each not in refused:
                    try:
                        if turn and cool_down:
                            _rest(target, cool, cool_down)
                        each.run(target, used, number)
                        if told:
                            each.run_operators(target, used, ops)
                    except KzooError as error:
                        failed(error, target.name, each.model)
                        refused.append(each)
                went(1 + told)
            for each in measured:
                if each not in refused:
                    try:
                        each.memory = target.peak_memory(each.path, settings[0])
                        records.append(each.record(target, cpus))
                    except KzooError as error:
                        failed(error, target.name, each.model)
                went(1)
    return Profiles(records, failures)


def _rest(target: Target, cool: float | None, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(1.0, seconds))
        now = target.state()["temperature_c"] if cool is not None else None
        if now is not None and now <= cool + 2:
            return


class Measured:
    """One model on one target, as its runs come in."""

    def __init__(self, model: str, path: Path, digest: str | None = None) -> None:
        self.model, self.path, self.digest = model, path, digest or sha256(path)
        self.date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.runs: list[Run] = []
        self.answers: list[dict] = []
        self.notes: list[str] = []
        self.memory: dict | None = None
        self.profiled: list[dict] = []
        self.unprofiled: list[dict] = []
        self.mode = ""

    def run(self, target: Target, setting: Setting, number: int) -> None:
        """Another process with this setting."""
        before = target.state()
        answer = target.time_runs(self.path, setting)
        run = _run(answer, number, before, target.state())
        self.runs.append(run)
        self.answers.append(answer)
        self.notes += _notes(run, setting, target.machine()["cores"])

    def run_operators(self, target: Target, setting: Setting, mode: str) -> None:
        """Another process that tells operators; in "node" mode one with its kernels alone, too."""
        self.mode = mode
        if mode == "node":
            plain = dataclasses.replace(setting, delegate="none")
            self.unprofiled.append(target.time_runs(self.path, plain))
        else:
            self.unprofiled.append(self.answers[-1])
        self.profiled.append(target.operators(self.path, setting, mode))

    def record(self, target: Target, cpus: str | None) -> Profile:
        """What was measured, in full."""
        first, memory = self.answers[0], self.memory
        told = [note for each in [*self.answers, memory or {}] for note in each.get("notes", [])]
        notes = list(dict.fromkeys([*self.notes, *told]))
        others = [*self.answers, *self.unprofiled, *self.profiled, memory or first]
        if any(each["model_sha256"] != self.digest for each in others):
            raise BadInputError(
                f"{self.model!r} was changed while it was measured; measure it again"
            )
        if memory and memory["source"] not in ("VmHWM", "arena"):
            notes.append(
                f"memory from {memory['source']}: the peak includes that of the runtime's import, "
                "which may hide what the model needs"
            )
        found = None
        if self.mode:
            usual = [each for each in self.answers if each["threads"] == first["threads"]]
            found = operator_times(str(self.path), self.mode, self.profiled, self.unprofiled, usual)
        return Profile(
            model=self.model,
            model_sha256=self.digest,
            model_bytes=first["model_bytes"],
            target=target.name,
            method=METHOD.format(input=first["input"], call=first["call"]) + MEMORY * bool(memory),
            kind=target.kind,
            runner=first["runner"],
            runtime=first["runtime"],
            runtime_version=first["runtime_version"],
            cpus=cpus,
            delegate=first["delegate"],
            delegated_share=first["delegated_share"],
            inputs=first["inputs"],
            outputs=first["outputs"],
            runs=self.runs,
            memory=memory and Memory(**{each.name: memory[each.name] for each in fields(Memory)}),
            notes=notes,
            device=target.machine(),
            environment=environment(),
            date=self.date,
            operators=found,
        )


def _runtime_of(ops: str | None, runtime: str | None, delegate: str | None) -> str | None:
    """What is measured by: one runner alone tells operators."""
    if ops is None:
        return runtime
    one_of("ops", ops, MODES)
    if runtime not in (None, C_RUNTIME):
        raise UsageError(f"operators are told by the runtime {C_RUNTIME}, not by {runtime}")
    if ops == "node" and delegate not in (None, "none"):
        raise UsageError(f"the mode node has no delegate: not {delegate}; say delegate")
    return C_RUNTIME


def _check_options(models, on, threads, min_runs, min_seconds, rounds, cool_down) -> None:
    if not models or not on:
        raise UsageError("profile takes at least one model and one target")
    if not threads or any(not isinstance(count, int) or count < 1 for count in threads):
        raise UsageError(f"threads are whole numbers from 1, such as (1, 2); not {threads!r}")
    if min_runs < 1:
        raise UsageError(f"min_runs is at least 1, not {min_runs}")
    if rounds < 1:
        raise UsageError(f"rounds is at least 1, not {rounds}")
    for what, seconds in (("min_seconds", min_seconds), ("cool_down", cool_down)):
        if not (math.isfinite(seconds) and seconds >= 0):
            raise UsageError(f"{what} is 0 or more, not {seconds}")


def _run(answer: dict, number: int, before: dict, after: dict) -> Run:
    samples_ms = [nanoseconds / 1e6 for nanoseconds in answer["samples_ns"]]
    copied = ("threads", "import_ms", "init_ms", "first_ms", "warmup_runs", "steady", "stopped_by")
    return Run(
        **{name: answer[name] for name in copied},
        round=number,
        latency=latency(samples_ms) if samples_ms else answer["latency"],
        samples_ms=samples_ms,
        state_before=before,
        state_after=after,
    )


def _notes(run: Run, setting: Setting, cores: int) -> list[str]:
    notes = []
    if run.threads > cores:
        notes.append(f"more threads than the {cores} usable cores: they wait for each other")
    if run.steady is False:
        notes.append(f"not steady after {run.warmup_runs} warm-up runs")
    if run.stopped_by != "minimum":
        notes.append(
            f"stopped by {run.stopped_by} at {run.latency.count} runs, "
            f"before {setting.min_runs} runs and {setting.min_seconds:g} s were both reached"
        )
    if not run.samples_ms:
        notes.append("the runner tells a summary alone: no single runs, no p90, p99 and spread")
    elif not run.latency.valid:
        notes.append(f"p90 is INVALID: {run.latency.count} runs, and it takes 64")
    half = len(run.samples_ms) // 2
    if half >= 20:  # shorter halves differ by chance
        early, late = median(run.samples_ms[:half]), median(run.samples_ms[half:])
        if abs(late - early) > 5 * STEADY_TOLERANCE * early:
            change = "slower" if late > early else "faster"
            notes.append(
                f"drifted: the second half's median is {abs(late / early - 1):.0%} {change}; "
                "the clock rate or another program's load changed"
            )
    notes += _changed(run.state_before, run.state_after)
    return [f"threads {run.threads}: {note}" for note in notes]


def _changed(before: dict, after: dict) -> list[str]:
    """What changed on the device while it ran, of what a figure depends on."""
    notes = []
    was, now = before["temperature_c"], after["temperature_c"]
    if None not in (was, now) and now > was + WARMER_C:
        notes.append(f"the device got warmer, from {was:g} to {now:g} degrees")
    was, now = before["frequency_mhz"], after["frequency_mhz"]
    if None not in (was, now) and now < was * (1 - SLOWER):
        notes.append(f"the fastest core's clock fell from {was:g} to {now:g} MHz")
    for name in ("governor", "thermal_status", "battery_status"):
        if before[name] != after[name]:
            notes.append(f"{name} changed from {before[name]} to {after[name]}")
    return notes + _throttled(before["throttled"], after["throttled"])


def _throttled(before: str | None, after: str | None) -> list[str]:
    """A Raspberry Pi's flags in words, those before the run and after it together."""
    bits = 0
    for flags in (before, after):
        if flags and re.fullmatch("0x[0-9a-f]+", flags, re.I):
            bits |= int(flags, 16)
    now, ever = (
        ", ".join(name for bit, name in enumerate(THROTTLED) if bits >> shift + bit & 1)
        for shift in (0, 16)
    )
    found = [f"now: {now}"] * bool(now) + [f"since it was started: {ever}"] * bool(ever)
    if not found:
        return []
    return [f"the Raspberry Pi was short of power or too warm; {'; '.join(found)}"]
