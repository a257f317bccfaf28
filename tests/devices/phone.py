"""An emulated Android phone: an ADB daemon on loopback that the real ``adb`` talks to.

The device's side of the protocol (``packages/modules/adb/protocol.txt``, ``SYNC.TXT`` and
``shell_protocol.h`` of Android). Its files are a folder, which commands know as ``/data``; its
shell is this machine's, with a few of Android's tools before it. It says that it is emulated as
Android's own emulator does, by ``ro.kernel.qemu``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import re
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import threading
import time
from pathlib import Path

from kzoo.measure.targets.emulated import CPUINFO, PROCESSOR, QEMU

COMMANDS = {name: int.from_bytes(name, "little") for name in (
    b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE",
)}  # fmt: skip
NAMES = {number: name for name, number in COMMANDS.items()}
VERSION, MOST = 0x01000001, 256 * 1024
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
TOKEN, PUBLIC_KEY = 1, 3
NO_SPACE = "No space left on device"

PROPERTIES = {
    "ro.product.name": "kzoo",
    "ro.product.device": "kzoo",
    "ro.product.manufacturer": "Zoo",
    "ro.product.model": "Emulated Phone",
    "ro.soc.manufacturer": "Zoo",
    "ro.soc.model": "Z1",
    "ro.build.version.release": "15",
    "ro.product.cpu.abi": "x86_64",
    "ro.kernel.qemu": "1",
}
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  status: {status}
  level: {level}
  scale: 100
  temperature: 312
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
Thermal Status: {status}
Cached temperatures:
	Temperature{{mValue=68.0, mType=3, mName=SKIN, mStatus=1}}
HAL Ready: true
Current temperatures from HAL:
	Temperature{{mValue=41.5, mType=0, mName=CPU0, mStatus=0}}
	Temperature{{mValue=33.0, mType=3, mName=SKIN, mStatus=0}}
"""


