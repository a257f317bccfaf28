"""The drawing is valid, tells every layer, folds what is alike, and nothing in it overlaps."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.report.layout import lay_out
from kzoo.report.network import network_svg
from kzoo.report.structure import TAGS

SVG = "{http://www.w3.org/2000/svg}"


def row(name, kind, inputs, shape, params=0, macs=0, **others) -> dict:
    return {
        "name": name, "kind": kind, "inputs": list(inputs), "shape": list(shape),
        "params": params, "macs": macs, "settings": others,
    }  # fmt: skip


def conv(name, before, shape, kernel=3, stride=1) -> list[dict]:
    settings = {"kernel_size": [kernel, kernel], "strides": [stride, stride]}
    return [
        row(f"{name}_conv", "Conv2D", [before], shape, 1000, 50_000, **settings),
        row(f"{name}_bn", "BatchNormalization", [f"{name}_conv"], shape, 64),
        row(f"{name}_act", "Activation", [f"{name}_bn"], shape, activation="relu"),
    ]


def residual_network(blocks: int = 3) -> list[dict]:
    """A stem, so many residual blocks of 16 channels, and a head."""
    table = [row("image", "InputLayer", [], (32, 32, 3))]
    table.append(row("preprocess", "Rescaling", ["image"], (32, 32, 3), scale=1 / 127.5))
    table += conv("stem", "preprocess", (16, 16, 16), stride=2)
    before = "stem_act"
    for j in range(1, blocks + 1):
        name = f"stage1_{j}"
        table += conv(f"{name}_1", before, (16, 16, 16)) + conv(f"{name}_2", f"{name}_1_act",
                                                                (16, 16, 16))  # fmt: skip
        table.append(row(f"{name}_add", "Add", [before, f"{name}_2_act"], (16, 16, 16)))
        before = f"{name}_add"
    table.append(row("head_pool", "GlobalAveragePooling2D", [before], (16,)))
    table.append(row("head", "Dense", ["head_pool"], (10,), 170, 160))
    return table


def branches(count: int = 4) -> list[dict]:
    """One block of branches of different lengths, joined."""
    table = [row("image", "InputLayer", [], (32, 32, 3))]
    ends = []
    for i in range(count):
        before = "image"
        for j in range(i + 1):
            table += conv(f"stage1_1_{i}_{j}", before, (16, 16, 8))
            before = f"stage1_1_{i}_{j}_act"
        ends.append(before)
    return [*table, row("stage1_1_concat", "Concatenate", ends, (16, 16, 8 * count))]


def skipping() -> list[dict]:
    """Blocks that read the last two before them, as the cells of NASNet do."""
    table = [row("image", "InputLayer", [], (32, 32, 3)), *conv("stem", "image", (16, 16, 8))]
    outputs = ["stem_act", "stem_act"]
    for j in range(1, 5):
        for k, before in enumerate(outputs):
            table += conv(f"stage1_{j}_{k}", before, (16, 16, 8))
        table.append(
            row(f"stage1_{j}_add", "Add", [f"stage1_{j}_{k}_act" for k in (0, 1)], (16, 16, 8))
        )
        outputs = [outputs[1], f"stage1_{j}_add"]
    return table


def nameless() -> list[dict]:
    """Layers without the names of the zoo, and one that is called twice."""
    table = [row("input_layer", "InputLayer", [], (8, 8, 3))]
    table.append(row("shared", "Conv2D", ["input_layer"], (8, 8, 3), 84, 5184))
    table.append(row("shared", "Conv2D", ["shared"], (8, 8, 3), 84, 5184))
    return [*table, row("flatten", "Flatten", ["shared"], (192,))]


def sequence() -> list[dict]:
    table = [row("image", "InputLayer", [], (28, 28, 1))]
    table.append(row("preprocess", "Rescaling", ["image"], (28, 28, 1)))
    table.append(row("stage1_1_rows", "Reshape", ["preprocess"], (28, 28)))
    table.append(row("stage1_1_lstm", "LSTM", ["stage1_1_rows"], (128,), 80_000, 2_000_000))
    return [*table, row("head", "Dense", ["stage1_1_lstm"], (10,), 1290, 1280)]


NETWORKS = {
    "residual": residual_network(),
    "branches": branches(),
    "skipping": skipping(),
    "nameless": nameless(),
    "sequence": sequence(),
    "one layer": [row("image", "InputLayer", [], (None, None, 3))],
}


def texts(svg: str, tag: str = "text") -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}{tag}")]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_drawing_is_valid_and_tells_of_every_layer(name):
    svg = network_svg(NETWORKS[name], name)
    told = "\n".join(texts(svg, "title"))
    assert texts(svg)[0] == name
    for each in NETWORKS[name]:
        # Of blocks that are drawn as one, the first one's tags are told.
        if each["kind"] not in TAGS or "stage1_1" in each["name"]:
            assert f"{each['name']}: {each['kind']}" in told


@pytest.mark.parametrize("name", NETWORKS)
def test_boxes_are_apart_and_inside_the_picture(name):
    root = ElementTree.fromstring(network_svg(NETWORKS[name], name))
    boxes = []
    for each in root.iter(f"{SVG}rect"):
        if each.get("height") == "23" and each.get("class").startswith("box"):
            x, y, width = (float(each.get(key)) for key in ("x", "y", "width"))
            boxes.append((x, y, x + width, y + 23))
    assert boxes
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left > 0
        assert right < float(root.get("width"))
        assert bottom < float(root.get("height"))
        for other in boxes[i + 1 :]:
            apart = right <= other[0] or other[2] <= left
            assert apart or bottom <= other[1] or other[3] <= top


def test_equal_blocks_are_drawn_once_with_their_number():
    svg = network_svg(residual_network(5), "net")
    assert texts(svg).count("× 5") == 1
    assert "stage1_1 … stage1_5" in texts(svg)
    assert len(texts(network_svg(residual_network(50), "net"))) == len(texts(svg))


def test_blocks_that_differ_in_channels_alone_are_one_with_a_range():
    table = residual_network(3)
    for each in table:
        if each["name"].startswith("stage1_3"):
            each["shape"][-1] = 24
    assert "3×3 conv, 16–24" in texts(network_svg(table, "net"))
    assert "16×16×16–24" in texts(network_svg(table, "net"))


def test_a_block_with_another_structure_stands_for_itself():
    table = residual_network(3)
    for each in table:
        if each["name"] == "stage1_2_1_act":
            each["settings"]["activation"] = "tanh"
    assert not [text for text in texts(network_svg(table, "net")) if text.startswith("× ")]


def test_normalization_and_activation_are_tags_and_no_boxes_of_their_own():
    svg = network_svg(residual_network(1), "net")
    assert {"BN", "ReLU", "normalize", "+"} <= set(texts(svg))
    boxes = re.findall(r'class="box [^"]*" x="[^"]*" y="[^"]*" width="[^"]*" height="23"', svg)
    assert len(boxes) == len(["image", "stem", "1", "2", "pool", "head"])


def test_a_shortcut_leaves_the_main_path():
    def curves(table) -> int:
        wires = re.findall(r'class="wire" d="([^"]*)"', network_svg(table, "net"))
        return sum("C" in wire for wire in wires)

    with_shortcut = residual_network(1)
    without = [dict(each) for each in with_shortcut]
    for each in without:
        if each["kind"] == "Add":
            each["inputs"] = each["inputs"][1:]
    assert curves(with_shortcut) == 1
    assert curves(without) == 0


def test_the_shares_of_the_blocks_are_all_of_the_macs():
    svg = network_svg(residual_network(3), "net")
    shares = [float(t.split()[0]) for t in texts(svg) if t.endswith(" %") and "<" not in t]
    assert sum(shares) == pytest.approx(100, abs=1)


def test_names_cannot_break_out():
    table = residual_network(1)
    table[-1]["name"] = "head_<script>alert(1)</script>&"
    table[-1]["kind"] = "<Kind>"
    svg = network_svg(table, "<b>title</b> & more")
    assert "<script>" not in svg
    assert texts(svg)[0] == "<b>title</b> & more"
    assert "head_<script>alert(1)</script>&" in "".join(texts(svg, "title"))


def test_it_follows_the_readers_mode_and_needs_no_other_file():
    svg = network_svg(residual_network(1), "net")
    assert "prefers-color-scheme:dark" in svg
    assert not re.search(r'(href|src)="(?!#)|url\((?!#)|@import', svg)


@st.composite
def graphs(draw) -> tuple[list[float], list[tuple[int, int]]]:
    count = draw(st.integers(1, 12))
    edges = []
    for node in range(1, count):
        before = draw(st.sets(st.integers(0, node - 1), min_size=0, max_size=3))
        edges += [(other, node) for other in sorted(before)]
    widths = draw(st.lists(st.floats(10, 150), min_size=count, max_size=count))
    return widths, edges


@settings(max_examples=150, deadline=None)
@given(graph=graphs(), choice=st.randoms(use_true_random=False))
def test_any_graph_is_laid_out_downwards_with_nothing_on_top_of_another(graph, choice):
    widths, edges = graph
    straight = [-1] * len(widths)
    for start, end in edges:
        if choice.random() < 0.3:
            straight[end] = start
    layout = lay_out(tuple(widths), tuple(edges), tuple(straight))
    for start, end in edges:
        assert layout.rank[start] < layout.rank[end]
        route = layout.routes[start, end]
        assert [rank for _, rank in route] == list(range(layout.rank[start], layout.rank[end] + 1))
    for a in range(len(widths)):
        for b in range(a):
            if layout.rank[a] == layout.rank[b]:
                assert abs(layout.x[a] - layout.x[b]) >= (widths[a] + widths[b]) / 2
        for (start, end), route in layout.routes.items():
            for x, rank in route[1:-1]:
                if rank == layout.rank[a] and a not in (start, end):
                    assert abs(x - layout.x[a]) >= widths[a] / 2
