"""Functions run in a child process: a model file is a program, and a program may crash.

``call("kzoo.lite.convert:write_tflite", model="m.keras")`` runs that function with those JSON arguments in a fresh
interpreter and returns its JSON result. What the child prints (the converter writes kilobytes at
C level) is kept from the terminal and shown, its end only, when the child fails.

A `Worker` stays alive between calls, so that several conversions share one import of TensorFlow.
Standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from kzoo import errors
from kzoo.errors import BadInputError, KzooError

LOG_LINES = 12


class ChildCrashed(KzooError):
    """The child ended by a signal, without an answer, or after its time. ``log`` is its output."""

    def __init__(self, message: str, log: str = ""):
        super().__init__(message + (f"\n{log}" if log else ""))
        self.log = log


def call(function: str, *, timeout: float = 1800, **arguments: object) -> object:
    """Runs ``"module:function"`` in a fresh child process and returns its JSON result.

    Args:
        function: an importable function that takes and returns JSON values.
        timeout: seconds after which the child is killed.
        arguments: its keyword arguments, JSON values.

    Raises:
        KzooError: of the class and with the message that the function raised.
        ChildCrashed: the child died of a signal, hung, or raised an error that is not the user's.
    """
    worker = Worker()
    try:
        return worker.call(function, timeout=timeout, **arguments)
    finally:
        worker.close()


class Worker:
    """A child process that answers calls one after another; it is started at the first one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def call(self, function: str, *, timeout: float = 1800, **arguments: object) -> object:
        """As `call`, in this worker's process; a crashed one is replaced at the next call."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            log_start = os.fstat(self._log.fileno()).st_size
            request = json.dumps({"function": function, "arguments": arguments})
            try:
                self._process.stdin.write(request + "\n")
                self._process.stdin.flush()
                answer = self._read_line(timeout)
            except BrokenPipeError:
                answer = ""
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
                reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                self._kill()
                raise ChildCrashed(f"the child process ended with {reason}", self._tail(log_start))
            result = json.loads(answer)
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
        self._log = tempfile.TemporaryFile("w+b")
        answers, child_answers = os.pipe()
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kzoo.child", str(child_answers)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[child_answers],
            env={
                "TF_CPP_MIN_LOG_LEVEL": "1",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            text=True,
        )
        os.close(child_answers)

    def _read_line(self, timeout: float) -> str | None:
        """The next line; "" when the child is gone, None when the time is up."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
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
            self._process.kill()
            self._process.wait()
            self._process.stdin.close() if not self._process.stdin.closed else None
            self._answers.close()
            self._process = None


_shared = Worker()
atexit.register(_shared.close)


def call_shared(function: str, *, timeout: float = 1800, **arguments: object) -> object:
    """As `call`, in one child process that is kept for the next call (TensorFlow stays imported)."""
    return _shared.call(function, timeout=timeout, **arguments)


@contextlib.contextmanager
def blame(what: str):
    """Turns a crash of the child inside the block into a BadInputError that starts with ``what``."""
    try:
        yield
    except ChildCrashed as crash:
        raise BadInputError(f"{what}: {crash}") from crash


def _serve(answers_fd: int) -> None:
    with os.fdopen(answers_fd, "w") as answers:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                module, name = request["function"].split(":")
                value = getattr(importlib.import_module(module), name)(**request["arguments"])
                answer = {"value": value}
            except KzooError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            except Exception as error:
                traceback.print_exc()
                answer = {"error": "", "message": f"{type(error).__name__}: {error}"}
            sys.stdout.flush()
            sys.stderr.flush()
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
