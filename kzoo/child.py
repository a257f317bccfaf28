"""Functions run in a child process: a model file is a program, and a program may crash.

``call("kzoo.lite.translate:describe", model="m.keras")`` runs that function with those JSON
arguments in a fresh interpreter and returns its JSON result. What the child prints (the converter
writes kilobytes at C level) is kept from the terminal and shown, its last lines, when the child
fails.

A `Worker` stays alive between calls, so that several conversions share one import of TensorFlow.
It leads a process group of its own: what it started ends with it, and it ends with its parent.
Standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import inspect
import json
import os
import queue
import re
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from kzoo import errors
from kzoo.errors import BadInputError, KzooError
from kzoo.files import DISK_ERRORS
from kzoo.light_keras import light_keras
from kzoo.progress import Progress, silent

LOG_LINES = 12
MOST_KEPT = 2 << 30
"""Bytes: a child that has needed more ends after its answer, as freed memory is not given back."""
SLICE_SECONDS = 0.5


class ChildCrashed(KzooError):
    """The child ended by a signal, without an answer, or after its time. ``log`` is its output."""

    def __init__(self, message: str, log: str = ""):
        super().__init__(message + (f"\n{log}" if log else ""))
        self.log = log


def call(
    function: str,
    *,
    timeout: float = 1800,
    progress: Progress = silent,
    environ: Mapping[str, str] | None = None,
    **arguments: object,
) -> object:
    """Runs ``"module:function"`` in a fresh child process and returns its JSON result.

    Args:
        function: an importable function that takes and returns JSON values. One that has a
            parameter ``progress`` gets what passes its reports on.
        timeout: seconds without an answer or a report after which the child is killed.
        progress: called as the function reports.
        environ: variables of its environment beside this process's.
        arguments: its keyword arguments, JSON values.

    Raises:
        KzooError: of the class and with the message that the function raised.
        OSError: the disk is full or may not be written to; see `kzoo.files.disk_errors`.
        ChildCrashed: the child died of a signal, hung, or raised an error that is not the user's.
    """
    worker = Worker(environ)
    try:
        return worker.call(function, timeout=timeout, progress=progress, **arguments)
    finally:
        worker.close()


class Worker:
    """A child process that answers calls one after another; it is started at the first one."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ or {}
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def call(
        self,
        function: str,
        *,
        timeout: float = 1800,
        progress: Progress = silent,
        **arguments: object,
    ) -> object:
        """As `call`, in this worker's process; a crashed one is replaced at the next call."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._kill()
                self._start()
            log_start = os.fstat(self._log.fileno()).st_size
            # The folder too: a relative path is meant from where the parent is now.
            request = json.dumps(
                {"function": function, "arguments": arguments, "folder": os.getcwd()}
            )
            try:
                with contextlib.suppress(BrokenPipeError):  # it is gone: there will be no answer
                    self._process.stdin.write(request + "\n")
                    self._process.stdin.flush()
                answer = self._read_line(timeout)
                while answer and "progress" in (report := json.loads(answer)):
                    progress(*report["progress"])
                    answer = self._read_line(timeout)
            except BaseException:  # Ctrl-C too: the child must not outlive the question
                self._kill()
                raise
            if answer is None:
                self._kill()
                raise ChildCrashed(
                    f"no answer after {timeout:.0f} s: stopped", self._tail(log_start)
                )
            if not answer:
                code = self._process.wait()
                self._kill()
                raise ChildCrashed(
                    f"the child process ended with {_reason(code)}", self._tail(log_start)
                )
            result = json.loads(answer)
            if result["peak"] > MOST_KEPT:
                self._kill()
            if "errno" in result:
                raise OSError(result["errno"], result["message"])
            if "error" in result:
                kind = getattr(errors, result["error"], None)
                if kind:
                    raise kind(result["message"])
                raise ChildCrashed(result["message"], self._tail(log_start))
            return result["value"]

    def close(self) -> None:
        """Ends the process; a later call starts another."""
        self._kill()

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115 it outlives this function
        answers, child_answers = os.pipe()
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kzoo.child", str(child_answers)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[child_answers],
            env={
                "TF_CPP_MIN_LOG_LEVEL": "1",
                **os.environ,
                **self._environ,
                "KERAS_BACKEND": "tensorflow",  # converts, whatever this process trains on
                "PYTHONPATH": os.pathsep.join(_search_path()),
            },
            text=True,
            start_new_session=True,
        )
        os.close(child_answers)

    def _read_line(self, timeout: float) -> str | None:
        """The next line; "" when the child is gone, None when the time is up."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                # In slices: a grandchild may keep the pipe open after the child's death.
                if not selector.select(max(0.0, min(left, SLICE_SECONDS))):
                    if self._process.poll() is not None and not selector.select(0):
                        return ""
                    if left <= 0:
                        return None
                    continue
                piece = self._answers.read(1 << 16)
                if not piece:
                    return ""
                self._buffer += piece
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    def _tail(self, start: int) -> str:
        self._log.seek(start)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            with contextlib.suppress(BrokenPipeError):  # a request that was not taken is flushed
                self._process.stdin.close()
            self._answers.close()
            self._process = None


