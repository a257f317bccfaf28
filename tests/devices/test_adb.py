"""The real adb against an emulated phone."""

import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest
from click.testing import CliRunner

import kzoo
from kzoo.cli import cli
from kzoo.environment import BYTE_DOT
from kzoo.errors import MissingError, UsageError
from kzoo.measure import c_runner
from kzoo.measure.profile import profile
from kzoo.measure.target import Setting, open_target
from kzoo.measure.targets import adb
from kzoo.measure.targets.device import TimedOut
from kzoo.measure.targets.emulated import QEMU

QUICK = Setting(min_runs=3, min_seconds=0)
KZOO = "data/local/tmp/kzoo"


@pytest.fixture
def phone(phones):
    return phones()


@pytest.fixture
def open_phone(phone):
    """A connection's transport."""
    with open_target(f"adb:{phone.serial}") as device:
        yield device.transport


def left(phone) -> list[str]:
    """The files that are there, below kzoo's folder."""
    folder = phone.root / KZOO
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def processes(text: str) -> list[str]:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if text in line and "adb" not in line]


@pytest.fixture
def two_files(tmp_path):
    """A program and a library, small: what is tested is how they get there."""
    parts = {"runner": tmp_path / "runner", "libLiteRt.so": tmp_path / "library"}
    parts["runner"].write_text("#!/bin/sh\necho ran\n")
    parts["libLiteRt.so"].write_bytes(bytes(range(256)) * 2000)
    return parts


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 126, 255])
def test_exit_codes_come_through(code, open_phone):
    ended = open_phone.run(["sh", "-c", f"echo out; echo err >&2; exit {code}"], timeout=20)
    assert (ended.returncode, ended.stdout, ended.stderr.strip()) == (code, b"out\n", "err")


@pytest.mark.parametrize("number", [6, 9, 11])
def test_signals_come_through(number, open_phone):
    assert open_phone.run(["sh", "-c", f"kill -{number} $$"], timeout=20).returncode == -number


def test_words_reach_the_program_as_they_are(open_phone):
    words = ["a b", "it's", '"', "$HOME", "`id`", "\\", "*", "", "a\nb", ";exit 9", "é"]
    ended = open_phone.run(["printf", "%s|", *words], timeout=20)
    assert ended.stdout.decode() == "".join(f"{word}|" for word in words)


def test_the_environment_reaches_the_program(open_phone):
    ended = open_phone.run(["sh", "-c", 'echo "$A"'], timeout=20, environ={"A": "b 'c'"})
    assert ended.stdout == b"b 'c'\n"


def test_a_program_that_hangs_is_stopped_there(phone, open_phone, float_file):
    there = open_phone.put(float_file)
    with pytest.raises(TimedOut):
        open_phone.run(["sleep", "61.25"], timeout=1)
    assert gone("sleep 61.25")
    assert soon(lambda: not left(phone))
    assert open_phone.put(float_file) == there  # the connection is as good as new
    assert open_phone.run(["cat", there], timeout=20).stdout == float_file.read_bytes()


def gone(program: str) -> bool:
    return soon(lambda: not processes(program))


def soon(question) -> bool:
    until = time.monotonic() + 20
    while not question() and time.monotonic() < until:
        time.sleep(0.05)
    return question()


def test_a_file_is_copied_once_whatever_its_name(phone, open_phone, float_file, tmp_path):
    there = open_phone.put(float_file)
    assert (phone.root / there[1:]).read_bytes() == float_file.read_bytes()
    copied = len(phone.commands)
    same = shutil.copy(float_file, tmp_path / "-same size")
    assert open_phone.put(same) == there
    assert len(phone.commands) == copied
    open_phone.close()
    assert left(phone) == []
    assert not (phone.root / KZOO).exists()


def test_outputs_come_back_byte_by_byte(open_phone, tmp_path):
    content = bytes(range(256)) * 1000 + b"\r\n\r\n"
    file = tmp_path / "all bytes"
    file.write_bytes(content)
    there, out = open_phone.put(file), open_phone.scratch("out")
    assert open_phone.run(["cp", there, out], timeout=20).returncode == 0
    assert open_phone.get(out) == content
    with pytest.raises(MissingError, match="No such file"):
        open_phone.get(out)


