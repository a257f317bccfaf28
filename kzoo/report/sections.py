"""The sections of a report: what the records say, put into words and rows for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kzoo.environment import BYTE_DOT
from kzoo.report.records import MADE_BY, STEPS, Records, damaged, ledger, stale
from kzoo.report.table import NOTHING, kilobytes, milliseconds, percent

FILES = ("float32", "int8")
GATES = {
    "min_agreement": "top-1 agreement at least {:g}",
    "max_drop": "accuracy drop at most {:g} points",
    "max_float_ops": "float operators at most {:g}",
}
MISTAKES = 8
"""Confused pairs that are listed."""
PROBLEMS = 200
"""Findings about files that are listed; the rest is counted."""


def verdict(records: Records, rows: Sequence[Mapping]) -> str:
    """The run in one line: the gates, and its most accurate int8 model."""
    failing = [row["model"] for row in rows if row["failures"]]
    if failing:
        first = f"A gate is NOT MET by {_listed(failing)}."
    elif gates_set(records):
        unknown = [
            model
            for model in records.models
            if "check" not in records.steps[model] or "check" in stale(records, model)
        ]
        first = f"No check of {_listed(unknown)} stands." if unknown else "Every gate is met."
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
        how = f"{best['latency_kind']} median, {_threads(best)}"
        parts.append(f"{milliseconds(best['p50_int8_ms'])} ms per image ({how})")
    second = f"{'Most accurate: ' if len(done) > 1 else ''}{', '.join(parts)}."
    close = [
        row["model"]
        for row in done
        if row is not best and row["accuracy_int8_interval"][1] >= best["accuracy_int8_interval"][0]
    ]
    if close:
        second += f" Its 95 % interval overlaps that of {_listed(close)}."
    return f"{first} {second}"


def _accuracy(row: Mapping, kind: str) -> str:
    accuracy = percent(row[f"accuracy_{kind}"], row["count"])
    return f"{accuracy} on {row['count']:,} {row['split']} images"


def _threads(row: Mapping) -> str:
    return f"{row['threads']} thread{'s' * (row['threads'] > 1)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


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
        missing = [step for step in STEPS if step not in records.steps[model]]
        if missing:
            found.append(f"{model}: not done: {', '.join(missing)}.")
        speed = _speed(row)
        if speed and row["p50_int8_ms"] > row["p50_float_ms"]:
            found.append(f"{model}: {speed}.{_why_slow(records, model)}")
        for step in stale(records, model):
            before = _listed(sorted(set(MADE_BY[step].values()), key=STEPS.index))
            found.append(
                f"{model}: the record of {step} is OUT OF DATE: {before} was done again after it."
            )
    return found


def _speed(row: Mapping) -> str | None:
    """How the int8 file's latency compares, in words; None where both were not measured."""
    if not row["p50_float_ms"] or not row["p50_int8_ms"]:
        return None
    ratio = row["p50_float_ms"] / row["p50_int8_ms"]
    change = (
        f"is {ratio:.2f} times as fast as"
        if ratio >= 1
        else f"is SLOWER: it takes {1 / ratio:.2f} times as long as"
    )
    return f"int8 {change} float32 (p50, {_threads(row)}, {row['latency_kind']})"


def _why_slow(records: Records, model: str) -> str:
    """Whether the processor lacks what makes int8 fast; empty where that is not known."""
    machine = records.steps[model]["profile"]["environment"].get("machine", {})
    if "simd" not in machine or set(machine["simd"]) & set(BYTE_DOT):
        return ""
    return " This processor has no dot products of bytes, which int8 gets its speed from."


def model_section(records: Records, model: str, row: Mapping) -> dict:
    """Everything about one model but its pictures; a part whose step was not done is None."""
    parts = {}
    for part, step, make in (
        ("card", "build", _card),
        ("training", "finetune", _training),
        ("accuracy", "check", _checked),
        ("mistakes", "check", _mistakes),
        ("latency", "profile", _latency),
    ):
        record = records.steps[model].get(step)
        with damaged(ledger(records.folder, model, step)):
            parts[part] = make(record) if record else None
    if parts["accuracy"] is None and "finetune" in records.steps[model]:
        with damaged(ledger(records.folder, model, "finetune")):
            parts["accuracy"] = _only_trained(records.result(model, "finetune"))
    inside = contents(records, model)
    with damaged(ledger(records.folder, model, "quantize")):
        parts["operators"] = _counts(inside, "operators")
        parts["bytes"] = _counts(inside, "bytes_by_kind")
        parts["files"] = inside
        parts["islands"] = inside["int8"]["float_islands"] if "int8" in inside else None
    return {"name": model, "failures": row["failures"] or [], "speed": _speed(row), **parts}


