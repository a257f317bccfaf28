"""What is in a file, to the byte; and no file, however damaged, brings the caller down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kzoo.errors import BadInputError, MissingError
from kzoo.lite.inspect import Contents, inspect
from kzoo.lite.interpret import lite_outputs
from kzoo.lite.quantize import quantize


def test_the_counts_are_those_of_the_network(lite_float, lite_int8):
    for path, dtype in ((lite_float, "float32"), (lite_int8, "int8")):
        operators = inspect(path).operators
        assert operators[f"CONV_2D {dtype}"] == 2
        assert operators[f"AVERAGE_POOL_2D {dtype}"] == 2
        assert operators[f"FULLY_CONNECTED {dtype}"] == 3


def test_the_bytes_by_kind_are_the_file(lite_float, lite_int8):
    weights = 61_706 - 6 - 16 - 120 - 84 - 10
    for path, kind, size in ((lite_float, "weights float32", 4), (lite_int8, "weights int8", 1)):
        contents = inspect(path)
        assert sum(contents.bytes_by_kind.values()) == contents.bytes == path.stat().st_size
        assert contents.bytes_by_kind[kind] == weights * size
        assert 0 < contents.gzip_bytes < contents.bytes
    assert inspect(lite_int8).bytes_by_kind["bias int32"] == 4 * (6 + 16 + 120 + 84 + 10)


def test_float_islands_are_named_by_their_layer(foreign, gray, lite_float, tmp_path):
    assert inspect(lite_float).float_islands == []
    done = quantize(foreign("layer norm"), tmp_path / "m.tflite", calibrate=gray, samples=20)
    assert any(" in ln" in island for island in done.contents.float_islands)
    assert not any("body_conv" in island for island in done.contents.float_islands)


def damaged(data: bytes) -> dict[str, bytes]:
    """Bit flips are half in the first kilobyte and half anywhere: structure and weights."""
    rng = np.random.default_rng(0)
    found = {"empty": b"", "text": b"a text, no model\n" * 20, "zip": b"PK\3\4" + bytes(200)}
    for share in (0.001, 0.1, 0.5, 0.9, 0.9999):
        found[f"first {share:g}"] = data[: max(9, int(share * len(data)))]
    for number in range(20):
        flipped = bytearray(data)
        place = rng.integers(8, 1024 if number % 2 else len(data))
        flipped[place] ^= 1 << rng.integers(8)
        found[f"bit {place}"] = bytes(flipped)
    return found


def outcome(path, images) -> str:
    """The contents and outputs, or a BadInputError; anything else is raised."""
    try:
        assert isinstance(inspect(path), Contents)
        found, _ = lite_outputs(path, images, np.arange(2))
        assert found.shape == (2, 10)
    except BadInputError as error:
        return str(error)
    return "fine"


def check_damage(lite, digits, folder, chosen) -> dict[str, str]:
    files = {}
    for number, (kind, data) in enumerate(damaged(lite.read_bytes()).items()):
        if chosen(number, kind):
            files[kind] = folder / f"{number}.tflite"
            files[kind].write_bytes(data)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda path: outcome(path, digits.images_file), files.values())
        return dict(zip(files, found, strict=True))


def test_a_damaged_file_is_refused_or_answers(lite_int8, digits, tmp_path):
    found = check_damage(lite_int8, digits, tmp_path, lambda number, _: number < 10)
    assert "it is empty" in found["empty"]
    assert "TFL3" in found["text"]
    assert "zip archive" in found["zip"]
    for kind, text in found.items():
        assert kind.startswith("bit") or str(tmp_path) in text


@pytest.mark.slow
def test_many_damaged_files_are_refused_or_answer(lite_int8, lite_float, digits, tmp_path):
    for lite in (lite_int8, lite_float):
        found = check_damage(lite, digits, tmp_path, lambda number, _: number >= 8)
        assert len(found) == 20


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingError, match=r"gone\.tflite"):
        inspect(tmp_path / "gone.tflite")


def test_files_from_elsewhere_are_read(shared):
    folder = shared / "mlperf-tiny"
    plain, quantized = (
        inspect(folder / f"pretrainedResnet{kind}.tflite") for kind in ("", "_quant")
    )
    assert plain.operators["CONV_2D float32"] == quantized.operators["CONV_2D int8"] == 9
    assert quantized.float_islands == []
    assert quantized.bytes < plain.bytes / 3
    assert plain.notes == quantized.notes == {}
