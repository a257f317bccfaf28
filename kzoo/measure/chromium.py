"""A Chromium on this machine, without a window: started, told what to open, asked how it is.

Spoken to over two pipes (--remote-debugging-pipe), so that no port is open to other programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from kzoo.errors import BadInputError, MissingError

BROWSER_VARIABLE = "KZOO_BROWSER"
NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
    "microsoft-edge",
)  # fmt: skip
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-default-apps", "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
    "--disable-dev-shm-usage", "--metrics-recording-only", "--mute-audio", "--hide-scrollbars",
    "--password-store=basic", "--use-mock-keychain",
)  # fmt: skip
GPU_FLAGS = {False: ["--disable-gpu"], True: ["--enable-unsafe-webgpu", "--enable-features=Vulkan"]}
ANSWER_SECONDS = 60.0
NO_REASON = "no reason given"
AT_3_AND_4 = (  # not preexec_fn, which may hang in a process of several threads
    "import os, sys; r, w = int(sys.argv[1]), int(sys.argv[2]); os.dup2(r, 3); os.dup2(w, 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def find_browser() -> str:
    """The program: of ``$KZOO_BROWSER``, or the first of `NAMES` that is installed.

    Raises:
        MissingError: there is none.
    """
    asked = os.environ.get(BROWSER_VARIABLE)
    places = [asked] if asked else [*NAMES]
    if sys.platform == "darwin" and not asked:
        places.append("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    for place in places:
        if found := shutil.which(place):
            return found
    if asked:
        raise MissingError(f"{BROWSER_VARIABLE}={asked} is no program")
    raise MissingError(
        f"no browser was found ({', '.join(NAMES)}); install Chromium, or set {BROWSER_VARIABLE} "
        "to a Chromium or Chrome"
    )


class Chromium:
    """A browser with one empty page and a fresh profile; both are gone after `close`."""

    def __init__(self, *, gpu: bool = False) -> None:
        """Starts it.

        Args:
            gpu: whether it may use one.

        Raises:
            MissingError: it is not installed, or does not start.
        """
        program = find_browser()
        self.name = Path(program).name
        self._folder = tempfile.TemporaryDirectory(prefix="kzoo-", ignore_cleanup_errors=True)
        flags = [*FLAGS, *GPU_FLAGS[gpu], f"--user-data-dir={self._folder.name}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # it refuses to start otherwise
        its_in, to_it = os.pipe()
        from_it, its_out = os.pipe()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 it is open until `close`
        self._process = subprocess.Popen(
            [sys.executable, "-c", AT_3_AND_4, str(its_in), str(its_out), program, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=(its_in, its_out),
            start_new_session=True,
        )
        os.close(its_in)
        os.close(its_out)
        self._to_it, self._asked = open(to_it, "wb", buffering=0), 0  # noqa: SIM115
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        self.ended = threading.Event()
        """Set when the browser, or the page in it, is no more."""
        self.why = ""
        threading.Thread(target=self._listen, args=(from_it,), daemon=True).start()
        try:
            page = self._ask("Target.createTarget", url="about:blank")["targetId"]
            attached = self._ask("Target.attachToTarget", targetId=page, flatten=True)
            self._session = attached["sessionId"]
            self.ask("Inspector.enable")
        except BaseException as error:
            self.close()
            if isinstance(error, BadInputError):
                raise MissingError(f"{self.name} does not start: {error}") from error
            raise

    def ask(self, method: str, **parameters: object) -> dict:
        """A command of the DevTools protocol to the page.

        Raises:
            BadInputError: the browser refuses it, crashed, or does not answer.
        """
        return self._ask(method, session=self._session, **parameters)

    def _ask(self, method: str, session: str | None = None, **parameters: object) -> dict:
        self._asked += 1
        request = {"id": self._asked, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        try:
            self._to_it.write(json.dumps(request).encode() + b"\0")
            while (answer := self._answers.get(timeout=ANSWER_SECONDS)).get("id") != self._asked:
                if answer.get("ended"):
                    raise BadInputError(self.why)
        except (queue.Empty, OSError) as error:
            raise BadInputError(self.why or f"{self.name} does not answer") from error
        if "error" in answer:
            raise BadInputError(f"{self.name}: {answer['error'].get('message', 'refused')}")
        return answer["result"]

    def _listen(self, pipe: int) -> None:
        with open(pipe, "rb") as file:
            held = b""
            while piece := file.read1(1 << 20):
                *whole, held = (held + piece).split(b"\0")
                for each in map(json.loads, whole):
                    if each.get("method") == "Inspector.targetCrashed":
                        self._end(f"the page crashed in {self.name}: is there memory enough?")
                    elif "id" in each:
                        self._answers.put(each)
        self._end(f"{self.name} ended: {self._last_words()}")

    def _end(self, why: str) -> None:
        self.why = self.why or why
        self.ended.set()
        self._answers.put({"ended": True})

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            self._stderr.seek(0)
            lines = self._stderr.read().decode(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), NO_REASON)
        return NO_REASON

    def close(self) -> None:
        """Ends the browser, all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._to_it.close()
        self._stderr.close()
        self._folder.cleanup()
