"""A file is its old content or its new one, never a part; outputs are kept; hashes identify."""

from __future__ import annotations

import errno
import hashlib
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import (
    atomic,
    digest,
    disk_errors,
    existing,
    gzip_size,
    new_output,
    output_folder,
    read_json,
    sha256,
    write_bytes,
    write_json,
)


@pytest.mark.parametrize("old", [None, b"old content"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_content_and_no_other_file(tmp_path, old, error):
    path = tmp_path / "model.keras"
    if old:
        path.write_bytes(old)
    with pytest.raises(error), atomic(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half of the n")
        raise error
    assert [file.name for file in tmp_path.iterdir()] == (["model.keras"] if old else [])
    assert not old or path.read_bytes() == old


def test_until_the_end_the_old_content_is_there(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    with atomic(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".tflite")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_permissions_of_any_other(tmp_path):
    write_bytes(tmp_path / "atomic", b"")
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
    ],
)
def test_what_the_disk_refuses_is_a_message_that_names_the_file(tmp_path, number, said):
    path = tmp_path / "not" / "there" / "model.keras"
    with pytest.raises(MissingError, match=said) as caught, disk_errors(path):
        raise OSError(number, os.strerror(number))
    assert str(path) in str(caught.value)


def test_other_errors_of_the_system_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "absent").read_bytes()


def test_an_existing_output_is_refused_and_kept(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="--force"):
        new_output(path)
    assert new_output(path, force=True) == path
    assert path.read_bytes() == b"old"


def test_an_output_needs_a_folder_to_stand_in(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        new_output(tmp_path, force=True)
    with pytest.raises(MissingError, match="make it first"):
        new_output(tmp_path / "absent" / "model.keras")
    assert not list(tmp_path.iterdir())


def test_an_output_s_folder_is_made_and_no_file_is_one(tmp_path):
    assert output_folder(tmp_path / "a" / "b").is_dir()
    assert output_folder(tmp_path / "a").is_dir()  # it may be there
    (file := tmp_path / "file").write_text("")
    for path in (file, file / "results"):
        with pytest.raises(UsageError, match="is a file, or in one; a folder is expected"):
            output_folder(path)
    with pytest.raises(MissingError, match="cannot be made"):
        output_folder("/proc/none/results")


def test_existing_names_what_was_looked_for(tmp_path):
    assert existing(tmp_path, "the folder") == tmp_path
    with pytest.raises(MissingError, match=r"the model '.*absent.keras' does not exist"):
        existing(tmp_path / "absent.keras", "the model")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=25, deadline=None)
@given(value=st.dictionaries(st.text(), _json, max_size=4))
def test_write_then_read_is_identity(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "record.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"{'a': 1}"])
def test_what_is_no_json_is_a_bad_input(tmp_path, content):
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(BadInputError, match=r"record\.json"):
        read_json(tmp_path / "record.json")


@given(value=st.dictionaries(st.text(), _json, min_size=2, max_size=4))
def test_a_digest_is_of_the_value_and_not_of_the_order_of_its_keys(value):
    assert digest(dict(reversed(value.items()))) == digest(value)
    key = next(iter(value))
    assert digest({**value, key: [value[key]]}) != digest(value)


def test_sha256_is_that_of_the_content(tmp_path):
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_gzip_size_is_the_same_every_time_and_small_for_zeros():
    assert gzip_size(bytes(100_000)) == gzip_size(bytes(100_000)) < 1000
