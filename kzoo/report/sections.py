"""The sections of a report: what the records say, put into words and rows for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kzoo.environment import BYTE_DOT
from kzoo.report.model import speed, threads
from kzoo.report.records import STEPS, Records, damaged, ledger, made_by, stale
from kzoo.report.table import duration, kilobytes, listed, milliseconds, percent

GATES = {
    "min_agreement": "top-1 agreement at least {:g}",
    "max_drop": "accuracy drop at most {:g} points",
    "max_float_ops": "float operators at most {:g}",
}
PROBLEMS = 200
"""Findings about files that are listed; the rest is counted."""


def verdict(records: Records, rows: Sequence[Mapping]) -> str:
    """The run in one line: the gates, and its most accurate int8 model that is no teacher."""
    teachers = {pair["teacher"] for pair in records.distilled.values()}
    rows = [row for row in rows if row["model"] not in teachers]
    failing = [row["model"] for row in rows if row["failures"]]
    if failing:
        first = f"A gate is NOT MET by {listed(failing)}."
    elif gates_set(records):
        unknown = [
            model
            for model in records.models
            if "check" not in records.steps[model] or "check" in stale(records, model)
        ]
        first = f"No check of {listed(unknown)} stands." if unknown else "Every gate is met."
    else:
        first = "No gate was set."
    done = [row for row in rows if row["accuracy_int8"] is not None]
    if not done:
        trained = [row for row in rows if row["accuracy_float"] is not None]
        if not trained:
            return "Nothing was trained and checked yet."
        best = max(trained, key=lambda row: row["accuracy_float"])
        return (
            f"No int8 file was checked yet. Most accurate Keras model: {best['model']}, "
            f"{_accuracy(best, 'float')}."
        )
    # The smaller one of two that are equally accurate.
    best = max(done, key=lambda row: (row["accuracy_int8"], -(row["bytes_int8"] or 0)))
    parts = [f"{best['model']}, int8 {_accuracy(best, 'int8')}"]
    if best["bytes_int8"] is not None:
        parts.append(f"{kilobytes(best['bytes_int8'])} kB")
    if best["p50_int8_ms"] is not None:
        how = f"{best['latency_kind']} median, {threads(best)}"
        parts.append(f"{milliseconds(best['p50_int8_ms'])} ms per image ({how})")
    second = f"{'Most accurate: ' if len(done) > 1 else ''}{', '.join(parts)}."
    close = [
        row["model"]
        for row in done
        if row is not best and row["accuracy_int8_interval"][1] >= best["accuracy_int8_interval"][0]
    ]
    if close:
        second += f" Its 95 % interval overlaps that of {listed(close)}."
    return f"{first} {second}"


def _accuracy(row: Mapping, kind: str) -> str:
    accuracy = percent(row[f"accuracy_{kind}"], row["count"])
    return f"{accuracy} on {row['count']:,} {row['split']} images"


def gates_set(records: Records) -> list[str]:
    """The gates that the checks were given, in words."""
    found = []
    for model in records.models:
        settings = records.steps[model].get("check", {}).get("settings", {})
        with damaged(ledger(records.folder, model, "check")):
            found += [
                text.format(settings[key])
                for key, text in GATES.items()
                if settings.get(key) is not None
            ]
    return list(dict.fromkeys(found))


def notices(records: Records, rows: Sequence[Mapping]) -> list[str]:
    """What a reader must know before the rest: steps not done, records out of date, int8 slower."""
    found = [] if records.data else ["The record of the dataset is missing."]
    for model, row in zip(records.models, rows, strict=True):
        missing = [step for step in records.wanted[model] if step not in records.steps[model]]
        if missing:
            found.append(f"{model}: not done: {', '.join(missing)}.")
        compared = speed(row)
        if compared and row["p50_int8_ms"] > row["p50_float_ms"]:
            found.append(f"{model}: {compared}.{_why_slow(records, model)}")
        for step in stale(records, model):
            makers = {maker for _, maker in made_by(records, model, step).values()}
            before = listed(sorted(makers, key=STEPS.index))
            found.append(
                f"{model}: the record of {step} is OUT OF DATE: {before} was done again after it."
            )
    return found


def _why_slow(records: Records, model: str) -> str:
    """Whether the processor lacks what makes int8 fast; empty where that is not known."""
    machine = records.steps[model]["profile"]["environment"].get("machine", {})
    if "simd" not in machine or set(machine["simd"]) & set(BYTE_DOT):
        return ""
    return " This processor has no dot products of bytes, which int8 gets its speed from."


def served(records: Records) -> dict | None:
    """What browsers measured through `kzoo serve`, file by file and the fastest first."""
    written = {digest for record in records.all() for digest in record["outputs"].values()}
    rows = []
    for path, record in records.served:
        with damaged(path, "kzoo serve"):
            found, (run,) = record["result"], record["result"]["runs"]
            device, latency = found["device"], run["latency"]
            earlier = "" if found["model_sha256"] in written else " (earlier)"
            wasm = found["delegate"].startswith("wasm")
            name = ", ".join(each for each in (device["model"], device["system"]) if each)
            row = {
                "file": record["model"] + earlier,
                "device": name,
                "cores": str(device["cores"]),
                "browser": device["processor"],
                "on": _threads(run["threads"]) if wasm else found["delegate"],
                "p50": milliseconds(latency["p50_ms"]),
                "p90": milliseconds(latency["p90_ms"]) if latency["valid"] else "INVALID",
                "count": f"{latency['count']:,}",
                "kind": found["kind"],
                "date": record["date"][:16].replace("T", " "),
                "notes": [str(note) for note in found["notes"]],
            }
            rows.append((record["model"], float(latency["p50_ms"]), row))
    if not rows:
        return None
    ordered = [row for *_, row in sorted(rows, key=lambda each: each[:2])]
    notes = [
        f"{row['file']}, {row['device']}, {row['browser']}: {note}"
        for row in ordered
        for note in row["notes"]
    ]
    earlier = any(row["file"].endswith(" (earlier)") for row in ordered)
    return {"rows": ordered, "notes": list(dict.fromkeys(notes)), "earlier": earlier}


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def data_section(records: Records) -> dict | None:
    """The dataset: images per class and split, and what validation found."""
    if not records.data:
        return None
    with damaged(ledger(records.folder, "dataset", "data")):
        result = records.data["result"]
        splits = list(result["splits"])
        totals = {name: sum(counts.values()) for name, counts in result["classes"].items()}
        largest = max(totals.values(), default=1) or 1
        height, width = result["size"]
        return {
            "source": result["source"],
            "images": f"{result['images']:,}",
            "size": f"{height} × {width} × {result['channels']}",
            "fingerprint": result["fingerprint"],
            "splits": [(name, f"{result['splits'][name]:,}") for name in splits],
            "classes": [
                {
                    "name": name,
                    "counts": [f"{counts.get(split, 0):,}" for split in splits],
                    "total": f"{totals[name]:,}",
                    "bar": f"{100 * totals[name] / largest:.1f}",
                }
                for name, counts in result["classes"].items()
            ],
            "problems": [
                (problem["path"], problem.get("outcome", ""), problem["reason"])
                for problem in result["problems"][:PROBLEMS]
            ],
            "problem_count": len(result["problems"]),
            "duplicates": [list(group) for group in result["duplicates"][:PROBLEMS]],
            "duplicate_count": len(result["duplicates"]),
        }


def environments(records: Records) -> list[dict]:
    """Each machine and set of versions that steps were done with, and which steps those were."""
    found: list[dict] = []
    for record in records.all():
        step = f"{record['model']} {record['step']}"
        environment = record["environment"]
        for known in found:
            if known["environment"] == environment:
                known["steps"].append(step)
                break
        else:
            found.append({"environment": environment, "steps": [step]})
    for each in found:
        each["facts"] = environment_facts(each["environment"])
    return found


def environment_facts(environment: Mapping) -> list[tuple[str, object]]:
    """A record's machine and versions, name by name."""
    machine = environment.get("machine", {})
    memory = machine.get("memory_bytes")
    return [
        ("processor", machine.get("processor")),
        ("vector instructions", ", ".join(machine.get("simd") or ())),
        ("usable cores", machine.get("cores")),
        ("memory", f"{memory / 1e9:.1f} GB" if memory else None),
        ("system", f"{machine.get('system', '')} {machine.get('architecture', '')}".strip()),
        ("Python", environment.get("python")),
        ("Keras backend", environment.get("backend")),
        *environment.get("packages", {}).items(),
    ]