def test_libraries_stay_and_a_stale_one_of_the_same_size_is_replaced(phone, phones, two_files):
    assert phones  # adb's variables
    libraries = []
    for _ in range(3):
        with open_target("adb") as device:
            folder = device.transport.put_together(two_files)
            assert device.transport.run([f"{folder}/runner"], timeout=20).stdout == b"ran\n"
        libraries.append(phone.root / folder[1:] / "libLiteRt.so")
        content = libraries[-1].read_bytes()
        assert content == two_files["libLiteRt.so"].read_bytes()
        if len(libraries) == 2:
            libraries[-1].write_bytes(b"x" + content[1:])
    assert len(set(libraries)) == 1
    assert {name.partition("/")[2] for name in left(phone)} == {"", "runner", "libLiteRt.so"}


def test_a_cable_pulled_in_a_copy_leaves_nothing_to_be_taken_for_whole(phone, two_files):
    phone.breaks_at = "push"
    disconnected = pytest.raises(MissingError, match="was disconnected while copying runner")
    with disconnected, open_target("adb") as device:
        device.transport.put_together(two_files)
    assert not [name for name in left(phone) if name.endswith(("runner", "libLiteRt.so"))]
    plug_in(phone)
    with open_target("adb") as device:
        folder = device.transport.put_together(two_files)
        assert device.transport.run([f"{folder}/runner"], timeout=20).stdout == b"ran\n"


def plug_in(phone) -> None:
    phone.gone, phone.breaks_at = False, None
    subprocess.run(["adb", "disconnect", phone.serial], capture_output=True, check=False)
    subprocess.run(["adb", "connect", phone.serial], capture_output=True, check=True)


def test_a_cable_pulled_in_a_run_is_told_and_the_program_ends(phone, open_phone):
    phone.breaks_at = "61.75"
    with pytest.raises(MissingError, match="disconnected in mid-run; plug it in again"):
        open_phone.run(["sleep", "61.75"], timeout=30)
    assert gone("sleep 61.75")
    assert soon(lambda: not left(phone))


def test_what_a_phone_that_was_switched_off_has_kept_goes_after_a_day(phone):
    for name, days in (("run-old", 2), ("run-new", 0)):
        folder = phone.root / KZOO / name
        folder.mkdir(parents=True)
        (folder / "model").write_bytes(b"x")
        when = time.time() - days * 86400
        os.utime(folder, (when, when))
    with open_target("adb"):
        pass
    assert left(phone) == ["run-new", "run-new/model"]


def test_a_full_phone(phone, open_phone, float_file):
    phone.full = True
    with pytest.raises(MissingError, match=r"is full: copying .* failed; free some space there"):
        open_phone.put(float_file)
    with pytest.raises(MissingError, match=r"is full: making .* failed"), open_target("adb"):
        pass
    assert [name for name in left(phone) if "/" in name] == []


def test_inputs_of_a_data_set_do_not_pile_up(phone, float_file):
    pieces = [np.full((1, 64, 64, 3), value, np.float32).tobytes() for value in (1, 2, 1)]
    with open_target("adb") as device:
        answers = [device.outputs(float_file, raw, QUICK)["outputs"] for raw in pieces]
        files = [each for each in (phone.root / KZOO).rglob("*") if each.is_file()]
        assert not [each for each in files if each.stat().st_size == len(pieces[0])]
    assert answers[0] == answers[2] != answers[1]


def test_outputs_on_a_full_phone(phone, float_file):
    """The program's own writes fail, by the kernel's device for that."""
    with open_target("adb") as device:
        raw = np.zeros((1, 64, 64, 3), np.float32).tobytes()
        scratch = device.transport.scratch

        def full(name: str) -> str:
            (phone.root / scratch(name)[1:]).symlink_to("/dev/full")
            return scratch(name)

        device.transport.scratch = full
        with pytest.raises(MissingError, match="No space left on device"):
            device.outputs(float_file, raw, QUICK)


def test_no_phone_several_phones_and_wrong_names(phones):
    one = phones()
    two = phones()
    with pytest.raises(UsageError, match="2 phones are attached; name one: adb:127"):
        adb.connect()
    with pytest.raises(UsageError, match=f"attached: .*did you mean .*{one.serial}"):
        adb.connect(one.serial[:-1])
    with open_target(f"adb:{two.serial}") as device:
        assert device.name == f"adb:{two.serial}"
    subprocess.run(["adb", "disconnect"], capture_output=True, check=True)
    with pytest.raises(MissingError, match="no phone is attached; plug one in"):
        adb.connect()


