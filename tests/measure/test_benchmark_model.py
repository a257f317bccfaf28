# ruff: noqa: E501 its lines are as long as they are
"""What benchmark_model prints, as a record. It is not to be had here: a script prints its log.

The logs are put together as the tools' sources do it (see `kzoo.measure.benchmark_model`).
"""

import dataclasses
import json
from pathlib import Path

import pytest

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.measure.benchmark_model import CACHE, VARIABLE
from kzoo.measure.profile import profile
from kzoo.measure.target import Setting, open_target
from kzoo.measure.targets.host import Local

SUMMARIES = """\
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=9 first=81913 curr=55502 min=55502 max=81913 avg=58984.7 std=8115 p5=55502 median=56021 p95=81913

INFO: Running benchmark for at least 100 iterations and at least 1 seconds but terminate if exceeding 60 seconds.
INFO: count=106 first=56576 curr=56299 min=54669 max=60236 avg=1.26266e+06 std=982 p5=55001 median=56251 p95=58900

"""
DELEGATE = """\
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 58 out of 64 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions for the whole graph.
"""
CLASSIC = f"""\
INFO: STARTING!
{DELEGATE}INFO: The input model file size (MB): 3.4
INFO: Initialized session in 3.337ms.
{SUMMARIES}INFO: Inference timings in us: Init: 3337, First inference: 81913, Warmup (avg): 58984.7, Inference (avg): 56265.8
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=5.5 overall=20.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 25
"""
LITERT = f"""\
INFO: [benchmark_litert_model.cc:204] Loading model from: x
{DELEGATE}{SUMMARIES}INFO: [benchmark_litert_model.h:73]
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:74] Model initialization: 3.34 ms
INFO: [benchmark_litert_model.h:75] Warmup (first):       81.91 ms
INFO: [benchmark_litert_model.h:77] Warmup (avg):         58.98 ms (9 runs)
INFO: [benchmark_litert_model.h:79] Inference (avg):      56.27 ms (106 runs)
INFO: [benchmark_litert_model.h:100]
Memory Usage:
INFO: [benchmark_litert_model.h:101] Init footprint:       5.50 MB
INFO: [benchmark_litert_model.h:103] Overall footprint:    20.50 MB
INFO: [benchmark_litert_model.h:108] Peak memory:          25.00 MB
INFO: [benchmark_litert_model.h:115] ======================================
"""
QUICK = Setting(runtime="benchmark_model")


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """tool(log, code=0): the program that the user has, and what it was started with."""
    file = tmp_path / "the user's" / "benchmark_model"
    file.parent.mkdir()
    monkeypatch.setenv(VARIABLE, str(file))

    def make(log: str, code: int = 0):
        said, called = tmp_path / "log", tmp_path / "called"
        said.write_text(log)
        file.write_text(f"#!/bin/sh\necho \"$@\" >> '{called}'\ncat '{said}'\nexit {code}\n")
        file.chmod(0o755)
        return called

    return make


@pytest.mark.parametrize("log", [CLASSIC, LITERT], ids=["classic", "litert"])
def test_both_tools_give_the_record(log, tool, small):
    called = tool(log)
    record = profile(small, runtime="benchmark_model", threads=(2,))
    (run,) = record.runs
    assert run.latency.p50_ms == 56.251
    assert (run.latency.min_ms, run.latency.max_ms, run.latency.count) == (54.669, 60.236, 106)
    assert (run.first_ms, run.warmup_runs) == (81.913, 8)
    assert run.init_ms == pytest.approx(3.337, abs=0.005)
    assert record.runtime == record.runner == "benchmark_model"
    assert (record.delegate, record.delegated_share) == ("XNNPACK", 0.9062)
    assert record.memory.peak_bytes == 25 * 2**20
    assert record.memory.baseline_bytes == 4.5 * 2**20
    timed, memory = called.read_text().splitlines()
    assert "--num_threads=2 --warmup_runs=1 --warmup_min_secs=10 --num_runs=100 " in timed
    assert "--num_runs=100 --min_secs=1 --max_secs=60" in timed
    assert "--report_peak_memory_footprint=true" in memory
    assert "--report_peak_memory_footprint" not in timed  # its thread would disturb the times


def test_what_it_does_not_tell_is_not_made_up(tool, small):
    tool(CLASSIC)
    record = profile(small, runtime="benchmark_model").to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    (run,) = record["runs"]
    assert run["samples_ms"] == []
    assert (run["import_ms"], run["steady"]) == (None, None)
    assert [run["latency"][name] for name in ("p90_ms", "p99_ms", "spread")] == [None] * 3
    assert any("a summary alone" in note for note in record["notes"])
    assert not any("not steady" in note for note in record["notes"])


@pytest.mark.parametrize(("asked", "given"), [(0, 0), (2.5, 2.5), (100, 60)])
def test_its_warm_up_is_as_long_as_asked_and_it_says_what_it_is_not(asked, given, tool, small):
    called = tool(CLASSIC)
    record = profile(small, runtime="benchmark_model", warm_up=asked)
    assert f"--warmup_runs=1 --warmup_min_secs={given} " in called.read_text()
    told = [note for note in record.notes if "does not look whether" in note]
    if asked:
        assert f"; after a warm-up of {given:g} s, each" in record.method
        assert [note.startswith(f"its warm-up took {given:g} s") for note in told] == [True]
    else:
        assert "; without a warm-up but the first inference, each" in record.method
        assert told == []