STATES = {
    "governor": "CPU governor",
    "load_1min": "load (1 min)",
    "frequency_mhz": "frequency (MHz)",
    "temperature_c": "temperature (°C)",
    "thermal_status": "thermal status",
    "throttled": "throttled",
    "battery_percent": "battery (%)",
    "battery_status": "battery",
    "power_w": "power (W)",
}
"""What a device tells of the moment, as it is called on pages."""


def device_states(records: Records) -> list[tuple[str, str]]:
    """The governor, the load and the rest of the device's state while latency was measured."""
    seen: dict[str, list] = {}
    for model in records.models:
        with damaged(ledger(records.folder, model, "profile")):
            for profile in (records.result(model, "profile") or {}).values():
                for run in profile["runs"]:
                    for state in (run["state_before"], run["state_after"]):
                        for key, value in state.items():
                            seen.setdefault(key, []).append(value)
    return [(STATES.get(key, key), _span(values)) for key, values in seen.items()]


def _span(values: Sequence[object]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not readable on this device"
    if all(isinstance(value, int | float) for value in known):
        low, high = min(known), max(known)
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return ", ".join(dict.fromkeys(map(str, known)))


def artifacts(records: Records) -> list[dict]:
    """Every file that a step wrote, with its hash."""
    return [
        {
            "file": file,
            "sha256": digest,
            "step": record["step"],
            "seconds": duration(record.get("seconds") or 0),
            "date": record["date"][:16].replace("T", " "),
        }
        for record in records.all()
        for file, digest in record["outputs"].items()
    ]
