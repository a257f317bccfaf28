"""The page of deploy/web/ for some models: what is served, and what of its answers is believed.

The page runs in a browser that nobody here controls, so its answers are checked like a stranger's:
numbers are finite and in bounds, texts are short and printable, before anything is made of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kzoo import __version__
from kzoo.errors import BadInputError
from kzoo.lite.inspect import inspect
from kzoo.lite.tflite_file import tflite_file
from kzoo.measure.deploy import deploy_file
from kzoo.measure.litert_js import RUNTIME, litert_js
from kzoo.measure.statistics import latency
from kzoo.measure.target import Setting
from kzoo.measure.web_server import File, Post, Refused, Site
from kzoo.network.model_file import checked_notes

RUNNER = "litert.js"
DTYPES = ("float32", "int32", "uint8")
"""What LiteRT.js 2.5 takes and gives; of int8 it says "Element type INT8 is not supported"."""
CALLS = {
    "wasm": "model.run() of LiteRT.js",
    "webgpu": "model.run() of LiteRT.js, until its outputs are read,",
}
"""What is timed; of WebGPU nothing is known to be computed before it is read."""
MAX_ANSWER = 4_000_000
"""Bytes: 100,000 times, and what is told beside them."""
BATCHED_SHARE = 0.1
"""A page makes the clock's step 5 % of a sample of several runs; without a warm-up it may err."""
PARTS = ("page.js", "engine.js", "pixels.js", "style.css", "icon.svg")
KINDS = {
    ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json",
    ".css": "text/css", ".svg": "image/svg+xml",
}  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A model as a page shows it.

    Attributes:
        path: its file.
        content: the bytes that every browser gets, whatever becomes of the file.
        about: its name, sha256, sizes, dtypes, class names: what the page is told.
    """

    path: Path
    content: bytes
    about: dict


def shown(model: str | os.PathLike) -> Shown:
    """Reads a .tflite for a page.

    Raises:
        MissingError: there is no such file.
        BadInputError: it is damaged, or takes or gives what LiteRT.js does not.
    """
    path = tflite_file(model)
    found = inspect(path, packed=False)
    for what, port in (("takes", found.input), ("gives", found.output)):
        if port["dtype"] not in DTYPES:
            raise BadInputError(
                f"{str(model)!r} {what} {port['dtype']}, and LiteRT.js {', '.join(DTYPES)} alone; "
                "for a browser type kzoo quantize NET.keras --io uint8 (or --io float32)"
            )
    content = path.read_bytes()
    image, output = found.input["shape"], found.output["shape"]
    classifies = len(image) == 4 and image[3] in (1, 3) and len(output) == 2
    notes = checked_notes(found.notes)
    about = {
        "name": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "image": image[1:] if classifies and found.input["dtype"] != "int32" else None,
        "input": found.input,
        "output": found.output,
        "classes": notes["classes"] if classifies and len(notes["classes"]) == output[1] else [],
        "crop": notes["crop"],
        "softmax": any(name.startswith("SOFTMAX") for name in found.operators),
        "quantization": str(found.notes.get("quantization", "")),
    }
    return Shown(path, content, about)


def site(
    models: Sequence[Shown],
    setting: Setting,
    posts: dict[str, Post],
    *,
    task: str | None = None,
    **files: File,
) -> Site:
    """The page and what it loads.

    Args:
        models: one or several.
        setting: how long to measure.
        posts: what is taken, see `kzoo.measure.web_server.Site`.
        task: what the page is to do by itself: "time" or "outputs".
        files: further ones.
    """
    version, runtime = litert_js()
    about = {
        "kzoo": __version__,
        "litert": version,
        "models": [each.about for each in models],
        "rules": {
            "warm_up": setting.warm_up,
            "min_runs": setting.min_runs,
            "min_seconds": setting.min_seconds,
            "max_seconds": setting.max_seconds,
        },
        "task": task,
    }
    page = deploy_file("web/page.html").read_bytes()
    found = {
        "": File(page, "text/html; charset=utf-8"),
        "about.json": File(json.dumps(about).encode(), KINDS[".json"]),
    }
    for name in PARTS:
        path = deploy_file(f"web/{name}")
        found[name] = File(path.read_bytes(), KINDS[path.suffix])
    for name, path in runtime.items():
        found[f"litert/{name}"] = File(path.read_bytes, KINDS[path.suffix], kept=True)
    for number, each in enumerate(models):
        found[f"model/{number}"] = File(each.content, "application/octet-stream")
    script = re.search(rb'<script type="importmap">(.*?)</script>', page, re.DOTALL)[1]
    hashed = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return Site(found | files, posts, scripts=(f"sha256-{hashed}",))


def _printable(text: str) -> str:
    """A terminal obeys what is not: it may be told to rename its window, or worse."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _text(most: int) -> type:
    return Annotated[str, Field(max_length=most), AfterValidator(_printable)]