class Phone(socketserver.ThreadingTCPServer):
    """A phone whose troubles are attributes, to be set by a test.

    Attributes:
        root: the folder of its files.
        authorized: whether its user has allowed this computer.
        full: whether there is no space left.
        gone: whether the cable is out.
        breaks_at: the cable is pulled when a command that has this text runs, or, for "push", in
            the middle of a copy.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(
        self, root: Path, *, abi: str = "x86_64", features: str = "shell_v2,cmd", **properties: str
    ):
        super().__init__(("127.0.0.1", 0), Connection)
        self.root, self.features = root.resolve(), features
        self.properties = PROPERTIES | {"ro.product.cpu.abi": abi} | properties
        self.authorized, self.full, self.gone, self.breaks_at = True, False, False, None
        self.serial = f"127.0.0.1:{self.server_address[1]}"
        self.connections: set[socket.socket] = set()
        self.commands: list[str] = []
        self._programs: list[subprocess.Popen] = []
        for folder in ("bin", "data/local/tmp"):
            (self.root / folder).mkdir(parents=True)
        for name in ("cpuinfo", "meminfo", "loadavg"):
            self.write(f"proc/{name}", Path("/proc", name).read_text())
        self._tools(arm=abi == "arm64-v8a")
        self.hardware()
        self.battery()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}).start()

    def write(self, path: str, text: str) -> None:
        """A file of the phone."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def hardware(self, temperature: int = 36_500, slow: int = 1_800_000, fast: int = 2_800_000):
        """Thermal zones in millidegrees; half of the cores are slow, half fast, in kHz."""
        self.write("sys/class/thermal/thermal_zone0/temp", f"{temperature}\n")
        cores = sorted(os.sched_getaffinity(0))
        for place, core in enumerate(cores):
            speed = slow if place < len(cores) / 2 else fast
            folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
            self.write(f"{folder}/cpuinfo_max_freq", f"{speed}\n")
            self.write(f"{folder}/scaling_cur_freq", f"{speed // 2}\n")
            self.write(f"{folder}/scaling_governor", "schedutil\n")

    def battery(self, level: int = 76, status: int = 2, thermal: int = 0) -> None:
        """What dumpsys says of it."""
        self.write("dumpsys/battery", BATTERY.format(level=level, status=status))
        self.write("dumpsys/thermalservice", THERMAL.format(status=thermal))

    def unplug(self) -> None:
        """Pulls the cable."""
        self.gone = True
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Ends it, and what still runs on it."""
        self.unplug()
        self.shutdown()
        self.server_close()
        for program in self._programs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()

    def start(self, command: str) -> subprocess.Popen:
        """A command of the shell, with ``/data`` where it is."""
        self.commands.append(command)
        command = re.sub(r"(?<![\w./-])/data(?=[/\s'\";]|$)", f"{self.root}/data", command)
        program = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self.root,
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin", "HOME": "/", "FULL": str(+self.full)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._programs.append(program)
        return program

    def _tools(self, arm: bool) -> None:
        known = "".join(f"{name}) echo '{value}';;\n" for name, value in self.properties.items())
        self._tool("getprop", f'case "$1" in\n{known}*) echo;;\nesac')
        self._tool("dumpsys", f'cat "{self.root}/dumpsys/$1"')
        self._tool(
            "mkdir",
            f"""[ "$FULL" = 0 ] && exec /bin/mkdir "$@"
            echo "mkdir: '$2': {NO_SPACE}" >&2; exit 1""",
        )
        # The script that tells of the machine takes the root of /proc and /sys.
        self._tool("sh", f'exec /bin/sh "$@" "{self.root}"')
        if arm:
            numbers = range(len(os.sched_getaffinity(0)))
            self.write("proc/cpuinfo", "".join(CPUINFO.format(number=each) for each in numbers))
            qemu = f"{shutil.which(QEMU)} -cpu {PROCESSOR} -L '{self.root}'"
            self._tool("uname", '[ "$1" = -m ] && echo aarch64 || echo Linux 6.6.30-android15')
            # Nobody registered qemu with this kernel, so what starts a program names it.
            self._tool(
                "env",
                f"""case "$(od -An -tx1 -j18 -N1 "$1" 2>/dev/null)" in
                *b7) exec {qemu} "$@";;
                esac
                exec /usr/bin/env "$@" """,
            )

    def _tool(self, name: str, script: str) -> None:
        self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n")
        (self.root / "bin" / name).chmod(0o755)


class Connection(socketserver.BaseRequestHandler):
    """One adb server's connection, which carries many streams."""

    server: Phone

    def handle(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.numbers = itertools.count(1)
        self.sending = threading.Lock()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.connections.add(self.request)
        with contextlib.suppress(EOFError, OSError):
            while not self.server.gone:
                self._answer(*self._receive())
        self.server.connections.discard(self.request)
        for stream in list(self.streams.values()):
            stream.end()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        number = COMMANDS[command]
        head = struct.pack("<6I", number, first, second, len(data), 0, number ^ 0xFFFFFFFF)
        with self.sending:
            self.request.sendall(head + data)

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        command, first, second, length, _, _ = struct.unpack("<6I", self._exactly(24))
        return NAMES[command], first, second, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.request.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _answer(self, command: bytes, first: int, second: int, data: bytes) -> None:
        stream = self.streams.get(second)
        if command == b"CNXN" and not self.server.authorized:
            self.send(b"AUTH", TOKEN, 0, os.urandom(20))
        elif command == b"AUTH" and not self.server.authorized:
            if first != PUBLIC_KEY:  # a signature by a key that it does not know
                self.send(b"AUTH", TOKEN, 0, os.urandom(20))
        elif command in (b"CNXN", b"AUTH"):
            told = {f"ro.product.{key}" for key in ("name", "model", "device")}
            banner = "".join(f"{k}={v};" for k, v in self.server.properties.items() if k in told)
            banner = f"device::{banner}features={self.server.features}"
            self.send(b"CNXN", VERSION, MOST, banner.encode())
        elif command == b"OPEN":
            mine = next(self.numbers)  # never one of before, whose end may still be on its way
            self.streams[mine] = stream = Stream(self, mine, first)
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=stream.serve, args=[service], daemon=True).start()
        elif stream and command == b"OKAY":
            stream.ready.release()
        elif stream and command == b"WRTE":
            stream.inbox.put(data)
            self.send(b"OKAY", stream.mine, stream.theirs)
        elif stream and command == b"CLSE":
            stream.end()


