"""A Raspberry Pi or any Linux machine behind ssh: the system's own, with the user's configuration.

One connection carries everything. Its first command makes a private folder there, tells what the
machine has, and waits; when this side is gone, by whatever end, it removes the folder. Each program
has such a watch of its own, which kills it. So nothing stays there, and nothing needs root.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from kzoo.errors import MissingError, UsageError
from kzoo.files import digest, sha256
from kzoo.measure.benchmark_model import benchmark_model
from kzoo.measure.runners import CRunner, python_runner
from kzoo.measure.runtimes import BENCHMARK_MODEL, C_RUNTIME, FIND
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import Device, Ended, Runner, TimedOut, last_line

OPEN_SECONDS = 60
"""For connecting, making the folder and asking the Pythons there."""
END_SECONDS = 10
"""What a program that is stopped, and the first command, get to end."""

OPTIONS = (
    "BatchMode=yes",  # it never waits for a password
    "ConnectTimeout=15",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=4",
    "LogLevel=ERROR",
    "RemoteCommand=none",
    "RequestTTY=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "ControlPersist=no",
)
"""Where it departs from the user's own configuration, which ssh reads as ever."""

REFUSALS = {
    "Could not resolve hostname": "there is no machine of this name; is it spelt right, on, and on "
    "this network? Its address does as well",
    "Connection refused": "the machine answers, but no SSH server at this port; on a Raspberry Pi: "
    "sudo raspi-config, Interface Options, SSH",
    "timed out|No route to host|unreachable|Host is down": "no answer; is it on, and on this "
    "network?",
    "IDENTIFICATION HAS CHANGED": "this is not the machine it was (its host key has changed). If "
    "you know why, as after a new installation: ssh-keygen -R {host}, then ssh {where}",
    "Host key verification failed|No .* host key is known": "its host key is not known yet; type "
    "ssh {where} once, compare the fingerprint, and answer yes",
    "Permission denied|Too many authentication|Load key": "no key of this machine is let in; "
    "ssh-copy-id {where} installs one (ssh-keygen makes one; ssh-add unlocks one that has a "
    "passphrase)",
    r"[Bb]ad configuration|Bad owner or permissions|line \d+: ": "ssh refuses its own "
    "configuration; ssh {where} tells where",
}
"""What ssh says → what to do. The first that is found counts."""

LIBRARY_NEEDS = {"aarch64": (2, 34), "x86_64": (2, 27)}
"""The glibc that LiteRT's library asks for; on arm64 more than its wheel's tag says."""

OPEN = """{{
trap '' HUP
umask 077
for base in "${{TMPDIR:-/tmp}}" /var/tmp "$HOME"; do
  folder=$(mktemp -d "$base/kzoo-XXXXXXXXXX") || continue
  # where a program may be started: /tmp is noexec on some machines
  printf '#!/bin/sh\\n' > "$folder/run" && chmod 700 "$folder/run" && "$folder/run" && break
  rm -rf "$folder"
  folder=
done
echo {mark}
echo "folder=$folder"
[ -n "$folder" ] || exit
echo "abi=$(uname -m)"
echo "system=$(uname -s)"
echo "bits=$(getconf LONG_BIT 2>/dev/null)"
echo "libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)"
first=$(command -v python3)
for python in "$first" "$HOME"/*/bin/python3 "$HOME"/.[!.]*/bin/python3; do
  if [ "$python" = "$first" ] || [ -f "${{python%/bin/python3}}/pyvenv.cfg" ]; then
    [ -x "$python" ] && echo "python=$python=$("$python" -c {find} 2>/dev/null | tail -n 1)"
  fi
done
echo ready
read -r _
for _ in 1 2 3 4 5; do
  rm -rf "$folder" && break
  sleep 1
done
exit
}}
"""
"""The first command. Read whole before it is run, so that what follows on stdin is its to read."""

