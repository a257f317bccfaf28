"""Whatever the server and the line do: the file is whole and the expected one, or it is absent."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kzoo import fetch as module
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.fetch import fetch

CONTENT = random.Random(0).randbytes(3_000_000)
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Site(ThreadingHTTPServer):
    """A server on loopback that answers each request by the next function of `script`.

    Attributes:
        script: answers to come; after the last, `plain`.
        asked: the headers of each request.
        sent: bytes of bodies sent in all.
        go: what `held` waits for.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.start()
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def start(self, *script) -> None:
        self.script, self.asked, self.bodies = list(script), [], []
        self.go = threading.Event()

    @property
    def sent(self) -> int:
        return sum(self.bodies)

    def url(self, path="model.pth") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def handle_error(self, *_):
        """A client that was killed is no news."""


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.bodies = self.server.bodies
        self.server.asked.append((self.path, self.headers))
        (self.server.script.pop(0) if self.server.script else plain)(self)

    def log_message(self, *_):
        pass

    def start(self, code, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, data):
        self.wfile.write(data)
        self.bodies.append(len(data))


def plain(answer, content=CONTENT, *, cut=None, ranges=True, hold=False, **headers):
    """The content from where it was asked for; after ``cut`` bytes the line breaks, or is held."""
    asked = answer.headers["Range"] if ranges else None
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    if asked and start >= len(content):
        return answer.start(416, Content_Range=f"bytes */{len(content)}")
    if asked:
        headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    answer.start(206 if asked else 200, Content_Length=len(content) - start, **headers)
    answer.body(content[start:][:cut])
    if hold:
        answer.server.go.wait(20)
        answer.body(content[start:][cut:])
    return None


def status(answer, code, **headers):
    answer.start(code, Content_Length=0, **headers)


def moved(answer, to, code=302, **headers):
    answer.start(code, Location=to, **headers)
    answer.wfile.write(b"moved " * 10)


def endless(answer):
    answer.start(200)
    while True:
        answer.body(bytes(2**16))


def garbage(answer):
    answer.wfile.write(b"\xff\x00 nothing like HTTP\r\n\r\n")


def silence(answer):
    answer.server.go.wait(20)


def drop(bytes_sent, **options):
    return partial(plain, cut=bytes_sent, **options)


@pytest.fixture(scope="module")
def running():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BACKOFF", 0.001)
        patch.setenv("no_proxy", "127.0.0.1")
        patch.delenv("KZOO_OFFLINE", raising=False)
        with Site() as site:
            yield site
            site.shutdown()


@pytest.fixture
def site(running):
    running.start()
    yield running
    running.go.set()


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def place_of(url: str, folder: Path) -> Path:
    """Where the error says that the file is to be put."""
    with pytest.raises(MissingError) as caught:
        fetch(url, folder=folder, offline=True)
    return Path(str(caught.value).partition("put it at ")[2])


