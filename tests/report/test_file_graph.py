"""The drawing of a file: every operator a line in order, every way drawn, nothing over a box."""

from __future__ import annotations

import itertools
import re
import time
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.report.file_graph import LINE, PIECE, TOP, graph_svg

SVG = "{http://www.w3.org/2000/svg}"


def row(index, inputs, operator="CONV_2D", layer="stage1_1_conv", dtype="int8", **others) -> dict:
    return {
        "index": index, "operator": operator, "layer": layer, "shape": [1, 8, 8, 16],
        "dtype": dtype, "scale": 0.1, "zero_point": 0, "inputs": list(inputs),
        "weight_bytes": 0, "weight_dtype": "", "weight_shape": [], "live_bytes": 1000 + index,
        **others,
    }  # fmt: skip


def record(rows, islands=(), file="runs/net.tflite") -> dict:
    port = {"name": "image", "shape": [1, 8, 8, 3], "dtype": "uint8"}
    return {
        "file": file, "bytes": 12345, "input": port, "output": port, "tensors": rows,
        "float_islands": list(islands), "peak_bytes": max(each["live_bytes"] for each in rows),
    }  # fmt: skip


def weights(dtype, size=432, shape=(16, 3, 3, 3)) -> dict:
    return {"weight_bytes": size, "weight_dtype": dtype, "weight_shape": list(shape)}


def residual(blocks: int = 3) -> list[dict]:
    rows = [row(0, [-1], layer="stem_conv", **weights("int8"))]
    for block in range(blocks):
        start, name = len(rows) - 1, f"stage{1 + block // 2}_{1 + block % 2}"
        rows.append(row(start + 1, [start], layer=f"{name}_expand_conv", **weights("int8", 999)))
        rows.append(row(start + 2, [start + 1], "DEPTHWISE_CONV_2D", f"{name}_depthwise_conv"))
        rows.append(row(start + 3, [start, start + 2], "ADD", f"{name}_add"))
    return rows


def branches() -> list[dict]:
    rows = [row(0, [-1]), row(1, [0]), row(2, [0]), row(3, [2]), row(4, [0], "MAX_POOL_2D")]
    return [*rows, row(5, [1, 3, 4, 0], "CONCATENATION"), row(6, [5], "MEAN")]


def cells(count: int = 8) -> list[dict]:
    """Cells that read the last two, as NASNet's do: nowhere is one tensor alone alive."""
    rows, outputs = [row(0, [-1]), row(1, [0])], [0, 1]
    for _ in range(count):
        ends = []
        for branch in range(5):
            rows.append(row(len(rows), [outputs[branch % 2]], "DEPTHWISE_CONV_2D"))
            rows.append(row(len(rows), [len(rows) - 1]))
            ends.append(len(rows) - 1)
        rows.append(row(len(rows), ends, "CONCATENATION"))
        outputs = [outputs[1], len(rows) - 1]
    return rows


FILES = {
    "residual": residual(),
    "branches": branches(),
    "cells": cells(),
    "one": [row(0, [-1])],
    "reads nothing": [row(0, []), row(1, [0])],
    "chain": [row(i, [i - 1], layer="elsewhere") for i in range(3 * PIECE)],
}


def boxes(root) -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of each, the file's input first."""
    found = []
    for each in root.iter(f"{SVG}rect"):
        if each.get("class").split()[0] == "box":
            x, y, wide, high = (float(each.get(key)) for key in ("x", "y", "width", "height"))
            found.append((x, y, x + wide, y + high))
    return found


def ways(root) -> list[list[tuple[float, float]]]:
    """The points of every way; of a curve its ends."""
    found = []
    for each in root.iter(f"{SVG}path"):
        if each.get("class") != "wire" or each.get("stroke-opacity"):
            continue
        points = []
        for letter, numbers in re.findall(r"([MVHCQ])([^A-Z]*)", each.get("d")):
            values = [float(number) for number in numbers.split()]
            if letter == "V":
                points.append((points[-1][0], values[0]))
            elif letter == "H":
                points.append((values[0], points[-1][1]))
            else:
                points.append((values[-2], values[-1]))
        found.append(points)
    return found


