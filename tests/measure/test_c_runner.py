"""What the C runner is sent with; that it runs is in test_host.py and tests/devices."""

import pytest

from kzoo.errors import MissingError
from kzoo.measure import c_runner


def test_a_half_of_an_installed_c_library_is_not_taken(tmp_path, monkeypatch):
    """As where libc6-arm64-cross is installed and libstdc++6-arm64-cross is not."""
    for name in ("ld-linux-aarch64.so.1", "libc.so.6"):
        (tmp_path / "lib").mkdir(exist_ok=True)
        (tmp_path / "lib" / name).touch()
    monkeypatch.setattr(c_runner, "OWN", "x86_64")
    monkeypatch.setitem(c_runner.ABIS, "aarch64", f"..{tmp_path}")
    monkeypatch.setenv("KZOO_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match=r"apt-get install libstdc\+\+6-arm64-cross"):
        c_runner._c_library("aarch64")
