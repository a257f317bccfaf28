"""A small web server for strangers' browsers: a fixed map of names, a token, limits on everything.

What it may be asked for is decided before it starts: `Site.files` and `Site.posts`. No path leads
to a file of the disk, nothing that is received is sent back, and every request has a deadline.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from kzoo.errors import MissingError, UsageError

TOKEN_BYTES = 12
MAX_CONNECTIONS = 32
"""At a time; further ones are closed at once. A browser opens six."""
REQUEST_SECONDS = 10.0
"""For a request to be there whole, however slowly it comes."""
SEND_SECONDS = 120.0
"""For an answer to be taken whole: 9.4 MB of wasm over a slow network."""
LAST_SECONDS = 1.0
"""For answers that are under way when it ends."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{scripts}; "
    "worker-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer. The two Cross-Origin policies are what threads and a fine clock ask for."""


class Refused(Exception):
    """A request that is answered by a status and a few words of the server's own."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


@dataclass(frozen=True)
class File:
    """What is answered to a GET; ``kept``: by the browser too, as it never changes."""

    content: bytes | Callable[[], bytes]
    kind: str
    kept: bool = False


@dataclass(frozen=True)
class Post:
    """What is done with the body of a POST, and the most bytes it may have.

    ``take`` returns what is answered, as JSON, or raises `Refused`.
    """

    take: Callable[[bytes], bytes]
    limit: int
    kind: str = "application/json"


@dataclass(frozen=True)
class Site:
    """All that there is, by name; "" is the page.

    Attributes:
        files, posts: what may be asked for, and sent.
        scripts: hashes of scripts in the page, as a Content-Security-Policy has them.
        token: the first part of every path.
    """

    files: dict[str, File]
    posts: dict[str, Post]
    scripts: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES))


@contextlib.contextmanager
def serving(site: Site, *, lan: bool = False, port: int = 0) -> Iterator[str]:
    """Answers requests, in threads, until the block ends; gives the page's address.

    Args:
        lan: to other devices of the network too; otherwise to programs of this machine alone.
        port: 0 takes a free one.

    Raises:
        MissingError: this machine has no network.
        UsageError: the port is taken, or not to be had.
    """
    host = lan_address() if lan else "127.0.0.1"
    try:
        server = _Server(("" if lan else host, port), site, lan)
    except (OSError, OverflowError) as error:
        raise UsageError(f"port {port} cannot be had: {error}; give another, or 0") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}/{site.token}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        until = time.monotonic() + LAST_SECONDS
        for _ in range(MAX_CONNECTIONS):  # each ended connection is one that is free
            server.free.acquire(timeout=max(0.0, until - time.monotonic()))


def lan_address() -> str:
    """The address that other devices know this machine by; nothing is sent to find it out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documents (RFC 5737)
        except OSError as error:
            raise MissingError("this machine is in no network; leave out --lan") from error
        return probe.getsockname()[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], site: Site, lan: bool) -> None:
        self.site, self.lan = site, lan
        self.free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request, client_address):
        if not self.free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.free.release()
            raise

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request, client_address):
        """A client that went away is nobody's error; any other is ours, and is to be seen."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "kzoo", ""
    default_request_version = "HTTP/1.0"  # a line without one is answered with headers, too

    def setup(self):
        super().setup()
        # Not the socket's timeout alone: that one begins anew at each byte.
        self._deadline = threading.Timer(REQUEST_SECONDS, self._hang_up)
        self._deadline.daemon = True
        self._deadline.start()
        self.connection.settimeout(SEND_SECONDS)

    def finish(self):
        self._deadline.cancel()
        super().finish()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self):
        """Sends a file of the site."""
        self._answered(self._file)

    def do_POST(self):
        """Hands a body to the site."""
        self._answered(self._posted)

    def _answered(self, answer: Callable[[], tuple[bytes, str, bool]]) -> None:
        try:
            content, kind, kept = answer()
        except Refused as refused:
            self._send(refused.status, refused.words.encode(), "text/plain; charset=utf-8")
        else:
            self._send(200, content, kind, kept)

    def _file(self) -> tuple[bytes, str, bool]:
        file = self.server.site.files.get(self._name())
        if file is None:
            raise Refused(404, "there is no such file")
        self._deadline.cancel()
        content = file.content if isinstance(file.content, bytes) else file.content()
        return content, file.kind, file.kept

    def _posted(self) -> tuple[bytes, str, bool]:
        post = self.server.site.posts.get(self._name())
        if post is None:
            raise Refused(404, "nothing is taken here")
        if self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Refused(403, "only the page itself may send something")
        if self.headers.get_content_type() != post.kind:
            raise Refused(415, f"{post.kind} is expected")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise Refused(411, "Content-Length is expected")
        if len(length) > 12 or int(length) > post.limit:
            raise Refused(413, f"at most {post.limit} bytes are taken")
        body = self.rfile.read(int(length))
        self._deadline.cancel()
        if len(body) < int(length):
            raise Refused(400, "the body is shorter than Content-Length")
        return post.take(body), "application/json", False

    def _name(self) -> str:
        """What is asked for, if it may be by this client."""
        if not _is_own_name(self.headers.get("Host", ""), self.server.lan):
            raise Refused(403, "this server is asked for by its address, and not by a name")
        token, _, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.site.token.encode()):
            raise Refused(403, "the address lacks its token; open the whole of it")
        return name

    def _send(self, status: int, content: bytes, kind: str, kept: bool = False) -> None:
        self.send_response(status)
        scripts = "".join(f" '{each}'" for each in self.server.site.scripts)
        for name, value in HEADERS.items():
            if kept and name == "Cache-Control":
                value = "private, max-age=86400, immutable"
            self.send_header(name, value.replace("{scripts}", scripts))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code, message=None, explain=None):  # noqa: ARG002
        """For what the base class refuses: its own page would repeat what was sent."""
        self.close_connection = True
        status, words = (405, "GET and POST are taken") if code == 501 else (code, "bad request")
        self._send(status, words.encode(), "text/plain; charset=utf-8")

    def log_message(self, format, *args):
        """Nothing: the terminal shows results."""


def _is_own_name(host: str, lan: bool) -> bool:
    """Whether a Host header is no name that somebody made point here (DNS rebinding)."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return lan or address.is_loopback
