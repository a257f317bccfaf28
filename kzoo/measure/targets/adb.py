"""An Android phone as a target, over the user's own ``adb``.

Nothing is installed on it: files go to `FOLDER`, which the shell's user may write to and run
programs from, and all but the runtime's libraries are gone after ``close``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import MissingError, UsageError, nearest
from kzoo.files import sha256
from kzoo.measure.benchmark_model import benchmark_model
from kzoo.measure.runners import CRunner
from kzoo.measure.runtimes import BENCHMARK_MODEL, C_RUNTIME
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import Device, Ended, Runner, TimedOut, last_line

FOLDER = "/data/local/tmp/kzoo"
"""Holds the libraries, by the hash of them all, and a folder of each connection's other files."""
PROCESSORS = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}
"""Android's name of an ABI → what ``uname -m`` says of it."""
EMULATED = ("ro.kernel.qemu", "ro.boot.qemu", "ro.hardware.virtual_device")
"""Properties that are 1 on a virtual device."""
COPY_SECONDS, ASK_SECONDS = 600.0, 60.0
ADVICE = {
    "unauthorized": "unlock it and tap Allow under 'Allow USB debugging?'",
    "authorizing": "unlock it and tap Allow under 'Allow USB debugging?'",
    "offline": "unplug it and plug it in again (over the network: adb disconnect, adb connect)",
    "no permissions": "this user may not open the USB device: apt-get install "
    "android-sdk-platform-tools-common, and log in again",
    "recovery": "it is in recovery; restart Android",
    "sideload": "it waits for a sideload; restart Android",
    "bootloader": "it is in its bootloader; restart Android",
}
"""A state of ``adb devices`` in which a phone cannot be used → what to do."""


@dataclass(frozen=True)
class Attached:
    """A line of ``adb devices -l``: ``state`` is "device" when it can be used."""

    serial: str
    state: str
    model: str

    @property
    def trouble(self) -> str | None:
        """Why it cannot be used and what to do, or None."""
        if self.state == "device":
            return None
        return f"{self.state}: {ADVICE.get(self.state, 'wait, or restart it')}"


def connect(where: str = "") -> Device:
    """A phone by its serial number; the only one that is attached for ``""``.

    Raises:
        UsageError: there are several and none is named, or none has this serial number.
        MissingError: no adb, no phone, or one that cannot be used; the message says what to do.
    """
    phone = Phone(_choose(where or os.environ.get("ANDROID_SERIAL", "")))
    return Device(phone, phone.runner_for)


def attached() -> list[Attached]:
    """Every phone that adb sees, usable or not.

    Raises:
        MissingError: adb is not installed, or its server does not start.
    """
    done = _adb("devices", "-l")
    if done.returncode:
        said = last_line(done.stderr.decode(errors="replace"))
        raise MissingError(f"adb devices failed: {said}; try adb kill-server")
    found = []
    for line in done.stdout.decode(errors="replace").splitlines():
        serial, _, rest = line.partition(" ")
        # "no permissions (user in no group; see [...])" has blanks, other states are one word.
        state = "no permissions" if "no permissions" in rest else rest.strip().split(" ")[0]
        if rest and serial not in ("*", "List", "adb"):
            model = re.search(r"\bmodel:(\S+)", rest)
            found.append(Attached(serial, state, model[1] if model else ""))
    return found


def _choose(serial: str) -> str:
    phones = attached()
    listed = ", ".join(f"adb:{each.serial}" for each in phones)
    if not phones:
        raise MissingError(
            "no phone is attached; plug one in, with USB debugging on (Settings, Developer "
            "options), and see that `adb devices` lists it"
        )
    if not serial and len(phones) > 1:
        raise UsageError(f"{len(phones)} phones are attached; name one: {listed}")
    chosen = [each for each in phones if each.serial == serial or not serial]
    if not chosen:
        known = [each.serial for each in phones]
        raise UsageError(
            f"no phone has the serial number {serial!r}; attached: {listed}{nearest(serial, known)}"
        )
    if chosen[0].trouble:
        raise MissingError(f"adb:{chosen[0].serial} is {chosen[0].trouble}")
    return chosen[0].serial


