"""What ``kzoo inspect`` and ``kzoo diff`` print."""

from __future__ import annotations

import pytest


def test_inspect_tells_sizes_memory_and_operators(kzoo_command, lite_int8):
    done = kzoo_command("inspect", lite_int8)
    assert done.returncode == 0, done.stderr
    names = {line.split("  ")[0] for line in done.stdout.splitlines()}
    told = {"size", "gzip", "LZMA", "Huffman", "by kind", "peak memory", "signature"}
    assert told | {"minimum runtime", "metadata", "input", "output", "operators"} <= names
    assert "stage1_1_conv" not in done.stdout.split("peak memory")[1].split("\n", 1)[1]
    done = kzoo_command("inspect", lite_int8, "--tensors")
    rows = [line.split() for line in done.stdout.splitlines()]
    (row,) = (row for row in rows if row[1:3] == ["CONV_2D", "stage1_1_conv"])
    assert "6" in row
    assert "int8" in row


def test_diff_ends_with_0_whether_files_differ_or_not(kzoo_command, lite_float, lite_int8):
    done = kzoo_command("diff", lite_int8, lite_int8)
    assert (done.returncode, done.stdout.strip()) == (0, "the same to the byte")
    done = kzoo_command("diff", lite_float, lite_int8)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["CONV_2D", "stage2_1_conv", "float32", "int8"] in rows


@pytest.mark.parametrize("verb", ["inspect", "diff"])
def test_a_damaged_file_ends_with_one_line(verb, kzoo_command, lite_int8, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(lite_int8.read_bytes()[:9000])
    done = kzoo_command(verb, *([path] if verb == "inspect" else [lite_int8, path]))
    assert done.returncode == 4
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cut.tflite" in done.stderr
