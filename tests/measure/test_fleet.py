"""A rack of devices: each record is written once, and what fails stops nothing else."""

from __future__ import annotations

import json
import threading

import pytest
import yaml

from kzoo.cli import cli
from kzoo.errors import MissingError, UsageError
from kzoo.measure.profile import profile
from kzoo.runs import fleet as module
from kzoo.runs.fleet import fleet

QUICK = {"warm_up": 0.02, "min_runs": 2, "min_seconds": 0, "rounds": 1}


@pytest.fixture
def models(small, tmp_path):
    """A folder of two models; bytes behind a flatbuffer change its hash, not what it does."""
    (tmp_path / "one.tflite").write_bytes(small.read_bytes())
    (tmp_path / "two.tflite").write_bytes(small.read_bytes() + bytes(16))
    return tmp_path


@pytest.fixture
def rack(models, tmp_path):
    """rack(target, ..., **settings) -> the path of a config of two models."""

    def write(*targets, **settings):
        config = {
            "output": str(tmp_path / "rack"),
            "models": [str(models / "one.tflite"), str(models / "two.tflite")],
            "targets": targets,
            **QUICK,
            **settings,
        }
        (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(config))
        return tmp_path / "fleet.yaml"

    return write


HOST = {"name": "python", "on": "host"}
C = {"name": "c", "on": "host", "runtime": "litert-c", "threads": 2}
GONE = {"name": "gone", "on": "host", "runtime": "litert-x"}


def test_what_has_a_record_is_not_measured_again(rack, models, tmp_path, monkeypatch):
    found = fleet(rack(HOST, C, GONE))
    assert [(each["name"], each["on"], each["model"]) for each in found.failures] == [
        ("gone", "host", None)
    ]
    assert "unknown runtime" in found.failures[0]["error"]
    assert [(each["name"], each["runner"]) for each in found.records] == [
        ("python", "ai-edge-litert"),
        ("python", "ai-edge-litert"),
        ("c", "litert-c"),
        ("c", "litert-c"),
    ]
    assert [run["threads"] for run in found.records[2]["runs"]] == [2]
    assert found.kept == 0
    assert {each["warm_up"] for each in found.records} == {0.02}
    files = sorted((tmp_path / "rack").glob("*/*"))
    assert [str(file.relative_to(tmp_path / "rack")) for file in files] == [
        "c/one.json", "c/two.json", "python/one.json", "python/two.json",
    ]  # fmt: skip
    plain = set(profile(models / "one.tflite", min_runs=2, min_seconds=0).to_dict())
    for file in files:
        assert set(json.loads(file.read_text())) == plain | {"name", "on", "setting"}

    asked = []
    measure = module.profile_all

    def spy(these, **options):
        asked.append((options["threads"], list(these)))
        return measure(these, **options)

    monkeypatch.setattr(module, "profile_all", spy)
    again = fleet(rack(HOST, C))
    assert (asked, again.kept, again.failures) == ([], 4, [])
    assert again.records == found.records
    one, two = (str(models / f"{name}.tflite") for name in ("one", "two"))
    (models / "one.tflite").write_bytes((models / "two.tflite").read_bytes() + bytes(16))
    changed = fleet(rack(HOST, {**C, "threads": [1, 2]}))
    assert sorted(asked) == [([1], [one]), ([1, 2], [one, two])]
    assert (changed.kept, len(changed.records)) == (1, 4)


def test_a_refused_model_stops_no_other(rack, models, tmp_path):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes((models / "one.tflite").read_bytes()[:400])
    found = fleet(rack(HOST, models=[str(bad), str(models / "two.tflite")]))
    assert [each["model"] for each in found.failures] == [str(bad)]
    assert [each["model"] for each in found.records] == [str(models / "two.tflite")]


