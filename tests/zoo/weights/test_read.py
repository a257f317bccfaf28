"""What a file is, is told by its content; what cannot be read is named."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.zoo.weights.read import read_checkpoint


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return file.getvalue()


def numpy_file(save, *arrays, **named) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


OTHERS = {
    "empty": (b"", "it is empty"),
    "one byte": (b"P", "it begins with b'P'"),
    "text": (b"hello" * 100, "it begins with b'hellohel'"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "page": (b"<!DOCTYPE html><html>", "a web page"),
    "json": (b'{"weight_map": {}}', "JSON text"),
    "gzip": (gzip.compress(b"weights"), "unpack it first"),
    "tar": (tarred(), "a tar archive"),
    "npy": (numpy_file(np.save, np.ones(3)), "a NumPy array"),
    "npz": (numpy_file(np.savez, kernel=np.ones(3)), "a zip archive with 'kernel.npy'"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "a .tflite model"),
    "zip": (zipped("a.txt", "b.txt"), "a zip archive with 'a.txt, b.txt'"),
    "empty zip": (b"PK\5\6" + bytes(18), "it begins with"),
    "half a zip": (zipped("a.txt")[:40], "damaged or cut short"),
    "hdf5 in name": (b"\x89HDF\r\n\x1a\n" + bytes(100), "the HDF5 file is damaged"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("suffix", [".pth", ".h5"])
def test_other_files_are_named(tmp_path, kind, suffix):
    content, words = OTHERS[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        read_checkpoint(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.bin", "b.h5", "c", "d.safetensors.part"])
def test_the_suffix_does_not_matter(tmp_path, name):
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    data = struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, 2)
    (tmp_path / name).write_bytes(data)
    assert read_checkpoint(tmp_path / name).arrays["w"].tolist() == [1, 2]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingError, match=r"'.*none\.pth' does not exist"):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    path.chmod(0)
    with pytest.raises(MissingError, match="Permission denied"):
        read_checkpoint(path)


def test_a_folder(tmp_path):
    with pytest.raises(UsageError, match="is a folder; a file is expected"):
        read_checkpoint(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(UsageError, match="is a TensorFlow SavedModel; type kzoo build"):
        read_checkpoint(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "weights.pth")
    with pytest.raises(BadInputError, match="no regular file"):
        read_checkpoint(tmp_path / "weights.pth")
