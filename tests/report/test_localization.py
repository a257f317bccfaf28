"""The page of a localization stands alone, leads from findings to bars, and trusts no text."""

from __future__ import annotations

import copy
import re

import pytest

from kzoo.report.localization import nats, write_localization

HOSTILE = "<script>alert(1)</script>\"'&"
ABOUT = {
    "date": "2026-11-22T07:22:06+00:00",
    "environment": {"python": "3.11.7", "packages": {"kzoo": "0.1.0"}, "machine": {"cores": 2}},
}


def layer(number: int, **others) -> dict:
    return {
        "layer": f"stage{1 + number // 4}_1_conv{number}", "layers": [f"conv{number}"],
        "operator": "CONV_2D", "tensor": f"t{number}", "float": False, "sqnr_db": 30.0 + number,
        "cosine": 0.999, "clipped": 0.0, "range": [-1.0, 2.0], "seen": [-0.9, 1.9], "used": 0.8,
        "wide": 1.0, "inputs": [], "channel": 0, "channels": 8, "channel_ratio": 1.5,
        "gate": False, "swish": False, "weights_db": 40.0, "alone": 0.001 * number, **others,
    }  # fmt: skip


def record(count: int = 12) -> dict:
    layers = [layer(i) for i in range(count)]
    layers[2] |= {"alone": 0.8, "without": 0.05, "channel_ratio": 90.0, "clipped": 0.02}
    layers[5] |= {"float": True, "range": None, "weights_db": None}
    del layers[5]["alone"]
    finding = {
        "layer": "stage1_1_conv2", "layers": ["conv2"], "operator": "CONV_2D", "tensor": "t2",
        "affected": ["stage1_1_conv2", "stage1_1_conv3"], "cause": "outlier channel",
        "text": "channel 0 of 8 is 90 times as wide", "cure": "equalize (--equalize)",
    }  # fmt: skip
    return {
        "file": "runs/net_int8.tflite", "against": "net.keras", "images": 32, "agreement": 0.75,
        "divergence": 0.9, "findings": [finding], "layers": layers,
        "calibration": {"as they are": 0.05, "in BGR order": 0.2, "inverted": 0.4},
    }  # fmt: skip


def of_bgr() -> dict:
    found = record()
    found["calibration"] |= {"as they are": 0.31, "in BGR order": 0.04}
    text = (
        "its ranges are those of images in BGR order (0.040 apart), not of the images as they are"
    )
    found["findings"].insert(
        0,
        {
            "layer": "image", "layers": ["image"], "operator": "calibration", "tensor": "image",
            "affected": [], "cause": "calibration images", "text": text, "cure": "calibrate",
        },
    )  # fmt: skip
    return found


def tried(*agreements: float) -> list[dict]:
    return [
        {
            "name": f"cure {i}", "bytes": 1_500_000, "agreement": agreement, "divergence": 0.02,
            "drop": None, "cost": None, "written": agreement > 0.99,
        }
        for i, agreement in enumerate(agreements)
    ]  # fmt: skip


def page(tmp_path, found) -> str:
    path = tmp_path / "page.html"
    assert write_localization(found, path, ABOUT) == path
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    return path.read_text()


def line(text: str, number: int) -> str:
    """The row of an operator."""
    return re.search(rf'<tr id="op-{number}".*?</tr>', text, re.DOTALL)[0]


def bars(text: str) -> list[float]:
    return [float(value) for value in re.findall(r"--v:([\d.e-]+)", text)]


def test_it_stands_alone_and_trusts_no_text(tmp_path):
    found = record()
    for each in (*found["layers"], *found["findings"]):
        each |= {key: HOSTILE for key, value in each.items() if isinstance(value, str)}
    found |= {"file": f"a/{HOSTILE}", "against": HOSTILE, "tried": tried(0.5)}
    found["findings"][0]["affected"] = [HOSTILE, HOSTILE]
    found["calibration"][HOSTILE] = 0.3
    found["tried"][0]["name"] = HOSTILE
    text = page(tmp_path, found)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 24
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#)', text)


