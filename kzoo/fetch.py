"""One file from the web into the cache: whole and verified, or not there. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from kzoo.environment import version
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import FULL, cache_folder, disk_errors, sha256, write_bytes
from kzoo.progress import Progress, silent

TRIES, BACKOFF, LONGEST_WAIT = 5, 0.5, 60.0
"""Failures in a row; seconds after the first, doubled each time; the most a server may ask for."""
CHUNK = 2**20
"""Bytes to read at once. A failure after as many new ones is counted as the first."""
_URL = re.compile(r"https?://[^/?#\s]+/[!-~]*", re.IGNORECASE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}")
_NOTE = re.compile(r"([0-9a-f]{64})  [^\n]+\n")
"""A line of sha256sum."""


def fetch(
    url: str,
    *,
    digest: str = "",
    folder: Path | None = None,
    offline: bool = False,
    limit: int = 8 * 2**30,
    timeout: float = 20.0,
    progress: Progress = silent,
) -> Path:
    """Returns the file of ``url`` in ``folder``, downloaded if it is not there.

    It is named by eight hex digits of the URL and its own name: every repository has a
    ``model.safetensors``. A file placed there by hand is taken; if its digest fits, one under its
    own name too. What is found is verified at each call, and downloaded anew if it is damaged.
    A file whose digest nobody gives is trusted at its first use: its SHA-256 is noted beside it,
    in ``NAME.sha256`` as ``sha256sum --check`` reads it, and is its digest from then on.

    A download is written to ``NAME.part`` by one process at a time (flock), goes on where the last
    one broke off if there is a digest to check the whole by, and is verified, fsynced, renamed.

    Args:
        digest: ``sha256:`` and at least the first 8 hex digits, or ``md5:`` and all 32. Without
            one, the first download is held to the SHA-256 that the server names, if it does
            (``X-Linked-ETag``, of the Hugging Face hub; an ETag is no promise of a hash).
        folder: ``weights`` in the cache folder unless given.
        offline: use no network; so does ``KZOO_OFFLINE=1``.
        limit: the most bytes to accept.
        timeout: seconds to wait for a connection, and for the next bytes on it.

    Raises:
        UsageError: ``url`` or ``digest`` is none.
        MissingError: it is not there and not to be had, or the disk is full. What came is kept.
        BadInputError: it has another digest or is larger than ``limit`` (and was discarded), or
            a redirect leads from https to http.
    """
    digest = digest.lower()
    if not _URL.fullmatch(url):
        raise UsageError(f"{url!r} is no URL of a file; type https://HOST/FOLDER/FILE")
    if digest and not _DIGEST.fullmatch(digest):
        raise UsageError(
            f"{digest!r} is no digest; type sha256: and at least 8 hex digits, or md5: and 32"
        )
    offline = offline or os.environ.get("KZOO_OFFLINE", "0") not in ("", "0")
    folder = Path(folder or cache_folder() / "weights")
    by_hand = folder / _name(url)
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{_name(url)}"
    part, note = (folder / f"{path.name}.{suffix}" for suffix in ("part", "sha256"))
    with disk_errors(path):
        noted = "" if digest else _noted(note)
        first, digest = not (digest or noted), digest or noted
        origin = f", as at its first use; if its publisher replaced it, delete {note}"
        verified = functools.partial(_verified, url=url, origin=origin if noted else "")
        if digest and _intact(by_hand, digest):
            return by_hand
        if _intact(path, digest):
            if first:
                _write_note(note, path)
            return path
        if offline and path.is_file():
            return verified(path, digest)
        if offline:
            raise _missing(url, path, "kzoo is offline")
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(part, progress) as file:
            if _intact(path, digest):  # another process was faster
                part.unlink()
                return path
            path.unlink(missing_ok=True)
            resumed = file.tell() > 0
            wanted = _download(url, file, digest, limit, timeout, progress)
            if resumed and _differs(part, wanted):  # the part was of another version, or damaged
                _empty(file)
                wanted = _download(url, file, digest, limit, timeout, progress)
            os.fsync(file.fileno())
            verified(part, wanted)
            if first:
                _write_note(note, part)
            os.replace(part, path)
    return path


def _name(url: str) -> str:
    """The last part of the URL's path, of letters, digits, ``.``, ``_`` and ``-`` alone."""
    last = unquote(urlsplit(url).path.rpartition("/")[2])
    return re.sub(r"[^\w.-]+", "_", last, flags=re.ASCII)[-120:] or "file"


def _differs(path: Path, digest: str) -> str:
    """The digest of the file if it is not ``digest``, else ""."""
    kind = digest.partition(":")[0]
    if not kind:
        return ""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    whole = f"{kind}:{found.hexdigest()}"
    return "" if whole.startswith(digest) else whole


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and not _differs(path, digest)


def _verified(path: Path, digest: str, url: str, origin: str) -> Path:
    if found := _differs(path, digest):
        path.unlink()
        raise BadInputError(
            f"the file of {url} was discarded: its digest is {found}, expected was {digest}{origin}"
        )
    return path