RUN = """{{
exec 3<&0
cd {folder} || exit
echo {mark}
session=$(command -v setsid)
{environ} $session {argv} </dev/null 3<&- & program=$!
{{ read -r _ <&3; kill -9 -$program || kill -9 $program; }} >/dev/null 2>&1 & watch=$!
exec 3<&-
wait $program
code=$?
kill $watch
printf '\\n{mark} %d\\n' $code
exit
}}
"""
"""A program, what it prints between two marks: a shell's start-up files may print, too, and ssh's
own exit code 255 may be the program's."""


def connect(where: str) -> Device:
    """A machine that ssh reaches without a password: ``USER@HOST``, a name of ~/.ssh/config.

    Both take ``:PORT``, and IPv6 addresses are in brackets then.

    Raises:
        UsageError: ``where`` is no such name.
        MissingError: it is not reached or let in, or it has no shell, disk space, tar; each message
            says what to type.
    """
    machine = Machine(where)
    return Device(machine, machine.runner_for)


class Machine:
    """A `kzoo.measure.targets.device.Transport` over ssh.

    Attributes:
        pythons: interpreter there → the runtimes that it has, with NumPy.
        glibc: its version, () where it is another C library or a 32-bit one.
    """

    kind = "measured"

    def __init__(self, where: str) -> None:
        self._address = address(where)
        self.name, self._where = f"ssh:{where}", where
        self._mark = f"kzoo-{secrets.token_hex(8)}".encode()
        self._copied: set[str] = set()
        with contextlib.ExitStack() as stack:
            # Short, and not in TMPDIR: the path of a socket has at most 104 characters.
            control = stack.enter_context(tempfile.TemporaryDirectory(prefix="kzoo-", dir="/tmp"))
            log = stack.enter_context(tempfile.TemporaryFile())
            self._options = [f"-oControlPath={control}/s", *(f"-o{each}" for each in OPTIONS)]
            self._master = self._start("exec sh", subprocess.PIPE, log, "-oControlMaster=yes")
            stack.callback(_end, self._master)
            self._open(log)
            self.close = stack.pop_all().close
            """Lets the first command remove the folder, and ends the connection."""

    def put(self, file: Path) -> str:
        """As `kzoo.measure.targets.device.Transport.put`; found again by its hash."""
        suffix = Path(file).suffix
        name = f"file{suffix}" if re.fullmatch(r"\.\w+", suffix, re.A) else "file"
        return f"{self.put_together({name: Path(file)})}/{name}"

    def remove(self, path: str) -> None:
        """As `kzoo.measure.targets.device.Transport.remove`."""
        folder = path.rpartition("/")[0]
        self._copied.discard(folder.rpartition("/")[2])
        self.run(["rm", "-rf", folder], timeout=60)

    def put_together(self, files: dict[str, Path]) -> str:
        """As `kzoo.measure.targets.device.Transport.put_together`; verified by the hashes."""
        hashes = {name: sha256(file) for name, file in sorted(files.items())}
        name = digest(hashes)[:16]
        folder = f"{self._folder}/{name}"
        if name not in self._copied:
            self._send(name, files)
            script = 'cd "$1" && shift && { sha256sum "$@" || openssl dgst -sha256 -r "$@"; }'
            told = self.run(["sh", "-c", script, "sh", folder, *hashes], timeout=60)
            lines = [line.split(" ", 1) for line in told.stdout.decode().splitlines()]
            if {line[-1].lstrip(" *"): line[0] for line in lines} != hashes:
                raise MissingError(
                    f"{self.name}: the files that were copied are not the same there, or neither "
                    f"sha256sum nor openssl is ({last_line(told.stderr)})"
                )
            self._copied.add(name)
        return folder

    def run(self, argv: Sequence[str], *, timeout: float, environ: dict | None = None) -> Ended:
        """As `kzoo.measure.targets.device.Transport.run`.

        The program dies with the connection, and so with this process.
        """
        variables = (f"{name}={shlex.quote(value)}" for name, value in (environ or {}).items())
        mark = self._mark.decode()
        script = RUN.format(
            folder=shlex.quote(self._folder),
            mark=mark,
            environ=" ".join(variables),
            argv=shlex.join(map(str, argv)),
        )
        _, out, log = self._session("exec sh", lambda stdin: stdin.write(script.encode()), timeout)
        start = out.find(self._mark + b"\n")
        end = re.search(rb"\n%s (\d+)\n\Z" % self._mark, out)
        if start < 0 or end is None:
            raise self._lost(log)
        code = int(end[1])
        if 128 < code <= 128 + signal.SIGRTMAX:  # how a shell tells of a signal
            code = 128 - code
        return Ended(code, out[start + len(mark) + 1 : end.start()], log)

    def scratch(self, name: str) -> str:
        """As `kzoo.measure.targets.device.Transport.scratch`."""
        return f"{self._folder}/{name}"

    def get(self, path: str) -> bytes:
        """As `kzoo.measure.targets.device.Transport.get`."""
        done = self.run(["sh", "-c", 'cat "$1" && rm "$1"', "sh", path], timeout=600)
        if done.returncode:
            raise MissingError(f"{self.name}: {last_line(done.stderr)}")
        return done.stdout

    def runner_for(self, setting: Setting) -> Runner:
        """A runtime for Python where one is there, or else the C runner."""
        if setting.runtime == BENCHMARK_MODEL:
            return benchmark_model(self.abi)
        if setting.runtime != C_RUNTIME:
            if found := python_runner(setting.runtime, self.pythons, self.name):
                return found
            if setting.delegate == "edgetpu" or self.abi not in LIBRARY_NEEDS:
                raise MissingError(
                    f"{self.name} has no Python with NumPy and a runtime (looked at "
                    f"{', '.join(self.pythons) or 'no python3'}), and without one there is no Edge "
                    f"TPU, and no runner for other processors than {', '.join(LIBRARY_NEEDS)}; "
                    "there: python3 -m venv tflite && "
                    "tflite/bin/pip install tflite-runtime 'numpy<2'"
                )
        return CRunner(loader=self.glibc < LIBRARY_NEEDS.get(self.abi, ()))

    def _open(self, log: IO[bytes]) -> None:
        """Sends the first command, and reads what it tells."""
        script = OPEN.format(mark=self._mark.decode(), find=shlex.quote(FIND))
        with contextlib.suppress(BrokenPipeError):
            self._master.stdin.write(script.encode())
        lines = (line.decode(errors="replace").rstrip("\n") for line in self._master.stdout)
        told, self.pythons, ready = {}, {}, False
        timer = threading.Timer(OPEN_SECONDS, self._master.kill)
        timer.daemon = True  # Ctrl-C ends this process now
        timer.start()
        for line in itertools.dropwhile(lambda line: line != self._mark.decode(), lines):
            name, _, value = line.partition("=")
            if ready := line == "ready":
                break
            if name == "python":
                python, _, runtimes = value.rpartition("=")
                self.pythons[python] = json.loads(runtimes if runtimes.startswith("[") else "[]")
            else:
                told[name] = value
        late = not timer.is_alive()
        timer.cancel()
        if not ready:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._master.wait(END_SECONDS)
            said = f"no answer in {OPEN_SECONDS} s" if late else _text(log)
            raise MissingError(self._refused(told, said))
        self._folder, self.abi = told["folder"], told["abi"]
        version = re.findall(r"\d+", told["libc"]) if told["bits"] == "64" else []
        self.glibc = tuple(map(int, version))
        if told["system"] != "Linux":
            raise MissingError(f"{self.name} runs {told['system']}; kzoo measures Linux machines")

    def _refused(self, told: dict, log: str) -> str:
        """Why the first command did not come to its end."""
        if told.get("folder") == "":
            return (
                f"{self.name} has no folder where a program may be written and started "
                f"({last_line(log)}); free some space there"
            )
        host = self._address[-1].rpartition("@")[2]
        for pattern, advice in REFUSALS.items():
            if re.search(pattern, log):
                words = advice.format(where=" ".join(self._address), host=host)
                return f"{self.name}: {words}"
        return f"{self.name} gives no shell: {last_line(log)}"

    def _send(self, name: str, files: dict[str, Path]) -> None:
        """Writes ``files`` into the folder ``name`` there."""

        def feed(stdin: IO[bytes]) -> None:
            with tarfile.open(fileobj=stdin, mode="w|") as archive:
                for each, path in files.items():
                    with open(path, "rb") as file:
                        member = tarfile.TarInfo(f"{name}/{each}")
                        member.size, member.mode = os.fstat(file.fileno()).st_size, 0o700
                        archive.addfile(member, file)
            stdin.close()

        command = f"tar -xmf - -C {shlex.quote(self._folder)}"
        code, _, log = self._session(command, feed)
        if code == 127:
            raise MissingError(f"{self.name} has no tar, by which files get there; install it")
        if code < 0 or code == 255:
            raise self._lost(log)
        if re.search("No space left|quota exceeded", log, re.I):
            raise MissingError(f"{self.name} has no space left in {self._folder}; free some there")
        if code:
            raise MissingError(f"{self.name} did not take the files: {last_line(log)}")

    def _session(
        self, command: str, feed: Callable[[IO[bytes]], object], timeout: float | None = None
    ) -> tuple[int, bytes, str]:
        """Exit code, stdout and stderr of a command there, whose stdin is open until it ends."""
        if self._master.poll() is not None:
            raise self._lost("")
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
            process = self._start(command, out, log, "-oControlMaster=no")
            try:
                with contextlib.suppress(BrokenPipeError):  # it ended; its exit code tells why
                    feed(process.stdin)
                process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                raise TimedOut(
                    f"{self.name}: no answer in {timeout:g} s; what was asked of it was stopped"
                ) from error
            finally:  # Ctrl-C too
                _end(process)
            out.seek(0)
            return process.returncode, out.read(), _text(log)

    def _start(self, command: str, out: object, log: IO[bytes], more: str) -> subprocess.Popen:
        try:
            return subprocess.Popen(
                ["ssh", more, *self._options, *self._address, command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
                bufsize=0,
                env={**os.environ, "LC_ALL": "C"},  # its messages are read
                start_new_session=True,  # Ctrl-C is this process's to deal with
            )
        except FileNotFoundError as error:
            raise MissingError(
                "ssh is not installed here; apt-get install openssh-client"
            ) from error

    def _lost(self, log: str) -> MissingError:
        said = f" ({last_line(log)})" if log.strip() else ""
        return MissingError(
            f"{self.name}: the connection was lost{said}; is it still on, and on the network? "
            "What was started there has ended with it"
        )


def address(where: str) -> list[str]:
    """Arguments of ssh: USER@HOST, with its port before it."""
    # USER@, then a host in brackets or without a colon and its port, or an IPv6 address alone
    found = re.fullmatch(r"((?:[^@]+@)?)(?:\[([^][]+)\]|([^:@[]+))(?::(\d{1,5}))?", where)
    found = found or re.fullmatch(
        r"((?:[^@]+@)?)((?:[0-9a-fA-F]*:){2}[0-9a-fA-F:.]*(?:%\w+)?)()()", where
    )
    if not found or where.startswith("-") or (found[2] or found[3]).startswith("-"):
        raise UsageError(
            f"ssh takes a machine, ssh:USER@HOST or a name of ~/.ssh/config, and :PORT if need be; "
            f"not {where!r}"
        )
    user, host, port = found[1], found[2] or found[3], found[4]
    return [*(["-p", port] if port else []), f"{user}{host}"]


def _end(process: subprocess.Popen) -> None:
    """Closes its stdin, at which what it runs there ends too, and waits for it; not for ever."""
    try:
        with contextlib.suppress(OSError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")
