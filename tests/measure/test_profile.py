import datetime
import hashlib
import importlib.util
import json
import re
import time

import pytest

from kzoo.cli import cli
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.measure.profile import profile, profile_all
from kzoo.measure.targets import emulated
from kzoo.measure.targets.device import STATE, Device
from kzoo.measure.targets.host import Local


@pytest.fixture(scope="module")
def events() -> list:
    return []


@pytest.fixture(scope="module")
def measured(tiny, events):
    return profile(tiny, threads=(1, 64), progress=lambda *event: events.append(event))


def test_at_least_100_runs_and_one_second(measured):
    for run in measured.runs:
        assert len(run.samples_ms) == run.latency.count >= 100
        assert sum(run.samples_ms) >= 1000
        assert run.stopped_by == "minimum"
        assert run.latency.valid


def test_one_run_per_thread_count_in_order(measured):
    assert [run.threads for run in measured.runs] == [1, 64]
    assert all(run.init_ms > 0 and run.first_ms > 0 and run.import_ms > 0 for run in measured.runs)


def test_threads_above_the_cores_are_noted(measured):
    assert any(note.startswith("threads 64: more threads") for note in measured.notes)
    assert not any(note.startswith("threads 1: more threads") for note in measured.notes)


def test_the_record_survives_json(measured):
    record = measured.to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_the_record_says_what_was_measured(measured, tiny):
    assert measured.model_sha256 == hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert measured.model_bytes == tiny.stat().st_size
    assert (measured.target, measured.kind) == ("host", "measured")
    assert measured.runtime == "ai-edge-litert"
    assert measured.runtime_version == measured.environment["packages"]["ai-edge-litert"]
    assert "random pixels, seed 0, float32 in [0, 255]" in measured.method
    when = datetime.datetime.fromisoformat(measured.date)
    assert when.utcoffset() == datetime.timedelta(0)


def test_memory_is_from_a_run_of_its_own(measured):
    assert measured.memory.peak_bytes >= measured.memory.baseline_bytes > 0
    assert measured.memory.threads == 1


@pytest.mark.usefixtures("measured")
def test_progress_counts_the_processes(events):
    assert [done for _, done, _ in events] == [0, 1, 2, 3]
    assert {total for _, _, total in events} == {3}


def fake_target(
    monkeypatch, digest=None, samples=(10**6,) * 200, source="VmHWM", **changes
) -> None:
    """Answers without a process."""

    def time_runs(_self, model, setting):
        return {
            "threads": setting.threads,
            "runner": "ai-edge-litert",
            "runtime": "ai-edge-litert",
            "call": "nothing",
            "import_ms": 1.0,
            "init_ms": 1.0,
            "first_ms": 1.0,
            "warmup_runs": 40,
            "steady": True,
            "stopped_by": "minimum",
            "samples_ns": list(samples),
            "model_bytes": 1,
            "input": "zeros",
            "inputs": [],
            "outputs": [],
            "delegate": "none",
            "delegated_share": 0.0,
            "runtime_version": "1",
            "model_sha256": digest or hashlib.sha256(model.read_bytes()).hexdigest(),
            **changes,
        }

    def peak_memory(_self, model, _setting):
        sha = hashlib.sha256(model.read_bytes()).hexdigest()
        return {
            "threads": 1,
            "peak_bytes": 2,
            "baseline_bytes": 1,
            "source": source,
            "model_sha256": sha,
        }

    monkeypatch.setattr(Device, "time_runs", time_runs)
    monkeypatch.setattr(Device, "peak_memory", peak_memory)


def test_too_few_runs_make_the_p90_invalid(small, monkeypatch):
    fake_target(monkeypatch, samples=[10**6] * 63, stopped_by="max-seconds")
    record = profile(small)
    assert record.runs[0].latency.p90_ms is None
    assert any("INVALID" in note for note in record.notes)
    assert any("stopped by max-seconds at 63 runs" in note for note in record.notes)


def test_an_unsteady_or_drifting_run_is_noted(small, monkeypatch):
    fake_target(monkeypatch, samples=[10**6] * 100 + [2 * 10**6] * 100, steady=False)
    notes = " ".join(profile(small).notes)
    assert "not steady" in notes
    assert "100% slower" in notes


@pytest.mark.parametrize("source", ["VmHWM, not reset", "ru_maxrss"])
def test_a_peak_that_holds_the_import_is_noted(source, small, monkeypatch):
    fake_target(monkeypatch, source=source)
    record = profile(small)
    assert record.memory.source == source
    assert len(record.notes) == 1
    assert record.notes[0].startswith(f"memory from {source}: the peak includes")


