import contextlib
import dataclasses
import os
import random
import subprocess

import numpy as np
import pytest

from kzoo.child import ChildCrashed
from kzoo.environment import machine
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.lite import flatbuffer
from kzoo.measure import runners
from kzoo.measure.benchmark_model import VARIABLE
from kzoo.measure.deploy import deploy_file
from kzoo.measure.runtimes import BENCHMARK_MODEL, C_RUNTIME, RUNTIMES, choose_runtime
from kzoo.measure.target import Setting, open_target
from kzoo.measure.targets import device
from kzoo.measure.targets.host import Local, connect

ONE = min(os.sched_getaffinity(0))
"""A core that is there."""
QUICK = Setting(runtime="ai-edge-litert", min_runs=5, min_seconds=0)


@pytest.fixture
def host():
    with open_target("host") as target:
        yield target


def stand_in(monkeypatch, tmp_path, code: str) -> None:
    """Replaces the script by one that does ``code``."""
    script = tmp_path / "benchmark.py"
    script.write_text("import os, signal, sys, time\n" + code)
    monkeypatch.setattr(runners, "deploy_file", lambda _: script)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_answers(runtime, small, host):
    try:
        choose_runtime(runtime)
    except MissingError as error:
        pytest.skip(str(error))
    answer = host.time_runs(small, dataclasses.replace(QUICK, runtime=runtime))
    assert answer["runtime"] == runtime
    assert answer["runtime_version"] != "unknown"
    assert len(answer["samples_ns"]) >= 5
    assert answer["import_ms"] > 0
    assert answer["inputs"] == [{"name": "pixels", "shape": [1, 16, 16, 3], "dtype": "int8"}]
    assert answer["input"] == "random pixels, seed 0, int8 over its full range"


def test_the_runs_of_the_warm_up_are_told(tiny, host):
    answer = host.time_runs(tiny, QUICK)
    assert answer["warmup_runs"] == len(answer["warmup_ns"]) >= 2 * answer["window"]


def test_a_small_model_s_memory_is_not_hidden_by_the_import(tiny, host):
    answer = host.peak_memory(tiny, QUICK)
    if answer["source"] != "VmHWM":
        pytest.skip("this system does not reset VmHWM")
    grown = answer["peak_bytes"] - answer["baseline_bytes"]
    assert tiny.stat().st_size < grown < 100e6
    assert not {"samples_ns", "init_ms", "import_ms"} & set(answer)


def test_the_delegate_and_its_share_are_told(mlperf_tiny, host):
    answer = host.time_runs(mlperf_tiny / "pretrainedResnet_quant.tflite", QUICK)
    # XNNPACK leaves AVERAGE_POOL_2D and SOFTMAX of the 16 int8 nodes to the interpreter.
    assert (answer["delegate"], answer["delegated_share"]) == ("XNNPACK", 0.875)


def test_a_model_the_runtime_refuses_is_a_line_not_a_traceback(mlperf_tiny, host):
    with pytest.raises(BadInputError, match="refuses the model") as caught:
        host.time_runs(mlperf_tiny / "tflm_person_detect.tflite", QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.6, 0.95])
