import pytest

from kzoo.errors import BadInputError, MissingError
from kzoo.lite.tflite_file import tflite_file


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(60), ".keras"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1c\x00\x00\x00TF", "truncated, only 6 bytes"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS pointer"),
        (bytes(100), "damaged or another format"),
    ],
)
def test_says_what_else_it_looks_like(tmp_path, content, said):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=said):
        tflite_file(path)


def test_a_model_passes(lite_int8):
    assert tflite_file(str(lite_int8)) == lite_int8


def test_a_folder_is_not_a_model(tmp_path):
    with pytest.raises(BadInputError, match="is a folder"):
        tflite_file(tmp_path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(MissingError, match="does not exist"):
        tflite_file(tmp_path / "none.tflite")
