"""``.safetensors``: what was written is read; a header that does not fit the file is refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.errors import BadInputError
from kzoo.zoo.weights.read import read_checkpoint

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "stem.weight": RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "stem.var": RANDOM.normal(size=4),
    "scale": np.asarray(2.5, np.float32),
    "head.weight": RANDOM.normal(size=(2, 4)).astype(np.float16),
    "none": np.empty((0, 3), np.float32),
    "steps": np.asarray([3, 4]),
}
DTYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64"}


def rows(arrays: dict) -> dict:
    header, position = {}, 0
    for name, array in arrays.items():
        span = [position, position + array.nbytes]
        row = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": span}
        header[name], position = row, span[1]
    return header


def encoded(header: object, content: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


CONTENT = b"".join(array.tobytes() for array in ARRAYS.values())
WHOLE = encoded({"__metadata__": {"format": "pt"}, **rows(ARRAYS)}, CONTENT)


@pytest.fixture
def read(tmp_path):
    """read(bytes): the weights of a file of these bytes."""

    def read(data: bytes) -> dict[str, np.ndarray]:
        path = tmp_path / "file.safetensors"
        path.write_bytes(data)
        return read_checkpoint(path).arrays

    return read


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.flags.writeable
        np.testing.assert_array_equal(array, expected[name].astype(np.float32), strict=True)


def test_what_was_written_is_read_in_its_order_without_integers(read):
    assert_same(read(WHOLE), {name: ARRAYS[name] for name in list(ARRAYS)[:-1]})


def test_bfloat16_is_the_upper_half_of_float32(read):
    row = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    found = read(encoded({"w": row}, struct.pack("<2H", 0x3F80, 0xC020)))
    assert found["w"].tolist() == [1.0, -2.5]


def test_what_later_versions_may_add_is_ignored(read):
    assert_same(read(encoded(changed("stem.var", strides=[1]), CONTENT)), read(WHOLE))


def changed(name: str, **entries) -> dict:
    header = rows(ARRAYS)
    header[name] |= entries
    return header


BAD = {
    "a gap": (changed("stem.var", data_offsets=[440, 472]), CONTENT + bytes(8)),
    "an overlap": (changed("stem.var", data_offsets=[0, 32]), CONTENT),
    "two of the same bytes": ({**rows(ARRAYS), "twin": rows(ARRAYS)["stem.weight"]}, CONTENT),
    "bytes at the end": (rows(ARRAYS), CONTENT + b"x"),
    "bytes missing": (rows(ARRAYS), CONTENT[:-1]),
    "another shape": (changed("stem.var", shape=[5]), CONTENT),
    "a negative shape": (changed("stem.var", shape=[-2, -2]), CONTENT),
    "a shape that is none": (changed("stem.var", shape="4"), CONTENT),
    "a shape of fractions": (changed("stem.var", shape=[4.0]), CONTENT),
    "true for one": (changed("stem.var", shape=[4, True]), CONTENT),
    "an absurd shape": (changed("none", shape=[0, 2**62]), CONTENT),
    "offsets backwards": (changed("stem.var", data_offsets=[464, 432]), CONTENT),
    "three offsets": (changed("stem.var", data_offsets=[432, 464, 464]), CONTENT),
    "an unknown dtype": (changed("stem.var", dtype="F8_E4M3"), CONTENT),
    "a dtype that is none": (changed("stem.var", dtype=["F64"]), CONTENT),
    "an entry missing": ({"w": {"dtype": "F32", "shape": []}}, bytes(4)),
    "a name twice": (b'{"w": 0, "w": 0}', b""),
    "a list for a row": ({"w": []}, b""),
    "no JSON": (b"{'w': 0}", b""),
    "no UTF-8": (b'{"\xff": 0}', b""),
    "numbers without end": (b'{"w": ' + b"9" * 10_000 + b"}", b""),
    "brackets without end": (b'{"w": ' + b"[" * 100_000, b""),
    "no arrays": ({}, b""),
    "a name with control characters": ({"\x1b[2J": rows(ARRAYS)["stem.weight"]}, CONTENT[:432]),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_header_that_does_not_fit(read, damage):
    with pytest.raises(BadInputError, match="cannot read"):
        read(encoded(*BAD[damage]))


@pytest.mark.parametrize("length", [2, 200, 2**27, 2**63, 2**64 - 1])
def test_a_header_of_another_length(read, length):
    with pytest.raises(BadInputError, match="cannot read"):
        read(struct.pack("<Q", length) + WHOLE[8:])


@pytest.mark.parametrize("tenth", range(10))
def test_a_file_cut_short(read, tenth):
    with pytest.raises(BadInputError, match="cannot read"):
        read(WHOLE[: len(WHOLE) * tenth // 10])


flips = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8)


@settings(max_examples=300, deadline=None)
@given(flips)
def test_damage_gives_weights_or_an_explained_error(tmp_path_factory, flips):
    data = bytearray(WHOLE)
    for where, value in flips:
        data[int(where * len(data))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(data)
    try:
        found = read_checkpoint(path).arrays
    except BadInputError:
        return
    assert all(array.dtype == np.float32 for array in found.values())


def test_what_the_library_writes(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "net.safetensors"
    library.save_file(ARRAYS, path, {"format": "np"})
    found = read_checkpoint(path).arrays
    assert_same(found, {name: ARRAYS[name] for name in found})
    assert set(found) == set(ARRAYS) - {"steps"}


@pytest.mark.parametrize("damage", BAD)
def test_what_is_refused_here_the_library_refuses_too(damage):
    library = pytest.importorskip("safetensors.numpy")
    if damage in ("no arrays", "a name with control characters"):
        pytest.skip("a file without weights is a file")
    with pytest.raises(Exception):  # noqa: B017 whichever it is
        library.load(encoded(*BAD[damage]))