@pytest.mark.parametrize("digest", [SHA, SHA[:15], SHA.upper().replace("SHA", "sha"), MD5, ""])
def test_a_file_is_downloaded_once_and_is_the_servers(site, tmp_path, digest):
    path = fetch(site.url(), digest=digest, folder=tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert fetch(site.url(), digest=digest, folder=path.parent) == path
    assert names(path.parent) == [path.name] + [f"{path.name}.sha256"] * (not digest)
    assert len(site.asked) == 1
    assert site.asked[0][1]["User-Agent"].startswith("kzoo/")


def test_weights_in_the_cache_are_the_default_place(site, tmp_path, monkeypatch):
    monkeypatch.setenv("KZOO_HOME", str(tmp_path))
    assert fetch(site.url()).parent == tmp_path / "weights"


@pytest.mark.parametrize("content", [b"", b"\n", b"small" * 1000])
def test_a_file_may_be_small_or_empty(site, tmp_path, content):
    site.start(partial(plain, ranges=False, content=content))
    digest = f"md5:{hashlib.md5(content).hexdigest()}"
    assert fetch(site.url(), digest=digest, folder=tmp_path).read_bytes() == content


def test_equal_names_of_two_urls_are_two_files(site, tmp_path):
    site.start(partial(plain, content=b"one"), partial(plain, content=b"two"))
    urls = [site.url(f"{owner}/model.safetensors") for owner in ("a", "b")]
    paths = [fetch(url, folder=tmp_path) for url in urls]
    assert [path.read_bytes() for path in paths] == [b"one", b"two"]
    assert {path.name[8:] for path in paths} == {"-model.safetensors"}


@pytest.mark.parametrize(
    "path", ["..", "a/..%2F..%2Fevil", "%00%0a", "", ".hidden", "n" * 600, "x?y=/z", "%E4.h5"]
)
def test_a_url_names_a_file_in_the_folder_whatever_it_is(site, tmp_path, path):
    found = fetch(site.url(path), folder=tmp_path / "cache")
    assert found.parent == tmp_path / "cache"
    assert found.name[8:9] == "-"
    assert re.fullmatch(r"[A-Za-z0-9_.]{1,120}", found.name[9:])
    assert names(tmp_path) == ["cache"]


@pytest.mark.parametrize(
    "url", ["", "model.pth", "file:///etc/passwd", "ftp://host/a", "https://", "http://h/a b"]
)
def test_what_is_no_url_of_the_web_is_a_wrong_use(tmp_path, url):
    with pytest.raises(UsageError, match="https://HOST"):
        fetch(url, folder=tmp_path)


@pytest.mark.parametrize("digest", ["abc", "sha256:", "sha256:1234567", "md5:12345678", "crc:1"])
def test_what_is_no_digest_is_a_wrong_use(tmp_path, digest):
    with pytest.raises(UsageError, match="at least 8"):
        fetch("http://127.0.0.1/a", digest=digest, folder=tmp_path)


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:00000000", "md5:" + "0" * 32])
def test_another_content_is_discarded(site, tmp_path, digest):
    with pytest.raises(BadInputError, match=r"discarded.*is (sha256|md5):[0-9a-f]+, expected") as e:
        fetch(site.url(), digest=digest, folder=tmp_path)
    assert digest in str(e.value)
    assert (SHA if digest[0] == "s" else MD5) in str(e.value)
    assert names(tmp_path) == []


def test_the_digest_that_the_hub_names_is_held_to(site, tmp_path):
    right, wrong = (f'"{hex_}"' for hex_ in (SHA[7:], "0" * 64))
    for tag in (right, wrong):
        for script in (
            [partial(plain, X_Linked_ETag=tag)],
            [partial(moved, to="/elsewhere", X_Linked_ETag=tag), plain],
        ):
            site.start(*script)
            if tag == right:
                path = fetch(site.url(), folder=tmp_path)
                assert path.read_bytes() == CONTENT
                path.unlink()
                note_of(path).unlink()
            else:
                with pytest.raises(BadInputError, match="0" * 64):
                    fetch(site.url(), folder=tmp_path)
                assert names(tmp_path) == []


def test_an_etag_is_an_opaque_word(site, tmp_path):
    site.start(partial(plain, ETag=f'"{"0" * 64}"'))
    assert fetch(site.url(), folder=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("digest", [SHA, MD5])
def test_a_damaged_file_is_downloaded_anew(site, tmp_path, digest):
    path = fetch(site.url(), digest=digest, folder=tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert fetch(site.url(), digest=digest, folder=tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 2
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(BadInputError, match="discarded"):
        fetch(site.url(), digest=digest, folder=tmp_path, offline=True)
    assert not path.exists()


def note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


@pytest.mark.parametrize("how", ["downloaded", "put there", "put there, the note unreadable"])
def test_without_a_digest_a_file_is_trusted_at_its_first_use_and_held_to_it(how, site, tmp_path):
    path, call = place_of(site.url(), tmp_path), partial(fetch, site.url(), folder=tmp_path)
    if how != "downloaded":
        path.write_bytes(CONTENT)
        if "unreadable" in how:
            note_of(path).write_bytes(b"\xff no digest\n")
        call(offline=True)
    else:
        call()
    assert call(offline=True) == path
    assert note_of(path).read_text() == f"{SHA[7:]}  {path.name}\n"
    before = len(site.asked)

    for changed in (CONTENT[:-1], CONTENT[:-1] + b"!", b""):
        path.write_bytes(changed)
        assert call().read_bytes() == CONTENT
    assert len(site.asked) == before + 3
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(BadInputError, match=f"discarded: .*expected was {SHA}, as at its first"):
        call(offline=True)
    assert names(tmp_path) == [note_of(path).name]


def test_a_new_version_is_taken_after_the_note_of_the_old_is_deleted(site, tmp_path):
    call = partial(fetch, site.url(), folder=tmp_path)
    path = call()
    path.unlink()
    site.start(*[partial(plain, content=b"a new version")] * 2)
    with pytest.raises(BadInputError, match="if its publisher replaced it") as caught:
        call()
    assert str(caught.value).endswith(f"delete {note_of(path)}")
    assert names(tmp_path) == [note_of(path).name]
    note_of(path).unlink()
    assert call().read_bytes() == b"a new version"
    assert call(offline=True) == path


def test_what_was_once_whole_is_resumed_by_its_note(site, tmp_path):
    path = fetch(site.url(), folder=tmp_path)
    path.unlink()
    site.start(drop(500_000))
    assert fetch(site.url(), folder=tmp_path).read_bytes() == CONTENT
    assert site.sent == len(CONTENT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_only_be_read_is_used_without_a_note(site, tmp_path):
    path = place_of(site.url(), tmp_path)
    path.write_bytes(CONTENT)
    tmp_path.chmod(0o500)
    try:
        assert fetch(site.url(), folder=tmp_path) == path
        assert names(tmp_path) == [path.name]
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("how", ["option", "environment", "refused", "no such host"])
def test_without_a_network_the_error_says_where_to_put_the_file(how, site, tmp_path, monkeypatch):
    url = {"refused": "http://127.0.0.1:9/m.pth", "no such host": "http://kzoo.invalid/m.pth"}
    url = url.get(how, site.url("m.pth"))
    if how == "environment":
        monkeypatch.setenv("KZOO_OFFLINE", "1")
    call = partial(fetch, url, digest=SHA, folder=tmp_path, offline=how == "option")
    with pytest.raises(MissingError) as caught:
        call()
    said = str(caught.value)
    place = Path(said.partition("put it at ")[2])
    assert url in said
    assert "download m.pth elsewhere" in said
    assert place.parent == tmp_path
    assert names(tmp_path) == []
    place.write_bytes(CONTENT)
    assert call() == place
    assert site.asked == []


def test_a_file_under_its_own_name_is_taken_if_its_digest_is_right(site, tmp_path):
    own = tmp_path / "model.pth"
    own.write_bytes(CONTENT)
    assert fetch(site.url(), digest=SHA, folder=tmp_path, offline=True) == own
    own.write_bytes(b"of another model")
    assert fetch(site.url(), digest=SHA, folder=tmp_path) != own
    assert own.read_bytes() == b"of another model"


@pytest.mark.parametrize("digest", [SHA, SHA[:15], MD5])
def test_a_broken_download_goes_on_where_it_broke(site, tmp_path, digest):
    site.start(drop(500_000), drop(1), drop(0), drop(2_000_000))
    assert fetch(site.url(), digest=digest, folder=tmp_path).read_bytes() == CONTENT
    assert site.sent == len(CONTENT)
    starts = [headers["Range"] for _, headers in site.asked]
    assert starts == [None, *(f"bytes={n}-" for n in (500_000, 500_001, 500_001, 2_500_001))]


def test_by_the_hubs_digest_too(site, tmp_path):
    tag = f'"{SHA[7:]}"'
    site.start(drop(500_000, X_Linked_ETag=tag), partial(plain, X_Linked_ETag=tag))
    assert fetch(site.url(), folder=tmp_path).read_bytes() == CONTENT
    assert site.sent == len(CONTENT)


def test_without_a_digest_two_answers_are_never_joined(site, tmp_path):
    site.start(drop(500_000), partial(plain, content=CONTENT[::-1]), drop(500_000))
    assert fetch(site.url(), folder=tmp_path).read_bytes() in (CONTENT, CONTENT[::-1])


def test_a_server_that_knows_no_ranges_sends_all_again(site, tmp_path):
    site.start(drop(500_000), drop(700_000, ranges=False), partial(plain, ranges=False))
    assert fetch(site.url(), digest=SHA, folder=tmp_path).read_bytes() == CONTENT
    assert site.sent == 1_200_000 + len(CONTENT)


@pytest.mark.parametrize("what", ["other version", "too long", "whole", "empty"])
def test_a_part_of_an_earlier_run_that_does_not_fit_is_replaced(site, tmp_path, what):
    site.start(drop(500_000), *[partial(status, code=503)] * 4)
    with pytest.raises(MissingError, match="500,000 bytes received are kept"):
        fetch(site.url(), digest=SHA, folder=tmp_path)
    (part,) = tmp_path.iterdir()
    assert part.read_bytes() == CONTENT[:500_000]
    part.write_bytes(
        {"other version": b"-" * 500_000, "too long": CONTENT * 2, "whole": CONTENT, "empty": b""}[
            what
        ]
    )
    site.start()
    assert fetch(site.url(), digest=SHA, folder=tmp_path).read_bytes() == CONTENT
    assert len(names(tmp_path)) == 1
    if what == "whole":
        assert site.sent == 0


def test_after_five_failures_in_a_row_what_came_is_kept(site, tmp_path):
    site.start(drop(1000), *[drop(0)] * 4)
    with pytest.raises(MissingError, match="ended after 1,000 of 3,000,000 bytes"):
        fetch(site.url(), digest=SHA, folder=tmp_path)
    assert [name[-9:] for name in names(tmp_path)] == [".pth.part"]
    assert fetch(site.url(), digest=SHA, folder=tmp_path).read_bytes() == CONTENT
    assert site.sent == len(CONTENT)


def test_a_long_download_may_break_more_often(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100_000)
    site.start(*[drop(100_000), drop(0)] * 20)
    assert fetch(site.url(), digest=SHA, folder=tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 41


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(site, tmp_path, code):
    site.start(*[partial(status, code=code)] * 4)
    assert fetch(site.url(), digest=SHA, folder=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_final(site, tmp_path, code):
    site.start(partial(status, code=code))
    with pytest.raises(MissingError, match=rf"answers {code} .*put it at"):
        fetch(site.url(), digest=SHA, folder=tmp_path)
    assert len(site.asked) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(("asked", "wait"), [("0", 0), ("1", 1), ("soon", 0.001), ("-1", 0.001)])
def test_the_server_says_when_to_ask_again(site, tmp_path, monkeypatch, asked, wait):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    site.start(partial(status, code=503, Retry_After=asked))
    fetch(site.url(), folder=tmp_path)
    assert waits == [wait]


def test_but_not_for_how_long_to_wait(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.01)
    site.start(partial(status, code=429, Retry_After="86400"))
    assert fetch(site.url(), folder=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("answer", [silence, drop(1000, hold=True)], ids=["at once", "midway"])
def test_a_server_that_falls_silent_is_left(site, tmp_path, answer):
    site.start(answer)
    assert fetch(site.url(), digest=SHA, folder=tmp_path, timeout=0.2).read_bytes() == CONTENT
    site.start(*[silence] * 5)
    with pytest.raises(MissingError, match="timed out"):
        fetch(site.url("b"), folder=tmp_path, timeout=0.05)


@pytest.mark.parametrize("answer", [endless, plain], ids=["without a length", "with one"])
def test_a_file_above_the_limit_is_discarded(site, tmp_path, answer):
    site.start(answer)
    with pytest.raises(BadInputError, match="limit of 2,999,999 bytes"):
        fetch(site.url(), folder=tmp_path, limit=len(CONTENT) - 1)
    assert names(tmp_path) == []
    assert fetch(site.url(), folder=tmp_path, limit=len(CONTENT)).read_bytes() == CONTENT


def test_a_file_larger_than_the_disk_is_refused_before_it_fills_it(site, tmp_path):
    def huge(answer):
        answer.start(200, Content_Length=2**60)

    site.start(huge)
    with pytest.raises(MissingError, match="no space left"):
        fetch(site.url(), folder=tmp_path, limit=2**61)
    assert len(site.asked) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_gets_full_is_not_asked_again(site, tmp_path):
    place = place_of(site.url(), tmp_path)
    place.with_name(f"{place.name}.part").symlink_to("/dev/full")
    with pytest.raises(MissingError, match="no space left"):
        fetch(site.url(), folder=tmp_path)
    assert len(site.asked) == 1
    assert not place.exists()


def test_redirects_are_followed_and_go_on_too(site, tmp_path):
    site.start(partial(moved, to="/a", code=301), partial(moved, to=site.url("b"), code=307))
    site.script += [drop(500_000), partial(moved, to="/b", code=308)]
    assert fetch(site.url(), digest=SHA, folder=tmp_path).name.endswith("-model.pth")
    assert [path for path, _ in site.asked] == ["/model.pth", "/a", "/b", "/model.pth", "/b"]
    assert site.sent == len(CONTENT)


def test_the_body_of_a_redirect_is_not_read(site, tmp_path):
    def moved_endlessly(answer):
        answer.start(302, Location="/elsewhere")
        while True:
            answer.body(bytes(2**16))

    site.start(moved_endlessly)
    assert fetch(site.url(), folder=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/m", "file:///etc/passwd", "/model.pth"])
def test_redirects_that_lead_elsewhere_or_nowhere_are_not(site, tmp_path, to):
    site.start(*[partial(moved, to=to)] * 20)
    with pytest.raises((BadInputError, MissingError), match=r"redirect|Redirect"):
        fetch(site.url(), folder=tmp_path)
    assert not [name for name in names(tmp_path) if not name.endswith(".part")]


@pytest.fixture
def secure(tmp_path):
    """A site with TLS; its own certificate is in ``site.certificate``."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl, to make a certificate")
    import ssl

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -addext "
        f"subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Site() as site:
        site.socket = context.wrap_socket(site.socket, server_side=True)
        site.certificate = certificate
        yield site
        site.shutdown()


def test_https_is_verified_and_not_left(secure, site, tmp_path, monkeypatch):
    url = secure.url().replace("http:", "https:")
    told = []
    with pytest.raises(MissingError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(url, folder=tmp_path / "cache", progress=lambda *what: told.append(what))
    assert told == []  # no second try: time cures no certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.certificate))
    secure.start(partial(moved, to=site.url()))
    with pytest.raises(BadInputError, match="not safe"):
        fetch(url, folder=tmp_path / "cache")
    assert site.asked == []
    site.start(partial(moved, to=url))
    assert fetch(site.url(), folder=tmp_path / "cache").read_bytes() == CONTENT


def test_the_proxy_of_the_environment_is_used(site, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", site.url(""))
    url = "http://kzoo.invalid/model.pth"
    assert fetch(url, folder=tmp_path).read_bytes() == CONTENT
    assert site.asked[0][0] == url


def test_progress_is_told_in_kb_to_the_end(site, tmp_path):
    told = []
    site.start(partial(status, code=503), drop(500_000))
    fetch(site.url(), digest=SHA, folder=tmp_path, progress=lambda *what: told.append(what))
    assert told[0] == (
        "download model.pth (kB): the server answers 503 Service Unavailable, try 2 of 5",
        0,
        1,
    )
    assert told[-1] == ("download model.pth (kB)", 3000, 3000)
    assert {task.partition(":")[0] for task, *_ in told} == {"download model.pth (kB)"}


def child(url: str, folder: Path) -> subprocess.Popen:
    """A process that downloads; it prints its progress, then the path."""
    code = (
        "import sys; from pathlib import Path; from kzoo.fetch import fetch;"
        "print(fetch(sys.argv[1], digest=sys.argv[3], folder=Path(sys.argv[2]),"
        " progress=lambda *told: print(*told, flush=True)))"
    )
    command = [sys.executable, "-c", code, url, str(folder), SHA]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def await_line(process: subprocess.Popen, start: str) -> None:
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(f"the process ended without saying {start!r}")


def await_size(folder: Path, size: int) -> Path:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for part in folder.glob("*.part"):
            if part.stat().st_size >= size:
                return part
        time.sleep(0.01)
    return pytest.fail("nothing was downloaded")


def test_a_killed_download_goes_on_in_the_next_process(site, tmp_path):
    site.start(drop(2_000_000, hold=True))
    with child(site.url(), tmp_path) as process:
        part = await_size(tmp_path, 1_900_000)
        process.kill()
    have = part.stat().st_size
    assert names(tmp_path) == [part.name]
    assert fetch(site.url(), digest=SHA, folder=tmp_path).read_bytes() == CONTENT
    assert site.asked[1][1]["Range"] == f"bytes={have}-"
    assert site.sent == 2_000_000 + len(CONTENT) - have


@pytest.mark.parametrize("killed", [False, True], ids=["the first ends", "the first is killed"])
def test_of_two_processes_one_downloads_and_one_waits(site, tmp_path, killed):
    rest = threading.Event()

    def twice_held(answer):
        answer.start(200, Content_Length=len(CONTENT))
        answer.server.go.wait(20)
        answer.body(CONTENT[:2_000_000])
        rest.wait(20)
        answer.body(CONTENT[2_000_000:])

    site.start(twice_held)
    with child(site.url(), tmp_path) as first:
        part = await_size(tmp_path, 0)
        with child(site.url(), tmp_path) as second:
            await_line(second, "wait for another download")
            site.go.set()
            await_size(tmp_path, 1_900_000)
            if killed:
                first.kill()
                first.wait()
            have = part.stat().st_size
            rest.set()
            path = Path(second.stdout.read().splitlines()[-1])
            assert second.wait() == 0
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == [path.name]
    asked = [headers["Range"] for _, headers in site.asked]
    assert asked == ([None, f"bytes={have}-"] if killed else [None])


def test_of_many_threads_one_downloads(site, tmp_path):
    site.start(*[drop(100_000)] * 4)
    with ThreadPoolExecutor(8) as pool:
        call = partial(fetch, site.url(), digest=SHA, folder=tmp_path)
        paths = {future.result() for future in [pool.submit(call) for _ in range(8)]}
    assert len(paths) == 1
    assert paths.pop().read_bytes() == CONTENT
    assert site.sent == len(CONTENT)
    assert len(names(tmp_path)) == 1


SMALL, OTHER = CONTENT[:200_000], CONTENT[200_000:450_000]
ANSWERS = st.one_of(
    st.builds(
        partial,
        st.just(plain),
        content=st.sampled_from([SMALL, SMALL, OTHER]),
        cut=st.none() | st.integers(0, len(SMALL)),
        ranges=st.booleans(),
    ),
    st.builds(partial, st.just(status), code=st.sampled_from([200, 204, 206, 404, 416, 503])),
    st.just(partial(moved, to="/elsewhere")),
    st.just(garbage),
    st.just(endless),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    script=st.lists(ANSWERS, max_size=8),
    part=st.binary(max_size=10) | st.integers(0, len(SMALL)).map(lambda end: SMALL[:end]),
    kind=st.sampled_from(["sha256", "md5"]),
)
def test_whatever_the_server_does(running, tmp_path_factory, script, part, kind):
    folder = tmp_path_factory.mktemp("cache")
    digest = f"{kind}:{hashlib.new(kind, SMALL).hexdigest()}"
    place = place_of(running.url(), folder)
    place.with_name(f"{place.name}.part").write_bytes(part)
    running.start(*script)
    running.script += [partial(plain, content=SMALL)] * 20
    for _ in range(10):
        try:
            path = fetch(running.url(), digest=digest, folder=folder, limit=1_000_000)
        except (MissingError, BadInputError):
            assert not [name for name in names(folder) if not name.endswith(".part")]
        else:
            assert path == place
            assert path.read_bytes() == SMALL
            assert names(folder) == [path.name]
            return
    pytest.fail("an honest server was not believed")
