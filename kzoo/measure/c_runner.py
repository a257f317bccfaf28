"""deploy/runner/runner.c as a program for a device, and the libraries that it needs there.

Built and fetched on demand, and kept in the cache: the program by the hash of its source, LiteRT's
library from the wheel of the version that is installed here, the C library (for devices whose own
is too old, or Android's) from Debian's packages for cross-compiling.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from kzoo.environment import version
from kzoo.errors import MissingError, UsageError
from kzoo.files import cache_folder, filled_once
from kzoo.measure.deploy import deploy_file

OWN = os.uname().machine
ABIS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
"""uname -m → its GNU triplet."""
GLIBC = "2.27"
"""The oldest that the program itself runs on. The library asks for more: 2.34 on arm64."""
CROSS = ("libc6", "libgcc-s1", "libstdc++6")
PACKAGES_OF = {"x86_64": "amd64", "aarch64": "arm64"}
C_LIBRARY = (
    "libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libstdc++.so.6",
    "libgcc_s.so.1",
)  # fmt: skip


def files(abi: str, *, loader: bool) -> dict[str, Path]:
    """What goes to the device, by name: ``runner``, ``libLiteRt.so``, and the C library's files."""
    found = {"runner": _program(abi), "libLiteRt.so": _library(abi)}
    return found | ({file.name: file for file in _c_library(abi)} if loader else {})


def runtime_version() -> str:
    """Of the LiteRT that is installed here, which is what goes to devices."""
    found = version("ai-edge-litert")
    if found is None:
        raise MissingError("the C runner needs LiteRT's library; pip install ai-edge-litert")
    return found


def compiler(abi: str) -> tuple[list[str], str]:
    """The command that builds the C runner for a device, and its name; raises if there is none."""
    if abi not in ABIS:
        raise UsageError(f"the C runner is built for {', '.join(ABIS)}; this device is {abi}")
    if importlib.util.find_spec("ziglang"):
        target = f"{ABIS[abi]}.{GLIBC}"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", target]
        return command, f"zig {version('ziglang')} {target}"
    if abi == OWN and (own := shutil.which("cc")):
        return [own], "cc"
    raise MissingError(
        f"the C runner for {abi} is built by zig, which is not installed; "
        "pip install 'kzoo[devices]'"
    )


def _program(abi: str) -> Path:
    source = deploy_file("runner/runner.c")
    command, made_by = compiler(abi)
    digest = hashlib.sha256(source.read_bytes() + made_by.encode()).hexdigest()[:16]

    def build(folder: Path) -> None:
        options = ["-std=gnu11", "-O2", "-o", folder / "runner", source, "-ldl"]
        tool([*command, *options], f"the C runner for {abi}")

    return filled_once(_kept(f"program-{digest}"), build) / "runner"


def _library(abi: str) -> Path:
    wanted = runtime_version()
    if abi == OWN:
        package = importlib.util.find_spec("ai_edge_litert").submodule_search_locations[0]
        return Path(package, "libLiteRt.so")

    def unpack(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", "3.11", "--dest", folder]
        for minor in (28, 27, 17):
            command += ["--platform", f"manylinux_2_{minor}_{abi}"]
        tool([*command, f"ai-edge-litert=={wanted}"], f"LiteRT {wanted} for {abi}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read("ai_edge_litert/libLiteRt.so")
        (folder / "libLiteRt.so").write_bytes(content)
        wheel.unlink()

    return filled_once(_kept(f"litert-{wanted}-{abi}"), unpack) / "libLiteRt.so"


def _c_library(abi: str) -> list[Path]:
    """The loader and the libraries beside it that `_library` needs."""
    if abi == OWN:
        said = tool(["ldd", _library(abi)], "the libraries of LiteRT")
        return [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]
    names = [f"{name}-{PACKAGES_OF[abi]}-cross" for name in CROSS]

    def unpack(folder: Path) -> None:
        what = f"the C library for {abi} (apt-get install {names[-1]})"
        tool(["apt-get", "download", "-qq", *names], what, folder)
        for package in folder.glob("*.deb"):
            tool(["dpkg-deb", "-x", package, folder], what)
            package.unlink()

    place = Path("usr", ABIS[abi], "lib")
    installed = "/" / place
    whole = all((installed / name).exists() for name in C_LIBRARY)
    folder = installed if whole else filled_once(_kept(f"glibc-{abi}"), unpack) / place
    (loader,) = folder.glob("ld-linux*.so.*")
    return [loader, *(folder / name for name in C_LIBRARY)]


def _kept(name: str) -> Path:
    return cache_folder() / "runner" / name


def tool(command: list, what: str, folder: Path | None = None) -> str:
    """What a program prints; MissingError, of ``what``, if it is not installed or fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, cwd=folder, check=False
        )
    except FileNotFoundError as error:
        raise MissingError(f"{what} needs {command[0]}, which is not installed") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingError(f"{what} cannot be had: {last}")
    return done.stdout
