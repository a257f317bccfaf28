"""What the page's server refuses, over real sockets; and what is made of what browsers send.

LiteRT.js is read by browsers alone, so files of its names stand in for it; tests/devices/
test_browser.py has the real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import kzoo
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import read_json, sha256, write_json
from kzoo.measure import web_server
from kzoo.measure.deploy import deploy_file
from kzoo.measure.litert_js import litert_js
from kzoo.measure.serve import qr_code
from kzoo.measure.statistics import latency
from kzoo.measure.target import Setting
from kzoo.measure.web_page import Shown, browser_name, shown, site
from kzoo.measure.web_server import MAX_CONNECTIONS, Post, lan_address, serving
from kzoo.report.html import write_report
from tests.report.conftest import write_run

MARK = "b1e5c0de"


@pytest.fixture(scope="module", autouse=True)
def _runtime(tmp_path_factory):
    """Files by the names of LiteRT.js's."""
    folder = tmp_path_factory.mktemp("litertjs")
    for name in read_json(deploy_file("web/litert.json"))["files"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"version": "0.0.0"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KZOO_LITERTJS", str(folder))
        yield


@pytest.fixture(scope="module")
def about(tiny):
    """`tiny` as a page shows it."""
    return shown(tiny)


@pytest.fixture(scope="module")
def _page(about):
    with opened(about) as found:
        yield found


@pytest.fixture
def page(_page):
    """The page of `tiny`, on loopback: its ``port``, ``token``, and what was ``taken``."""
    _page.taken.clear()
    return _page


@contextlib.contextmanager
def opened(model: Shown, **options):
    taken = []

    def take(body: bytes) -> bytes:
        taken.append(body)
        return b"{}"

    pages = site([model], Setting(), {"result": Post(take, 1000)})
    with serving(pages, **options) as url:
        port = int(url.split(":")[2].split("/")[0])
        yield SimpleNamespace(url=url, port=port, token=pages.token, taken=taken)


def send(port: int, request: bytes, *, to: str = "127.0.0.1") -> tuple[int, dict, bytes]:
    """The status, headers and body that come back for these bytes; status 0: nothing does."""
    with socket.create_connection((to, port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]) if status else 0, headers, body


def get(page, path: str, host: str | None = None, method: str = "GET", **options):
    host = f"127.0.0.1:{page.port}" if host is None else host
    return send(page.port, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), **options)


def post(page, name: str, body: bytes, **headers: str) -> tuple[int, dict, bytes]:
    given = {
        "Host": f"127.0.0.1:{page.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    given |= {key.replace("_", "-"): value for key, value in headers.items()}
    lines = "".join(f"{key}: {value}\r\n" for key, value in given.items() if value)
    request = f"POST /{page.token}/{name} HTTP/1.1\r\n{lines}\r\n"
    return send(page.port, request.encode() + body)


def test_the_page_and_all_that_it_names_are_there(page, tiny):
    status, headers, body = get(page, f"/{page.token}/")
    assert status == 200
    assert body == deploy_file("web/page.html").read_bytes()
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe-inline" not in headers["Content-Security-Policy"]
    assert b"http:" not in body
    assert b"https:" not in body
    for name in ("page.js", "engine.js", "pixels.js", "style.css", "icon.svg", "about.json"):
        assert get(page, f"/{page.token}/{name}")[0] == 200
    assert get(page, f"/{page.token}/model/0")[2] == tiny.read_bytes()
    assert get(page, f"/{page.token}/litert/core/dist/index.js?v=1")[0] == 200


@pytest.mark.parametrize("path", ["/", "", "/about.json", "/x/", "//", "/{half}/",
    "/?token={token}", "/{token}x/", "/x/{token}/", "*"])  # fmt: skip
def test_without_the_token_it_is_forbidden(path, page):
    path = path.format(token=page.token, half=page.token[:-1])
    assert get(page, path)[0] == 403


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd",
    "/etc/passwd", "litert", "litert/", "litert/core", "litert/../page.js", "model", "model/",
    "model/1", "model/-1", "page.html", "litert.json", "about.json/", "./", ".", "..", "%00",
    "page.js%00.css", "file:///etc/passwd"])  # fmt: skip
