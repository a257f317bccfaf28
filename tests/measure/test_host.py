import contextlib
import random

import pytest

from kzoo.child import ChildCrashed
from kzoo.errors import BadInputError, MissingError
from kzoo.measure.runtimes import RUNTIMES, choose_runtime
from kzoo.measure.targets import host

QUICK = {"threads": 1, "min_runs": 5, "min_seconds": 0}


def stand_in(monkeypatch, tmp_path, code: str) -> None:
    """Replaces the script by one that does ``code``."""
    script = tmp_path / "benchmark.py"
    script.write_text("import os, signal, sys, time\n" + code)
    monkeypatch.setattr(host, "deploy_file", lambda _: script)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_answers(runtime, small):
    try:
        choose_runtime(runtime)
    except MissingError as error:
        pytest.skip(str(error))
    answer = host.time_runs(small, runtime=runtime, **QUICK)
    assert answer["runtime"] == runtime
    assert answer["runtime_version"] != "unknown"
    assert len(answer["samples_ns"]) >= 5
    assert answer["import_ms"] > 0
    assert answer["inputs"] == [{"name": "pixels", "shape": [1, 16, 16, 3], "dtype": "int8"}]
    assert answer["input"] == "random pixels, seed 0, int8 over its full range"


def test_the_runs_of_the_warm_up_are_told(tiny):
    answer = host.time_runs(tiny, runtime="ai-edge-litert", **QUICK)
    assert answer["warmup_runs"] == len(answer["warmup_ns"]) >= 2 * answer["window"]


def test_a_small_model_s_memory_is_not_hidden_by_the_import(tiny):
    answer = host.peak_memory(tiny, runtime="ai-edge-litert", threads=1)
    if answer["source"] != "VmHWM":
        pytest.skip("this system does not reset VmHWM")
    grown = answer["peak_bytes"] - answer["baseline_bytes"]
    assert tiny.stat().st_size < grown < 100e6
    assert not {"samples_ns", "init_ms", "import_ms"} & set(answer)


def test_the_delegate_and_its_share_are_told(mlperf_tiny):
    answer = host.time_runs(
        mlperf_tiny / "pretrainedResnet_quant.tflite", runtime="ai-edge-litert", **QUICK
    )
    # XNNPACK leaves AVERAGE_POOL_2D and SOFTMAX of the 16 int8 nodes to the interpreter.
    assert (answer["delegate"], answer["delegated_share"]) == ("XNNPACK", 0.875)


def test_a_model_the_runtime_refuses_is_a_line_not_a_traceback(mlperf_tiny):
    with pytest.raises(BadInputError, match="refuses the model") as caught:
        host.time_runs(mlperf_tiny / "tflm_person_detect.tflite", runtime="ai-edge-litert", **QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.95])
def test_a_truncated_model_is_bad_input(keep, small, tmp_path):
    content = small.read_bytes()
    path = tmp_path / "truncated.tflite"
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BadInputError):
        host.time_runs(path, runtime="ai-edge-litert", **QUICK)


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_model_is_measured_or_bad_input(seed, small, tmp_path):
    """The tables of the first 900 bytes are damaged; some flips change nothing that matters."""
    dice, content = random.Random(seed), bytearray(small.read_bytes())
    for _ in range(4):
        content[dice.randrange(8, min(900, len(content)))] ^= 1 << dice.randrange(8)
    path = tmp_path / "flipped.tflite"
    path.write_bytes(content)
    with contextlib.suppress(BadInputError):  # anything else fails the test
        assert host.time_runs(path, runtime="ai-edge-litert", **QUICK)["samples_ns"]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_names_the_signal(name, small, tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(BadInputError, match=rf"crashed the runtime ai-edge-litert \({name}\)"):
        host.time_runs(small, runtime="ai-edge-litert", **QUICK)


def test_a_model_that_hangs_is_stopped(small, tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, "time.sleep(60)")
    monkeypatch.setattr(host, "STARTUP_SECONDS", 0.5)
    with pytest.raises(BadInputError, match=r"no answer in 0\.5 s"):
        host.peak_memory(small, runtime="ai-edge-litert", threads=1)


def test_a_runtime_that_cannot_be_imported_is_missing(small, tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, "print('error: no such', file=sys.stderr); sys.exit(3)")
    with pytest.raises(MissingError, match=r"^no such$"):
        host.time_runs(small, runtime="ai-edge-litert", **QUICK)


@pytest.mark.parametrize("code", ["print('no record')", "sys.exit(1)", ""])
def test_a_fault_of_the_script_is_not_blamed_on_the_model(code, small, tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, code)
    with pytest.raises(ChildCrashed):
        host.time_runs(small, runtime="ai-edge-litert", **QUICK)


def test_the_state_is_read_where_the_machine_tells(tmp_path):
    def put(relative, text):
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    for core, frequency in enumerate(("600000", "1500000")):
        put(f"devices/system/cpu/cpu{core}/cpufreq/scaling_governor", "ondemand")
        put(f"devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", frequency)
    put("class/thermal/thermal_zone0/temp", "48312")
    put("class/thermal/thermal_zone1/temp", "51000")
    put("class/thermal/thermal_zone2/temp", "N/A")
    read = host.state(tmp_path)
    assert (read["governor"], read["frequency_mhz"]) == ("ondemand", 1500.0)
    assert read["temperature_c"] == 51.0


def test_the_state_is_none_where_it_does_not(tmp_path):
    read = host.state(tmp_path)
    assert read.pop("load_1min") >= 0
    assert set(read.values()) == {None}
