"""What ``kzoo lint`` prints, and when its gate fails."""

from __future__ import annotations

import json


def test_the_text_tells_the_shares_and_what_to_change(kzoo_command, lite_float):
    done = kzoo_command("lint", lite_float, "--target", "edgetpu", "litert-2.14")
    assert done.returncode == 0, done.stderr
    assert "predicted" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert any(row[:4] == ["edgetpu", "0", "of", "14"] for row in rows)
    assert any(row[:6] == ["litert-2.14", "14", "of", "14", "100.0", "%"] for row in rows)
    assert "kzoo quantize" in done.stdout
    assert "https://coral.ai/docs/" in done.stdout


def test_the_gate_is_of_every_target(kzoo_command, lite_int8):
    done = kzoo_command("lint", lite_int8, "--target", "edgetpu", "--gate", 1)
    assert done.returncode == 0, done.stdout
    done = kzoo_command("lint", lite_int8, "--target", "edgetpu", "webgpu", "--gate", 0.9, "--json")
    assert done.returncode == 1
    shares = {row["target"]: row["mac_share"] for row in json.loads(done.stdout)["predictions"]}
    assert shares == {"edgetpu": 1.0, "webgpu": 0.0}


def test_a_damaged_file_ends_with_one_line(kzoo_command, lite_int8, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(lite_int8.read_bytes()[:9000])
    done = kzoo_command("lint", path)
    assert done.returncode == 4
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cut.tflite" in done.stderr
