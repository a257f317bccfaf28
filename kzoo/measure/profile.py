"""How fast a .tflite file is, and how much memory it takes, on a target."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kzoo.errors import KzooError, MissingError, UsageError, one_of
from kzoo.lite.tflite_file import tflite_file
from kzoo.measure.operators import MODES
from kzoo.measure.record import Measured, Profile
from kzoo.measure.runtimes import C_RUNTIME
from kzoo.measure.target import Setting, Target, open_target
from kzoo.progress import Progress, silent


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


def profile(model: str | os.PathLike, *, on: str = "host", **options: object) -> Profile:
    """As `profile_all`, of one model on one target: its record, or the error.

    Args:
        model: a .tflite file.
        on: a target, see `kzoo.measure.target.TARGETS`.
        options: as for `kzoo.measure.profile.profile_all`.

    Raises:
        UsageError: an unknown target or runtime, a thread count or a minimum out of range.
        MissingError: no such file or device, or the runtime is not installed.
        BadInputError: not a .tflite file, or one that the runtime refuses or crashes on.
    """
    (found,) = profile_all([model], on=[on], **options).records
    return found


def profile_all(
    models: Sequence[str | os.PathLike],
    *,
    on: Sequence[str] = ("host",),
    threads: Sequence[int] = (1,),
    runtime: str | None = None,
    cpus: str | None = None,
    delegate: str | None = None,
    warm_up: float = 10.0,
    min_runs: int = 100,
    min_seconds: float = 1.0,
    rounds: int | None = None,
    cool_down: float = 0.0,
    ops: str | None = None,
    progress: Progress = silent,
) -> Profiles:
    """Measures latency at each thread count, and peak memory, each in a fresh process.

    Several models take turns on each target: A B A B. What is wrong before anything is measured is
    raised. Then a model that a target refuses, or a target that is not there, is a `Failure` and
    the others go on; of one model on one target it is raised.

    Args:
        models: .tflite files.
        on: targets, see `kzoo.measure.target.TARGETS`.
        threads: thread counts, each at least 1, measured in this order.
        runtime: "ai-edge-litert", "tflite-runtime", "tensorflow", "litert-c" for the C runner, or
            "benchmark_model" for Google's; None takes what the target has.
        cpus: the cores it may run on, such as "4-7"; "big" or "little" where there are two kinds.
        delegate: "xnnpack", "none", "gpu", "nnapi", "edgetpu"; None: the runtime's default.
        warm_up: seconds of runs before the timed ones, at most: they end when the medians of two
            windows agree within 2 %. 0: none but the first inference.
        min_runs: timed runs per thread count, at least. 64 are needed for a p90.
        min_seconds: summed time of the timed runs, at least. Timing stops at 60 s (or
            ``min_seconds`` if longer) and at 100,000 runs, and the record says so.
        rounds: how often all of it is measured; if not said once, twice of several models.
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
    rounds = rounds or (3 if ops else 2 if len(models) > 1 else 1)
    runtime = _runtime_of(ops, runtime, delegate)
    seconds = {"warm_up": warm_up, "min_seconds": min_seconds, "cool_down": cool_down}
    _check_options(models, on, threads, min_runs, rounds, seconds)
    paths = [tflite_file(model) for model in models]
    setting = Setting(
        runtime=runtime,
        cpus=cpus,
        delegate=delegate,
        warm_up=warm_up,
        min_runs=min_runs,
        min_seconds=min_seconds,
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
                        records.append(each.record(target, setting))
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


def _check_options(models, on, threads, min_runs, rounds, seconds: dict[str, float]) -> None:
    if not models or not on:
        raise UsageError("profile takes at least one model and one target")
    if not threads or any(not isinstance(count, int) or count < 1 for count in threads):
        raise UsageError(f"threads are whole numbers from 1, such as (1, 2); not {threads!r}")
    if min_runs < 1:
        raise UsageError(f"min_runs is at least 1, not {min_runs}")
    if rounds < 1:
        raise UsageError(f"rounds is at least 1, not {rounds}")
    for what, value in seconds.items():
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{what} is 0 or more, not {value}")