Milliseconds = Annotated[float, Field(ge=0, le=1e8)]
Sample = Annotated[float, Field(ge=1e-6, le=1e8)]
"""Milliseconds of an inference: a nanosecond at least, as records count in them."""
Index = Annotated[int, Field(ge=0, le=10_000)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Tensor(_Checked):
    """An input or output, as the runtime names it."""

    name: _text(500)
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(max_length=8)]
    dtype: Literal[DTYPES]


class Browser(_Checked):
    """What a browser tells of its device; each may be made up, and much is not told."""

    user_agent: _text(500)
    cores: Annotated[int, Field(ge=1, le=4096)]
    memory_gb: Annotated[float, Field(ge=0, le=1e5)] | None
    model: _text(200)
    platform: _text(200)
    architecture: _text(200)
    webgpu: _text(200) | None


class Opened(_Checked):
    """A model in a page that has run once."""

    model: Index
    accelerator: Literal["wasm", "webgpu"]
    threads: Annotated[int, Field(ge=1, le=4096)]
    build: Literal["simd", "compat", "threaded", "jspi"]
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=100)]
    outputs: Annotated[list[Tensor], Field(min_length=1, max_length=100)]
    isolated: bool
    fully_accelerated: bool | None
    import_ms: Milliseconds
    init_ms: Milliseconds
    first_ms: Milliseconds
    clock_ms: Milliseconds
    device: Browser


class Timed(Opened):
    """The same after its timed runs: a sample is the mean of ``batch`` of them."""

    batch: Annotated[int, Field(ge=1, le=1_000_000)]
    hidden: bool
    window: Annotated[int, Field(ge=1, le=1000)]
    steady: bool | None
    warmup_runs: Annotated[int, Field(ge=0, le=10_000_000)]
    stopped_by: Literal["minimum", "max-seconds", "max-runs"]
    samples_ms: Annotated[list[Sample], Field(min_length=1, max_length=100_000)]


class Problem(_Checked):
    """What a page failed of."""

    model: Index
    text: _text(500)
    user_agent: _text(500)


def checked(kind: type[_Checked], body: bytes, models: Sequence[Shown]) -> _Checked:
    """What a page sent, if it can be believed; else `Refused`."""
    try:
        found = kind.model_validate_json(body)
    except ValidationError as error:
        raise Refused(400, f"not a {kind.__name__}: {error.error_count()} values") from error
    if found.model >= len(models):
        raise Refused(400, "there is no such model")
    return found


