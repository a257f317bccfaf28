"""The real LiteRT.js in the real Chromium, both as a target and as a user of the page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.data.photo import read_photo
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.measure import chromium
from kzoo.measure.chromium import Chromium, find_browser
from kzoo.measure.litert_js import litert_js
from kzoo.measure.target import Setting, open_target
from kzoo.measure.targets import browser as browser_target

QUICK = Setting(min_runs=5, min_seconds=0)


@pytest.fixture(scope="module", autouse=True)
def _browser_and_runtime():
    try:
        find_browser()
        litert_js()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def browser(request):
    with open_target(getattr(request, "param", "browser")) as target:
        yield target


@pytest.mark.parametrize(("browser", "kind", "most"), [
    ("browser", "float", 1e-4), ("browser", "int8", 1), ("browser:webgpu", "float", 1e-4),
], indirect=["browser"])  # fmt: skip
def test_outputs_are_those_of_litert_in_python(browser, kind, most, lite_float, lite_int8):
    """A uint8 output may be a step away."""
    model, dtype = {"float": (lite_float, "float32"), "int8": (lite_int8, "uint8")}[kind]
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
    with open_target("host") as host:
        takes = host.time_runs(model, QUICK)["inputs"][0]["dtype"]
        raw = images.astype(takes).tobytes()
        try:
            answers = [target.outputs(model, raw, QUICK) for target in (host, browser)]
        except MissingError as error:  # no WebGPU adapter
            pytest.skip(str(error))
    one, other = (np.frombuffer(each["outputs"], dtype).astype(float) for each in answers)
    assert one.shape == other.shape == (30,)
    assert np.abs(one - other).max() <= most
    assert answers[0]["images"] == answers[1]["images"] == 3
    gpu = browser.name == "browser:webgpu"
    assert answers[1]["delegate"].startswith("WebGPU (" if gpu else "wasm")
    assert answers[0]["model_sha256"] == answers[1]["model_sha256"]


def test_the_record_has_what_the_host_s_has(lite_int8, browser):
    with open_target("host") as host:
        expected = host.time_runs(lite_int8, QUICK)
    answer = browser.time_runs(lite_int8, dataclasses.replace(QUICK, threads=2))
    assert set(expected) - set(answer) <= {"python", "numpy", "warmup_ns", "power_w"}
    assert (answer["runner"], answer["runtime"]) == ("litert.js", "@litertjs/core")
    assert (answer["threads"], answer["delegate"]) == (2, "wasm")
    assert answer["model_bytes"] == lite_int8.stat().st_size
    assert answer["inputs"][0]["shape"] == expected["inputs"][0]["shape"]
    told = browser.machine()
    assert told["cores"] >= 1
    assert "Chrome" in told["user_agent"]


def test_a_whole_profile_counts_as_every_other(lite_float, kzoo_command):
    """LeNet-5 is that fast that one run is no more than a few steps of the clock."""
    done = kzoo_command("profile", lite_float, "--on", "browser", "--min-seconds", ".3", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["target"], record["kind"]) == ("browser:wasm", "measured")
    assert (record["runner"], record["memory"]) == ("litert.js", None)
    (run,) = record["runs"]
    assert run["latency"]["count"] == len(run["samples_ms"]) >= 100
    assert run["latency"]["valid"]
    assert 0 < run["latency"]["p50_ms"] < 1000
    assert (
        any("steps of 5 us" in note for note in record["notes"]) or run["latency"]["min_ms"] > 0.5
    )


@pytest.mark.parametrize(("seconds", "steady"), [(0, None), (0.2, False)])
def test_the_warm_up_ends_at_its_limit(seconds, steady, lite_int8, browser):
    """Nothing runs before it either: how many runs fill a sample is told by the first then."""
    answer = browser.time_runs(lite_int8, dataclasses.replace(QUICK, warm_up=seconds))
    assert answer["steady"] is steady
    assert (answer["warmup_runs"] == 0) == (seconds == 0)


def test_what_it_cannot_do_is_refused(lite_float, browser, monkeypatch):
    for setting in ({"cpus": "0"}, {"runtime": "tensorflow"}, {"delegate": "gpu"}):
        with pytest.raises(UsageError):
            browser.time_runs(lite_float, dataclasses.replace(QUICK, **setting))
    with pytest.raises(UsageError, match="none of wasm, webgpu"), open_target("browser:webgl"):
        pass
    with open_target("browser:webgpu") as gpu, pytest.raises(UsageError, match="one thread, not 2"):
        gpu.time_runs(lite_float, dataclasses.replace(QUICK, threads=2))
    monkeypatch.setenv("KZOO_BROWSER", "no-such-browser")
    with pytest.raises(MissingError, match="KZOO_BROWSER=no-such-browser is no program"):
        browser.time_runs(lite_float, QUICK)
    monkeypatch.setenv("KZOO_BROWSER", "/bin/false")
    with pytest.raises(MissingError, match="false does not start"):
        browser.time_runs(lite_float, QUICK)


def test_a_model_that_litert_refuses_is_a_line(lite_float, tmp_path, browser):
    """Its weights are cut off, and its tables left as they are: Python can still look into it."""
    damaged = bytearray(lite_float.read_bytes())
    at = damaged.index(b"TFL3") + 8
    damaged[at : at + 8] = bytes(8)
    (file := tmp_path / "damaged.tflite").write_bytes(damaged)
    with pytest.raises(BadInputError) as caught:
        browser.time_runs(file, QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("page", "said"), [
    ("chrome://crash", "the page crashed"),
    ("about:blank", "gave no answer in"),
])  # fmt: skip
def test_a_crash_and_a_hang_are_a_line_each(page, said, lite_float, browser, monkeypatch):
    ask = Chromium.ask

    def elsewhere(self, method, **parameters):
        if method == "Page.navigate":
            parameters["url"] = page
            with contextlib.suppress(BadInputError):
                ask(self, method, **parameters)
            return {}
        return ask(self, method, **parameters)

    monkeypatch.setattr(Chromium, "ask", elsewhere)
    monkeypatch.setattr(chromium, "ANSWER_SECONDS", 5)
    monkeypatch.setattr(browser_target, "STARTUP_SECONDS", 1)
    monkeypatch.setattr(Setting, "run_seconds", 0)
    with pytest.raises(BadInputError, match=said) as caught:
        browser.time_runs(lite_float, QUICK)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- the page, as it is used
class User:
    """Somebody at the page."""

    def __init__(self, url: str) -> None:
        self.browser = Chromium()
        self.browser.ask("Page.navigate", url=url)

    def evaluate(self, expression: str):
        asked = {"awaitPromise": True, "returnByValue": True}
        answer = self.browser.ask("Runtime.evaluate", expression=expression, **asked)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < until, self.evaluate("document.body.innerText")
            time.sleep(0.05)

    def ready(self) -> None:
        self.wait("document.getElementById('status')?.textContent === 'ready'")

    def choose(self, photo: Path) -> list[str]:
        """The classes that the page then shows, the first first."""
        root = self.browser.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.browser.ask("DOM.querySelector", nodeId=root, selector="#photo")["nodeId"]
        self.evaluate("document.getElementById('seen').textContent = ''")
        self.browser.ask("DOM.setFileInputFiles", nodeId=node, files=[str(photo)])
        self.wait("document.getElementById('seen').textContent !== ''")
        return self.evaluate(
            "[...document.querySelectorAll('#classes b:first-of-type')].map(e => e.textContent)"
        )


@pytest.fixture(scope="module")
def served(lite_float, lite_int8, tmp_path_factory):
    """(its address, what comes, where it is written): `kzoo.serve` of two files."""
    address, came, folder = queue.SimpleQueue(), queue.SimpleQueue(), tmp_path_factory.mktemp("out")
    options = {"results": 1, "min_runs": 70, "min_seconds": 0.1, "output": folder}
    options |= {"opened": address.put, "told": came.put}
    models = [lite_float, lite_int8]
    thread = threading.Thread(target=kzoo.serve, args=(models,), kwargs=options, daemon=True)
    thread.start()
    yield address.get(timeout=60), came, folder
    thread.join(10)


@pytest.fixture(scope="module")
def user(served):
    found = User(served[0] + "?model=1")
    yield found
    found.browser.close()


def test_a_photo_is_classified_as_kzoo_predict_does(user, lite_int8, digits_folder, tmp_path):
    photos = [next((digits_folder / name).iterdir()) for name in ("0", "4", "7")]
    rgb = np.asarray(Image.open(photos[2]).resize((190, 250))).astype(np.uint8)
    photos.append(tmp_path / "photo.png")
    Image.fromarray(np.stack([rgb, rgb // 2, rgb], axis=2)).save(photos[-1])
    expected = [one["top"] for one in kzoo.predict(lite_int8, photos)]
    user.ready()
    for photo, top in zip(photos, expected, strict=True):
        shown = user.choose(photo)
        assert shown[0] == top[0]["class"]
        assert len(shown) == 5


@pytest.mark.parametrize(
    ("size", "crop"), [((300, 200), 1.0), ((120, 333), 0.875), ((40, 30), 1.0)]
)
def test_a_photo_s_pixels_are_those_that_the_network_was_trained_on(size, crop, user, tmp_path):
    """Enlarged and reduced, upright and wide: within a level of Pillow's."""
    dice = np.random.default_rng(0)
    coarse = Image.fromarray(dice.integers(0, 256, (9, 9, 3), np.uint8))
    file = tmp_path / "photo.png"
    coarse.resize(size, Image.Resampling.BICUBIC).save(file)
    user.ready()
    user.evaluate(f"window.sent = {list(file.read_bytes())}; 0")
    for channels in (3, 1):
        found = user.evaluate(f"""(async () => {{
            const {{ fitted, imageData }} = await import(new URL('pixels.js', location.href.split('?')[0]));
            const image = await createImageBitmap(new Blob([new Uint8Array(window.sent)]));
            return [...fitted(imageData(image, image.width, image.height), [56, 64, {channels}], {crop})];
        }})()""")  # noqa: E501
        expected = read_photo(file, (56, 64, channels), crop).ravel()
        assert np.abs(np.array(found, int) - expected).max() <= 1