class Phone:
    """A `kzoo.measure.targets.device.Transport` over adb.

    A file is pushed under another name, hashed there and only then renamed, so that whatever has
    its name is whole, also after the cable was pulled.
    """

    def __init__(self, serial: str) -> None:
        self.name, self._serial = f"adb:{serial}", serial
        self._folder = f"{FOLDER}/run-{secrets.token_hex(6)}"
        self._there: dict[str, str] = {}
        features = self._adb("features")
        if features.returncode:
            raise self._failed("asking what it can", features.stderr)
        if b"shell_v2" not in features.stdout.split():
            raise MissingError(
                f"{self.name} is too old: it has no shell_v2; Android 7 or newer is needed"
            )
        # What a phone that was switched off has kept goes after a day: another may be at work now.
        told = self._shell(
            f"for name in ro.product.cpu.abi {' '.join(EMULATED)}; do getprop $name; done; "
            f"mkdir -p {self._folder} && "
            f"{{ find {FOLDER} -maxdepth 1 -name 'run-*' -mtime +0 -exec rm -rf {{}} +; :; }}"
        )
        if told.returncode:
            raise self._failed(f"making {self._folder}", told.stderr)
        abi, *emulator = told.stdout.decode(errors="replace").split("\n")
        self.abi = PROCESSORS.get(abi.strip(), abi.strip())
        self.kind = "emulated" if "1" in emulator else "measured"

    def runner_for(self, setting: Setting) -> Runner:
        """The C runner, or benchmark_model; Android has no Python."""
        if setting.runtime == BENCHMARK_MODEL:
            return benchmark_model(self.abi)
        if setting.runtime not in (None, C_RUNTIME):
            raise UsageError(
                f"a phone has no runtime {setting.runtime!r}; it has {C_RUNTIME} and "
                f"{BENCHMARK_MODEL}"
            )
        if self.abi not in PROCESSORS.values():
            raise MissingError(
                f"{self.name} is {self.abi}, for which LiteRT has no library: there is one for "
                f"{' and '.join(PROCESSORS)}; --runtime {BENCHMARK_MODEL} runs any that you have"
            )
        return CRunner(loader=True)

    def put(self, file: Path) -> str:
        """Under its hash, until ``close``."""
        digest = sha256(file)
        if digest not in self._there:
            self._push(file, f"{self._folder}/{digest}", digest)
            self._there[digest] = f"{self._folder}/{digest}"
        return self._there[digest]

    def remove(self, path: str) -> None:
        self._there.pop(path.rpartition("/")[2], None)
        self._shell(f"rm -f {path}")

    def put_together(self, files: dict[str, Path]) -> str:
        """Stays for the next time, under the hash of all names and contents."""
        digests = {name: sha256(file) for name, file in files.items()}
        lines = {name: f"{digest}  {name}" for name, digest in digests.items()}
        key = hashlib.sha256("\n".join(sorted(lines.values())).encode()).hexdigest()
        if key not in self._there:
            folder = f"{FOLDER}/{key}"
            there = self._shell(
                f"mkdir -p {folder} && cd {folder} && sha256sum {shlex.join(files)} 2>/dev/null"
            )
            whole = there.stdout.decode(errors="replace").splitlines()
            for name, file in files.items():
                if lines[name] not in whole:
                    self._push(file, f"{folder}/{name}", digests[name])
            self._there[key] = folder
        return self._there[key]

    def run(self, argv: Sequence[str], *, timeout: float, environ: dict | None = None) -> Ended:
        """Runs a program; when adb ends, of whatever cause, the program is killed."""
        variables = [f"{name}={value}" for name, value in (environ or {}).items()]
        try:
            return self._shell("exec " + shlex.join(["env", *variables, *argv]), timeout)
        except TimedOut:
            self._there.clear()
            raise

    def scratch(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def get(self, path: str) -> bytes:
        path = shlex.quote(path)
        done = self._shell(f"cat {path} && rm -f {path}", COPY_SECONDS)
        if done.returncode:
            raise self._failed(f"reading {path}", done.stderr)
        return done.stdout

    def close(self) -> None:
        """Nothing is said of a phone that is gone."""
        with contextlib.suppress(MissingError):
            self._shell(f"rm -rf {self._folder}; rmdir {FOLDER} 2>/dev/null")

    def _push(self, file: Path, path: str, digest: str) -> None:
        new, path = f"{self._folder}/{digest}.new", shlex.quote(path)
        done = self._adb("push", str(Path(file).resolve()), new, timeout=COPY_SECONDS)
        if done.returncode:
            raise self._failed(f"copying {file.name}", done.stderr + done.stdout)
        moved = self._shell(
            f'set -- $(sha256sum {new}) && [ "$1" = {digest} ] && chmod 755 {new} && '
            f"mv -f {new} {path}"
        )
        if moved.returncode:
            said = moved.stderr.strip() or "it arrived damaged; try another cable"
            raise self._failed(f"copying {file.name}", said)

    def _shell(self, command: str, timeout: float = ASK_SECONDS) -> Ended:
        """Runs a line of the phone's shell.

        Its exit code comes on a line of stderr that nothing else can have written. Without it the
        connection broke, which adb may report by any exit code, 0 too; the phone sends the shell a
        SIGHUP then, and nothing of this connection stays.
        """
        mark = secrets.token_hex(8)
        done = self._adb(
            "shell",
            "-T",
            f"trap 'kill -9 $pid; rm -rf {self._folder}' HUP; {{ {command}\n}} & "
            "pid=$!; wait $pid; "
            f"printf '\\n{mark} %d\\n' $? >&2",
            timeout=timeout,
        )
        stderr = done.stderr.decode(errors="replace")
        ending = re.search(rf"\n{mark} (\d+)\n\Z", stderr)
        if not ending:
            raise MissingError(
                f"{self.name} was disconnected in mid-run; plug it in again and repeat: nothing "
                "half-written is used"
            )
        code = int(ending[1])
        return Ended(
            128 - code if 128 < code < 193 else code, done.stdout, stderr[: ending.start()]
        )

    def _adb(self, *words: str, timeout: float = ASK_SECONDS) -> subprocess.CompletedProcess:
        return _adb("-s", self._serial, *words, timeout=timeout)

    def _failed(self, what: str, said: str | bytes) -> MissingError:
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        if "No space left" in said:
            return MissingError(f"{self.name} is full: {what} failed; free some space there")
        if not any(each.serial == self._serial and not each.trouble for each in attached()):
            return MissingError(
                f"{self.name} was disconnected while {what}; plug it in again and repeat: nothing "
                "half-written is used"
            )
        return MissingError(f"{self.name}: {what} failed: {last_line(said)}")


def _adb(*words: str, timeout: float = ASK_SECONDS) -> subprocess.CompletedProcess:
    tool = shutil.which("adb")
    if tool is None:
        raise MissingError(
            "adb is not installed; apt-get install adb, or brew install android-platform-tools"
        )
    try:
        return subprocess.run(
            [tool, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut(
            f"adb {words[2] if words[0] == '-s' else words[0]} gave no answer in {timeout:g} s and "
            "was stopped; unplug the phone and plug it in again, or adb kill-server"
        ) from error