def test_there_is_nothing_but_the_names_of_the_map(name, page):
    status, _, body = get(page, f"/{page.token}/{name}")
    assert (status, body) == (404, b"there is no such file")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80",
    "192.168.1.7", "[::2]", "[", "", "127.0.0.1@evil.example:1", "0x7f.1"])  # fmt: skip
def test_a_strange_host_is_forbidden(host, page):
    """A page of evil.example, whose name was made to point here, has the user's browser ask."""
    assert get(page, f"/{page.token}/", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:1", "LOCALHOST"])
def test_this_machine_s_own_names_are_taken(host, page):
    assert get(page, f"/{page.token}/", host=host)[0] == 200


def test_on_a_network_addresses_are_taken_and_names_are_not(about):
    with opened(about, lan=True) as page:
        path = f"/{page.token}/"
        assert lan_address() in page.url
        assert get(page, path, host="192.168.1.7:80", to=lan_address())[0] == 200
        assert get(page, path, host="evil.example", to=lan_address())[0] == 403
        assert get(page, "/", host="192.168.1.7", to=lan_address())[0] == 403


def test_other_machines_do_not_reach_it_unless_asked(page):
    if lan_address().startswith("127."):
        pytest.skip("this machine is in no network")
    with pytest.raises(ConnectionRefusedError):
        get(page, f"/{page.token}/", to=lan_address())


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "get"])
def test_other_methods_are_refused(method, page):
    assert get(page, f"/{page.token}/", method=method)[0] == 405


@pytest.mark.parametrize(("headers", "status"), [
    ({"Content_Length": "1001"}, 413),
    ({"Content_Length": str(10**30)}, 413),
    ({"Content_Length": ""}, 411),
    ({"Content_Length": "-1"}, 411),
    ({"Content_Length": "+5"}, 411),
    ({"Content_Length": "1e3"}, 411),
    ({"Transfer_Encoding": "chunked"}, 411),
    ({"Content_Type": "text/plain"}, 415),
    ({"Sec_Fetch_Site": "cross-site"}, 403),
    ({"Host": "evil.example"}, 403),
])  # fmt: skip
def test_a_body_must_be_announced_small_and_of_the_page(headers, status, page):
    assert post(page, "result", b"", **headers)[0] == status
    assert not page.taken
    assert post(page, "result", b"12345", Sec_Fetch_Site="same-origin")[0] == 200
    assert page.taken == [b"12345"]


def test_nothing_is_taken_where_nothing_is_asked_for(page):
    for name in ("", "about.json", "results", "../result"):
        assert post(page, name, b"{}")[0] == 404


@pytest.mark.parametrize("request_", [
    f"GET /{MARK} HTTP/1.1\r\nHost: {MARK}\r\n\r\n",
    f"{MARK} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"GET / {MARK}\r\n\r\n",
    f"GET /<script>{MARK} HTTP/9.9\r\n\r\n",
    f"{MARK}\r\n\r\n",
    f"GET / HTTP/1.1\r\n{MARK}\r\n\r\n",
    "GET /" + MARK * 20_000 + " HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\n" + f"{MARK}: 1\r\n" * 200 + "\r\n",
])  # fmt: skip
def test_nothing_that_is_sent_comes_back(request_, page):
    status, headers, body = send(page.port, request_.encode())
    assert status == 0 or 400 <= status < 600
    assert MARK not in str(headers)
    assert MARK.encode() not in body
    assert get(page, f"/{page.token}/")[0] == 200


@pytest.mark.parametrize("begun", ["", "POST /{token}/result HTTP/1.1\r\nHost: localhost\r\n"
    "Content-Type: application/json\r\nContent-Length: 900\r\n\r\n"])  # fmt: skip
