"""The system's ssh against a server on the loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kzoo.errors import MissingError, UsageError
from kzoo.files import sha256
from kzoo.measure.benchmark_model import VARIABLE
from kzoo.measure.profile import profile
from kzoo.measure.runners import CRunner, PythonRunner
from kzoo.measure.runtimes import C_RUNTIME
from kzoo.measure.target import Setting
from kzoo.measure.targets import ssh
from kzoo.measure.targets.device import TimedOut
from tests.devices import ssh_host
from tests.measure.test_benchmark_model import CLASSIC

pytestmark = [
    pytest.mark.skipif(not shutil.which("ssh"), reason="needs ssh: apt-get install openssh-client"),
    pytest.mark.skipif(
        not importlib.util.find_spec("asyncssh"), reason="needs asyncssh: pip install 'kzoo[test]'"
    ),
]
FULL = "exec cat > /dev/full"
"""A tar whose disk is full."""


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The server; each test gets it as it was by `host`."""
    host = ssh_host.start(tmp_path_factory.mktemp("a host's folder"))
    yield host
    host.stop()


@pytest.fixture
def host(started, monkeypatch):
    monkeypatch.setenv("PATH", started.path)
    config, known = started.config.read_text(), (started.folder / "known_hosts").read_text()
    yield started
    started.config.write_text(config)
    (started.folder / "known_hosts").write_text(known)
    (started.home / ".bashrc").unlink(missing_ok=True)
    for program in started.programs.iterdir():
        program.unlink()
    assert left(started) == ([], [])


@pytest.fixture
def board(host):
    """A connection."""
    assert host
    device = ssh.connect("board")
    yield device.transport
    device.close()


def left(host: ssh_host.Host, seconds: float = 5) -> tuple[list, list]:
    """Files and processes of kzoo there, once they had some time to go."""
    until = time.monotonic() + seconds
    while True:
        found = list(host.temporary.iterdir()), running(host)
        if found == ([], []) or time.monotonic() > until:
            return found
        time.sleep(0.05)


def running(host: ssh_host.Host) -> list[bytes]:
    """The arguments of the programs there that have to do with kzoo's folder."""
    commands = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            commands.append(each.read_bytes())
    return [command for command in commands if bytes(host.temporary) in command]


@pytest.mark.parametrize(("runtime", "runner"), [(None, "ai-edge-litert"), (C_RUNTIME, C_RUNTIME)])
def test_a_profile_there(runtime, runner, small, host):
    record = profile(small, on="ssh:board", runtime=runtime, min_runs=70, min_seconds=0)
    assert (record.target, record.kind, record.runner) == ("ssh:board", "measured", runner)
    assert record.model_sha256 == sha256(small)
    assert record.runs[0].latency.valid
    assert record.memory.peak_bytes > record.memory.baseline_bytes > 0
    assert record.device["cores"] >= 1
    assert left(host) == ([], [])


def test_outputs_come_back_as_bytes(small, host):
    device = ssh.connect("board")
    raw = bytes(range(256)) * 3 * 2  # two images of 16 x 16 x 3
    answer, again = (
        device.outputs(small, raw, Setting(runtime="ai-edge-litert")) for _ in range(2)
    )
    sent = [each for each in host.temporary.rglob("*") if each.is_file()]
    assert raw not in [each.read_bytes() for each in sent]  # a data set's pieces do not pile up
    device.close()
    assert answer == again
    assert answer["images"] == 2
    signed = [value - 256 if value > 127 else value for value in raw]
    assert answer["outputs"] == bytes(min(value + 1, 127) & 255 for value in signed)
    assert left(host) == ([], [])


@pytest.mark.parametrize("code", [0, 1, 4, 127, 128, 255])
def test_an_exit_code_comes_through(code, board):
    assert board.run(["sh", "-c", f"exit {code}"], timeout=9).returncode == code


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_signal_comes_through(name, board):
    ended = board.run(["sh", "-c", f"kill -{name[3:]} $$"], timeout=9)
    assert ended.returncode == -getattr(signal, name)