def contents(records: Records, model: str) -> dict[str, dict]:
    """What is inside the model's .tflite files: "float32" and "int8", as far as they were made."""
    found = {}
    for kind, step in zip(FILES, ("convert", "quantize"), strict=True):
        with damaged(ledger(records.folder, model, step)):
            if result := records.result(model, step):
                found[kind] = result["contents"]
    return found


def _card(record: Mapping) -> dict:
    result, settings = record["result"], record["settings"]
    height, width = settings["size"]
    facts = [
        ("parameters", f"{result['params']:,}"),
        ("multiply-accumulates", f"{result['macs']:,}" if result.get("macs") else NOTHING),
        ("input", f"{height} × {width} × {settings['channels']}"),
        ("classes", f"{settings['classes']:,}"),
    ]
    return {"facts": facts, "paper": (settings.get("row") or {}).get("paper") or ""}


def _training(record: Mapping) -> dict:
    result, settings = record["result"], record["settings"]
    history = result["history"]
    seconds = sum(row.get("seconds") or 0 for row in history)
    phases = [
        f"{phase['epochs']} epochs of {_plain(phase['trainable'])} by "
        f"{_plain(phase['optimizer'])}, learning rate {phase['learning_rate']:g}, "
        f"{_plain(phase['schedule'])}"
        for phase in settings["phases"]
    ]
    summary = f"{len(history)} epochs in {duration(seconds)}, batches of {settings['batch_size']}"
    early = ", stopped early" if result["stopped_early"] else ""
    return {"phases": phases, "summary": summary + early}


def _plain(value: object) -> str:
    """A setting that is a name, a list of names or a mapping with options, in words."""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value} layers" if value == "all" else str(value)


def duration(seconds: float) -> str:
    """``28.1`` → ``28 s``, ``4000`` → ``1 h 7 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _only_trained(result: Mapping) -> dict:
    return _evaluated([("Keras model", result["evaluation"], None)])


def _checked(record: Mapping) -> dict:
    checks = record["result"]
    rows = [("Keras model", checks["int8"]["keras"], None)]
    rows += [(f"{kind} file", checks[kind]["lite"], checks[kind]) for kind in FILES]
    drop = 100 * (checks["int8"]["keras"]["accuracy"] - checks["int8"]["lite"]["accuracy"])
    change = (
        f"loses {drop:.2f}"
        if drop >= 0.005
        else f"gains {-drop:.2f}"
        if drop <= -0.005
        else "loses 0"
    )
    wrong = round((1 - checks["int8"]["agreement"]) * checks["int8"]["lite"]["count"])
    return _evaluated(rows) | {
        "summary": f"int8 {change} points; it answers differently from the Keras model on "
        f"{wrong:,} of {checks['int8']['lite']['count']:,} images",
        "compared": checks["int8"]["compared"],
        "logit_std": f"{checks['int8']['logit_std']:.3g}",
    }


def _evaluated(rows: Sequence[tuple[str, Mapping, Mapping | None]]) -> dict:
    low = min(evaluation["interval"][0] for _, evaluation, _ in rows)
    low = int(100 * max(0, low - 0.01)) / 100
    found = []
    for name, evaluation, check in rows:
        accuracy, (lower, upper), count = (
            evaluation["accuracy"],
            evaluation["interval"],
            evaluation["count"],
        )
        left, middle, right = (100 * (x - low) / (1 - low) for x in (lower, accuracy, upper))
        found.append(
            {
                "name": name,
                "accuracy": percent(accuracy, count),
                "interval": f"{percent(lower, count)[:-2]} to {percent(upper, count)}",
                "left": f"{left:.2f}",
                "width": f"{right - left:.2f}",
                "middle": f"{middle:.2f}",
                "log_loss": f"{evaluation['log_loss']:.4f}",
                "agreement": percent(check["agreement"], count) if check else NOTHING,
                "max_error": f"{check['max_logit_error']:.3g}" if check else NOTHING,
                "mean_error": f"{check['mean_logit_error']:.3g}" if check else NOTHING,
            }
        )
    first = rows[0][1]
    return {
        "rows": found,
        "split": first["split"],
        "count": f"{first['count']:,}",
        "scale": f"{100 * low:.0f} to 100 %",
        "floor": max(evaluation.get("floor", 0) for _, evaluation, _ in rows),
    }


def class_names(records: Records, model: str, size: int) -> list[str]:
    """The names of a model's classes, or their numbers where no record has as many."""
    trained = records.result(model, "finetune") or {}
    for names in (
        trained.get("classes"),
        list((records.data or {}).get("result", {}).get("classes", [])),
    ):
        if names and len(names) == size:
            return [str(name) for name in names]
    return [f"#{i}" for i in range(size)]


