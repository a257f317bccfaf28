"""The browser of this machine as a target: LiteRT.js in a headless Chromium, a fresh one per run.

What other devices' browsers measure comes through `kzoo.measure.serve`; it is the same page.
"""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

from kzoo.errors import BadInputError, MissingError, UsageError, one_of
from kzoo.measure.chromium import Chromium
from kzoo.measure.target import Setting
from kzoo.measure.targets import host
from kzoo.measure.targets.device import STARTUP_SECONDS
from kzoo.measure.web_page import (
    MAX_ANSWER,
    RUNNER,
    Opened,
    Problem,
    Timed,
    browser_name,
    checked,
    record,
    shown,
    site,
    summary,
)
from kzoo.measure.web_server import File, Post, serving

ACCELERATORS = {"wasm": (None, "xnnpack"), "webgpu": (None, "gpu")}
"""What computes → the delegates that mean it."""
ITEM_BYTES = {"float32": 4, "int32": 4, "uint8": 1}
MAX_OUTPUTS = 1 << 30
SLICE_SECONDS = 0.2
"""How often it is asked whether the browser is still there."""


def connect(where: str = "") -> Browser:
    """The browser here; ``where`` is "wasm", "webgpu", or empty for wasm."""
    one_of("the browser's accelerator", where or "wasm", ACCELERATORS)
    return Browser(where or "wasm")


class Browser:
    """A `kzoo.measure.target.Target`: each run in a browser of its own, started for it."""

    kind = "measured"

    def __init__(self, accelerator: str) -> None:
        self.name, self._accelerator = f"browser:{accelerator}", accelerator
        self._host = host.connect()
        self._told: dict = {}

    def machine(self) -> dict:
        """Of this machine, with what the browser told when it ran."""
        return self._host.machine() | self._told

    def state(self) -> dict:
        """Of this machine."""
        return self._host.state()

    def check(self, setting: Setting) -> None:
        """As `kzoo.measure.target.Target.check`."""
        if setting.runtime not in (None, RUNNER):
            raise UsageError(f"a browser runs {RUNNER}, not {setting.runtime}")
        if setting.cpus is not None:
            raise UsageError("a browser chooses its cores itself; leave out cpus")
        if setting.threads > 1 and self._accelerator == "webgpu":
            raise UsageError(f"{self.name} has one thread, not {setting.threads}")
        if setting.delegate not in ACCELERATORS[self._accelerator]:
            raise UsageError(
                f"{self.name} has no delegate {setting.delegate!r}; type --on browser:wasm or "
                "browser:webgpu"
            )

    def time_runs(self, model: Path, setting: Setting) -> dict:
        """Times the model in a fresh browser.

        Raises:
            UsageError: a setting that a browser does not have.
            MissingError: no browser, or LiteRT.js is not to be had.
            BadInputError: LiteRT.js refuses the model, crashes on it, or does not answer.
        """
        return self._run(model, setting, "time")[0]

    def peak_memory(self, model: Path, setting: Setting) -> None:
        """None: a page is told the memory of its scripts, and not that of the browser."""

    def outputs(self, model: Path, inputs: bytes, setting: Setting) -> dict:
        """As `kzoo.measure.target.Target.outputs`."""
        answer, outputs = self._run(model, setting, "outputs", inputs)
        each = sum(ITEM_BYTES[one["dtype"]] * math.prod(one["shape"]) for one in answer["inputs"])
        return answer | {"outputs": outputs, "images": len(inputs) // each}

    def close(self) -> None:
        self._host.close()

    def _run(
        self, model: Path, setting: Setting, task: str, inputs: bytes = b""
    ) -> tuple[dict, bytes]:
        self.check(setting)
        page, came = shown(model), threading.Condition()
        got: dict[str, object] = {}

        def take(what: str, value: object) -> bytes:
            with came:
                got[what] = value
                came.notify_all()
            return summary(value) if isinstance(value, Timed) else b"{}"

        def taken(what: str, kind: type) -> Post:
            return Post(lambda body: take(what, checked(kind, body, [page])), MAX_ANSWER)

        raw = "application/octet-stream"
        posts = {
            "result": taken("result", Timed if task == "time" else Opened),
            "outputs": Post(lambda body: take("outputs", body), MAX_OUTPUTS, raw),
            "problem": taken("problem", Problem),
        }
        files = {"inputs": File(inputs, raw)}
        wanted = {"time": {"result"}, "outputs": {"result", "outputs"}}[task]
        query = f"?on={self._accelerator}&threads={setting.threads}"
        seconds = setting.run_seconds + STARTUP_SECONDS
        with serving(site([page], setting, posts, task=task, **files)) as address:
            browser = Chromium(gpu=self._accelerator == "webgpu")
            try:
                browser.ask("Page.navigate", url=address + query)
                until = time.monotonic() + seconds
                with came:
                    while not (wanted <= set(got) or "problem" in got or browser.ended.is_set()):
                        if time.monotonic() > until:
                            break
                        came.wait(SLICE_SECONDS)
                why = browser.why
            finally:
                browser.close()
        if wanted <= set(got):
            told = got["result"].device
            self._told = {
                "browser": browser_name(told.user_agent),
                "user_agent": told.user_agent,
                "webgpu": told.webgpu,
            }
            return record(page, got["result"]), got.get("outputs", b"")
        if "problem" in got:
            text = got["problem"].text
            if "no WebGPU" in text:
                raise MissingError(f"{self.name}: {text}; type --on browser:wasm")
            raise BadInputError(f"{str(model)!r} in LiteRT.js: {text}")
        why = why or f"{browser.name} gave no answer in {seconds:g} s and was stopped"
        raise BadInputError(f"{str(model)!r}: {why}")
