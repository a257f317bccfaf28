"""The page of profiles: latency, size and accuracy against each other, every run, by operator."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from kzoo.files import read_json, write_bytes
from kzoo.report import operators as ops
from kzoo.report.page import template
from kzoo.report.profile_plots import NAMED, Log, histogram, roofline, scatter
from kzoo.report.sections import STATES, environment_facts
from kzoo.report.structure import stages_of
from kzoo.report.svg import COLOURS
from kzoo.report.table import NOTHING, byte_size, listed, milliseconds, percent, scaled

FAMILIES = dict(
    zip(
        [*ops.FAMILIES, ops.MOVING, ops.UNMAPPED],
        ("s4", "s32", "s8", "s64", "s16", "s2", "s1", "s0"),
        strict=True,
    )
)
"""What an operator is → its colour, of `kzoo.report.svg.COLOURS`."""
TARGETS = ("s4", "s32", "s8", "s64", "s0", "s16", "s2", "s1")
KINDS = {
    "measured": "measured",
    "emulated": "emulated: it tells that it runs, and no latency to quote",
}
LARGEST_RECORD = 20e6
"""Bytes of a JSON file that is looked into for an accuracy."""


def write_profile(
    records: Sequence[Mapping], path: str | os.PathLike, failures: Sequence[Mapping] = ()
) -> Path:
    """Writes profiles as a self-contained page.

    Args:
        records: of `kzoo.profile`, at least one; with "operators" they are drawn, those of two side
            by side.
        path: the ``.html``.
        failures: what could not be measured, of `kzoo.measure.profile.Profiles`.

    Raises:
        MissingError: it cannot be written.
    """
    path = Path(path)
    names = names_of(records)
    rows = [_row(record, name) for record, name in zip(records, names, strict=True)]
    colours = dict(zip(dict.fromkeys(row["target"] for row in rows), _cycle(), strict=False))
    for row in rows:
        row["colour"] = colours[row["target"]]
    profiled = [(record, row) for record, row in zip(records, rows, strict=True)
                if record.get("operators")]  # fmt: skip
    where = f" on {len(colours)} targets" if len(colours) > 1 else ""
    page = template("profile.html").render(
        name=names[0] if len(set(names)) == 1 else f"{len(set(names))} models{where}",
        date=min(record["date"] for record in records)[:16].replace("T", " "),
        version=records[0]["environment"].get("packages", {}).get("kzoo"),
        verdict=_verdict(rows, [record for record, _ in profiled], len(failures)),
        colours={name: COLOURS[name] for name in dict.fromkeys([*FAMILIES.values(), *TARGETS])},
        rows=rows,
        groups=_groups(rows),
        failures=[each | {"name": Path(each["model"]).stem if each["model"] else "all models"}
                  for each in failures],
        conditions=_conditions(records, names),
        notes=notes_of(records, names),
        methods=list(dict.fromkeys(record["method"] for record in records)),
        files=[_by_operator(record["operators"], row) for record, row in profiled],
        families=FAMILIES,
        diff=_diff(ops.pair_of(records)),
        devices=_devices(records),
        environment=environment_facts(records[0]["environment"]),
    )  # fmt: skip
    # A name read from a file may hold what UTF-8 cannot.
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def _cycle() -> list[str]:
    return [*TARGETS] * 16


def names_of(records: Sequence[Mapping]) -> list[str]:
    """Names of models: of files without their ending; with the folder where two are the same."""
    paths = [Path(record["model"]) for record in records]
    folders = {}
    for path in paths:
        folders.setdefault(path.name, set()).add(str(path.parent))
    return [
        str(path.with_suffix("")) if len(folders[path.name]) > 1 else path.stem for path in paths
    ]


def notes_of(records: Sequence[Mapping], names: Sequence[str]) -> list[tuple[str, str]]:
    """Each note and of what it is; once where all models on a target have it."""
    models: dict[tuple[str, str], list[str]] = {}
    for record, name in zip(records, names, strict=True):
        for note in record["notes"]:
            models.setdefault((record["target"], note), []).append(name)
    on = [record["target"] for record in records]
    return [
        (target if len(of) == on.count(target) else f"{target}, {name}", note)
        for (target, note), of in models.items()
        for name in (of[:1] if len(of) == on.count(target) else of)
    ]


def pair_names(pair: Sequence[Mapping]) -> list[str]:
    """Names of two records: their models', or of one model their targets'."""
    names = names_of(pair)
    return names if names[0] != names[1] else [each["target"] for each in pair]


def _row(record: Mapping, name: str) -> dict:
    """A model on a target, at the first thread count."""
    threads = record["runs"][0]["threads"]
    runs = [run for run in record["runs"] if run["threads"] == threads]
    samples = sorted(sample for run in runs for sample in run["samples_ms"])
    rounds = [run["latency"]["p50_ms"] for run in runs]
    middle = statistics.median(rounds)
    quarter = len(samples) // 4
    accuracy = accuracy_of(record)
    peak = (record["memory"] or {}).get("peak_bytes")
    return {
        "name": name,
        "target": record["target"],
        "kind": record["kind"],
        "said": KINDS.get(record["kind"], record["kind"]),
        "runtime": f"{record['runtime']} {record['runtime_version']}",
        "runner": record["runner"],
        "delegate": record["delegate"],
        "threads": threads,
        "ms": middle,
        "low": min([samples[quarter], *rounds]) if samples else min(rounds),
        "high": max([samples[-1 - quarter], *rounds]) if samples else max(rounds),
        "rounds": rounds,
        "bytes": record["model_bytes"],
        "size": byte_size(record["model_bytes"]),
        "accuracy": accuracy and 100 * accuracy["accuracy"],
        "interval": accuracy and [100 * end for end in accuracy["interval"]],
        "judged": accuracy,
        "cells": {
            "p50": milliseconds(middle),
            "rounds": " · ".join(map(milliseconds, rounds)),
            "p90": _worst(runs),
            "first": milliseconds(runs[0]["first_ms"]),
            "init": milliseconds(runs[0]["init_ms"]),
            "peak": byte_size(peak) + " arena" * (record["memory"]["source"] == "arena")
            if peak
            else NOTHING,
            "accuracy": percent(accuracy["accuracy"], accuracy["count"]) if accuracy else NOTHING,
        },
        "strips": _strips(record["runs"]),
    }


def _worst(runs: Sequence[Mapping]) -> str:
    if all(run["latency"]["valid"] for run in runs):
        return milliseconds(max(run["latency"]["p90_ms"] for run in runs))
    return "INVALID" if runs[0]["samples_ms"] else NOTHING


def accuracy_of(record: Mapping) -> dict | None:
    """The accuracy of a profiled file, where a record near it tells one of the same bytes.

    Looked into are the JSON files beside it and those of the run whose folder it stands in: what
    ``kzoo check --json`` and ``kzoo evaluate --json`` print, and a run's ledger. Of several the one
    of the most images counts.
    """
    folder, digest = Path(record["model"]).parent, record["model_sha256"]
    known = []
    for file in [*sorted(folder.glob("*.json")), *sorted(folder.parent.glob("ledger/*.json"))]:
        with contextlib.suppress(Exception):  # any JSON may stand there
            if file.stat().st_size < LARGEST_RECORD:
                found = read_json(file)
                for each in (found, found.get("result"), *(found.get("result") or {}).values()):
                    if isinstance(each, Mapping) and (told := _told(each, digest)):
                        keys = ("accuracy", "interval", "count", "split")
                        known.append({key: told[key] for key in keys})
    return max(known, key=lambda each: each["count"], default=None)


def _told(record: Mapping, digest: str) -> Mapping | None:
    """The figures in a record of a check or an evaluation, if it is of this file."""
    if record.get("contents", {}).get("sha256") == digest and "lite" in record:
        return record["lite"]
    if record.get("sha256") == digest and "evaluation" in record:
        return record["evaluation"]
    return None


def _strips(runs: Sequence[Mapping]) -> list[dict]:
    """Every run: where its times lie, on one scale."""
    ends = [value for run in runs for value in (run["latency"]["min_ms"], _end(run)) if value]
    x = Log(ends or [run["latency"]["p50_ms"] for run in runs], 0.0, 1000.0)
    shown = []
    for run in runs:
        latency = run["latency"]
        shown.append(
            {
                "title": f"{run['threads']} thread{'s' * (run['threads'] > 1)}, round "
                f"{run['round'] + 1}",
                "path": histogram(run["samples_ms"], x),
                "p50": round(x(latency["p50_ms"]) / 10, 2),
                "p90": round(x(latency["p90_ms"]) / 10, 2) if latency["p90_ms"] else None,
                "text": f"p50 {milliseconds(latency['p50_ms'])} ms",
                "more": f"p90 {milliseconds(latency['p90_ms'])}, p99 "
                f"{milliseconds(latency['p99_ms'])}, {latency['count']:,} runs",
                "steady": run["steady"] is not False,
            }
        )
    # A number at an end would be cut.
    ticks = [{"left": round(x(tick) / 10, 2), "text": f"{tick:g}"} for tick in x.ticks()
             if 25 < x(tick) < 975]  # fmt: skip
    return [{"runs": shown, "ticks": ticks}]


def _end(run: Mapping) -> float | None:
    """As far as a strip reaches: the slowest runs of a busy machine are told in words."""
    latency = run["latency"]
    return latency["p90_ms"] or latency["p99_ms"] or latency["max_ms"]


def _groups(rows: Sequence[Mapping]) -> list[dict]:
    """Measured figures, and apart from them emulated ones, each with a scale of its own."""
    groups = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of = [row for row in rows if row["kind"] == kind]
        x = Log([end for row in of for end in (row["low"], row["high"])], 2.0, 98.0)
        models: dict[str, list] = {}
        for row in of:
            models.setdefault(row["name"], []).append(
                row
                | {
                    "left": round(x(row["low"]), 2),
                    "width": round(x(row["high"]) - x(row["low"]), 2),
                    "dots": [round(x(ms), 2) for ms in row["rounds"]],
                }
            )
        # An emulated time is not set against anything.
        points = [row | {"told": _tip(row)} for row in of if kind == "measured"]
        judged = [point for point in points if point["judged"]]
        images = {(point["judged"]["split"], point["judged"]["count"]) for point in judged}
        by, unknown = "bytes", []
        if len({point["name"] for point in judged}) > 1 and len(images) == 1:
            by, points = "accuracy", judged
            unknown = [name for name, rows in models.items() if not rows[0]["judged"]]
        groups.append(
            {
                "kind": kind,
                "said": KINDS.get(kind, kind),
                "models": models,
                "ticks": [{"left": round(x(t), 2), "text": f"{t:g}"} for t in x.ticks()],
                "plot": scatter(points, by) if points and len(models) > 1 else "",
                "unknown": listed(unknown) if unknown else "",
                "by": "accuracy" if by == "accuracy" else "size",
                "targets": {row["target"]: row["colour"] for row in of},
            }
        )
    return groups


def _tip(row: Mapping) -> str:
    told = f"{row['name']} on {row['target']}: {row['cells']['p50']} ms ({row['kind']})"
    accuracy = f", {row['cells']['accuracy']}" if row["judged"] else ""
    return f"{told}\n{row['size']}{accuracy}"


def _verdict(rows: Sequence[Mapping], profiled: Sequence[Mapping], failures: int) -> str:
    said = []
    real = [row for row in rows if row["kind"] == "measured"]
    if real:
        fastest = min(real, key=lambda row: row["ms"])
        where = f"{fastest['cells']['p50']} ms on {fastest['target']} (measured, p50)"
        near = {r["name"]: r for r in real if min(r["rounds"]) <= max(fastest["rounds"])}
        if len(near) > 1:
            said.append(f"The fastest is not decided: rounds of {listed([*near])} overlap.")
        elif len({row["name"] for row in real}) > 1:
            said.append(f"The fastest is {fastest['name']}: {where}.")
        else:
            said.append(f"One inference of {fastest['name']} takes {where}.")
    else:
        said.append("All of it is emulated: which is the fastest is not known.")
    if failures:
        said.append(f"{failures} could not be measured.")
    if len(profiled) == 1 and profiled[0]["kind"] == "measured":
        found = profiled[0]["operators"]["operators"]
        layers = sorted(ops.by_layer(found), key=lambda row: -row["us"])
        sofar, half = 0.0, 0
        while sofar < 0.5 and half < len(layers):
            sofar += layers[half]["share"]
            half += 1
        said.append(f"{half} of {len(layers)} layers take half of the time.")
        worst = max(
            (row for row in ops.by_kind(found) if row["macs"]),
            key=lambda row: row["share"] - row["mac_share"],
            default=None,
        )
        if worst and worst["share"] > 1.5 * worst["mac_share"] and worst["share"] > 0.05:
            said.append(
                f"{worst['kind']} has {percent(worst['mac_share'])} of the MACs and "
                f"{percent(worst['share'])} of the time."
            )
    return " ".join(said)


def _conditions(records: Sequence[Mapping], names: Sequence[str]) -> dict:
    """What each device told before and after each run; what none told is left out."""
    told = {
        key
        for record in records
        for run in record["runs"]
        for state in (run["state_before"], run["state_after"])
        for key, value in state.items()
        if value is not None
    }
    columns = [key for key in records[0]["runs"][0]["state_before"] if key in told]
    rows = [
        {
            "name": name,
            "target": record["target"],
            "run": f"{run['threads']} thr, round {run['round'] + 1}",
            "cells": [
                _change(run["state_before"].get(key), run["state_after"].get(key))
                for key in columns
            ],
        }
        for record, name in zip(records, names, strict=True)
        for run in record["runs"]
    ]
    hidden = [STATES.get(key, key) for key in records[0]["runs"][0]["state_before"]
              if key not in told]  # fmt: skip
    return {
        "columns": [STATES.get(key, key) for key in columns],
        "rows": rows,
        "hidden": listed(hidden) if hidden else "",
    }


def _change(before: object, after: object) -> str:
    def text(value: object) -> str:
        return (
            NOTHING if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        )

    return text(before) if before == after else f"{text(before)} → {text(after)}"


def _devices(records: Sequence[Mapping]) -> list[tuple[str, str]]:
    found = {}
    for record in records:
        device = record["device"]
        named = filter(None, [device.get("model"), device["processor"]])
        simd = " ".join(device.get("simd") or ())
        found[record["target"]] = (
            f"{', '.join(named)}; {device['cores']} cores; {simd + '; ' if simd else ''}"
            f"{device.get('system') or ''}; {record['runtime']} {record['runtime_version']}, "
            f"{record['runner']}"
        )
    return list(found.items())


def _by_operator(found: Mapping, row: Mapping) -> dict:
    """The section of a file's operators."""
    layers = ops.by_layer(found["operators"])
    longest = max(each["us"] for each in layers)
    slowest = sorted(layers, key=lambda each: -each["us"])[:NAMED]
    shown = []
    for number, each in enumerate(layers):
        rate = 1e6 * each["macs"] / each["us"] if each["macs"] and each["us"] else None
        shown.append(
            {
                **each,
                "colour": FAMILIES[each["family"]],
                "number": slowest.index(each) + 1 if each in slowest else None,
                "bar": round(100 * each["us"] / longest, 2),
                "time": f"{each['us']:.1f}",
                "part": percent(each["share"]),
                "work": scaled(each["macs"]) if each["macs"] else "",
                "moved": byte_size(each["bytes"]) if each["bytes"] else "",
                "rate": scaled(rate) if rate else "",
                "told": "\n".join(
                    filter(None, [f"{number}: {each['layer']}", ", ".join(each["names"]),
                                  f"{each['us']:.1f} us, {percent(each['share'])}",
                                  "joined in it: " + ", ".join(each["layers"])
                                  if len(each["layers"]) > 1 else ""])
                ),
            }
        )  # fmt: skip
    peak = ops.peaks(layers)
    dots = [
        {"layer": each["layer"], "kind": ", ".join(each["kinds"]), "us": each["us"],
         "macs": each["macs"], "bytes": each["bytes"], "colour": each["colour"],
         "number": each["number"], "brief": each["us"] < ops.TIMED_US}
        for each in shown
    ]  # fmt: skip
    kinds = [
        {**each, "colour": FAMILIES[each["family"]], "time": f"{each['us']:.1f}",
         "part": percent(each["share"]), "bar": round(100 * each["share"], 2),
         "macs": percent(each["mac_share"]) if each["macs"] else NOTHING}
        for each in ops.by_kind(found["operators"])
    ]  # fmt: skip
    facts = [
        ("kernels", "those that are used" if found["mode"] == "delegate" else "the runtime's own"),
        ("whole run, profiled", f"{milliseconds(found['profiled_ms'])} ms"),
        ("without the profiler", f"{milliseconds(found['unprofiled_ms'])} ms"),
        ("its overhead", f"{100 * found['overhead']:+.1f} %"),
        ("inside operators", percent(found["coverage"])),
        ("their sum", f"{milliseconds(found['sum_us'] / 1000)} ms"),
        ("profiled runs", found["runs"]),
        ("by the kernels that are used", f"{milliseconds(found['usual_ms'])} ms"
         if found["mode"] == "node" else ""),
    ]  # fmt: skip
    return {
        "name": row["name"],
        "target": row["target"],
        "kind": row["kind"],
        "layers": shown,
        "longest": f"{longest:.0f}",
        "stages": [
            {"name": name, "first": first, "count": last + 1 - first}
            for name, first, last in stages_of([each["layer"] for each in shown])
        ],
        "kinds": kinds,
        "used": list(dict.fromkeys(each["family"] for each in shown)),
        "roofline": roofline(dots, peak),
        "peaks": {"macs": f"{scaled(peak['macs'])}MACs/s", "bytes": f"{scaled(peak['bytes'])}B/s"},
        "slowest": [each["layer"] for each in slowest],
        "facts": facts,
        "notes": found["notes"],
        "dropped": [
            {**each, "time": NOTHING if "no time" in each["reason"] else f"{each['us']:.1f}"}
            for each in found["dropped"]
        ],
    }


