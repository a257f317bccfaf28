"""What ``kzoo inspect`` and ``kzoo diff`` print."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

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


def test_the_graph_is_drawn_and_kept(kzoo_command, lite_int8, tmp_path):
    path = tmp_path / "net.svg"
    done = kzoo_command("inspect", lite_int8, "--graph", path)
    assert done.returncode == 0, done.stderr
    assert "stage1_1_conv" not in done.stdout.split("peak memory")[1].split("\n", 1)[1]
    svg = ElementTree.parse(path).getroot()
    told = "\n".join(each.text for each in svg.iter("{http://www.w3.org/2000/svg}text"))
    for said in ("CONV_2D 5×5", "stage1_1_conv", "FULLY_CONNECTED", "1×10", "uint8", "peak"):
        assert said in told, said
    for arguments, said in (
        ([lite_int8, "--graph", path], "--force"),
        ([lite_int8, "--graph", tmp_path / "net.png"], "written as .svg"),
        ([tmp_path / "none.tflite", "--graph", tmp_path / "none.svg"], "none.tflite"),
    ):
        done = kzoo_command("inspect", *arguments)
        assert done.returncode in (2, 3), done.stderr
        assert said in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["net.svg"]


def test_a_graph_of_hostile_names_is_harmless(kzoo_command, lite_int8, tmp_path):
    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(lite_int8.read_bytes())
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"<script>alert({number})</script>\x1b\x00&\"'".encode()
    file, path = tmp_path / "<b>.tflite", tmp_path / "net.svg"
    file.write_bytes(flatbuffer.serialize(model))
    done = kzoo_command("inspect", file, "--graph", path)
    assert done.returncode == 0, done.stderr
    assert b"<script" not in path.read_bytes()
    tags = {each.tag.rpartition("}")[2] for each in ElementTree.parse(path).getroot().iter()}
    assert tags <= {"svg", "title", "style", "defs", "marker", "path", "rect", "text", "g"}


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
