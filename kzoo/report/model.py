"""The section of one network: its card, training, files and latency, in words and rows."""

from __future__ import annotations

from collections.abc import Mapping

from kzoo.report.accuracy import FILES, JUDGED, class_names, evaluations, judged
from kzoo.report.records import Records, damaged, ledger
from kzoo.report.table import NOTHING, duration, kilobytes, listed, milliseconds


def model_section(records: Records, model: str, row: Mapping) -> dict:
    """Everything about one model but its pictures; a part whose step was not done is None."""
    parts = {}
    pair = records.distilled.get(model, {})
    for part, name, step, make in (
        ("card", *records.counted(model), _card),
        ("training", model, records.trainer(model), _training),
        ("latency", model, "profile", _latency),
    ):
        record = records.steps[name].get(step)
        with damaged(ledger(records.folder, name, step)):
            parts[part] = make(record) if record else None
    if pair and parts["card"]:
        parts["card"]["facts"].append(("teacher", pair["teacher"]))
    if (compressed := records.result(model, "compress")) and parts["card"]:
        with damaged(ledger(records.folder, model, "compress")):
            parts["card"]["facts"] += _compression(compressed, records.before(model))
    inside = contents(records, model)
    with damaged(ledger(records.folder, model, "quantize")):
        parts["operators"] = _counts(inside, "operators")
        parts["bytes"] = _counts(inside, "bytes_by_kind")
        parts["files"] = inside
        parts["islands"] = inside["int8"]["float_islands"] if "int8" in inside else None
    parts |= _judged(records, model)
    return {"name": model, "failures": row["failures"] or [], "speed": speed(row), **parts}


def _judged(records: Records, model: str) -> dict:
    """The parts that tell how good it is."""
    checks = records.result(model, "check")
    with damaged(ledger(records.folder, model, "check" if checks else records.trainer(model))):
        if found := evaluations(records, model):
            matrix = list(found.values())[-1]["confusion"]
            return judged(found, class_names(records, model, len(matrix)), checks)
    return dict.fromkeys(JUDGED)


def contents(records: Records, model: str) -> dict[str, dict]:
    """What is inside the model's .tflite files: "float32" and "int8", as far as they were made."""
    found = {}
    for kind, step in zip(FILES, ("convert", "quantize"), strict=True):
        with damaged(ledger(records.folder, model, step)):
            if result := records.result(model, step):
                found[kind] = result["contents"]
    return found


def _card(record: Mapping) -> dict:
    # A network that was given tells its shape, one that was built was asked for it.
    result = record["result"].get("network", record["result"])
    settings = record["settings"] | result
    height, width = settings["size"]
    facts = [
        ("parameters", f"{result['params']:,}"),
        ("multiply-accumulates", f"{result['macs']:,}" if result.get("macs") else NOTHING),
        ("input", f"{height} × {width} × {settings['channels']}"),
        ("classes", f"{settings['classes']:,}"),
    ]
    return {"facts": facts, "paper": (settings.get("row") or {}).get("paper") or ""}


def _compression(result: Mapping, before: str) -> list[tuple[str, str]]:
    return [
        ("made of", before),
        ("zeros in kernels", f"{100 * result['sparsity']:.1f} %"),
        ("Huffman-coded", f"{kilobytes(result['coded_bytes'])} kB"),
    ]


def _training(record: Mapping) -> dict:
    result, settings = record["result"], record["settings"]
    history = result["history"]
    seconds = sum(row.get("seconds") or 0 for row in history)
    phases = [_phase(phase) for phase in settings["phases"]]
    batch = settings["batch_size"] if "batch_size" in settings else result["recipe"]["batch_size"]
    summary = f"{len(history)} epochs in {duration(seconds)}, batches of {batch}"
    early = ", stopped early" if result["stopped_early"] else ""
    lessons = ""
    if losses := result.get("recipe", {}).get("losses"):
        weights = ", ".join(f"{name} {weight:g}" for name, weight in losses.items())
        lessons = f"Losses: {weights}; T = {settings['temperature']:g}"
    return {"phases": phases, "summary": summary + early, "lessons": lessons}


def _phase(phase: Mapping) -> str:
    parts = [
        f"{phase['epochs']} epochs of {_plain(phase['trainable'])} by {_plain(phase['optimizer'])}",
        f"learning rate {phase['learning_rate']:g}",
        _plain(phase["schedule"]),
    ]
    if phase.get("decay", 1) != 1:
        parts.append(f"× {phase['decay']:g} from stage to stage")
    if phase.get("batch_norm", "batch") != "batch":
        parts.append(f"BatchNorm {phase['batch_norm']}")
    return ", ".join(parts)


def _plain(value: object) -> str:
    """A setting that is a name, a list of names or a mapping with options, in words."""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    words = {"all": "all layers", "classifier": "the classifier on cached features"}
    return words.get(value, str(value))


def speed(row: Mapping) -> str | None:
    """How the int8 file's latency compares, in words; None where both were not measured."""
    if not row["p50_float_ms"] or not row["p50_int8_ms"]:
        return None
    ratio = row["p50_float_ms"] / row["p50_int8_ms"]
    change = (
        f"is {ratio:.2f} times as fast as"
        if ratio >= 1
        else f"is SLOWER: it takes {1 / ratio:.2f} times as long as"
    )
    return f"int8 {change} float32 (p50, {threads(row)}, {row['latency_kind']})"


def threads(row: Mapping) -> str:
    return f"{row['threads']} thread{'s' * (row['threads'] > 1)}"


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
                    "steady": {True: "yes", False: "NO", None: "not told"}[run["steady"]],
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
        "kinds": listed(sorted({row["kind"] for row in rows})),
        "targets": listed(sorted({profiles[kind]["target"] for kind in FILES})),
        "method": profiles["float32"]["method"][:1].upper() + profiles["float32"]["method"][1:],
    }