def test_runs_that_were_all_alike(tool, small):
    alike = "INFO: count=12 curr=40(all same) p5=40 median=40 p95=40\n"
    tool(f"{alike}{alike}INFO: Inference timings in us: Init: 9, First inference: 40, ...\n")
    with open_target("host") as host:
        answer = host.time_runs(small, QUICK)
        assert host.peak_memory(small, QUICK) is None
    assert (answer["latency"].min_ms, answer["latency"].p50_ms, answer["first_ms"]) == (0.04,) * 3
    assert answer["stopped_by"] == "max-seconds"


@pytest.mark.parametrize(
    ("delegate", "flag"),
    [("gpu", "--use_gpu=true"), ("nnapi", "--use_nnapi=true"), ("none", "--use_xnnpack=false")],
)
def test_delegates_are_its_flags(delegate, flag, tool, small):
    called = tool(CLASSIC)
    with open_target("host") as host:
        host.time_runs(small, dataclasses.replace(QUICK, delegate=delegate))
    assert flag in called.read_text().split()


def test_a_delegate_that_took_nothing_is_noted(tool, small):
    tool(CLASSIC)
    note = "asked for the delegate gpu; the runtime tells of XNNPACK"
    assert note in profile(small, runtime="benchmark_model", delegate="gpu").notes
    tool(CLASSIC.replace("TfLiteXNNPackDelegate", "TfLiteGpuDelegateV2"))
    assert note not in profile(small, runtime="benchmark_model", delegate="gpu").notes


def test_cores_are_kept_by_a_mask(tool, small, monkeypatch):
    tool(CLASSIC)
    commands, run = [], Local.run
    monkeypatch.setattr(
        Local, "run", lambda self, argv, **more: commands.append(argv) or run(self, argv, **more)
    )
    with open_target("host") as host:
        host.time_runs(small, dataclasses.replace(QUICK, cpus="0"))
        for wrong in ("60,61-62", "0,62", "0-62", "0-x", "0-", "", "2-1"):
            with pytest.raises(UsageError, match=f"--cpus {wrong}: .*such as 0,4-7"):
                host.time_runs(small, dataclasses.replace(QUICK, cpus=wrong))
    assert [command[:2] for command in commands] == [
        ["taskset", "1"],
        ["taskset", "7000000000000000"],
        ["taskset", "4000000000000001"],
        ["taskset", "7fffffffffffffff"],
    ]


@pytest.mark.parametrize(
    ("log", "code", "error", "said"),
    [
        (
            "WARN: Unconsumed cmdline flags: --use_nnapi=true\n",
            0,
            UsageError,
            "no flag --use_nnapi",
        ),
        ("ERROR: Failed to load model x\n", 1, BadInputError, "exit code 1: ERROR: Failed to load"),
        ("", 0, BadInputError, "exit code 0: nothing"),
        (CLASSIC.replace(" median=", " "), 0, MissingError, "prints no median"),
    ],
)
def test_what_goes_wrong_is_one_line(log, code, error, said, tool, small):
    tool(log, code)
    with open_target("host") as host, pytest.raises(error, match=said):
        host.time_runs(small, QUICK)


def test_what_it_cannot_do_is_refused(tool, small):
    tool(CLASSIC)
    with open_target("host") as host:
        with pytest.raises(UsageError, match="gives no outputs"):
            host.outputs(small, bytes(768), QUICK)
        with pytest.raises(UsageError, match="gives no times of operators"):
            host.operators(small, QUICK, "node")
        with pytest.raises(UsageError, match="has no delegate 'edgetpu'; it has xnnpack"):
            host.time_runs(small, dataclasses.replace(QUICK, delegate="edgetpu"))


def test_one_for_another_processor_is_not_taken(tool, small, tmp_path):
    tool(CLASSIC)
    file = tmp_path / "the user's" / "benchmark_model"
    file.write_bytes(b"\x7fELF" + bytes(14) + (0x28).to_bytes(2, "little"))
    with open_target("host") as host, pytest.raises(MissingError, match="is for armeabi-v7a; this"):
        host.time_runs(small, QUICK)


def test_it_is_found_where_litert_cli_keeps_it(small, monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with open_target("host") as host:
        with pytest.raises(MissingError, match=r"no benchmark_model for .* is here"):
            host.time_runs(small, QUICK)
        file = tmp_path / CACHE / host.transport.abi / "benchmark_model"
        file.parent.mkdir(parents=True)
        (file.parent / "libLiteRt.so").write_bytes(b"")
        # The libraries beside it are found by it, and other files stay where they are.
        (file.parent / "run_model").write_bytes(b"")
        file.write_text(f"#!/bin/sh\nls $LD_LIBRARY_PATH >&2\ncat <<'END'\n{CLASSIC}END\n")
        file.chmod(0o755)
        ended = []
        run = Local.run

        def spy(self, argv, **more):
            ended.append(run(self, argv, **more))
            return ended[-1]

        monkeypatch.setattr(Local, "run", spy)
        host.time_runs(small, QUICK)
    assert ended[0].stderr.split() == ["benchmark_model", "libLiteRt.so"]
