"""The page of profiles stands alone, keeps kinds apart, and invents no accuracy."""

from __future__ import annotations

import copy
import json
import re
from xml.etree import ElementTree

import pytest

from kzoo.report import operators as ops
from kzoo.report.profile import accuracy_of, notes_of, write_profile
from kzoo.report.profile_plots import Log, histogram

HOSTILE = "<script>alert(1)</script>\"'&"
STATE = {"governor": None, "frequency_mhz": 2000.0, "load_1min": 0.5, "temperature_c": None}


def run(number: int = 0, ms: float = 2.0, **others) -> dict:
    samples = [ms * (1 + i / 1000) for i in range(100)]
    latency = {
        "count": 100, "p50_ms": ms * 1.05, "p90_ms": ms * 1.09, "valid": True,
        "p99_ms": ms * 1.098, "min_ms": ms, "max_ms": ms * 1.1, "spread": 0.05,
    }  # fmt: skip
    return {
        "threads": 1, "round": number, "import_ms": 30.0, "init_ms": 5.0, "first_ms": 3 * ms,
        "warmup_runs": 40, "steady": True, "stopped_by": "minimum", "latency": latency,
        "samples_ms": samples, "state_before": dict(STATE), "state_after": dict(STATE), **others,
    }  # fmt: skip


def operator(number: int, us: float = 10.0, **others) -> dict:
    return {
        "name": "CONV_2D", "kind": "CONV_2D", "node": number, "layer": f"stage1_{number}_conv",
        "layers": [f"stage1_{number}_conv", "bn"], "dtype": "int8", "shape": [1, 8, 8, 4],
        "macs": 100_000, "weight_bytes": 500, "read_bytes": 4000, "written_bytes": 4000,
        "us": us, "median_us": us, "share": 0.1, **others,
    }  # fmt: skip


def of(*operators: dict) -> dict:
    total = sum(each["us"] for each in operators)
    return {
        "mode": "node", "threads": 1, "runs": 100, "profiled_ms": 2.2, "unprofiled_ms": 2.0,
        "overhead": 0.1, "usual_ms": 0.5, "sum_us": total, "coverage": 0.95,
        "operators": [{**each, "share": each["us"] / total} for each in operators],
        "dropped": [{"name": "Invoke", "us": 9.0, "reason": "it surrounds others"}],
        "notes": ["a note of operators"],
    }  # fmt: skip


def record(model: str = "runs/net.tflite", target: str = "host", ms: float = 2.0, **others) -> dict:
    return {
        "model": model, "model_sha256": "ab" * 32, "model_bytes": 1_000_000, "target": target,
        "method": "each call is timed alone", "kind": "measured", "runner": "litert-c",
        "runtime": "ai-edge-litert", "runtime_version": "2.3.0", "cpus": None,
        "delegate": "XNNPACK", "delegated_share": None, "inputs": [], "outputs": [],
        "runs": [run(0, ms), run(1, ms * 1.2)], "notes": [],
        "memory": {"peak_bytes": 2e7, "source": "VmHWM"},
        "device": {"processor": "A CPU", "cores": 2, "simd": ["avx2"], "system": "Linux"},
        "environment": {"python": "3.11.7", "packages": {"kzoo": "0.1.0"}, "machine": {}},
        "date": "2026-11-23T18:00:00+00:00", "operators": None, **others,
    }  # fmt: skip


def page(tmp_path, *records: dict) -> str:
    path = tmp_path / "page.html"
    assert write_profile(records, path) == path
    text = path.read_text()
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)
    assert "NaN" not in text
    return text


