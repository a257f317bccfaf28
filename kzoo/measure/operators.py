"""The time of each operator of a file, from the C runner's profiler, and what it is of.

The runtime's clock counts whole microseconds, and another program may take its time inside any
operator. An operator's time is therefore the mean of the middle half of its runs, which has a
median's calm and a sum's resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kzoo.child import blame, call
from kzoo.errors import BadInputError
from kzoo.measure import xnnpack
from kzoo.measure.statistics import interquartile_mean, median, percentile

MODES = {
    "delegate": "the kernels that are used: a delegate's operators, by its own names",
    "node": "each operator of the file, by the runtime's own slower kernels",
}
NODE, INSIDE = 2, 8
"""Types of events: an operator of the file; one inside a delegate."""
DROPPED = {
    1: "it surrounds other events, or is the runtime's own work around them",
    4: "it is a delegate as a whole, whose operators have events of their own",
    16: "it is the runtime's own work",
    32: "it has no time",
}
BUSY = 1.2
"""Times its operators' sum, above which the median run was shared with other programs."""
COARSE_US = 5.0
"""Below it, a whole microsecond is a fifth of an operator's time and more."""


@dataclass(frozen=True)
class OperatorTime:
    """An operator as it ran.

    Attributes:
        name: the runtime's: "CONV_2D", or XNNPACK's "Fully Connected (NC, F32) GEMM".
        kind: the file's operator, "CONV_2D"; of one that is not mapped, its name's beginning.
        node: its number in the file; None of one that is not mapped.
        layer: the Keras layer that it came from; "" if not mapped.
        layers: all that the converter joined in it: a convolution, its BatchNorm and activation.
        dtype: of what it writes.
        shape: of what it writes.
        macs: multiply-accumulates; None if not mapped, or counted with another event.
        weight_bytes: of the constants it reads; None as ``macs``.
        read_bytes: of the activations it reads, each once; None as ``macs``.
        written_bytes: of what it writes; None as ``macs``.
        us: the interquartile mean of its times, microseconds.
        median_us: their median, which are whole microseconds each.
        share: of the sum of all operators, in [0, 1].
    """

    name: str
    kind: str
    node: int | None
    layer: str
    layers: list[str]
    dtype: str
    shape: list[int]
    macs: int | None
    weight_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    us: float
    median_us: float
    share: float


@dataclass(frozen=True)
class Operators:
    """The time of a file by operator.

    Attributes:
        mode: "delegate" or "node", of `MODES`.
        threads: as asked of the runtime.
        runs: how many were profiled.
        profiled_ms: the median of the profiled runs.
        unprofiled_ms: the median by the same kernels without the profiler, measured in turns with
            the others, each in a fresh process.
        overhead: what the profiler costs: the median over rounds of the ratio of the 10th
            percentiles, which other programs disturb least, less 1. Below 0 it is lost in noise.
        usual_ms: the median by the kernels that are used without ``--ops``; that of
            ``unprofiled_ms`` in the mode "delegate".
        sum_us: of the operators.
        coverage: the sum of the operators' times in a run over the whole run's, in [0, 1]; the
            median over runs.
        operators: in the order in which they ran.
        dropped: the other events: ``name``, ``us``, ``reason``.
        notes: what a reader must know of these figures.
    """

    mode: str
    threads: int
    runs: int
    profiled_ms: float
    unprofiled_ms: float
    overhead: float
    usual_ms: float
    sum_us: float
    coverage: float
    operators: list[OperatorTime]
    dropped: list[dict]
    notes: list[str]


def operator_times(
    file: str,
    mode: str,
    profiled: Sequence[Mapping],
    unprofiled: Sequence[Mapping],
    usual: Sequence[Mapping],
) -> Operators:
    """Reads what runners told.

    Args:
        file: the .tflite, read in a child process.
        mode: of `MODES`.
        profiled: the answers of ``Device.operators``, one of each round.
        unprofiled: those of ``Device.time_runs`` with the same kernels.
        usual: those of ``Device.time_runs``.

    Raises:
        BadInputError: the file is damaged, or runs other operators from time to time.
    """
    with blame(f"{file} cannot be read"):
        rows = call("kzoo.lite.work:read", file=file)
    events, samples = _joined(file, profiled)
    nodes, notes = _nodes(events, rows)
    kept = [(event, node) for event, node in zip(events, nodes, strict=True)
            if not _reason(event, len(rows), events)]  # fmt: skip
    if not kept:
        raise BadInputError(f"{file!r}: the runtime told the time of no operator")
    times = [interquartile_mean(event["us"]) for event, _ in kept]
    operators, counted = [], set()
    for (event, node), us in zip(kept, times, strict=True):
        row = None if node is None else rows[node]
        operators.append(_operator(event, row, node in counted, us, sum(times)))
        counted.add(node)
    covered = [
        1000 * sum(event["us"][run] for event, _ in kept) / whole
        for run, whole in enumerate(samples)
    ]
    calm = [[percentile(each["samples_ns"], 0.1) for each in of] for of in (profiled, unprofiled)]
    notes += _notes(operators, rows, mode)
    shared = _p50(profiled) * 1000 * median(covered) / sum(times) if sum(times) else 0.0
    if shared > BUSY:
        notes.append(
            f"other programs ran beside it: the median run has {shared:.1f} times the sum of its "
            "operators, whose times are without what others took"
        )
    return Operators(
        mode=mode,
        threads=profiled[0]["threads"],
        runs=len(samples),
        profiled_ms=_p50(profiled),
        unprofiled_ms=_p50(unprofiled),
        overhead=median([a / b for a, b in zip(*calm, strict=True)]) - 1,
        usual_ms=_p50(usual),
        sum_us=sum(times),
        coverage=median(covered),
        operators=operators,
        dropped=[
            {"name": event["name"], "us": interquartile_mean(event["us"]), "reason": reason}
            for event in events
            if (reason := _reason(event, len(rows), events))
        ],
        notes=notes,
    )