def test_words_and_bytes_arrive_as_they_are(board):
    words = ["a b", "it's", '"$HOME"', "`id`", "", "*", "\\n", "ü\n!"]
    ended = board.run(["printf", r"%s\0", *words], timeout=9, environ={"A": "b 'c'"})
    assert ended.stdout == b"".join(word.encode() + b"\0" for word in words)
    assert board.run(["sh", "-c", 'echo "$A" >&2'], timeout=9, environ={"A": "b 'c'"}) == (
        ssh.Ended(0, b"", "b 'c'\n")
    )
    there = board.scratch("an output")
    every = "".join(rf"\{value:03o}" for value in range(256))
    board.run(["sh", "-c", f"printf '{every}' > \"$1\"", "sh", there], timeout=9)
    assert board.get(there) == bytes(range(256))
    with pytest.raises(MissingError, match="No such file"):
        board.get(there)


def test_a_program_has_no_input(board):
    assert board.run(["cat"], timeout=9) == ssh.Ended(0, b"", "")


def test_what_start_up_files_print_is_no_output(host):
    (host.home / ".bashrc").write_text("echo welcome; echo ready; echo =; echo warning >&2\n")
    device = ssh.connect("board")
    assert device.transport.run(["echo", "this"], timeout=9).stdout == b"this\n"
    device.close()


def test_a_file_is_copied_when_its_bytes_are_new(board, tmp_path):
    file = tmp_path / 'it\'s a "model" $HOME.tflite'
    places = []
    for content in (b"one", b"one", b"two"):  # of one size, at one time
        file.write_bytes(content)
        os.utime(file, (0, 0))
        places.append(board.put(file))
        assert Path(places[-1]).read_bytes() == content
    assert places[0] == places[1] != places[2]
    assert places[0].endswith(".tflite")


def test_files_put_together_keep_their_names_and_may_be_run(board, tmp_path):
    (tmp_path / "a").write_text('#!/bin/sh\ncat "${0%/*}/lib b.so.1"')
    (tmp_path / "b").write_bytes(bytes(1 << 20))
    folder = board.put_together({"runner": tmp_path / "a", "lib b.so.1": tmp_path / "b"})
    assert board.run([f"{folder}/runner"], timeout=9).stdout == bytes(1 << 20)


def test_a_copy_that_is_damaged_is_not_used(host, board, small):
    tar = shutil.which("tar")
    host.program("tar", f'{tar} "$@"; for file in "$4"/*/file*; do echo >> "$file"; done')
    with pytest.raises(MissingError, match="not the same there"):
        board.put(small)