def hostile(value: object) -> object:
    """The same with every text that a file or a device may have given."""
    if isinstance(value, dict):
        kept = ("kind", "mode", "date", "dtype") if "kind" in value and "date" in value else ()
        return {key: each if key in kept else hostile(each) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def test_it_stands_alone_and_trusts_no_text(tmp_path):
    given = record(operators=of(operator(0), operator(1)), notes=["a note"])
    text = page(tmp_path, *[hostile(given) | {"date": given["date"]}] * 2)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 24
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#)', text)


def test_every_round_of_every_model_and_target_is_shown(tmp_path):
    given = [
        record(f"{name}.tflite", target, ms)
        for name, ms in zip("abcde", (1, 2, 3, 4, 5), strict=True)
        for target in ("host", "adb:X", "ssh:pi")
    ]
    text = page(tmp_path, *given)
    assert "5 models on 3 targets" in text
    assert len(re.findall(r'class="dot ', text)) == 30
    assert len(re.findall(r'class="sky"', text)) == 30
    assert text.count("<circle") == 15
    assert "The fastest is a: 1.16 ms on host (measured, p50)." in text


def test_emulated_figures_are_apart_and_said_to_be(tmp_path):
    emulated = [record(f"{n}.tflite", "emulated:arm64", 0.1, kind="emulated") for n in "ab"]
    text = page(tmp_path, record("a.tflite"), record("b.tflite", ms=4.0), *emulated)
    assert text.count('class="plot"') == 1  # emulated times are not set against anything
    assert "on a scale of their own" in text
    assert "The fastest is a: 2.31 ms on host (measured, p50)." in text
    plot = re.search(r'class="plot".*?</svg>', text, re.DOTALL)[0]
    assert "emulated" not in plot
    alone = page(tmp_path, *emulated)
    assert "which is the fastest is not known" in alone
    assert "The fastest is" not in alone


def test_an_emulated_file_is_beside_no_measured_one(tmp_path):
    measured = record("a.tflite", operators=of(operator(0, 10.0)))
    emulated = record("a.tflite", "emulated:arm64", kind="emulated", operators=of(operator(0)))
    for others, beside in (([emulated], False), ([emulated] * 2, False), ([measured], True)):
        text = page(tmp_path, measured, *others)
        assert ("Layer by layer" in text) is beside
        assert (" takes 1.00 times as long" in text) is beside
    assert "takes 1.00 times" in page(tmp_path, measured, measured, emulated)


def test_rounds_that_overlap_decide_nothing(tmp_path):
    text = page(tmp_path, record("a.tflite", ms=2.0), record("b.tflite", ms=2.2))
    assert "The fastest is not decided: rounds of a and b overlap." in text


def test_an_arena_is_no_process_s_memory(tmp_path):
    arena = {"peak_bytes": 5e4, "source": "arena"}
    text = page(tmp_path, record(), record(target="micro", kind="emulated", memory=arena))
    assert "50.0 kB arena</td>" in text
    assert "20.0 MB</td>" in text


def test_what_could_not_be_measured_is_a_row_with_its_reason(tmp_path):
    path = tmp_path / "page.html"
    failures = [
        {"target": "micro", "model": "x/b.tflite", "error": "no <kernel>", "exit_code": 4},
        {"target": "adb", "model": None, "error": "no phone is attached", "exit_code": 3},
    ]
    write_profile([record("a.tflite")], path, failures)
    text = path.read_text()
    assert "<b>micro, b:</b> no &lt;kernel&gt;" in text
    assert "<b>adb, all models:</b> no phone" in text
    assert "2 could not be measured." in text


def test_a_runner_that_tells_a_summary_alone_is_shown(tmp_path):
    bare = run(samples_ms=[], steady=None, import_ms=None, init_ms=None)
    bare["latency"] |= dict.fromkeys(("p90_ms", "p99_ms", "min_ms", "max_ms", "spread"))
    bare["latency"]["valid"] = False
    text = page(tmp_path, record(runs=[bare], memory=None))
    assert "2.10 ms" in text


def test_what_changed_and_what_is_hidden_is_told(tmp_path):
    warm = run(state_after=STATE | {"frequency_mhz": 1500.0})
    text = page(tmp_path, record(runs=[warm], notes=["the clock fell"]))
    assert "2000 → 1500" in text
    assert "the clock fell" in text
    assert "Not told by any device: CPU governor and temperature (°C)." in text
    assert "Nothing speaks against" not in text


def test_layers_are_in_order_with_their_share_of_the_longest(tmp_path):
    found = of(operator(0, 10.0), operator(1, 40.0), operator(2, 20.0, macs=0))
    text = page(tmp_path, record(operators=found))
    strip = re.search(r'<div class="strip">.*?</div>', text, re.DOTALL)[0]
    assert [float(each) for each in re.findall(r"height:([\d.]+)%", strip)] == [25, 100, 50]
    assert re.findall(r'<tr id="op-1-(\d+)"', text) == ["0", "1", "2"]
    assert text.count("<circle") == 2  # without MACs there is no place in a roofline
    assert "achieved by this file, and not the machine" in text
    assert "+10.0 %" in text


def test_two_files_are_shown_layer_by_layer(tmp_path):
    first = record("a.tflite", operators=of(operator(0, 10.0), operator(1, 40.0)))
    second = record("b.tflite", operators=of(operator(1, 10.0), operator(7, 5.0)))
    text = page(tmp_path, first, second)
    assert "Layer by layer: a and b" in text
    row = re.search(r'<tr id="diff-1".*?</tr>', text, re.DOTALL)[0]
    assert "× 0.25" in row
    assert "−30.0" in row
    assert "a stage1_0_conv; b stage1_7_conv" in text
    assert "Of 1 layers that both have, 1 are faster in it." in text


def test_neighbours_of_a_layer_are_one():
    found = [operator(0, 1.0), operator(0, 5.0, kind="ADD", macs=0), operator(1, 2.0)]
    rows = ops.by_layer(found)
    assert [row["us"] for row in rows] == [6.0, 2.0]
    assert rows[0]["kinds"] == ["CONV_2D", "ADD"]
    assert rows[0]["family"] == "arithmetic"
    unmapped = [operator(0, node=None, layer="", name="Clamp (NC)") for _ in range(2)]
    assert [row["layer"] for row in ops.by_layer(unmapped)] == ["Clamp (NC)"] * 2


def test_kinds_add_up_to_all():
    found = of(operator(0), operator(1, kind="ADD", macs=0), operator(2, 30.0))["operators"]
    rows = ops.by_kind(found)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert sum(row["mac_share"] for row in rows) == pytest.approx(1)
    assert [(row["kind"], row["count"]) for row in rows] == [("CONV_2D", 2), ("ADD", 1)]


def test_a_peak_is_of_layers_that_are_long_enough_to_be_timed():
    found = ops.by_layer([operator(0, 100.0), operator(1, 1.0)])
    assert ops.peaks(found) == {"macs": 1e9, "bytes": 85e6}


def test_what_lies_above_the_roofs_is_hollow(tmp_path):
    """A layer of two short operators is longer than the clock's step, and so is under its roof."""
    short = [operator(1, 6.0), operator(1, 6.0)]
    text = page(tmp_path, record(operators=of(operator(0, 40.0), *short, operator(2, 1.0))))
    dots = re.findall(r'<circle class="([^"]*)" fill-opacity="([^"]*)" cx="\S+" cy="(\S+)"', text)
    roof = float(re.search(r'class="roof" d="M\S+ \S+ L\S+ (\S+) H', text)[1])
    above = {opacity: float(y) < roof - 0.1 for _, opacity, y in dots}
    assert above == {"0.62": False, "0": True}
    assert [opacity for _, opacity, _ in dots] == ["0.62", "0.62", "0"]
    assert dots[2][0].endswith("-line")


def test_layers_of_one_file_alone_have_no_pair():
    rows = [ops.by_layer([operator(i) for i in each]) for each in ((0, 1, 2), (0, 2, 3))]
    assert [row["us"] for row in ops.side_by_side(*rows)] == [
        [10.0, 10.0], [10.0, None], [10.0, 10.0], [None, 10.0],
    ]  # fmt: skip


def test_an_accuracy_is_of_the_same_bytes(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "ledger").mkdir()
    given = record(str(tmp_path / "models" / "net.tflite"))
    lite = {"accuracy": 0.9, "interval": [0.8, 0.95], "count": 50, "split": "test"}
    check = {"contents": {"sha256": given["model_sha256"]}, "lite": lite}
    assert accuracy_of(given) is None
    other = copy.deepcopy(check)
    other["contents"]["sha256"] = "cd" * 32
    (tmp_path / "models" / "net.check.json").write_text(json.dumps(other))
    (tmp_path / "models" / "list.json").write_text("[1]")
    (tmp_path / "models" / "broken.json").write_text("{")
    assert accuracy_of(given) is None
    ledger = {"step": "check", "result": {"int8": check, "samples": {}}}
    (tmp_path / "ledger" / "net.check.json").write_text(json.dumps(ledger))
    assert accuracy_of(given) == lite
    assert "90.0 % of 50 test images" in page(tmp_path, given)


def test_accuracies_are_set_against_latency_where_two_are_known(tmp_path):
    for name, digest in (("a", "aa"), ("b", "bb")):
        lite = {"accuracy": 0.9, "interval": [0.8, 0.95], "count": 50, "split": "test"}
        told = {"contents": {"sha256": digest}, "lite": lite}
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    given = [
        record(str(tmp_path / f"{name}.tflite"), model_sha256=2 * name) for name in ("a", "b", "c")
    ]
    text = page(tmp_path, *given)
    assert text.count("<circle") == 2
    assert "Without a known accuracy: c." in text
    other = json.loads((tmp_path / "a.json").read_text())
    other["lite"]["count"] = 60
    (tmp_path / "z.json").write_text(json.dumps(other))
    assert accuracy_of(given[0])["count"] == 60  # the one of the most images
    text = page(tmp_path, *given)
    assert text.count("<circle") == 3  # not of the same images: no accuracy is against another
    assert "accuracies on the same images" in text


def test_a_logarithmic_axis_has_its_ticks_inside():
    near = [(low / 100, low / 100) for low in range(1, 1000, 7)]
    for ends in ((0.1, 0.2), (1.23, 3.5), (0.003, 40_000), *near):
        axis = Log(ends, 0.0, 100.0)
        assert 2 <= len(axis.ticks()) <= 12  # one alone would tell no scale
        assert all(0 <= axis(tick) <= 100 for tick in axis.ticks())
        assert 0 <= axis(ends[0]) <= axis(ends[1]) <= 100


def test_a_coarse_clock_s_zeros_stand_at_the_start(tmp_path):
    latency = run()["latency"] | {"min_ms": 0.0, "p50_ms": 0.0}
    assert "0.0" in page(tmp_path, record(runs=[run(samples_ms=[0.0] * 100, latency=latency)]))
    assert Log([0.0, 1.0, 2.0], 5.0, 10.0)(0.0) == 5


def test_what_all_models_of_a_target_have_is_noted_once():
    noted = [
        record("a.tflite", notes=["busy", "drifted"]),
        record("b.tflite", notes=["busy"]),
        record("a.tflite", "adb", notes=["busy"]),
    ]
    assert notes_of(noted, ["a", "b", "a"]) == [
        ("host", "busy"), ("host, a", "drifted"), ("adb", "busy"),
    ]  # fmt: skip


def test_a_histogram_is_as_high_where_runs_are():
    path = histogram([1.0] * 30 + [2.0], Log([1.0, 2.0], 0.0, 1000.0))
    heights = [float(each) for each in re.findall(r"V([\d.]+)H", path)]
    assert min(heights) == 0
    assert sum(height < 100 for height in heights) == 2