def _noted(note: Path) -> str:
    """The digest in a note; "" if there is none."""
    found = _NOTE.fullmatch(note.read_text(errors="replace")) if note.is_file() else None
    return f"sha256:{found[1]}" if found else ""


def _write_note(note: Path, file: Path) -> None:
    """Atomically; a folder that may only be read, or is full, gets none."""
    with contextlib.suppress(MissingError):
        write_bytes(note, f"{sha256(file)}  {note.stem}\n".encode())


def _missing(url: str, path: Path, why: str) -> MissingError:
    return MissingError(
        f"cannot download {url}: {why}; download {_name(url)} elsewhere and put it at {path}"
    )


@contextlib.contextmanager
def _locked(part: Path, progress: Progress) -> Iterator[BinaryIO]:
    """Opens ``part`` for appending, one process at a time; the lock ends with its process."""
    held = False
    while not held:
        with open(part, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(f"wait for another download of {part.stem}", 0, 1)
                fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile: open a new one
                held = os.path.samestat(os.fstat(file.fileno()), part.stat())
            if held:
                file.seek(0, os.SEEK_END)
                yield file


def _empty(file: BinaryIO) -> None:
    if file.tell():
        file.seek(0)
        file.truncate()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not out of https; keeps the digest that a response names."""

    named = ""

    def http_response(self, request, response):  # noqa: ARG002
        tag = response.headers.get("X-Linked-ETag", "").strip('"').lower()
        if re.fullmatch("[0-9a-f]{64}", tag):
            self.named = f"sha256:{tag}"
        return response

    https_response = http_response

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        fp.close()  # or urllib reads the body of the redirect, however long
        if urlsplit(newurl).scheme not in {req.type, "https"}:
            raise BadInputError(f"{req.full_url} redirects to {newurl}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url, file, digest, limit, timeout, progress) -> str:
    """Fills ``file``, in several tries if need be; returns the digest it must have, if known."""
    task, part = f"download {_name(url)} (kB)", Path(file.name)
    failures, most = 0, file.tell()
    while True:
        wait = BACKOFF * 2**failures
        try:
            return _receive(url, file, digest, limit, timeout, lambda *kb: progress(task, *kb))
        except urllib.error.HTTPError as error:
            error.close()
            why = f"the server answers {error.code} {error.reason}"
            lasting = error.code < 500 and error.code not in (408, 425, 429)
            asked = error.headers.get("Retry-After", "")
            wait = int(asked) if re.fullmatch("[0-9]{1,6}", asked) else wait
        except (OSError, http.client.HTTPException, ValueError) as error:
            if getattr(error, "errno", None) in FULL:
                raise
            reason = getattr(error, "reason", error)
            why = str(reason) or type(reason).__name__
            lasting = isinstance(reason, ssl.SSLCertVerificationError)
        failures += 1
        if file.tell() >= most + CHUNK:
            failures, most = 1, file.tell()
        if lasting or failures == TRIES:
            if file.tell():
                why += f" (the {file.tell():,} bytes received are kept for the next try)"
            else:
                part.unlink()
            raise _missing(url, part.with_suffix(""), why)
        progress(f"{task}: {why}, try {failures + 1} of {TRIES}", 0, 1)
        time.sleep(min(wait, LONGEST_WAIT))


def _receive(url, file, digest, limit, timeout, tell) -> str:
    """Appends by one request what is lacking in ``file``; returns the digest it must have."""
    start, redirects = file.tell(), _Redirects()
    headers = {"User-Agent": f"kzoo/{version('kzoo') or 0}"}
    request = urllib.request.Request(url, headers=headers)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        response = error
    with response:
        wanted = digest or redirects.named
        extent = response.headers.get("Content-Range", "")
        if response.status == 200:
            _empty(file)
            total = response.length or 0
        elif wanted and (lies := re.fullmatch(rf"bytes (?:{start}-[0-9]+|\*)/([0-9]+)", extent)):
            total = int(lies[1])  # 206, or 416 where nothing is lacking
        else:
            _empty(file)
            raise OSError(f"the server answers {response.status}, and cannot go on after {start}")
        size, told, data = file.tell(), 0.0, b"-"
        if total - size > shutil.disk_usage(file.name).free and total <= limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        while data and max(size, total) <= limit and (size < total or not total):
            data = response.read1(min(CHUNK, total - size) if total else CHUNK)
            file.write(data)
            size += len(data)
            if time.monotonic() - told > 0.1 or size == total:
                told = time.monotonic()
                tell(size // 1000, total // 1000)
    file.flush()
    if max(size, total) > limit:
        os.unlink(file.name)
        raise BadInputError(f"the file of {url} is larger than the limit of {limit:,} bytes")
    if size < total:
        raise OSError(f"the connection ended after {size:,} of {total:,} bytes")
    return wanted
