"""A run in one row per model, from its ledgers, for terminals, reports and README tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from kzoo.report.records import Records, damaged, ledger, read_records

HEADER = (
    "model",
    "parameters",
    "accuracy float",
    "accuracy int8",
    "kB float",
    "kB int8",
    "kB int8 gzip",
    "p50 ms float",
    "p50 ms int8",
)
NOTHING = "–"


def summary_rows(folder: str | os.PathLike) -> list[dict]:
    """One row per model of a run, in the order of its config; what was not done is None.

    Returns:
        Rows with ``model``, ``params``, ``macs``; ``accuracy_float`` (of the Keras model) and
        ``accuracy_int8`` in [0, 1] on ``count`` images of ``split``, each with an ``..._interval``;
        ``bytes_float``, ``bytes_int8``, ``gzip_float``, ``gzip_int8`` of the .tflite files;
        ``coded_bytes`` of a compressed network's weights, see `kzoo.compress.coding`;
        ``p50_float_ms``, ``p50_int8_ms``, ``p90_float_ms``, ``p90_int8_ms`` (None when INVALID) at
        ``threads``, the smallest count measured, and their ``latency_kind`` ("measured");
        ``agreement``, ``max_logit_error``, ``float_islands`` (how many) of the int8 file;
        ``log_loss_float``, ``log_loss_int8`` (nats); ``training_seconds``, spent in epochs;
        ``fewshot``, the mean of the best head at the most images per class (a row of ``means`` of a
        `kzoo.learn.fewshot.Fewshot`); and ``failures``, the gates that were not met.

    Raises:
        MissingError: the folder is no run's.
        BadInputError: a record in it is damaged.
    """
    return rows(read_records(folder))


def rows(records: Records) -> list[dict]:
    """As `summary_rows`, from records that were read."""
    return [_row(records, model) for model in records.models]


def _row(records: Records, model: str) -> dict:
    row = {"model": model}
    for step, fields in (
        ("build", _built),
        ("fewshot", _few),
        ("finetune", _trained),
        ("distill", _trained),
        ("compress", _trained),
        ("convert", _converted),
        ("quantize", _quantized),
        # After finetune: its accuracies are of the same images for both models.
        ("check", _checked),
        ("profile", _profiled),
    ):
        place = records.counted(model) if step == "build" else (model, step)
        found = records.result(*place)
        with damaged(ledger(records.folder, *place)):
            given = fields(found) if found is not None else {}
        row |= given
    return {key: row.get(key) for key in KEYS}


KEYS = (
    "model",
    "params",
    "macs",
    "accuracy_float",
    "accuracy_float_interval",
    "accuracy_int8",
    "accuracy_int8_interval",
    "split",
    "count",
    "bytes_float",
    "bytes_int8",
    "gzip_float",
    "gzip_int8",
    "coded_bytes",
    "p50_float_ms",
    "p50_int8_ms",
    "p90_float_ms",
    "p90_int8_ms",
    "threads",
    "latency_kind",
    "agreement",
    "max_logit_error",
    "float_islands",
    "log_loss_float",
    "log_loss_int8",
    "training_seconds",
    "fewshot",
    "failures",
)


def _built(result: Mapping) -> dict:
    result = result.get("network", result)  # what a compression made, beside how it was trained
    return {"params": result["params"], "macs": result.get("macs")}


def _few(result: Mapping) -> dict:
    return {"fewshot": best(result["means"])}


def best(means: Sequence[Mapping]) -> Mapping:
    """The most accurate head of a few-shot study at the most images per class."""
    most = max(row["shots"] for row in means)
    return max((row for row in means if row["shots"] == most), key=lambda row: row["accuracy"])


def _trained(result: Mapping) -> dict:
    seconds = [row.get("seconds") or 0 for row in result["history"]]
    own = {"training_seconds": sum(seconds), "coded_bytes": result.get("coded_bytes")}
    return _accuracy("float", result["evaluation"]) | own


def _accuracy(kind: str, evaluation: Mapping) -> dict:
    return {
        f"accuracy_{kind}": evaluation["accuracy"],
        f"accuracy_{kind}_interval": list(evaluation["interval"]),
        f"log_loss_{kind}": evaluation["log_loss"],
        "split": evaluation["split"],
        "count": evaluation["count"],
    }


def _converted(result: Mapping) -> dict:
    return _sizes("float", result["contents"])


def _quantized(result: Mapping) -> dict:
    contents = result["contents"]
    return _sizes("int8", contents) | {"float_islands": len(contents["float_islands"])}


def _sizes(kind: str, contents: Mapping) -> dict:
    return {f"bytes_{kind}": contents["bytes"], f"gzip_{kind}": contents["gzip_bytes"]}


def _checked(result: Mapping) -> dict:
    int8 = result["int8"]
    return {
        **_accuracy("float", int8["keras"]),
        **_accuracy("int8", int8["lite"]),
        "agreement": int8["agreement"],
        "max_logit_error": int8["max_logit_error"],
        "failures": list(int8["failures"]),
    }


def _profiled(result: Mapping) -> dict:
    kinds = {"float": result["float32"], "int8": result["int8"]}
    shared = set.intersection(
        *({run["threads"] for run in each["runs"]} for each in kinds.values())
    )
    if not shared:
        return {}
    threads = min(shared)
    row = {"threads": threads, "latency_kind": kinds["int8"]["kind"]}
    for kind, profile in kinds.items():
        latency = next(run["latency"] for run in profile["runs"] if run["threads"] == threads)
        row[f"p50_{kind}_ms"] = latency["p50_ms"]
        row[f"p90_{kind}_ms"] = latency["p90_ms"] if latency["valid"] else None
    return row


def format_rows(rows: Sequence[Mapping]) -> tuple[list[str], list[list[str]]]:
    """A header and cells of the rows of `summary_rows`; what is None becomes a dash.

    A latency that is not of one thread, or not measured, says so in its cell.
    """
    return list(HEADER), [_cells(row) for row in rows]


def _cells(row: Mapping) -> list[str]:
    note = ""
    if row["threads"] not in (None, 1):
        note += f" ({row['threads']} threads)"
    if row["latency_kind"] not in (None, "measured"):
        note += f" ({row['latency_kind']})"
    return [
        row["model"],
        NOTHING if row["params"] is None else f"{row['params']:,}",
        percent(row["accuracy_float"], row["count"]),
        percent(row["accuracy_int8"], row["count"]),
        kilobytes(row["bytes_float"]),
        kilobytes(row["bytes_int8"]),
        kilobytes(row["gzip_int8"]),
        *(
            NOTHING if row[key] is None else milliseconds(row[key]) + note
            for key in ("p50_float_ms", "p50_int8_ms")
        ),
    ]


def percent(share: float | None, count: int | None = None) -> str:
    """``0.985`` → ``98.5 %``; with a second decimal where ``count`` images bear it."""
    if share is None:
        return NOTHING
    return f"{100 * share:.{2 if count and count >= 5000 else 1}f} %"


def kilobytes(count: int | None) -> str:
    """Bytes as kB of 1000 bytes, without the unit: ``97632`` → ``97.6``."""
    return NOTHING if count is None else f"{count / 1000:,.1f}"


def milliseconds(value: float | None) -> str:
    """Three significant digits, without the unit: ``0.3374`` → ``0.337``."""
    if value is None:
        return NOTHING
    return f"{value:#.3g}" if 0 < value < 99.95 else f"{value:,.0f}"


def scaled(count: float) -> str:
    """Three significant digits and a unit: ``3504872`` → ``3.50 M``, ``416520`` → ``417 k``."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * size:
            value = count / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{count:.0f}"


def byte_size(count: int) -> str:
    """Bytes with three significant figures: ``14.0 MB``."""
    return f"{scaled(count)}B" if count >= 1000 else f"{count} B"


def shortened(text: str, longest: int) -> str:
    """A text in so many letters. It is cut in the middle: long names often differ at the end."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[1 - half :]}"


def duration(seconds: float) -> str:
    """``28.1`` → ``28 s``, ``4000`` → ``1 h 7 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