def _mistakes(record: Mapping) -> dict:
    """The pairs of classes that the int8 file confuses most, by number."""
    matrix = record["result"]["int8"]["lite"]["confusion"]
    pairs = [
        (count, label, predicted, sum(row))
        for label, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if count and label != predicted
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return {
        "pairs": pairs[:MISTAKES],
        "more": len(pairs) - MISTAKES,
        "wrong": sum(pair[0] for pair in pairs),
        "count": sum(map(sum, matrix)),
    }


def _counts(inside: Mapping[str, Mapping], field: str) -> list[dict]:
    """Counts of "NAME dtype" by name, the files side by side: ``{"name", "float32", "int8"}``.

    A cell says how many of which dtype: "2 int8, 1 float32".
    """
    found: dict[str, dict] = {}
    for kind, each in inside.items():
        for key, count in each[field].items():
            name, _, dtype = key.partition(" ")
            cells = found.setdefault(name, {"name": name, **{kind: [] for kind in inside}})
            cells[kind].append(f"{count:,} {dtype}".strip())
    return [
        {"name": name, **{kind: ", ".join(found[name][kind]) or NOTHING for kind in inside}}
        for name in sorted(found)
    ]


def _latency(record: Mapping) -> dict:
    profiles = record["result"]
    rows, notes, memory = [], [], []
    for kind in FILES:
        profile = profiles[kind]
        share = profile["delegated_share"]
        runtime = f"{profile['runtime']} {profile['runtime_version']}, {profile['delegate']}"
        for run in profile["runs"]:
            latency = run["latency"]
            rows.append(
                {
                    "file": kind,
                    "threads": run["threads"],
                    "kind": profile["kind"],
                    "runtime": runtime
                    if share is None
                    else f"{runtime} for {100 * share:.0f} % of nodes",
                    "init": milliseconds(run["init_ms"]),
                    "first": milliseconds(run["first_ms"]),
                    "p50": milliseconds(latency["p50_ms"]),
                    "p90": milliseconds(latency["p90_ms"]) if latency["valid"] else "INVALID",
                    "p99": milliseconds(latency["p99_ms"]),
                    "count": f"{latency['count']:,}",
                    "spread": f"{100 * latency['spread']:.0f} %",
                    "steady": "yes" if run["steady"] else "NO",
                }
            )
        notes += [f"{kind}, {note}" for note in profile["notes"]]
        peak = profile["memory"]
        memory.append(
            {
                "file": kind,
                "peak": f"{peak['peak_bytes'] / 1e6:,.1f} MB",
                "above": f"{(peak['peak_bytes'] - peak['baseline_bytes']) / 1e6:,.1f} MB",
                "threads": peak["threads"],
                "source": peak["source"],
            }
        )
    return {
        "rows": rows,
        "notes": notes,
        "memory": memory,
        "kinds": _listed(sorted({row["kind"] for row in rows})),
        "targets": _listed(sorted({profiles[kind]["target"] for kind in FILES})),
        "method": profiles["float32"]["method"][:1].upper() + profiles["float32"]["method"][1:],
    }


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
    names = {
        "governor": "CPU governor",
        "load_1min": "load (1 min)",
        "frequency_mhz": "frequency (MHz)",
        "temperature_c": "temperature (°C)",
    }
    return [(names.get(key, key), _span(values)) for key, values in seen.items()]


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
