"""A child process may crash, hang, print and spawn; the parent lives, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kzoo import child, errors
from kzoo.child import ChildCrashed, Worker, blame, call
from kzoo.errors import BadInputError, KzooError, MissingError
from kzoo.files import atomic

FUNCTIONS = """
import os, signal, subprocess, sys, time
from kzoo import errors

def same(value):
    return value

def folder():
    return os.getcwd()

def origins():
    import json, numpy, kzoo
    return [json.__file__, numpy.__file__, kzoo.__file__]

def count(progress, to):
    for i in range(to):
        progress("count", i + 1, to)
    return to

def pid():
    return os.getpid()

def fail(kind, message):
    raise getattr(errors, kind)(message)

def bug():
    print("the last words")
    raise RuntimeError("a bug")

def die(number):
    sys.stderr.write("before the end\\n")
    sys.stderr.flush()
    os.kill(os.getpid(), number)

def full():
    with open("/dev/full", "w") as file:
        file.write("x")

def leave(code):
    sys.exit(code)

def hang():
    time.sleep(600)

def noise(value):
    for name in ("stdout", "stderr"):
        print('{"value": "wrong"}', file=getattr(sys, name))
    os.write(1, b'{"value": "wrong"}\\n')
    os.write(2, b"\\xff\\x00" * 100_000)
    return value

def fill(size):
    return len(b"x" * size)

def spawn():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid

def fork_and_die():
    if os.fork() == 0:
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _functions(tmp_path, monkeypatch):
    (tmp_path / "child_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.close()


def alive(pid: int) -> bool:
    """Whether a thread of the process runs; a zombie that waits for init does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_a_json_value_goes_there_and_back(worker):
    for value in (None, 3, 0.1, "ä\n\u2028", [1, [2]], {"a": {"b": [True]}}, "x" * 3_000_000):
        assert worker.call("child_functions:same", value=value) == value


@pytest.mark.parametrize("kind", ["KzooError", "UsageError", "MissingError", "BadInputError"])
def test_an_error_of_the_user_passes_with_its_class_and_message(worker, kind):
    with pytest.raises(KzooError) as caught:
        worker.call("child_functions:fail", kind=kind, message="two\nlines")
    assert type(caught.value) is getattr(errors, kind)
    assert str(caught.value) == "two\nlines"


def test_another_error_is_a_crash_that_shows_the_end_of_the_log(worker):
    with pytest.raises(ChildCrashed, match="RuntimeError: a bug") as caught:
        worker.call("child_functions:bug")
    assert "the last words" in caught.value.log
    with pytest.raises(ChildCrashed, match="ModuleNotFoundError"):
        worker.call("no_such_module:f")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_passes_so_that_the_parent_names_the_file(worker, tmp_path):
    with pytest.raises(MissingError, match=r"no space left.*model\.tflite"):  # noqa: SIM117
        with atomic(tmp_path / "model.tflite"):
            worker.call("child_functions:full")
    assert not list(tmp_path.glob("*.tflite"))


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_signal_is_named_and_the_next_call_is_served(worker, name):
    with pytest.raises(ChildCrashed, match=name) as caught:
        worker.call("child_functions:die", number=getattr(signal, name))
    assert "before the end" in caught.value.log
    assert worker.call("child_functions:same", value=name) == name


def test_an_exit_is_named_with_its_code(worker):
    with pytest.raises(ChildCrashed, match="exit code 7"):
        worker.call("child_functions:leave", code=7)


def test_after_its_time_the_child_is_stopped(worker):
    pid = worker.call("child_functions:pid")
    started = time.monotonic()
    with pytest.raises(ChildCrashed, match="no answer after 1 s"):
        worker.call("child_functions:hang", timeout=1)
    assert time.monotonic() - started < 10
    assert gone(pid)
    assert worker.call("child_functions:same", value=1) == 1


def test_a_worker_is_one_process_until_it_is_closed(worker):
    first = worker.call("child_functions:pid")
    assert worker.call("child_functions:pid") == first
    worker.close()
    assert gone(first)
    assert worker.call("child_functions:pid") != first


def test_the_memory_of_its_parent_is_not_a_child_s_own(worker, monkeypatch):
    monkeypatch.setattr(child, "MOST_KEPT", 200 << 20)
    large = b"1" * (300 << 20)
    first = worker.call("child_functions:pid")
    assert worker.call("child_functions:pid") == first
    assert large


def test_a_worker_that_needed_much_memory_is_replaced(worker, monkeypatch):
    monkeypatch.setattr(child, "MOST_KEPT", 200 << 20)
    first = worker.call("child_functions:pid")
    assert worker.call("child_functions:pid") == first
    assert worker.call("child_functions:fill", size=300 << 20) == 300 << 20
    assert gone(first)
    assert worker.call("child_functions:pid") != first


def test_a_relative_path_is_meant_from_where_the_parent_is(worker, tmp_path, monkeypatch):
    assert worker.call("child_functions:folder") == os.getcwd()
    monkeypatch.chdir(tmp_path)
    assert worker.call("child_functions:folder") == str(tmp_path)


@pytest.fixture
def poisoned(tmp_path) -> Path:
    """A folder with modules that leave a canary when they are imported."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    for name in ("json", "numpy"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'canary')!r}, 'a').close()")
    return folder