def test_devices_go_at_the_same_time_and_this_machine_s_in_turns(rack, monkeypatch):
    together, alone = threading.Barrier(2, timeout=20), threading.Lock()

    def measure(_, on, **_options):
        if on[0].startswith("ssh:"):
            together.wait()
        else:
            assert alone.acquire(blocking=False)
            threading.Event().wait(0.05)
            alone.release()
        raise MissingError(f"{on[0]} is not there")

    monkeypatch.setattr(module, "profile_all", measure)
    here = [
        {"name": f"here{i}", "on": on}
        for i, on in enumerate(("host", "host", "micro", "emulated:arm64", "host:python3"))
    ]
    there = [{"name": "a", "on": "ssh:a"}, {"name": "b", "on": "ssh:b"}]
    events = []
    found = fleet(rack(*here, *there), progress=lambda *event: events.append(event))
    assert {each["name"] for each in found.failures} == {each["name"] for each in here + there}
    assert all(each["error"] == f"{each['on']} is not there" for each in found.failures)
    assert [event[1:] for event in events] == [(2 * i, 14) for i in range(8)]


@pytest.mark.parametrize("stick", ["coral+ssh:pi@a", "coral:usb:0+ssh:pi@a", "ssh:root@a"])
def test_targets_on_one_machine_go_in_turns(stick, rack, monkeypatch):
    running = threading.Lock()

    def measure(_, **_options):
        assert running.acquire(blocking=False)
        threading.Event().wait(0.05)
        running.release()
        raise MissingError("not there")

    monkeypatch.setattr(module, "profile_all", measure)
    targets = [{"name": "cpu", "on": "ssh:pi@a"}, {"name": "tpu", "on": stick}]
    assert len(fleet(rack(*targets)).failures) == 2


def test_an_interrupt_ends_the_devices_that_wait(rack, monkeypatch):
    def interrupted(*_event):
        raise KeyboardInterrupt

    begun = []

    def measure(_, on, progress, **_options):
        begun.append(on)
        if on == ["ssh:a"]:
            raise MissingError("its failure is told, and the user presses Ctrl-C then")
        while True:
            progress("profile", 0, 1)

    monkeypatch.setattr(module, "profile_all", measure)
    targets = [{"name": name, "on": f"ssh:{name}"} for name in ("a", "b")]
    targets.append({"name": "after", "on": "ssh:b"})
    calls = iter([None])
    with pytest.raises(KeyboardInterrupt):
        fleet(rack(*targets), progress=lambda *event: next(calls, None) or interrupted(event))
    assert ["ssh:after"] not in begun


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": []}, "targets: .*at least 1 item"),
        ({"models": []}, "models: .*at least 1 item"),
        ({"min_run": 1}, r"unknown key 'min_run'; did you mean min_runs"),
        ({"targets": [{**HOST, "thread": 1}]}, r"'targets\.0\.thread'; did you mean threads"),
        ({"targets": [{"name": "x"}]}, r"targets\.0\.on is missing"),
        ({"targets": [HOST, {**HOST}]}, "two targets of the name 'python'"),
        ({"targets": [{"name": "../x", "on": "host"}]}, "it names a folder"),
        ({"targets": [{"name": "x", "on": "hots"}]}, "unknown target .hots.*did you mean host"),
        ({"targets": [{"name": "x", "on": "adb"}]}, "name the serial number too"),
        ({"targets": [{**HOST, "threads": []}]}, "threads: .*at least 1 item"),
        ({"targets": [{**HOST, "threads": [0]}]}, "threads.*greater than 0"),
        ({"output": __file__}, "is a file, or in one; a folder is expected"),
        ({"models": ["a/m.tflite", "b/m.tflite"]}, "two models of the file name 'm'"),
    ],
)
def test_a_wrong_file_says_what_is_expected(changes, said, rack):
    with pytest.raises(UsageError, match=said):
        fleet(rack(HOST, **changes))


def test_the_key_on_is_a_name_though_yaml_takes_it_for_true(rack):
    path = rack(GONE)
    path.write_text(path.read_text().replace("'on':", "on:"))
    assert "on: host" in path.read_text()
    assert fleet(path).failures[0]["on"] == "host"


def test_the_command_ends_with_3_where_a_device_failed(rack, capsys):
    path = str(rack(HOST, GONE))
    assert cli(["profile", "--fleet", path], standalone_mode=False) == 3
    text = capsys.readouterr().out
    assert text.splitlines()[0].split()[:2] == ["target", "model"]
    assert "failed  gone, all models: unknown runtime 'litert-x'" in text
    assert not cli(["profile", "--fleet", str(rack(HOST)), "--json"], standalone_mode=False)
    record = json.loads(capsys.readouterr().out)
    assert (record["kept"], len(record["records"]), record["failures"]) == (2, 2, [])