def test_a_slow_client_is_hung_up_on(begun, about, monkeypatch):
    """A byte now and then keeps no connection open, neither before the body nor in it."""
    monkeypatch.setattr(web_server, "REQUEST_SECONDS", 0.5)
    with opened(about) as page, socket.create_connection(("127.0.0.1", page.port)) as slow:
        slow.sendall(begun.format(token=page.token).encode() or b"G")
        start = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - start < 20:
                slow.sendall(b"G")
                slow.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    if not slow.recv(1000):
                        break
        assert time.monotonic() - start < 10  # the limit by default
        assert not page.taken
        assert get(page, f"/{page.token}/")[0] == 200


def test_only_so_many_are_served_at_a_time(page):
    with contextlib.ExitStack() as idle:
        for _ in range(MAX_CONNECTIONS):
            idle.enter_context(socket.create_connection(("127.0.0.1", page.port)))
        assert get(page, f"/{page.token}/")[0] == 0
    until = time.monotonic() + 5
    while (status := get(page, f"/{page.token}/")[0]) != 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert status == 200


def test_a_fault_of_ours_is_seen_and_a_client_s_is_not(about, capfd):
    def take(_body: bytes) -> bytes:
        raise ZeroDivisionError("ours")

    pages = site([about], Setting(), {"result": Post(take, 1000)})
    with serving(pages) as url:
        page = SimpleNamespace(port=int(url.split(":")[2].split("/")[0]), token=pages.token)
        with socket.create_connection(("127.0.0.1", page.port)) as gone:
            gone.sendall(b"GET /")
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert post(page, "result", b"{}")[0] == 0
    assert capfd.readouterr().err.count("Traceback") == 1


def test_a_taken_port_is_wrong_use(page, about):
    with pytest.raises(UsageError, match=f"port {page.port}"), opened(about, port=page.port):
        pass


# ---------------------------------------------------------------------- what is made of results
TENSOR = {"name": "pixels", "shape": [1, 224, 224, 3], "dtype": "float32"}
AGENT = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 "
    "Mobile Safari/537.36"
)
DEVICE = {
    "user_agent": AGENT, "cores": 8, "memory_gb": 8, "model": "Pixel 8", "platform": "Android 15",
    "architecture": "arm, 64 bits", "webgpu": None,
}  # fmt: skip
RESULT = {
    "model": 0, "accelerator": "wasm", "threads": 1, "build": "simd", "inputs": [TENSOR],
    "outputs": [TENSOR], "isolated": False, "fully_accelerated": None,
    "import_ms": 300.5, "init_ms": 20, "first_ms": 9, "clock_ms": 0.1, "device": DEVICE,
    "batch": 1, "hidden": False, "window": 20, "steady": True, "warmup_runs": 60,
    "stopped_by": "minimum", "samples_ms": [5 + 0.01 * (7 * i % 100) for i in range(200)],
}  # fmt: skip


@contextlib.contextmanager
def kzoo_serve(model, folder):
    """`kzoo.serve` in a thread: its ``page``, what was ``told``, and ``end()``, its record."""
    address, told, found = queue.SimpleQueue(), [], []
    options = {"output": folder, "results": 1, "warm_up": 2.5}

    def run() -> None:
        found.append(kzoo.serve(model, opened=address.put, told=told.append, **options))

    thread = threading.Thread(target=run)
    thread.start()
    url = address.get(timeout=20)
    page = SimpleNamespace(port=int(url.split(":")[2].split("/")[0]), token=url.split("/")[3])

    def end(result: dict = RESULT):
        status = post(page, "result", json.dumps(result).encode())[0]
        thread.join(10)
        return status, found[0]

    yield SimpleNamespace(page=page, told=told, end=end, folder=folder)
    if not found:
        end()


@pytest.fixture
def server(tiny, tmp_path):
    """One that ends with the first result."""
    with kzoo_serve(tiny, tmp_path / "results") as found:
        yield found


@pytest.fixture(scope="module")
def strict(tiny, tmp_path_factory):
    """One that is sent no result."""
    with kzoo_serve(tiny, tmp_path_factory.mktemp("strict") / "results") as found:
        yield found


