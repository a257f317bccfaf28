"""What is told of one model on one target: the runs, as they come in, and the record they make."""

from __future__ import annotations

import dataclasses
import datetime
import re
from dataclasses import dataclass, fields
from pathlib import Path

from kzoo.environment import environment
from kzoo.errors import BadInputError
from kzoo.files import sha256
from kzoo.measure.operators import Operators, operator_times
from kzoo.measure.statistics import STEADY_TOLERANCE, Latency, latency, median
from kzoo.measure.target import Setting, Target

METHOD = (
    "a fresh {place} per thread count and round; {warm_up}, each {call} is timed alone, "
    "without pre- and post-processing, on one input set before: {input}"
)
WARM_UP = "after a warm-up of {:g} s at most"
NO_WARM_UP = "without a warm-up but the first inference"
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
            there was none, or it is not told.
        stopped_by: what ended the timed runs: "minimum", or the cap "max-seconds" or "max-runs".
        latency: the summary of the timed runs.
        samples_ms: every timed run, in order; empty where a runner tells their summary alone.
        power_w: what the whole device drew meanwhile, its screen too, in watts: the mean of its
            battery's current times voltage; None without such a sensor, within half a second, or
            where the battery is charged, whose current is another.
        energy_mj: of an inference, that power times the median, in millijoules.
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
    power_w: float | None
    energy_mj: float | None
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
        warm_up: seconds of warm-up before the timed runs of each process, at most.
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
    warm_up: float
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

    def record(self, target: Target, setting: Setting) -> Profile:
        """What was measured, in full; of ``setting`` counts what all runs had in common."""
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
            method=METHOD.format(
                place=first.get("place", "process"),
                warm_up=first.get("warm_up")
                or (WARM_UP.format(setting.warm_up) if setting.warm_up else NO_WARM_UP),
                input=first["input"],
                call=first["call"],
            )
            + MEMORY * bool(memory),
            kind=target.kind,
            runner=first["runner"],
            runtime=first["runtime"],
            runtime_version=first["runtime_version"],
            cpus=setting.cpus,
            warm_up=setting.warm_up,
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


def _run(answer: dict, number: int, before: dict, after: dict) -> Run:
    samples_ms = [nanoseconds / 1e6 for nanoseconds in answer["samples_ns"]]
    summary = latency(samples_ms) if samples_ms else answer["latency"]
    own = all((state["battery_status"] or "").lower() == "discharging" for state in (before, after))
    power_w = answer.get("power_w") if own else None
    copied = ("threads", "import_ms", "init_ms", "first_ms", "warmup_runs", "steady", "stopped_by")
    return Run(
        **{name: answer[name] for name in copied},
        round=number,
        latency=summary,
        samples_ms=samples_ms,
        power_w=power_w,
        energy_mj=None if power_w is None else power_w * summary.p50_ms,
        state_before=before,
        state_after=after,
    )


def _notes(run: Run, setting: Setting, cores: int) -> list[str]:
    notes = []
    if run.threads > cores:
        notes.append(f"more threads than the {cores} usable cores: they wait for each other")
    if run.steady is False:
        notes.append(
            f"not steady after {run.warmup_runs} warm-up runs, in {setting.warm_up:g} s at most"
        )
    if not setting.warm_up:
        notes.append("no warm-up but the first inference, as asked: nobody looked for steadiness")
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