def _search_path() -> list[str]:
    """This process's sys.path for the child, with the folder that kzoo was imported from.

    Without "", the current folder: a numpy.py among the user's files is no program of kzoo's. A
    Python prompt in a checkout finds kzoo by "" alone; there kzoo's folder takes its place.
    """
    home = str(Path(__file__).absolute().parents[1])
    if home in sys.path:
        return [*filter(None, sys.path)]
    path = [entry or home for entry in sys.path]
    return path if home in path else [*path, home]


def _reason(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"


_shared = Worker()
atexit.register(_shared.close)


def call_shared(function: str, *, timeout: float = 1800, **arguments: object) -> object:
    """As `call`, in one child process that is kept for the next call: TensorFlow stays imported."""
    return _shared.call(function, timeout=timeout, **arguments)


@contextlib.contextmanager
def blame(what: str) -> Iterator[None]:
    """Turns a crash of the child in the block into a BadInputError that starts with ``what``."""
    try:
        yield
    except ChildCrashed as crash:
        raise BadInputError(f"{what}: {crash}") from crash


def _requests() -> Iterator[str]:
    """The lines of stdin. When the parent is gone, this process ends, in the middle of work too."""
    lines = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def _serve(answers_fd: int) -> None:
    os.set_inheritable(answers_fd, False)
    light_keras()
    with os.fdopen(answers_fd, "w") as answers:
        for line in _requests():
            request = json.loads(line)
            module, name = request["function"].split(":")
            try:
                os.chdir(request["folder"])
                function = getattr(importlib.import_module(module), name)
                given = request["arguments"]
                if "progress" in inspect.signature(function).parameters:
                    given["progress"] = functools.partial(_report, answers)
                value = function(**given)
                answer = {"value": value}
            except KzooError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            except Exception as error:
                traceback.print_exc()
                answer = _explained(error, module)
            sys.stdout.flush()
            sys.stderr.flush()
            answers.write(json.dumps({**answer, "peak": _peak_bytes()}) + "\n")
            answers.flush()


def _report(answers: TextIO, task: str, done: int, total: int) -> None:
    answers.write(json.dumps({"progress": [task, done, total]}) + "\n")
    answers.flush()


def _peak_bytes() -> int:
    """The most memory that this process had."""
    with contextlib.suppress(OSError):
        # Not ru_maxrss, which counts what the parent had when it started this process.
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"VmHWM:\s*(\d+) kB", status):
            return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _explained(error: Exception, module: str) -> dict:
    """The answer for an error that the function of this module did not mean for its caller."""
    # The disk's refusals are the parent's to explain: it knows what was to be written.
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return {"errno": error.errno, "message": error.strerror}
    # A package is the user's to install, the asked module is not.
    if isinstance(error, ModuleNotFoundError) and error.name != module:
        message = f"the package {error.name!r} is not installed; pip install it"
        return {"error": "MissingError", "message": message}
    return {"error": "", "message": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