def test_the_record_tells_the_warm_up_that_was_asked_for(small, monkeypatch):
    fake_target(monkeypatch)
    usual = profile(small)
    assert usual.warm_up == 10
    assert "; after a warm-up of 10 s at most, each " in usual.method
    fake_target(monkeypatch, steady=False)
    (note,) = profile(small, warm_up=0.5).notes
    assert note == "threads 1: not steady after 40 warm-up runs, in 0.5 s at most"
    fake_target(monkeypatch, steady=None, warmup_runs=0)
    none = profile(small, warm_up=0)
    assert none.warm_up == 0
    assert "; without a warm-up but the first inference, each " in none.method
    (note,) = none.notes
    assert note.startswith("threads 1: no warm-up but the first inference, as asked")


def test_a_long_warm_up_is_waited_for(small, monkeypatch):
    waited = []

    def run(self, argv, *, timeout, **_options):
        if "--warm-up" in argv:
            waited.append(timeout)
            raise MissingError("it is gone")
        return told(self, argv, timeout=timeout)

    told = Local.run
    monkeypatch.setattr(Local, "run", run)
    for seconds in (0, 1000):
        with pytest.raises(MissingError, match="gone"):
            profile(small, warm_up=seconds)
    assert waited[1] - waited[0] == 1000


def test_a_quiet_run_has_no_notes(small, monkeypatch):
    fake_target(monkeypatch)
    assert profile(small).notes == []


def test_a_file_changed_in_between_is_refused(small, monkeypatch):
    fake_target(monkeypatch, digest="0" * 64)
    with pytest.raises(BadInputError, match="changed while it was measured"):
        profile(small)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runtime": "lite-rt"}, "unknown runtime 'lite-rt'"),
        ({"on": "hots"}, "did you mean host"),
        ({"threads": (0,)}, "threads are whole numbers"),
        ({"threads": ()}, "threads are whole numbers"),
        ({"threads": (1.5,)}, "threads are whole numbers"),
        ({"min_runs": 0}, "min_runs"),
        ({"min_seconds": -1}, "min_seconds"),
        ({"warm_up": -1}, "warm_up is 0 or more"),
        ({"warm_up": float("inf")}, "warm_up is 0 or more"),
        ({"min_seconds": float("nan")}, "min_seconds"),
    ],
)
def test_wrong_options_say_what_is_expected(small, options, said):
    with pytest.raises(UsageError, match=said):
        profile(small, **options)


def test_a_runtime_that_is_not_installed_is_missing(small, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match="tflite-runtime is not installed here; pip install"):
        profile(small, runtime="tflite-runtime")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(60), b"\x1c\0\0\0TFL3"])
