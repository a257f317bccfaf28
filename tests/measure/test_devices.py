"""What is attached, as far as it needs no phone; phones are in tests/devices/test_adb.py."""

import shutil

import pytest

from kzoo.measure import devices


@pytest.mark.parametrize(
    ("ids", "said"),
    [("1a6e:089a", ["USB, not yet started"]), ("18d1:9302", ["USB, ready"]), ("18d1:4ee7", [])],
)
def test_an_edge_tpu_is_known_by_its_usb_ids(ids, said, tmp_path, monkeypatch):
    vendor, product = ids.split(":")
    (tmp_path / "usb1").mkdir()  # a hub has no such files
    (tmp_path / "1-2").mkdir()
    (tmp_path / "1-2" / "idVendor").write_text(f"{vendor}\n")
    (tmp_path / "1-2" / "idProduct").write_text(f"{product}\n")
    monkeypatch.setattr(devices, "USB", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)  # no phones
    found = devices.devices().devices
    assert [each.machine["system"] for each in found if each.target == "coral"] == said


def test_several_edge_tpus_have_names_of_their_own(tmp_path, monkeypatch):
    for port in ("1-2", "1-3"):
        (tmp_path / port).mkdir()
        (tmp_path / port / "idVendor").write_text("18d1\n")
        (tmp_path / port / "idProduct").write_text("9302\n")
    monkeypatch.setattr(devices, "USB", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)  # no phones
    names = [each.target for each in devices.devices().devices]
    assert names == ["host", "coral", "coral:usb:1"]