def record(model: Shown, found: Opened) -> dict:
    """What a page measured, as `kzoo.measure.target.Target.time_runs` gives it."""
    answer = {
        "model_sha256": model.about["sha256"],
        "model_bytes": model.about["bytes"],
        "runner": RUNNER,
        "runtime": RUNTIME,
        "runtime_version": litert_js()[0],
        "threads": found.threads,
        "place": "page",
        "call": CALLS[found.accelerator],
        "input": "; ".join(
            "zeros, int32" if each.dtype == "int32" else f"random pixels, seed 0, {each.dtype} "
            + ("over its full range" if each.dtype == "uint8" else "in [0, 255]")
            for each in found.inputs
        ),
        "delegate": _delegate(found),
        "delegated_share": 1.0 if found.fully_accelerated else None,
        "inputs": [each.model_dump() for each in found.inputs],
        "outputs": [each.model_dump() for each in found.outputs],
        "import_ms": found.import_ms,
        "init_ms": found.init_ms,
        "first_ms": found.first_ms,
    }  # fmt: skip
    if isinstance(found, Timed):
        copied = ("warmup_runs", "window", "steady", "stopped_by")
        answer |= {name: getattr(found, name) for name in copied}
        answer["samples_ns"] = [round(each * 1e6) for each in found.samples_ms]
        answer["notes"] = notes(found)
    return answer


def summary(found: Timed) -> bytes:
    """What the page shows of its own times, by the rules of every other target."""
    told = latency(found.samples_ms)
    return json.dumps(
        {"p50_ms": told.p50_ms, "p90_ms": told.p90_ms, "count": told.count * found.batch}
    ).encode()


def _delegate(found: Opened) -> str:
    if found.accelerator == "wasm":
        return "wasm (compat)" if found.build == "compat" else "wasm"
    rest = "" if found.fully_accelerated else ", the rest in wasm"
    return f"WebGPU ({found.device.webgpu or 'unnamed'}{rest})"


def notes(found: Timed) -> list[str]:
    """What a reader must know of times taken in a browser."""
    said, step = [], f"the browser's clock has steps of {1000 * found.clock_ms:.3g} us"
    share = found.clock_ms / (found.batch * min(found.samples_ms))
    if found.batch > 1:
        step += f": each sample is the mean of {found.batch} runs, and p90 and p99 are of these"
    if share > (BATCHED_SHARE if found.batch > 1 else 0.01):
        said.append(f"{step}, {share:.0%} of the fastest {'sample' if found.batch > 1 else 'run'}")
    elif found.batch > 1:
        said.append(step)
    if found.hidden:
        said.append("the page was hidden meanwhile, and browsers slow down hidden pages")
    if found.accelerator == "webgpu" and re.search(
        "swiftshader|llvmpipe|lavapipe|software", found.device.webgpu or "", re.IGNORECASE
    ):
        said.append(f"WebGPU is computed by software here ({found.device.webgpu}), on no GPU")
    return said


def device(browser: Browser) -> dict:
    """A record's ``device``, of a machine that only its browser tells about."""
    agent = browser.user_agent
    return {
        "processor": browser_name(agent),
        "model": browser.model or None,
        "simd": [],
        "cores": browser.cores,
        "memory_bytes": None,
        "architecture": browser.architecture,
        "system": browser.platform or _system(agent),
        "user_agent": agent,
        "webgpu": browser.webgpu,
        "memory_gb": browser.memory_gb,
    }


def browser_name(agent: str) -> str:
    """ "Chrome 150", of a user agent: they all claim to be each other, so the order decides."""
    for name, pattern in (
        ("Edge", r"Edg\w*/(\d+)"),
        ("Samsung Internet", r"SamsungBrowser/(\d+)"),
        ("Opera", r"OPR/(\d+)"),
        ("Firefox", r"(?:Firefox|FxiOS)/(\d+)"),
        ("Chrome", r"(?:HeadlessChrome|Chrome|CriOS)/(\d+)"),
        ("Safari", r"Version/(\d+)[\d.]* (?:Mobile/\w+ )?Safari"),
    ):
        if found := re.search(pattern, agent):
            return f"{name} {found[1]}"
    return "a browser"


def _system(agent: str) -> str:
    """What stands in the first brackets: "iPhone; CPU iPhone OS 18_1 like Mac OS X"."""
    found = re.search(r"\(([^()]*)\)", agent)
    return found[1] if found else ""