def test_a_damaged_file_is_bad_input(content, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(BadInputError):
        profile(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(MissingError):
        profile(tmp_path / "none.tflite")


def test_a_path_that_looks_like_an_option_is_measured(small, tmp_path, monkeypatch):
    (tmp_path / "--memory.tflite").write_bytes(small.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert profile("--memory.tflite", min_runs=1, min_seconds=0).model == "--memory.tflite"


def test_three_processes_for_two_thread_counts_and_the_memory(small, monkeypatch):
    commands = []
    run = Local.run

    def spy(self, command, **options):
        commands.append(command)
        return run(self, command, **options)

    monkeypatch.setattr(Local, "run", spy)
    profile(small, threads=(2, 1), min_runs=1, min_seconds=0)
    commands = [command for command in commands if "--threads" in command]
    threads = [command[command.index("--threads") + 1] for command in commands]
    assert threads == ["2", "1", "2"]
    assert ["--memory" in command for command in commands] == [False, False, True]


def test_several_models_take_turns(small, tiny, monkeypatch):
    fake_target(monkeypatch)
    order = []
    time_runs = Device.time_runs

    def spy(self, model, setting):
        order.append((model.name, setting.threads))
        return time_runs(self, model, setting)

    monkeypatch.setattr(Device, "time_runs", spy)
    records = profile_all([small, tiny], threads=(1, 2)).records
    names = ["small.tflite", "tiny.tflite"]
    assert order == [(name, count) for _ in range(2) for count in (1, 2) for name in names]
    assert [record.model for record in records] == [str(small), str(tiny)]
    for record in records:
        assert [(run.round, run.threads) for run in record.runs] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_device_that_changed_is_noted(small, monkeypatch):
    fake_target(monkeypatch)
    cold = dict.fromkeys(STATE) | {"temperature_c": 40.0, "frequency_mhz": 2000.0}
    warm = cold | {"temperature_c": 46.0, "frequency_mhz": 1500.0, "throttled": "0x4"}
    states = iter([cold, warm])
    monkeypatch.setattr(Device, "state", lambda _: next(states))
    assert profile(small).notes == [
        "threads 1: the device got warmer, from 40 to 46 degrees",
        "threads 1: the fastest core's clock fell from 2000 to 1500 MHz",
        "threads 1: the Raspberry Pi was short of power or too warm; now: throttled",
    ]


def test_a_rest_ends_when_the_device_is_cool(small, monkeypatch):
    fake_target(monkeypatch)
    states = iter([40.0, 40.0, 50.0, 46.0, 43.0, 42.0, 42.0, 42.0])
    told = []

    def state(_):
        told.append(dict.fromkeys(STATE) | {"temperature_c": next(states)})
        return told[-1]

    monkeypatch.setattr(Device, "state", state)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    profile(small, rounds=2, cool_down=60)
    assert [each["temperature_c"] for each in told] == [40, 40, 50, 46, 43, 42, 42, 42]


@pytest.fixture
def refused(small, tmp_path):
    """A file that is whole, but which no runtime takes."""
    file = tmp_path / "refused.tflite"
    file.write_bytes(small.read_bytes()[:400])
    return file


def test_what_fails_is_told_and_the_others_go_on(small, refused, monkeypatch):
    monkeypatch.setattr(emulated, "QEMU", "qemu-for-nothing")
    events = []
    found = profile_all(
        [refused, small],
        on=["emulated:arm64", "host"],
        min_runs=1,
        min_seconds=0,
        progress=lambda *event: events.append(event),
    )
    assert [(each.target, each.model, each.exit_code) for each in found.failures] == [
        ("emulated:arm64", None, MissingError.exit_code),
        ("host", str(refused), BadInputError.exit_code),
    ]
    assert "apt-get install" in found.failures[0].error
    (record,) = found.records
    assert (record.target, record.model, len(record.runs)) == ("host", str(small), 2)
    assert events[-1] == ("profile", 12, 12)
    assert [done for _, done, _ in events] == sorted(done for _, done, _ in events)


def test_a_model_that_fails_in_its_second_turn_is_left_out(small, tiny, monkeypatch):
    fake_target(monkeypatch)
    time_runs, turns = Device.time_runs, []

    def once(self, model, setting):
        turns.append(model.name)
        if model.name == "tiny.tflite" and turns.count(model.name) == 2:
            raise BadInputError("it crashed\nand left a log")
        return time_runs(self, model, setting)

    monkeypatch.setattr(Device, "time_runs", once)
    found = profile_all([tiny, small], rounds=3)
    assert turns == ["tiny.tflite", "small.tflite"] * 2 + ["small.tflite"]
    assert [record.model for record in found.records] == [str(small)]
    assert [(each.model, each.error) for each in found.failures] == [(str(tiny), "it crashed")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on": ["host", "micro"], "threads": (1, 2)}, "micro has one thread"),
        ({"on": ["host", "browser"], "cpus": "0"}, "leave out cpus"),
        ({"on": ["host", "coral"], "delegate": "gpu"}, "no delegate 'gpu'"),
        ({"on": ["host", "host"], "cpus": "big"}, "none is big"),
        ({"on": ["host", "micro"], "ops": "node"}, "micro does not tell the time of operators"),
        ({"on": ["host", "coral"], "ops": "node"}, "coral does not tell the time of operators"),
        ({"on": ["host", "hots"]}, "did you mean host"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(options, said, small, monkeypatch):
    monkeypatch.setattr(Device, "time_runs", lambda *_: pytest.fail("it was measured"))
    monkeypatch.setattr(Device, "core_mhz", lambda _: {0: 2000.0, 1: 2000.0})
    with pytest.raises(UsageError, match=said):
        profile_all([small, small], **options)


def test_the_command_ends_with_the_code_of_the_first_failure(
    small, refused, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(emulated, "QEMU", "qemu-for-nothing")
    page = tmp_path / "page.html"
    given = ["profile", refused, small, "--on", "host", "emulated:arm64", "--min-seconds", "0"]
    given += ["--min-runs", "1", "--html", page]
    assert cli([*map(str, given)], standalone_mode=False) == MissingError.exit_code
    text = capsys.readouterr().out
    assert f"failed  host, {refused}: ai-edge-litert " in text
    assert re.search(r"^emulated:arm64 +all models +failed$", text, re.MULTILINE)
    assert "<b>emulated:arm64, all models:</b>" in page.read_text()
    given = ["profile", refused, refused, "--json", "--html", tmp_path / "none.html"]
    assert cli([*map(str, given)], standalone_mode=False) == BadInputError.exit_code
    record = json.loads(capsys.readouterr().out)
    assert record["records"] == []
    assert [each["model"] for each in record["failures"]] == [str(refused)] * 2
    assert not (tmp_path / "none.html").exists()


@pytest.mark.parametrize(
    ("on", "error", "said"),
    [("host:there", UsageError, "has no address"), ("hots", UsageError, "did you mean host")],
)
def test_a_wrong_target_says_what_is_meant(on, error, said, small):
    with pytest.raises(error, match=said):
        profile(small, on=on)


@pytest.mark.parametrize(
    ("status", "expected"), [("Discharging", 3.0), ("Charging", None), (None, None)]
)
def test_energy_is_told_of_a_battery_that_is_not_charged(status, expected, small, monkeypatch):
    fake_target(monkeypatch, power_w=3.0)
    state = dict.fromkeys(STATE) | {"battery_status": status}
    monkeypatch.setattr(Device, "state", lambda _: state)
    (run,) = profile(small).runs
    assert (run.power_w, run.energy_mj) == (expected, expected)  # its median is 1 ms