def test_a_truncated_model_is_bad_input(keep, small, tmp_path, host):
    content = small.read_bytes()
    path = tmp_path / "truncated.tflite"
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BadInputError):
        host.time_runs(path, QUICK)


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_model_is_measured_or_bad_input(seed, small, tmp_path, host):
    """The tables of the first 900 bytes are damaged; some flips change nothing that matters."""
    dice, content = random.Random(seed), bytearray(small.read_bytes())
    for _ in range(4):
        content[dice.randrange(8, min(900, len(content)))] ^= 1 << dice.randrange(8)
    path = tmp_path / "flipped.tflite"
    path.write_bytes(content)
    with contextlib.suppress(BadInputError):  # anything else fails the test
        assert host.time_runs(path, QUICK)["samples_ns"]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_crash_names_the_signal(name, small, tmp_path, monkeypatch, host):
    stand_in(monkeypatch, tmp_path, f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(BadInputError, match=rf"crashed the runtime ai-edge-litert \({name}\)"):
        host.time_runs(small, QUICK)


def test_a_model_that_hangs_is_stopped(small, tmp_path, monkeypatch, host):
    stand_in(monkeypatch, tmp_path, "time.sleep(60)")
    monkeypatch.setattr(device, "STARTUP_SECONDS", 0.5)
    with pytest.raises(BadInputError, match=r"no answer in 0\.5 s"):
        host.peak_memory(small, QUICK)


def test_a_runtime_that_cannot_be_imported_is_missing(small, tmp_path, monkeypatch, host):
    stand_in(monkeypatch, tmp_path, "print('error: no such', file=sys.stderr); sys.exit(3)")
    with pytest.raises(MissingError, match=r"^no such$"):
        host.time_runs(small, QUICK)


@pytest.mark.parametrize("code", ["print('no record')", "sys.exit(1)", ""])
def test_a_fault_of_the_script_is_not_blamed_on_the_model(code, small, tmp_path, monkeypatch, host):
    stand_in(monkeypatch, tmp_path, code)
    with pytest.raises(ChildCrashed):
        host.time_runs(small, QUICK)


def told(root) -> dict:
    script = deploy_file("linux/state.sh")
    done = subprocess.run(["sh", script, root], capture_output=True, text=True, check=True)
    return device.told(done.stdout)


def test_the_state_is_read_where_the_machine_tells(tmp_path):
    def put(relative, text):
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    for core, frequency in enumerate(("600000", "1500000")):
        put(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor", "ondemand")
        put(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", frequency)
    put("sys/class/thermal/thermal_zone0/temp", "48312")
    put("sys/class/thermal/thermal_zone1/temp", "51000")
    put("sys/class/thermal/thermal_zone2/temp", "N/A")
    put("sys/class/power_supply/battery/capacity", "81")
    put("sys/class/power_supply/battery/current_now", "-500000")
    put("sys/class/power_supply/battery/voltage_now", "4000000")
    put("proc/loadavg", "0.25 0.5 0.7 1/100 1")
    assert told(tmp_path)["state"] == dict.fromkeys(device.STATE) | {
        "governor": "ondemand",
        "frequency_mhz": 1500.0,
        "temperature_c": 51.0,
        "battery_percent": 81,
        "power_w": 2.0,
        "load_1min": 0.25,
    }


def test_the_state_is_none_where_it_does_not(tmp_path):
    assert told(tmp_path)["state"] == dict.fromkeys(device.STATE)


def test_a_board_and_its_processor_are_told_apart(tmp_path):
    """As a Raspberry Pi 5 has it, whose /proc/cpuinfo names the board alone."""
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    board = "Raspberry Pi 5 Model B Rev 1.0"
    (tmp_path / "proc" / "cpuinfo").write_text(f"processor\t: 0\n\nModel\t\t: {board}\n")
    (tmp_path / "proc" / "device-tree" / "model").write_text(f"{board}\0")
    (tmp_path / "proc" / "device-tree" / "compatible").write_bytes(
        b"raspberrypi,5-model-b\0brcm,bcm2712\0"
    )
    machine = told(tmp_path)["machine"]
    assert (machine["model"], machine["processor"]) == (board, "brcm,bcm2712")


def test_this_machine_is_told_as_every_record_tells_it(host):
    told = host.machine()
    assert told.items() >= machine().items()


@pytest.mark.parametrize("model", ["pretrainedResnet_quant.tflite", "vww_96_float.tflite"])
def test_the_c_runner_s_outputs_are_python_s(model, mlperf_tiny, host):
    """Bit for bit: the same library computes both."""
    file = mlperf_tiny / model
    inputs = host.time_runs(file, QUICK)["inputs"]
    images = np.random.default_rng(0).integers(0, 255, (3, *inputs[0]["shape"]))
    raw = images.astype(inputs[0]["dtype"]).tobytes()
    answers = [
        host.outputs(file, raw, dataclasses.replace(QUICK, runtime=runtime))
        for runtime in ("ai-edge-litert", C_RUNTIME)
    ]
    assert answers[0]["outputs"] == answers[1]["outputs"]
    assert answers[0]["images"] == answers[1]["images"] == 3
    assert answers[0]["model_sha256"] == answers[1]["model_sha256"]


def test_the_c_runner_s_record_has_what_python_s_has(tiny, host):
    python, c = (
        host.time_runs(tiny, dataclasses.replace(QUICK, runtime=runtime))
        for runtime in ("ai-edge-litert", C_RUNTIME)
    )
    assert set(python) - set(c) == {"python", "numpy"}
    assert set(c) <= set(python)
    same = ("runtime", "runtime_version", "model_sha256", "model_bytes", "delegate", "stopped_by")
    assert {name: c[name] for name in same} == {name: python[name] for name in same}
    assert c["outputs"][0]["shape"] == python["outputs"][0]["shape"]
    memory = host.peak_memory(tiny, dataclasses.replace(QUICK, runtime=C_RUNTIME))
    assert tiny.stat().st_size < memory["peak_bytes"] - memory["baseline_bytes"] < 100e6


def test_the_c_runner_tells_long_names_and_damaged_ones(small, tmp_path, host):
    for name, said in ((b"\xc3\xbc" * 99, "\xfc" * 99), (b"pix\xffels", "pix\ufffdels")):
        model = flatbuffer.parse(small.read_bytes())
        model.subgraphs[0].tensors[0].name = name
        (tmp_path / "named.tflite").write_bytes(flatbuffer.serialize(model))
        answer = host.time_runs(
            tmp_path / "named.tflite", dataclasses.replace(QUICK, runtime=C_RUNTIME)
        )
        assert answer["inputs"][0]["name"] == said


@pytest.mark.parametrize("content", ["#!/bin/sh", "no program"])
def test_a_program_that_does_not_start_is_told(content, small, host, tmp_path, monkeypatch):
    program = tmp_path / "benchmark_model"
    program.write_text(content)
    program.chmod(0o755 if content == "no program" else 0o644)
    monkeypatch.setenv(VARIABLE, str(program))
    with pytest.raises(MissingError, match="benchmark_model does not start: "):
        host.time_runs(small, dataclasses.replace(QUICK, runtime=BENCHMARK_MODEL))


@pytest.mark.parametrize("where", ["true", "false", "nothing", "pi@board"])
def test_what_is_no_python_here_is_wrong_use(where):
    with pytest.raises(UsageError, match=r"no Python that starts|is this machine"):
        connect(where)


def test_a_machine_that_does_not_tell_its_state_is_told_of(host, monkeypatch, tmp_path):
    script, run = tmp_path / "state.sh", host.transport.run
    script.write_text("sleep 60")
    monkeypatch.setattr(device, "deploy_file", lambda _: script)
    monkeypatch.setattr(host.transport, "run", lambda argv, **_: run(argv, timeout=0.3))
    with pytest.raises(MissingError, match=r"gave no answer in 0\.3 s"):
        host.state()


@pytest.mark.parametrize("runtime", ["ai-edge-litert", C_RUNTIME])
def test_a_full_disk_is_not_the_models_fault(runtime, small, host, monkeypatch):
    monkeypatch.setattr(host.transport, "scratch", lambda _: "/dev/full")
    with pytest.raises(MissingError, match="No space left on device"):
        host.outputs(small, bytes(768), dataclasses.replace(QUICK, runtime=runtime))


@pytest.mark.parametrize("cpus", [
    "901", "901,902", f"{ONE},901", f"{ONE}-901", f"{9**30}", "", f"{ONE}-", "5-2", f"{ONE},",
    f"{ONE},-1", "x", "0x0",
])  # fmt: skip
@pytest.mark.parametrize("runtime", ["ai-edge-litert", C_RUNTIME])
def test_cores_that_are_not_there_are_wrong_use(runtime, cpus, tiny, host):
    """The kernel drops them from a list without a word, and the record would tell of them."""
    with pytest.raises(UsageError, match=r"--cpus .*machine's cores is meant, such as 0,4-7"):
        host.time_runs(tiny, dataclasses.replace(QUICK, runtime=runtime, cpus=cpus))


@pytest.mark.parametrize("runtime", ["ai-edge-litert", C_RUNTIME])
def test_the_warm_up_ends_at_its_limit(runtime, tiny, host):
    setting = dataclasses.replace(QUICK, runtime=runtime)
    none = host.time_runs(tiny, dataclasses.replace(setting, warm_up=0))
    assert (none["warmup_runs"], none["warmup_ns"], none["steady"]) == (0, [], None)
    assert none["first_ms"] > 0
    short = host.time_runs(tiny, dataclasses.replace(setting, warm_up=0.05))
    assert sum(short["warmup_ns"][:-1]) < 0.05e9 <= sum(short["warmup_ns"])
    assert short["steady"] is False


@pytest.mark.parametrize("runtime", ["ai-edge-litert", C_RUNTIME])
def test_without_a_delegate_it_says_none(runtime, tiny, host):
    answer = host.time_runs(tiny, dataclasses.replace(QUICK, runtime=runtime, delegate="none"))
    assert answer["delegate"] == "none"


def test_a_gpu_that_is_not_there_is_missing(small, host):
    setting = dataclasses.replace(QUICK, runtime=C_RUNTIME, delegate="gpu")
    with pytest.raises(MissingError, match="no GPU that it can use"):
        host.time_runs(small, setting)
    with pytest.raises(MissingError, match="no GPU that it can use"):
        host.outputs(small, bytes(768), setting)


def test_cores_of_one_speed_are_neither_big_nor_little(host, monkeypatch):
    monkeypatch.setattr(device, "told", lambda _: {"core_mhz": {0: 1800.0, 1: 1800.0}})
    with pytest.raises(UsageError, match="one speed"):
        host.cpus("big")


def test_big_cores_are_the_fastest(host, monkeypatch):
    speeds = {0: 1800.0, 1: 1800.0, 4: 2800.0, 5: 2800.0}
    monkeypatch.setattr(device, "told", lambda _: {"core_mhz": speeds})
    assert host.cpus("big") == "4,5"
    assert host.cpus("little") == "0,1"


@pytest.mark.parametrize("runtime", ["ai-edge-litert", C_RUNTIME])
def test_the_power_is_the_battery_s_while_it_runs(runtime, tiny, tmp_path, monkeypatch, host):
    for name, current in (("battery", -1_500_000), ("usb", 100_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "current_now").write_text(f"{current}\n")
        (tmp_path / name / "voltage_now").write_text("4000000\n")
    (tmp_path / "mains").mkdir()
    setting = dataclasses.replace(QUICK, runtime=runtime, min_seconds=0.6)
    run = Local.run

    def with_supplies(self, argv, **options):
        supplies = ["--supplies", str(tmp_path)] if "--threads" in argv else []
        return run(self, [*argv, *supplies], **options)

    assert host.time_runs(tiny, setting)["power_w"] is None  # this machine has no battery
    monkeypatch.setattr(Local, "run", with_supplies)
    assert host.time_runs(tiny, setting)["power_w"] == pytest.approx(6.0)
    assert host.time_runs(tiny, dataclasses.replace(setting, min_seconds=0))["power_w"] is None