def test_a_result_becomes_the_record_of_every_other_target(server, tiny):
    status, served = server.end()
    expected = latency(RESULT["samples_ms"])
    assert status == 200
    (made,) = served.records
    assert made == server.told[0]
    assert (made.kind, made.target, made.runner) == ("measured", "browser", "litert.js")
    assert (made.runtime, made.runtime_version) == ("@litertjs/core", "0.0.0")
    assert made.delegate == "wasm"
    assert made.runs[0].latency == expected
    assert made.method.startswith("a fresh page per thread count")  # a browser's process is kept
    assert made.model_sha256 == sha256(tiny)
    assert made.warm_up == 2.5
    device = made.device
    assert (device["model"], device["processor"], device["cores"]) == ("Pixel 8", "Chrome 150", 8)
    assert device["user_agent"] == AGENT
    assert any("steps of 100 us, 2% of the fastest run" in note for note in made.notes)
    (file,) = served.files
    assert Path(file).parent == server.folder
    assert read_json(file) == made.to_dict()


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """A run's folder, whose alpha has the bytes of `tiny` as its file; and the path of the file."""
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "runs" / "mini")
    (folder / "models").mkdir(exist_ok=True)
    file = folder / "models" / "alpha_int8.tflite"
    file.write_bytes(tiny.read_bytes())
    path = folder / "ledger" / "alpha.quantize.json"
    record = read_json(path)
    record["outputs"] = {"models/alpha_int8.tflite": sha256(tiny)}
    write_json(path, record)
    return file.relative_to(tmp_path)


def test_results_of_a_run_s_file_go_into_its_ledger_and_its_report(run, tmp_path):
    other = RESULT | {"device": DEVICE | {"model": "Fair<b>phone 5"}, "threads": 4}
    files = []
    for result in (RESULT, RESULT, other):
        with kzoo_serve(run, None) as server:
            _, served = server.end(result)
        files += served.files
        assert server.told[1] == f"kept as {served.files[0]}"
    assert files == [f"runs/mini/ledger/alpha_int8.served-{name}.json" for name in (
        "pixel-8-chrome-150-1", "pixel-8-chrome-150-2", "fair-b-phone-5-chrome-150-1",
    )]  # fmt: skip
    record = read_json(files[2])
    assert (record["step"], record["model"]) == ("serve", "alpha_int8")
    assert record["result"] == served.records[0].to_dict()
    page = write_report("runs/mini").read_text()
    section = page[page.index('<h2 id="devices">') : page.index('<h2 id="data">')]
    for told in ("Pixel 8, Android 15", "Fair&lt;b&gt;phone 5", "4 threads", "1 thread<",
                 "Chrome 150", ">measured<", "steps of 100 us"):  # fmt: skip
        assert told in section
    assert section.count("alpha_int8<") == 3
    assert "(earlier)" not in section
    with kzoo_serve(run, tmp_path / "elsewhere") as server:
        assert Path(server.end()[1].files[0]).parent == tmp_path / "elsewhere"
    assert len([*(tmp_path / "runs" / "mini" / "ledger").glob("*.served-*")]) == 3
    write_json("runs/mini/ledger/alpha.quantize.json",
               read_json("runs/mini/ledger/alpha.quantize.json") | {"outputs": {}})  # fmt: skip
    assert write_report("runs/mini").read_text().count("alpha_int8 (earlier)<") == 3