def test_a_softmax_of_many_classes_that_does_not_sum_to_1_is_no_logits(user):
    user.ready()

    def found(raw: list[int], scale: float | None, softmax: bool) -> list[float]:
        port = json.dumps({"scale": scale, "zero_point": 0})
        module = "import(new URL('engine.js', location.href.split('?')[0]))"
        return user.evaluate(
            f"{module}.then((engine) => engine.probabilities({raw}, {port}, {json.dumps(softmax)}))"
        )

    assert found([128, 26] + [0] * 998, 1 / 256, True)[:2] == [128 / 256, 26 / 256]
    assert found([128, 128], 1 / 256, False) == [0.5, 0.5]
    for softmax in (True, False):
        assert found([-1, 2, 0], None, softmax) == pytest.approx([0.042, 0.844, 0.114], abs=1e-3)


def test_a_measurement_by_hand_comes_back(user, served, lite_int8):
    _, came, folder = served
    user.ready()
    disabled = "['photo', 'camera'].map((id) => document.getElementById(id).disabled)"
    user.evaluate("document.getElementById('measure').click()")
    assert user.evaluate(disabled) == [True, True]
    user.wait("document.getElementById('status').textContent === 'sent to the terminal'")
    assert user.evaluate(disabled) == [False, False]
    record = came.get(timeout=5)
    assert record.model == str(lite_int8)
    assert record.runs[0].latency.count >= 70
    shown = float(user.evaluate("document.getElementById('p50').textContent"))
    assert shown == pytest.approx(record.runs[0].latency.p50_ms, abs=0.05)
    (file,) = folder.iterdir()
    assert json.loads(file.read_text()) == record.to_dict()