def _joined(file: str, answers: Sequence[Mapping]) -> tuple[list[dict], list[int]]:
    """The events of all rounds with their times one after another, and the whole runs' (ns)."""
    told = [
        [{key: event[key] for key in ("name", "type", "index")} for event in each["operators"]]
        for each in answers
    ]
    if any(each != told[0] for each in told):
        raise BadInputError(
            f"{file!r} runs other operators from time to time: their times cannot be told apart"
        )
    events = [
        event | {"us": [us for each in answers for us in each["operators"][i]["us"]]}
        for i, event in enumerate(told[0])
    ]
    return events, [sample for each in answers for sample in each["samples_ns"]]


def _nodes(events: Sequence[Mapping], rows: Sequence[dict]) -> tuple[list[int | None], list[str]]:
    """The file's operator of each event, None where it is not sure; and why some are not."""
    found: list[int | None] = [
        event["index"]
        if event["type"] == NODE
        and event["index"] < len(rows)
        and event["name"] == rows[event["index"]]["operator"]
        else None
        for event in events
    ]
    apart = {node for node in found if node is not None}
    inside = [place for place, event in enumerate(events) if event["type"] == INSIDE]
    given = [part for part in xnnpack.parts(rows, apart) if part[0] not in apart]
    groups = xnnpack.groups(events[place]["index"] for place in inside)
    if len(groups) != len(given):
        note = f"the delegate ran {len(groups)} parts, and {len(given)} were expected: its "
        return found, [f"{note}operators are not mapped"] if inside else []
    for group, part in zip(groups, given, strict=True):
        places = [inside[i] for i in group]
        names = [events[place]["name"] for place in places]
        for place, node in zip(
            places, xnnpack.assigned(names, [rows[i] for i in part]), strict=True
        ):
            found[place] = node
    return found, []


def _reason(event: Mapping, count: int, events: Sequence[Mapping]) -> str | None:
    """Why an event is no operator; None if it is one."""
    if event["type"] == NODE:
        # A delegate's part is a node that is numbered behind those of the file.
        within = any(each["type"] == INSIDE for each in events)
        return DROPPED[4] if event["index"] >= count and within else None
    if event["type"] == INSIDE:
        return None
    return DROPPED.get(event["type"], f"it is of the unknown type {event['type']}")


def _operator(
    event: Mapping, row: Mapping | None, counted: bool, us: float, total: float
) -> OperatorTime:
    work = ("macs", "weight_bytes", "read_bytes", "written_bytes")
    about = row or {"operator": event["name"].split(" (")[0], "layer": "", "layers": []}
    return OperatorTime(
        name=event["name"],
        kind=about["operator"],
        node=about.get("index"),
        layer=about["layer"],
        layers=about["layers"],
        dtype=about.get("dtype", ""),
        shape=about.get("shape", []),
        **{key: None if counted else about.get(key) for key in work},
        us=us,
        median_us=median(event["us"]),
        share=us / total if total else 0.0,
    )


def _notes(operators: Sequence[OperatorTime], rows: Sequence[Mapping], mode: str) -> list[str]:
    notes = []
    small = [each for each in operators if each.us < COARSE_US]
    if small:
        share = sum(each.share for each in small)
        notes.append(
            f"the runtime's clock counts whole microseconds: {len(small)} operators of less than "
            f"{COARSE_US:g} us, {100 * share:.1f} % of the time, are told by many runs together"
        )
    if unmapped := [each.name for each in operators if each.node is None]:
        notes.append(
            f"{len(unmapped)} operators are the delegate's own, or it cannot be told for sure of "
            f"which of the file's they are: {', '.join(dict.fromkeys(unmapped))}"
        )
    known = {each.node for each in operators}
    gone = [row["operator"] for row in rows if row["index"] not in known]
    if gone and not unmapped:
        kinds = ", ".join(f"{gone.count(kind)} {kind}" for kind in dict.fromkeys(gone))
        notes.append(f"without a time of their own, fused or with nothing to do: {kinds}")
    if mode == "node":
        notes.append(
            "the runtime's own kernels tell where the work is; those that are used take other "
            "times, and not by one factor"
        )
    return notes


def _p50(answers: Sequence[Mapping]) -> float:
    return median([sample for each in answers for sample in each["samples_ns"]]) / 1e6