def _diff(pair: Sequence[Mapping]) -> dict | None:
    """Two files layer by layer; None for none."""
    if not pair:
        return None
    rows = ops.side_by_side(*(ops.by_layer(each["operators"]["operators"]) for each in pair))
    most = max(us or 0 for row in rows for us in row["us"])
    names = pair_names(pair)
    sums = [each["operators"]["sum_us"] for each in pair]
    shown = []
    for number, row in enumerate(rows):
        first, second = row["us"]
        shown.append(
            {
                **row,
                "colour": FAMILIES[row["family"]],
                "bars": [round(100 * (us or 0) / most, 2) for us in row["us"]],
                "times": ["" if us is None else f"{us:.1f}" for us in row["us"]],
                "ratio": f"{second / first:.2f}" if first and second is not None else "",
                "gain": f"{(second or 0) - (first or 0):+.1f}".replace("-", "−"),
                "slower": (second or 0) > (first or 0),
                "told": f"{number}: {row['layer']}\n{', '.join(row['kinds'])}\n"
                + "\n".join(
                    f"{name}: {NOTHING if us is None else f'{us:.1f} us'}"
                    for name, us in zip(names, row["us"], strict=True)
                ),
            }
        )
    both = [row for row in rows if None not in row["us"]]
    return {
        "names": names,
        "rows": shown,
        "full": f"{most:.0f}",
        "alone": [[row["layer"] for row in rows if row["us"][1 - side] is None] for side in (0, 1)],
        "said": f"{names[1]} takes {sums[1] / sums[0]:.2f} times as long as {names[0]} inside "
        f"operators, {milliseconds(sums[1] / 1000)} ms beside {milliseconds(sums[0] / 1000)} ms. "
        f"Of {len(both)} layers that both have, "
        f"{sum(row['us'][1] < row['us'][0] for row in both)} are faster in it.",
    }