def line_of(y: float) -> int:
    return int((y - TOP) // LINE)


def drawn_edges(root, placed) -> list[tuple[int, int]]:
    """(from, to) of each way: the lines at which it leaves a box and enters another."""
    found = []
    for points in ways(root):
        ends = []
        for x, y in (points[0], points[-1]):
            line = line_of(y)
            left, top, right, bottom = placed[line]
            assert left - 0.2 <= x <= right + 0.2
            assert top - 0.2 <= y <= bottom + 0.2
            ends.append(line)
        found.append(tuple(ends))
    return sorted(found)


def check_drawing(rows) -> None:
    """Every operator once, in order; every way once, from its box to its box, over no other."""
    root = ElementTree.fromstring(graph_svg(record(rows)))
    placed = boxes(root)
    assert [line_of(top) for _, top, _, _ in placed] == list(range(len(rows) + 1))
    assert all(left > 0 and right < float(root.get("width")) for left, _, right, _ in placed)
    assert placed[-1][3] < float(root.get("height"))
    expected = [(source + 1, each["index"] + 1) for each in rows for source in each["inputs"]]
    assert drawn_edges(root, placed) == sorted(expected)
    for points in ways(root):
        for (x, y), (right, down) in itertools.pairwise(points):
            if abs(x - right) < 0.2:
                for left, top, end, bottom in placed:
                    assert not (left < x < end and y < top and bottom < down), "over a box"


@pytest.mark.parametrize("name", FILES)
def test_every_operator_and_every_way_is_drawn(name):
    check_drawing(FILES[name])


@st.composite
def graphs(draw) -> list[dict]:
    rows = []
    for index in range(draw(st.integers(1, 20))):
        before = st.sets(st.integers(max(-1, index - 6), index - 1), max_size=3)
        far = st.sets(st.integers(-1, index - 1), max_size=1)
        kind = draw(st.sampled_from(["CONV_2D", "ADD", "MUL", "DEPTHWISE_CONV_2D"]))
        rows.append(row(index, sorted(draw(before) | draw(far)), kind))
    return rows


@settings(max_examples=20, deadline=None)
@given(rows=graphs())
def test_any_graph_is_drawn_with_nothing_over_a_box(rows):
    check_drawing(rows)


def test_a_graph_without_any_structure_is_drawn_in_seconds():
    rows = [row(i, sorted({-1 if not i else i - 1, i // 2 - 1, i // 3 - 1})) for i in range(200)]
    started = time.perf_counter()
    svg = graph_svg(record(rows))
    assert time.perf_counter() - started < 60
    root = ElementTree.fromstring(svg)
    assert len(boxes(root)) == 201
    assert len(ways(root)) == sum(len(each["inputs"]) for each in rows)


def texts(svg: str, tag: str = "text") -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}{tag}")]


def test_names_cannot_break_out():
    hostile = "<script>alert(1)</script>\"'& \x00\x1b[31m\ud800]]>"
    rows = [row(0, [-1], hostile, hostile, hostile), row(1, [0], layer=hostile * 3)]
    given = record(rows, file=f"/tmp/{hostile.replace('/', '')}.tflite")
    given["input"] = given["input"] | {"name": hostile, "dtype": hostile}
    svg = graph_svg(given)
    svg.encode()
    assert "<script" not in svg
    assert not re.search(r"[\x00-\x08\x1b]", svg)
    assert any("<script>alert(1)</script>" in text for text in texts(svg, "title"))
    allowed = {"svg", "title", "style", "defs", "marker", "path", "rect", "text", "g"}
    assert {each.tag.removeprefix(SVG) for each in ElementTree.fromstring(svg).iter()} <= allowed


def test_long_names_are_cut_and_told_whole():
    long = "a_layer_of_" + 20 * "very_" + "long_name"
    svg = graph_svg(record([row(0, [-1], layer=long)]))
    assert long not in texts(svg)
    assert long in "\n".join(texts(svg, "title"))


def test_the_peak_is_marked_once():
    rows = residual()
    rows[4]["live_bytes"] = 98_765
    said = texts(graph_svg(record(rows)))
    assert [text for text in said if text.endswith("peak")] == ["98.8 kB peak"]
    assert any("peak memory 98.8 kB" in text for text in said)


def test_float_islands_stand_out_and_dtypes_are_counted():
    rows = [
        row(0, [-1], **weights("int8")),
        row(1, [0], "DEQUANTIZE", "tfl.dequantize", "float32"),
        row(2, [1], "ADD", "stage1_2_add", "float32"),
        row(3, [2], "CONV_2D", "a", "float32", **weights("int4")),
        row(4, [3], "CONV_2D", "b", "int16", **weights("int8")),
        row(5, [4], "TOPK_V2", "c", "int32"),
    ]
    said = texts(graph_svg(record(rows, ["DEQUANTIZE in tfl.dequantize", "ADD in stage1_2_add"])))
    counts = {"1 int8", "2 float island", "1 float32, int4 weights", "1 int16, int8 weights"}
    assert counts | {"1 other"} <= set(said)


def test_what_unpacks_weights_is_part_of_what_reads_them():
    rows = [
        row(0, [], "DEQUANTIZE", "w", "float32", **weights("float16", 864)),
        row(1, [], "DEQUANTIZE", "b", "float32", **weights("float16", 32, (16,))),
        row(2, [-1, 0, 1], "CONV_2D", "stem_conv", "float32"),
    ]
    svg = graph_svg(record(rows))
    assert {"CONV_2D 3×3", "896 B", "1 float32, float16 weights"} <= set(texts(svg))
    assert "DEQUANTIZE" not in svg
    assert len(boxes(ElementTree.fromstring(svg))) == 2


def test_stages_are_named_where_the_names_allow():
    svg = graph_svg(record(residual(8)))
    assert {f"stage {i}" for i in range(1, 5)} <= set(texts(svg))
    assert "stem" in texts(svg, "title")  # too short for its name
    foreign = [row(i, [i - 1], layer=f"block{i}") for i in range(9)]
    assert not [text for text in texts(graph_svg(record(foreign))) if "stage" in text]


def test_it_follows_the_readers_mode_and_needs_no_other_file():
    svg = graph_svg(record(residual()))
    assert "prefers-color-scheme:dark" in svg
    assert not re.search(r'(href|src)="(?!#)|url\((?!#)|@import', svg)
    assert svg == graph_svg(record(residual()))
