"""The bar on a terminal, the lines of a log, and what Ctrl-C and a termination leave behind."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

WORK = """
import time
from kzoo.cli.terminal import bar
with bar() as progress:
    tasks = (("reading", 30, 30), ("train: epoch 1/2", 60, 600), ("evaluate", 10, 10))
    for task, steps, total in tasks:
        for done in range(steps):
            progress(task, done + 1, total)
            time.sleep(0.02)
print("done")
"""


def on_a_terminal(command: list[str]) -> str:
    """What a command writes to stderr when that is a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        command, stderr=theirs, stdout=subprocess.DEVNULL, stdin=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the terminal's other end was closed
            break
        written += piece
    os.close(ours)
    assert process.wait() == 0
    return written.decode()


def test_a_bar_names_the_task_its_rate_and_time_left_and_goes_away():
    written = on_a_terminal([sys.executable, "-c", WORK])
    for task in ("reading", "train: epoch 1/2", "evaluate"):
        assert task in written
    assert "/s" in written
    assert "30/30" in written
    frames = written.split("\r")
    assert not [frame for frame in frames if "0/s" in frame.split() or "\n\n" in frame]
    # At 0.02 s a step or more, 540 steps before its end.
    left = [re.search(r"(\d+):(\d\d)", frame) for frame in frames if "train:" in frame]
    *_, last = [60 * int(each[1]) + int(each[2]) for each in left if each]
    assert last >= 10
    # The last thing written erases the line and shows the cursor again.
    assert written.endswith("\x1b[2K") or "\x1b[2K" in written[-30:]
    assert written.rindex("\x1b[?25h") > written.rindex("evaluate")


def test_no_frame_is_empty_between_two_tasks():
    written = on_a_terminal([sys.executable, "-c", WORK])
    started, ended = written.index("reading"), written.rindex("evaluate")
    assert "\x1b[1A" not in written[started:ended]  # one line all the time: it never jumps


def test_in_a_log_a_line_per_task():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "reading (1/30)", "train: epoch 1/2 (1/600)", "evaluate (1/10)",
    ]  # fmt: skip


def descendants(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "kzoo: stopped"), (signal.SIGTERM, 143, "")],
)
def test_a_stopped_command_ends_with_its_children_and_writes_nothing(
    number, code, said, lite_float, tmp_path
):
    process = subprocess.Popen(
        [sys.executable, "-m", "kzoo", "profile", str(lite_float), "--min-seconds", "60"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (children := descendants(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children
    timer = threading.Timer(30, process.kill)
    timer.start()
    process.send_signal(number)
    printed, written = process.communicate()
    timer.cancel()
    assert process.returncode == code, written
    assert "Traceback" not in written
    assert [line for line in written.splitlines() if line.startswith("kzoo:")] == [said] * bool(
        said
    )
    assert printed == ""
    # One that was being started at that moment ends by itself: nobody is left to ask it.
    deadline = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if alive(pid)]
    assert not list(tmp_path.iterdir())


def test_a_conversion_that_is_stopped_leaves_no_file_and_no_child(trained, tmp_path):
    command = [sys.executable, "-m", "kzoo", "convert", str(trained), "-o", "x.tflite"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not (children := descendants(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, written = process.communicate(timeout=30)
    assert process.returncode == 130, written
    assert "Traceback" not in written
    assert not [pid for pid in children if alive(pid)]
    assert not list(tmp_path.iterdir())
