"""Rows equal the ledgers; cells never pretend."""

from __future__ import annotations

import json

import pytest

from kzoo.errors import BadInputError, MissingError
from kzoo.report.table import format_rows, milliseconds, percent, summary_rows


def result(folder, model, step) -> dict:
    return json.loads((folder / "ledger" / f"{model}.{step}.json").read_text())["result"]


def test_rows_equal_the_ledgers(reported):
    rows = summary_rows(reported)
    assert [row["model"] for row in rows] == ["zeta", "alpha"]  # run.json's order
    for row in rows:
        name = row["model"]
        check = result(reported, name, "check")["int8"]
        files = [result(reported, name, step)["contents"] for step in ("convert", "quantize")]
        profiles = result(reported, name, "profile")
        # Measured as 2 threads, then 1: the row has the smallest count.
        float_run, int8_run = (profiles[kind]["runs"][1]["latency"] for kind in ("float32", "int8"))
        assert row == {
            "model": name,
            "params": 77_898,
            "macs": 12_206_720,
            "accuracy_float": check["keras"]["accuracy"],
            "accuracy_float_interval": check["keras"]["interval"],
            "accuracy_int8": check["lite"]["accuracy"],
            "accuracy_int8_interval": check["lite"]["interval"],
            "split": "test",
            "count": 30,
            "bytes_float": files[0]["bytes"],
            "bytes_int8": files[1]["bytes"],
            "gzip_float": files[0]["gzip_bytes"],
            "gzip_int8": files[1]["gzip_bytes"],
            "p50_float_ms": float_run["p50_ms"],
            "p50_int8_ms": int8_run["p50_ms"],
            "p90_float_ms": float_run["p90_ms"],
            "p90_int8_ms": int8_run["p90_ms"],
            "threads": 1,
            "latency_kind": "measured",
            "agreement": 0.9333,
            "max_logit_error": 0.41421,
            "float_islands": 1,
            "log_loss_float": 0.1436,
            "log_loss_int8": 0.1436,
            "training_seconds": 18.0,
            "coded_bytes": None,
            "fewshot": None,
            "failures": check["failures"],
        }
    assert rows[0]["p90_int8_ms"] is not None
    assert rows[1]["p90_int8_ms"] is None  # 40 runs are too few


def test_a_step_not_done_leaves_none(run_folder):
    for step in ("convert", "quantize", "check", "profile"):
        (run_folder / "ledger" / f"zeta.{step}.json").unlink()
    row, whole = summary_rows(run_folder)
    assert row.keys() == whole.keys()
    given = {key for key, value in row.items() if value is not None}
    assert given == {
        "model",
        "params",
        "macs",
        "accuracy_float",
        "accuracy_float_interval",
        "log_loss_float",
        "training_seconds",
        "split",
        "count",
    }
    assert format_rows([row])[1] == [["zeta", "77,898", "96.7 %", *["–"] * 6]]


def test_cells(reported):
    header, cells = format_rows(summary_rows(reported))
    assert header == [
        "model",
        "parameters",
        "accuracy float",
        "accuracy int8",
        "kB float",
        "kB int8",
        "kB int8 gzip",
        "p50 ms float",
        "p50 ms int8",
    ]
    assert cells[0][:7] == ["zeta", "77,898", "96.7 %", "90.0 %", "319.8", "106.6", "105.4"]
    row = summary_rows(reported)[0]
    assert cells[0][7:] == [milliseconds(row["p50_float_ms"]), milliseconds(row["p50_int8_ms"])]


def test_a_latency_of_more_threads_or_of_an_emulator_says_so(reported):
    row = summary_rows(reported)[0]
    _, [cells] = format_rows([row | {"threads": 4, "latency_kind": "emulated", "p50_int8_ms": 2.5}])
    assert cells[-1] == "2.50 (4 threads) (emulated)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0412, "0.0412"), (0.046, "0.0460"), (9.996, "10.0"), (99.94, "99.9"), (1234.5, "1,234")],
)
def test_milliseconds_have_three_digits(value, text):
    assert milliseconds(value) == text


def test_a_second_decimal_takes_images_enough():
    assert percent(0.98765, 269) == "98.8 %"
    assert percent(0.98765, 10_000) == "98.77 %"


def test_errors(tmp_path, run_folder):
    with pytest.raises(MissingError, match="run's folder"):
        summary_rows(tmp_path)
    (run_folder / "ledger" / "zeta.check.json").write_text('{"result": ')
    with pytest.raises(BadInputError, match=r"zeta\.check\.json"):
        summary_rows(run_folder)