class Stream:
    """An open service: a shell command, or the copying of files."""

    def __init__(self, connection: Connection, mine: int, theirs: int) -> None:
        self.connection, self.phone = connection, connection.server
        self.mine, self.theirs = mine, theirs
        self.inbox: queue.Queue[bytes | None] = queue.Queue()
        self.ready, self.open, self.left = threading.Semaphore(1), True, b""
        self.writing = threading.Lock()

    def serve(self, service: str) -> None:
        kind, _, rest = service.partition(":")
        with contextlib.suppress(EOFError, OSError):
            if kind.startswith("shell,v2"):
                self.connection.send(b"OKAY", self.mine, self.theirs)
                self._shell(rest)
            elif kind == "sync":
                self.connection.send(b"OKAY", self.mine, self.theirs)
                while self._sync():
                    pass
        with contextlib.suppress(OSError):
            if self.open:
                self.ready.acquire(timeout=5)  # what was written last is taken before the end
                self.connection.send(b"CLSE", self.mine, self.theirs)
        self.end()

    def end(self) -> None:
        self.open = False
        self.connection.streams.pop(self.mine, None)
        self.inbox.put(None)
        self.ready.release()

    def write(self, data: bytes) -> None:
        with self.writing:
            for start in range(0, len(data), MOST):
                self.ready.acquire()
                if not self.open:
                    raise BrokenPipeError
                self.connection.send(b"WRTE", self.mine, self.theirs, data[start : start + MOST])

    def read(self, count: int) -> bytes:
        while len(self.left) < count:
            piece = self.inbox.get()
            if piece is None:
                raise EOFError
            self.left += piece
        data, self.left = self.left[:count], self.left[count:]
        return data

    def _shell(self, command: str) -> None:
        program = self.phone.start(command)

        def pass_on(pipe, kind: int) -> None:
            with contextlib.suppress(OSError):
                while data := os.read(pipe.fileno(), 32768):
                    self.write(struct.pack("<BI", kind, len(data)) + data)

        def hang_up() -> None:
            """The shell, not what it started, is told when the other side is gone."""
            with contextlib.suppress(EOFError):
                while True:
                    self.read(struct.unpack("<BI", self.read(5))[1])
            if program.poll() is None:
                os.kill(program.pid, signal.SIGHUP)

        pipes = ((program.stdout, STDOUT), (program.stderr, STDERR))
        threads = [threading.Thread(target=pass_on, args=each, daemon=True) for each in pipes]
        for thread in [*threads, threading.Thread(target=hang_up, daemon=True)]:
            thread.start()
        if self.phone.breaks_at and self.phone.breaks_at in command:
            time.sleep(0.3)
            self.phone.unplug()
        for thread in threads:
            thread.join()
        code = program.wait()
        code = 128 - code if code < 0 else code
        self.write(struct.pack("<BI", EXIT, 1) + bytes([code]))

    def _sync(self) -> bool:
        request, length = struct.unpack("<4sI", self.read(8))
        if request == b"QUIT":
            return False
        argument = self.read(length).decode()
        if request == b"STAT":
            try:
                told = (self.phone.root / argument.lstrip("/")).lstat()
                numbers = told.st_mode, told.st_size, int(told.st_mtime)
            except OSError:
                numbers = 0, 0, 0
            self.write(b"STAT" + struct.pack("<3I", *numbers))
        elif request == b"SEND":
            failure = self._take(argument.rpartition(",")[0])
            told = struct.pack("<I", len(failure)) + failure.encode()
            self.write(b"FAIL" + told if failure else b"OKAY" + bytes(4))
        else:
            raise EOFError
        return True

    def _take(self, path: str) -> str:
        """Writes a file as it comes; what is there when the cable is pulled stays there."""
        file = self.phone.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "wb") as out:
            while True:
                kind, length = struct.unpack("<4sI", self.read(8))
                if kind == b"DONE":
                    break
                data = self.read(length)
                if not self.phone.full:
                    out.write(data)
                if self.phone.breaks_at == "push":
                    out.flush()
                    self.phone.unplug()
        if self.phone.full:
            file.unlink()
            return f"couldn't write file: {NO_SPACE}"
        file.chmod(0o644)
        return ""