@pytest.mark.parametrize("missing", ["ledger", "run.json", "models"])
def test_a_file_that_is_in_no_run_is_kept_by_output_alone(missing, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run/ledger").mkdir(parents=True) if missing != "ledger" else Path("run").mkdir()
    if missing != "run.json":
        Path("run/run.json").write_text("{}")
    (model := Path("run", "other" if missing == "models" else "models", "a.tflite")).parent.mkdir()
    model.write_bytes(tiny.read_bytes())
    with kzoo_serve(model, None) as server:
        _, served = server.end()
    assert served.files == []
    assert [type(each) for each in server.told] == [type(served.records[0])]


def test_a_damaged_record_of_a_device_is_named(run):
    with kzoo_serve(run, None) as server:
        (file,) = server.end()[1].files
    record = read_json(file)
    del record["result"]["device"]
    write_json(file, record)
    with pytest.raises(BadInputError, match=r"served-pixel-8-chrome-150-1\.json.*is damaged"):
        write_report("runs/mini")


def test_the_page_is_told_the_rules(server):
    about = get(server.page, f"/{server.page.token}/about.json")[2]
    assert json.loads(about)["rules"] == {
        "warm_up": 2.5, "min_runs": 100, "min_seconds": 1.0, "max_seconds": 60.0,
    }  # fmt: skip


def test_a_file_may_be_written_anew_while_it_is_served(small, tiny, tmp_path):
    """Browsers have what it was, and that is what the record says."""
    (model := tmp_path / "net.tflite").write_bytes(tiny.read_bytes())
    with kzoo_serve(model, None) as server:
        model.write_bytes(small.read_bytes())
        status, served = server.end()
    assert status == 200
    assert served.records[0].model_sha256 == sha256(tiny)


def test_as_many_results_are_taken_as_were_asked_for(server, monkeypatch):
    monkeypatch.setattr("kzoo.measure.serve.MOST_RESULTS", 0)
    assert server.end()[0] == 200


def changed(**changes) -> dict:
    return RESULT | changes


@pytest.mark.parametrize("result", [
    "", "null", "[]", "{}", "[" * 100_000, '{"a":' * 50_000,
    json.dumps(changed(samples_ms=[float("nan")])),
    json.dumps(changed(samples_ms=[float("inf")])),
    json.dumps(RESULT).replace("300.5", "1e999"),
    changed(samples_ms=[]), changed(samples_ms=[-1.0]), changed(samples_ms=[0.0]),
    changed(samples_ms=[1e-9] * 20 + [5.0] * 20), changed(samples_ms=["5"]),
    changed(samples_ms=[5.0] * 100_001), changed(samples_ms=5), changed(more=1),
    changed(model=1), changed(model=-1), changed(model=0.5), changed(model=True),
    changed(threads=0), changed(threads=10**9), changed(stopped_by="tired"),
    changed(accelerator="tpu"), changed(batch=0), changed(inputs=[]),
    changed(inputs=[TENSOR | {"dtype": "int8"}]), changed(inputs=[TENSOR | {"shape": [1] * 9}]),
    changed(device=DEVICE | {"user_agent": "x" * 501}), changed(device=DEVICE | {"cores": 0}),
    changed(device=None),
], ids=lambda result: str(result)[:40])  # fmt: skip
def test_what_cannot_be_a_result_is_refused(result, strict):
    body = (result if isinstance(result, str) else json.dumps(result)).encode()
    status, _, answer = post(strict.page, "result", body)
    assert status == 400
    assert answer.startswith(b"not a Timed") or answer == b"there is no such model"
    assert not strict.told
    assert not list(strict.folder.iterdir())


def test_texts_of_a_device_do_not_command_the_terminal_or_the_disk(server):
    device = DEVICE | {"model": "../../\x1b]0;gone\x07\u202e<b>", "user_agent": "a\nb\r\x9bc"}
    (made,) = server.end(RESULT | {"device": device})[1].records
    assert all(text.isprintable() for text in made.device.values() if isinstance(text, str))
    (file,) = server.folder.rglob("*")
    assert file.parent == server.folder
    assert file.name == "tiny-0-gone-b-a-browser-1.json"


def test_a_failure_in_a_browser_is_a_line_in_the_terminal(server):
    problem = {"model": 0, "text": "RuntimeError:\x1b[2J unreachable", "user_agent": AGENT}
    assert post(server.page, "problem", json.dumps(problem).encode())[0] == 200
    (line,) = server.told
    assert line.endswith("failed in Chrome 150: RuntimeError: [2J unreachable")
    server.told.clear()


def test_batches_and_software_are_noted(server):
    gpu = {"accelerator": "webgpu", "fully_accelerated": True, "build": "jspi"}
    device = DEVICE | {"webgpu": "google swiftshader"}
    result = RESULT | gpu | {"batch": 16, "hidden": True, "device": device}
    (made,) = server.end(result)[1].records
    assert made.delegate == "WebGPU (google swiftshader)"
    assert not any("of the fastest" in note for note in made.notes)
    for note in ("each sample is the mean of 16 runs", "the page was hidden", "on no GPU"):
        assert any(note in each for each in made.notes)


def test_the_command_prints_the_record_and_ctrl_c_ends_it(tiny):
    command = [sys.executable, "-m", "kzoo", "serve", str(tiny), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:  # fmt: skip
        url = process.stderr.readline().strip()
        page = SimpleNamespace(port=int(url.split(":")[2].split("/")[0]), token=url.split("/")[3])
        status, _, body = post(page, "result", json.dumps(RESULT).encode())
        expected = latency(RESULT["samples_ms"])
        summary = {"p50_ms": expected.p50_ms, "p90_ms": expected.p90_ms, "count": 200}
        assert (status, json.loads(body)) == (200, summary)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, err
    record = json.loads(out)
    assert record["url"] == url
    assert record["records"][0]["device"]["model"] == "Pixel 8"
    told = "ms, 200 runs on wasm, threads 1; Pixel 8, Chrome 150, Android 15, cores 8\n"
    assert f"p50 {expected.p50_ms:.3f} ms, p90 {expected.p90_ms:.3f} {told}" in err


def test_int8_tensors_are_refused_with_what_to_type(small):
    with pytest.raises(BadInputError, match=r"takes int8, .*kzoo quantize NET.keras --io uint8"):
        kzoo.serve(small)


def test_wrong_use_is_told(tiny, tmp_path):
    for wrong in ({"min_runs": 0}, {"min_seconds": float("nan")}, {"results": -1},
                  {"port": 70_000}):  # fmt: skip
        with pytest.raises(UsageError):
            kzoo.serve(tiny, **({"results": 0} | wrong))
    for place in (tiny, tiny / "results"):  # before anybody measures
        with pytest.raises(UsageError, match="is a file, or in one"):
            kzoo.serve(tiny, output=place, results=0)
    with pytest.raises(MissingError, match="does not exist"):
        kzoo.serve(tmp_path / "absent.tflite")


def test_without_npm_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("KZOO_LITERTJS")
    monkeypatch.setenv("KZOO_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"install Node\.js, or unpack @litertjs/core@2.*"):
        litert_js()
    monkeypatch.setenv("KZOO_OFFLINE", "1")
    with pytest.raises(MissingError, match="kzoo is offline"):
        litert_js()


def test_another_package_than_was_published_is_discarded(monkeypatch, tmp_path):
    """An npm that gives something else."""
    monkeypatch.delenv("KZOO_LITERTJS")
    monkeypatch.setenv("KZOO_HOME", str(tmp_path / "home"))
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho other > package.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BadInputError, match="was discarded: its sha512 is"):
        litert_js()
    assert not list((tmp_path / "home").rglob("*.js"))


@pytest.mark.parametrize(("agent", "name"), [
    (AGENT, "Chrome 150"),
    (f"{AGENT} EdgA/150.0", "Edge 150"),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox 140"),
    ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
     "Gecko) Version/18.1 Mobile/15E148 Safari/604.1", "Safari 18"),
    ("curl", "a browser"),
])  # fmt: skip
def test_browsers_are_told_apart(agent, name):
    assert browser_name(agent) == name


def test_the_qr_code_holds_the_address():
    pytest.importorskip("segno", reason="needs segno; pip install 'kzoo[devices]'")
    lines = qr_code("http://192.168.1.7:40000/AAAABBBBCCCCDDDD/").splitlines()
    assert 15 < len(lines) < 25
    assert set("".join(lines)) <= set("█▀▄ \x1b[0123456789;m")