def test_a_program_that_is_late_is_stopped_with_its_children(host, board):
    script = 'sh -c "sleep 60; exit" "$1" & sleep 61; exit'
    with pytest.raises(TimedOut):
        board.run(["sh", "-c", script, "sh", board.scratch("x")], timeout=0.5)
    assert running(host) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_nothing_stays_there_when_this_process_ends(name, small, host):
    command = [sys.executable, "-m", "kzoo", "profile", small, "--on", "ssh:board"]
    process = subprocess.Popen(
        [*command, "--min-seconds", "60"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not any(b"--min-runs" in each for each in running(host)):
        time.sleep(0.05)
    os.killpg(process.pid, getattr(signal, name))
    said = process.communicate(timeout=20)[1]
    assert process.returncode != 0
    assert "Traceback" not in said
    assert left(host) == ([], [])


@pytest.mark.usefixtures("host")
def test_ctrl_c_ends_while_it_connects(small):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"ssh:board:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "kzoo", "profile", small, "--on", target],
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.accept()
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate(timeout=9)[1]


def test_a_connection_that_is_lost_is_told(tmp_path, monkeypatch):
    host = ssh_host.start(tmp_path)
    monkeypatch.setenv("PATH", host.path)
    device = ssh.connect("board")
    threading.Timer(0.5, host.stop).start()
    with pytest.raises(MissingError, match="ssh:board: the connection was lost"):
        device.transport.run(["sleep", "20"], timeout=30)
    with pytest.raises(MissingError, match="the connection was lost"):
        device.state()
    device.close()
    assert left(host) == ([], [])


def test_a_full_disk_is_told(host, small):
    host.program("tar", FULL)
    with pytest.raises(MissingError, match="ssh:board has no space left in"):
        profile(small, on="ssh:board")


def test_a_full_disk_is_told_of_a_large_file(host, tmp_path, board):
    (tmp_path / "large").write_bytes(bytes(4 << 20))
    host.program("tar", FULL)
    with pytest.raises(MissingError, match="no space left in"):
        board.put(tmp_path / "large")


def test_no_folder_to_write_in_is_told(host):
    host.program("mktemp", 'echo "mktemp: No space left on device" >&2; exit 1')
    with pytest.raises(MissingError, match=r"no folder .* \(mktemp: No space left on device\)"):
        ssh.connect("board")


def test_a_folder_where_nothing_may_be_started_is_not_taken(host):
    """As /tmp mounted noexec: what is made there loses its right to run."""
    chmod = shutil.which("chmod")
    host.program("chmod", f'case "$2" in "{host.temporary}"/*) ;; *) {chmod} "$@" ;; esac')
    device = ssh.connect("board")
    folder = Path(device.transport.scratch("x")).parent
    assert folder.is_dir()
    assert folder.parent != host.temporary
    assert left(host, 0)[0] == []
    device.close()
    assert not folder.exists()


def test_no_tar_is_told(host, board, small):
    host.program("tar", "echo tar: not found >&2; exit 127")
    with pytest.raises(MissingError, match="has no tar"):
        board.put(small)


def test_no_shell_is_told(host):
    (host.home / ".bashrc").write_text("echo This account is not available. >&2; exit 1\n")
    with pytest.raises(MissingError, match=r"gives no shell: This account is not available\."):
        ssh.connect("board")


def test_no_ssh_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="apt-get install openssh-client"):
        ssh.connect("board")


@pytest.mark.usefixtures("host")
def test_a_name_of_no_machine_is_told():
    with pytest.raises(MissingError, match="no machine of this name"):
        ssh.connect("nobody@nowhere.invalid")


@pytest.mark.usefixtures("host")
def test_a_port_without_a_server_is_told():
    with pytest.raises(MissingError, match="no SSH server at this port"):
        ssh.connect("board:1")


@pytest.mark.usefixtures("host")
def test_no_answer_is_told(monkeypatch):
    options = [each for each in ssh.OPTIONS if not each.startswith("ConnectTimeout")]
    monkeypatch.setattr(ssh, "OPTIONS", [*options, "ConnectTimeout=1"])
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(MissingError, match="no answer"),
    ):
        ssh.connect(f"board:{silent.getsockname()[1]}")


def test_a_key_that_is_not_let_in_is_told(host, tmp_path):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True
    )
    config = host.config.read_text()
    host.config.write_text(config.replace(str(host.folder / "key"), str(tmp_path / "other")))
    with pytest.raises(MissingError, match="ssh-copy-id board"):
        ssh.connect("board")


def test_a_host_key_that_changed_is_told(host, tmp_path):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True
    )
    key = (tmp_path / "other.pub").read_text()
    (host.folder / "known_hosts").write_text(f"[127.0.0.1]:{host.port} {key}")
    with pytest.raises(MissingError, match="ssh-keygen -R"):
        ssh.connect("board")


def test_a_host_that_is_new_is_told(host):
    (host.folder / "known_hosts").write_text("")
    with pytest.raises(MissingError, match="type ssh board once"):
        ssh.connect("board")


def test_a_configuration_that_is_wrong_is_told(host):
    host.config.write_text("Speed high\n" + host.config.read_text())
    with pytest.raises(MissingError, match="its own configuration"):
        ssh.connect("board")