def test_the_users_own_choice_of_a_phone_holds(phones, monkeypatch):
    phones()
    two = phones()
    monkeypatch.setenv("ANDROID_SERIAL", two.serial)
    with open_target("adb") as device:
        assert device.name == f"adb:{two.serial}"


def test_an_unauthorized_phone(phones):
    phones(authorized=False)
    with pytest.raises(MissingError, match="is unauthorized: unlock it and tap Allow"):
        adb.connect()


def test_a_phone_that_is_offline(phone):
    phone.unplug()
    assert soon(lambda: not [each for each in adb.attached() if each.state == "device"])
    with pytest.raises(MissingError, match=r"is offline: unplug it|no phone is attached"):
        adb.connect()


def test_a_phone_that_is_too_old(phones):
    phones(features="cmd")
    with pytest.raises(MissingError, match="too old: it has no shell_v2; Android 7 or newer"):
        adb.connect()


def test_no_runner_for_its_processor(phones, float_file):
    phones(abi="armeabi-v7a")
    with open_target("adb") as device, pytest.raises(MissingError, match="is armeabi-v7a, for"):
        device.time_runs(float_file, QUICK)


def test_adb_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="adb is not installed; apt-get install adb"):
        adb.connect()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("no permissions (user in no group; see [http://x/tools])", "this user may not open"),
        ("offline", "unplug it and plug it in again"),
        ("recovery", "it is in recovery"),
    ],
)
def test_states_that_only_a_cable_has(state, said, monkeypatch, tmp_path):
    """As `adb devices -l` prints them; on the loopback they do not come about."""
    script = tmp_path / "adb"
    line = f"HT7A1     {state} usb:1-1 transport_id:2"
    script.write_text(f"#!/bin/sh\necho 'List of devices attached'; echo '{line}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MissingError, match=f"adb:HT7A1 is .*{said}"):
        adb.connect()


def test_a_phone_has_no_python(phone, float_file):
    assert phone
    with pytest.raises(UsageError, match="has no runtime 'tensorflow'; it has litert-c"):
        profile(float_file, on="adb", runtime="tensorflow")


def test_a_profile(phone, float_file):
    """All of it: the record of the host, and what only a phone tells."""
    options = ["--on", f"adb:{phone.serial}", "--cpus", "big", "--min-seconds", "0.1", "--json"]
    said = CliRunner().invoke(cli, ["profile", str(float_file), *options])
    assert said.exit_code == 0, said.output
    record = json.loads(said.stdout)
    assert (record["kind"], record["runner"]) == ("emulated", "litert-c")
    assert record["target"] == f"adb:{phone.serial}"
    assert record["device"]["model"] == "Zoo Emulated Phone"
    assert record["device"]["processor"] == "Zoo Z1"
    assert record["device"]["system"].startswith("Android 15")
    (run,) = record["runs"]
    assert len(run["samples_ms"]) >= 100
    for state in (run["state_before"], run["state_after"]):
        assert (state["temperature_c"], state["thermal_status"]) == (41.5, 0)
        assert (state["battery_percent"], state["battery_status"]) == (76, "Charging")
        assert (state["governor"], state["frequency_mhz"]) == ("schedutil", 1400)
    assert record["memory"]["peak_bytes"] > record["memory"]["baseline_bytes"]
    here = profile(float_file, runtime="litert-c", min_runs=1, min_seconds=0).to_dict()
    assert here["model_sha256"] == record["model_sha256"]
    assert here["outputs"] == record["outputs"]
    assert {name.partition("/")[2] for name in left(phone)} >= {"runner", "libLiteRt.so"}
    assert not [name for name in left(phone) if name.startswith("run-")]


@pytest.mark.parametrize("name", [*adb.EMULATED, "ro.debuggable"])
def test_an_emulator_is_known_by_any_of_its_properties(name, phones):
    phone = phones(**{"ro.kernel.qemu": "", name: "1"})
    with open_target(f"adb:{phone.serial}") as device:
        assert device.kind == ("emulated" if name in adb.EMULATED else "measured")


def test_what_changed_on_the_phone_is_noted(phone, float_file, monkeypatch):
    states = iter([(76, 0), (75, 2)])
    told = adb.Phone.run

    def run(self, argv, **options):
        if argv[0] == "sh":
            level, thermal = next(states, (75, 2))
            phone.battery(level=level, thermal=thermal, status=3 if thermal else 2)
        return told(self, argv, **options)

    with open_target("adb") as device:
        device.machine()
    monkeypatch.setattr(adb.Phone, "run", run)
    notes = profile(float_file, on="adb", min_runs=3, min_seconds=0).notes
    assert "threads 1: thermal_status changed from 0 to 2" in notes
    assert "threads 1: battery_status changed from Charging to Discharging" in notes


def test_devices_lists_usable_and_unusable_ones(phones):
    settings = ({}, {"abi": "armeabi-v7a"}, {"authorized": False}, {"features": "cmd"})
    names = [f"adb:{phones(**each).serial}" for each in settings]
    record = kzoo.devices().to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["devices"][0]["target"] == "host"
    found = {each["target"]: each for each in record["devices"]}
    host, phone, old, locked, ancient = (found[name] for name in ("host", *names))
    assert host["usable"]
    assert "litert-c" in host["runtimes"]
    assert (phone["usable"], phone["kind"], phone["runtimes"]) == (True, "emulated", ["litert-c"])
    assert set(phone["machine"]["core_mhz"].values()) <= {1800.0, 2800.0}
    assert phone["state"]["battery_percent"] == 76
    assert (old["usable"], old["machine"]["model"]) == (False, "Zoo Emulated Phone")
    assert old["trouble"].endswith("this device is armeabi-v7a")
    assert (locked["usable"], locked["machine"]) == (False, None)
    assert locked["trouble"].startswith("unauthorized: unlock it")
    assert ancient["trouble"].startswith("too old: it has no shell_v2")
    said = CliRunner().invoke(cli, ["devices"]).stdout
    assert "1 x 1800, 1 x 2800 MHz" in said or host["machine"]["cores"] != 2
    assert "tap Allow" in said


def test_devices_lists_no_runner_that_cannot_be_built(phones, monkeypatch):
    phone = phones(abi="arm64-v8a")
    monkeypatch.setattr(c_runner.importlib.util, "find_spec", lambda _: None)  # no zig
    (found,) = [each for each in kzoo.devices().devices if each.target == f"adb:{phone.serial}"]
    assert (found.usable, found.runtimes) == (False, [])
    assert "is built by zig" in found.trouble


def test_devices_without_adb_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    record = kzoo.devices()
    assert [each.target for each in record.devices][:1] == ["host"]
    assert record.notes[0].startswith("no phones were looked for: adb is not installed")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(QEMU), reason="needs qemu; apt-get install qemu-user-static")
