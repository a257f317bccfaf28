"""What the tests of devices share: the real adb with a server of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.devices.phone import Phone
from tests.measure.conftest import add_model, mlperf_tiny, small  # noqa: F401


@pytest.fixture(scope="session")
def _adb_server(tmp_path_factory):
    """Variables by which the real adb has a server, keys and a home folder of its own."""
    if not shutil.which("adb"):
        pytest.skip("needs adb; apt-get install adb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = str(tmp_path_factory.mktemp("adb"))
    zig = os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(Path.home() / ".cache" / "zig"))
    variables = {"ANDROID_ADB_SERVER_PORT": str(port), "HOME": home, "ZIG_GLOBAL_CACHE_DIR": zig}
    yield variables
    subprocess.run(["adb", "kill-server"], env=os.environ | variables, capture_output=True)


@pytest.fixture
def phones(_adb_server, monkeypatch, tmp_path):
    """phones(**settings of `phone.Phone`): another emulated phone, which adb is connected to."""
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    for name, value in _adb_server.items():
        monkeypatch.setenv(name, value)
    started = []

    def start(authorized: bool = True, **settings) -> Phone:
        phone = Phone(tmp_path / f"phone{len(started)}", **settings)
        phone.authorized = authorized
        started.append(phone)
        subprocess.run(["adb", "connect", phone.serial], capture_output=True, check=True)
        return phone

    yield start
    for phone in started:
        subprocess.run(["adb", "disconnect", phone.serial], capture_output=True)
        phone.stop()


@pytest.fixture(scope="session")
def float_file(tmp_path_factory) -> Path:
    """A small float model under a name that a shell would take apart."""
    return add_model(
        tmp_path_factory.mktemp("models") / 'it\'s a "$HOME" `x`;.tflite', (1, 64, 64, 3)
    )