@pytest.mark.parametrize("where", ["", "-oProxyCommand=id", "a@-b", "a b:c@d@e", "pi@", "h:ssh"])
def test_a_name_that_is_none_is_wrong_use(where):
    with pytest.raises(UsageError, match="ssh:USER@HOST"):
        ssh.connect(where)


@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("pi", ["pi"]),
        ("pi@raspberrypi.local", ["pi@raspberrypi.local"]),
        ("pi@10.0.0.2:2222", ["-p", "2222", "pi@10.0.0.2"]),
        ("pi@[fe80::1%eth0]:22", ["-p", "22", "pi@fe80::1%eth0"]),
        ("fe80::1", ["fe80::1"]),
    ],
)
def test_an_address_is_what_ssh_takes(where, arguments):
    assert ssh.address(where) == arguments


def test_the_runner_is_what_the_machine_can_run(board):
    asked = {None: Setting(), C_RUNTIME: Setting(runtime=C_RUNTIME)}
    board.pythons = {"python3": [], "/a/bin/python3": ["tflite-runtime"]}
    assert board.runner_for(asked[None]) == PythonRunner("tflite-runtime", "/a/bin/python3")
    with pytest.raises(MissingError, match=r"has no Python with NumPy and tensorflow \(looked at"):
        board.runner_for(Setting(runtime="tensorflow"))
    board.pythons = {}
    assert board.runner_for(asked[None]) == CRunner(loader=False)
    board.abi, board.glibc = "aarch64", (2, 31)
    assert board.runner_for(asked[C_RUNTIME]) == CRunner(loader=True)
    board.abi = "armv7l"
    with pytest.raises(MissingError, match="no runner for other processors"):
        board.runner_for(asked[None])
    with pytest.raises(MissingError, match="no Edge TPU"):
        board.runner_for(Setting(delegate="edgetpu"))


def test_google_s_own_program_is_taken_along(host, small, tmp_path, monkeypatch):
    program = tmp_path / "benchmark_model"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{CLASSIC}END\n")
    monkeypatch.setenv(VARIABLE, str(program))
    record = profile(small, on="ssh:board", runtime="benchmark_model")
    assert (record.runner, record.runs[0].latency.p50_ms) == ("benchmark_model", 56.251)
    assert left(host) == ([], [])


def test_a_python_that_prints_more_than_it_is_asked(host):
    folder = host.home / "noisy" / "bin"
    folder.mkdir(parents=True)
    (folder.parent / "pyvenv.cfg").touch()
    (folder / "python3").write_text("#!/bin/sh\necho welcome; echo '[\"tensorflow\"]'\n")
    (folder / "python3").chmod(0o755)
    device = ssh.connect("board")
    device.close()
    assert device.transport.pythons[str(folder / "python3")] == ["tensorflow"]
    shutil.rmtree(folder.parent)


def test_environments_in_the_home_are_found_by_their_python(host):
    for folder, marked in (("tflite", True), ("other", False), (".venv", True)):
        (host.home / folder / "bin").mkdir(parents=True)
        (host.home / folder / "bin" / "python3").symlink_to(sys.executable)
        if marked:
            (host.home / folder / "pyvenv.cfg").touch()
    device = ssh.connect("board")
    device.close()
    found = {Path(python).parent.parent.name for python in device.transport.pythons}
    assert {"tflite", ".venv"} <= found
    assert "other" not in found
    for folder in ("tflite", "other", ".venv"):
        shutil.rmtree(host.home / folder)


def test_a_raspberry_pi_s_flags_are_told_in_words(host, small):
    host.program("vcgencmd", "echo throttled=0x50005")
    notes = profile(small, on="ssh:board", min_runs=64, min_seconds=0).notes
    (note,) = [note for note in notes if "under-voltage" in note]
    assert "now: under-voltage, throttled" in note
    assert "since it was started: under-voltage, throttled" in note