def test_every_operator_has_its_bars_in_order(tmp_path):
    found = record()
    text = page(tmp_path, found)
    assert re.findall(r'<tr id="op-(\d+)"', text) == [str(i) for i in range(12)]
    for number, each in enumerate(found["layers"]):
        assert each["layer"] in line(text, number)
        assert f"{each['sqnr_db']:.1f}" in line(text, number)
    # alone, left, dB, clipped, widest: alone is of all that the file loses.
    assert bars(line(text, 2)) == pytest.approx([0.8 / 0.9, 0.05 / 0.9, 32 / 60, 1, 1], abs=1e-3)
    assert {"0.8000", "0.0500", "2.00 %", "90.0"} <= set(
        re.findall(r"<span>([^<]*)", line(text, 2))
    )
    assert bars(line(text, 5))[0] == 0
    assert "in float" in line(text, 5)
    heights = re.findall(r'<i style="height:([\d.]+)%', text)
    assert len(heights) == 2 * len(found["layers"])
    assert max(range(12), key=lambda i: float(heights[i])) == 2


def test_findings_and_bars_lead_to_each_other(tmp_path):
    text = page(tmp_path, of_bgr())
    first, second = re.findall(r'<li id="finding-\d">.*?</li>', text, re.DOTALL)
    assert "in BGR order (0.040 apart)" in first
    assert 'href="#calibration"' in first
    assert "Channel 0 of 8 is 90 times as wide." in second
    assert "Equalize (--equalize)." in second
    assert "stage1_1_conv2, stage1_1_conv3" in second
    assert 'href="#op-2"' in second
    assert 'href="#finding-2"' in line(text, 2)
    assert "To look at first: its ranges (calibration images)" in text
    targets = set(re.findall(r'id="([\w-]+)"', text))
    assert set(re.findall(r'href="#([\w-]+)"', text)) <= targets


def test_the_nearest_images_are_told(tmp_path):
    nearest = re.compile(r'<span class="nearest">([^<]*)</span>')
    assert nearest.findall(page(tmp_path, record())) == ["as they are", "0.050"]
    assert nearest.findall(page(tmp_path, of_bgr())) == ["in BGR order", "0.040"]
    unknown = record() | {"calibration": {"as they are": 0.0, "inverted": 0.0}}
    assert "Too few ranges" in page(tmp_path, unknown)


@pytest.mark.parametrize("agreements", [(), (0.9, 1.0), (0.9, 0.95)])
def test_cures_are_shown_where_they_were_tried(agreements, tmp_path):
    text = page(tmp_path, record() | {"tried": tried(*agreements)})
    assert ('id="cures"' in text) == bool(agreements)
    for i, agreement in enumerate(agreements):
        assert f"cure {i}" in text
        assert f"{100 * agreement:.1f} %" in text
    assert ("no file was written" in text) == (agreements == (0.9, 0.95))


def test_without_rounding_alone_there_is_no_column_of_it(tmp_path):
    found = record() | {"findings": []}
    for each in found["layers"]:
        each.pop("alone", None)
        each.pop("without", None)
    text = page(tmp_path, found)
    assert ">alone<" not in text
    assert len(bars(line(text, 3))) == 3
    assert "No operator stands out" in text


def test_numbers_above_the_strip_do_not_overlap(tmp_path):
    found = record(100)
    (one,) = found["findings"]
    found["findings"] = [{**one, "tensor": f"t{i}"} for i in (50, 51, 52, 90)]
    levels = re.findall(r'<b style="top:(-\d+)px">(\d)</b>', page(tmp_path, found))
    assert levels == [("-22", "1"), ("-42", "2"), ("-62", "3"), ("-22", "4")]
    assert "--levels:2" in page(tmp_path, found)


def test_400_operators_weigh_little(tmp_path):
    text = page(tmp_path, record(400))
    assert len(re.findall(r'<tr id="op-', text)) == 400
    assert len(text) < 1_000_000


def test_the_record_is_left_as_it_was(tmp_path):
    found = record()
    before = copy.deepcopy(found)
    assert page(tmp_path, found) == page(tmp_path, found)
    assert found == before


def test_a_small_divergence_is_not_nothing():
    assert [nats(value) for value in (0, 3.9e-6, 0.0123)] == ["0", "4e-06", "0.0123"]