@pytest.mark.parametrize("name", ["pretrainedResnet_quant.tflite", "vww_96_float.tflite"])
def test_arm64_computes_what_x86_64_does(name, phones, shared):
    """int8 bit for bit, float32 within 1e-6."""
    file = shared / "mlperf-tiny" / name
    try:
        c_runner.files("aarch64", loader=True)
    except MissingError as error:  # no zig, or no network to fetch the libraries from
        pytest.skip(str(error))
    phone = phones(abi="arm64-v8a")
    answers = {}
    for target in ("host", "adb"):
        with open_target(target) as device:
            setting = Setting(runtime="litert-c", min_runs=1, min_seconds=0)
            (described,) = device.time_runs(file, setting)["inputs"]
            pixels = np.random.default_rng(0).integers(0, 255, (3, *described["shape"]))
            raw = pixels.astype(described["dtype"]).tobytes()
            answers[target] = device.outputs(file, raw, setting) | device.machine()
    here, there = answers["host"], answers["adb"]
    assert (there["architecture"], there["simd"]) == ("aarch64", ["asimd"])
    assert not {*there["simd"]} & {*BYTE_DOT}
    assert here["model_sha256"] == there["model_sha256"]
    if described["dtype"] == "int8":
        assert here["outputs"] == there["outputs"]
    else:
        floats = [np.frombuffer(each["outputs"], np.float32) for each in (here, there)]
        np.testing.assert_allclose(*floats, rtol=0, atol=1e-6)
    assert not [each for each in left(phone) if each.startswith("run-")]