@pytest.mark.parametrize("before", [[], [""]], ids=["a script", "a prompt"])
def test_modules_of_the_current_folder_are_not_run(before, worker, poisoned, monkeypatch):
    monkeypatch.chdir(poisoned)
    monkeypatch.setattr(sys, "path", before + sys.path)
    origins = worker.call("child_functions:origins")
    assert not [origin for origin in origins if origin.startswith(str(poisoned))]
    assert not (poisoned / "canary").exists()


@pytest.mark.parametrize("start", [["-c", "import probe"], ["-m", "probe"], ["probe.py"]])
def test_the_child_has_the_kzoo_of_its_parent(start, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "kzoo").symlink_to(Path(child.__file__).parent)
    (checkout / "probe.py").write_text(
        "import os, sys, kzoo\n"
        f"sys.path.append({str(tmp_path)!r})\n"
        "os.chdir('/')\n"
        "from kzoo.child import call\n"
        "print(kzoo.__file__, call('child_functions:origins')[2], sep='\\n')\n"
    )
    said = subprocess.run(
        [sys.executable, *start], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == [str(checkout / "kzoo" / "__init__.py")] * 2


def test_a_worker_that_was_killed_between_two_calls_is_replaced(worker):
    first = worker.call("child_functions:pid")
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert worker.call("child_functions:same", value=2) == 2


def test_noise_is_no_answer(worker, capfd):
    assert worker.call("child_functions:noise", value="right") == "right"
    assert worker.call("child_functions:same", value="after") == "after"
    assert capfd.readouterr() == ("", "")


def test_a_call_leaves_no_process():
    grandchild = call("child_functions:spawn")
    assert gone(grandchild)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    call("child_functions:same", value=0)
    assert children.read_text() == before


def test_what_a_function_reports_reaches_its_caller(worker):
    seen = []
    found = worker.call("child_functions:count", progress=lambda *report: seen.append(report), to=3)
    assert (found, seen) == (3, [("count", 1, 3), ("count", 2, 3), ("count", 3, 3)])
    assert worker.call("child_functions:count", to=2) == 2


def test_a_child_does_not_outlive_who_hears_its_reports(worker):
    def gone(*report):  # noqa: ARG001
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        worker.call("child_functions:count", progress=gone, to=100_000)
    assert worker.call("child_functions:same", value=1) == 1


def test_a_grandchild_that_holds_the_pipe_does_not_hide_the_childs_death(worker):
    started = time.monotonic()
    with pytest.raises(ChildCrashed, match="SIGKILL"):
        worker.call("child_functions:fork_and_die", timeout=60)
    assert time.monotonic() - started < 20


def test_a_child_ends_with_its_parent(tmp_path):
    program = (
        "import sys, threading, time; from kzoo.child import Worker; w = Worker();"
        "print(w.call('child_functions:pid'), flush=True);"
        "w.call('child_functions:hang')"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def test_blame_makes_a_crash_a_bad_input_and_lets_other_errors_pass():
    with (
        pytest.raises(BadInputError, match=r"m\.tflite cannot be run: boom"),
        blame("m.tflite cannot be run"),
    ):
        raise ChildCrashed("boom")
    with pytest.raises(errors.MissingError, match="absent"), blame("m.tflite cannot be run"):
        raise errors.MissingError("absent")
