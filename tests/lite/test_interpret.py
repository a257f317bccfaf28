"""Files from elsewhere run on the same images as files from here."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.errors import BadInputError, MissingError
from kzoo.lite.interpret import RUNS, kernel_agreement, lite_outputs


def test_float_and_int8_of_mlperf_tiny_agree(shared, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    images = np.kron(images, np.ones((1, 8, 8, 1), np.uint8))
    np.save(tmp_path / "images.npy", images)
    folder = shared / "mlperf-tiny"
    plain, quantized = (
        lite_outputs(
            folder / f"pretrainedResnet{kind}.tflite", tmp_path / "images.npy", np.arange(20)
        )
        for kind in ("", "_quant")
    )
    for outputs, logits in (plain, quantized):
        assert outputs.shape == logits.shape == (20, 10)
        assert np.abs(outputs.sum(axis=1) - 1).max() < 0.05
    assert (plain[0].argmax(1) == quantized[0].argmax(1)).mean() >= 0.8


def test_threads_and_order_do_not_change_what_comes_out(lite_int8, digits):
    indices = digits.splits["test"][:20]
    one, one_logits = lite_outputs(lite_int8, digits.images_file, indices, threads=1)
    two, two_logits = lite_outputs(lite_int8, digits.images_file, indices[::-1], threads=2)
    assert np.array_equal(one, two[::-1])
    assert np.array_equal(one_logits, two_logits[::-1])


def test_images_of_another_size_and_missing_files_are_refused(lite_int8, gray, tmp_path):
    with pytest.raises(BadInputError, match=r"\[16, 16, 1\]"):
        lite_outputs(lite_int8, gray.images_file, np.arange(1))
    with pytest.raises(MissingError, match=r"gone\.tflite"):
        lite_outputs(tmp_path / "gone.tflite", gray.images_file, np.arange(1))


def test_a_file_the_runtime_refuses_is_bad_input(shared, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((1, 96, 96, 1), np.uint8))
    file = shared / "mlperf-tiny" / "tflm_person_detect.tflite"
    with pytest.raises(BadInputError, match="refuses"):
        lite_outputs(file, tmp_path / "images.npy", np.arange(1))


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_kernels_and_threads_agree(kind, lite_float, lite_int8, digits):
    file = {"float": lite_float, "int8": lite_int8}[kind]
    rows = kernel_agreement(file, digits.images_file, digits.splits["test"][:32])
    assert [*rows] == ["builtin", "reference", "threads", "batch"] == [*RUNS]
    del rows["batch"]
    for name, row in rows.items():
        assert row["agreement"] == 1, name
        assert (row["max_steps"] is None) == (kind == "float")
        assert row["max_difference"] < (1e-4 if kind == "float" else 5 / 256)
    assert rows["threads"]["max_difference"] == 0


def test_any_kernels_give_the_same_numbers(lite_int8, digits):
    from kzoo.lite import interpret

    images = np.load(digits.images_file, mmap_mode="r")[:4]
    data = lite_int8.read_bytes()
    by_name = [interpret.infer(data, images, 1, name)[0] for name in interpret.KERNELS]
    assert all(np.isfinite(found).all() for found in by_name)
    assert all(np.abs(by_name[0] - found).max() <= 5 / 256 for found in by_name)
    with pytest.raises(KeyError):
        interpret.infer(data, images, 1, "other")


def test_what_mixes_the_images_of_a_batch_is_seen(whole, edited, digits, tmp_path):
    """A sum over the batch so far is the image itself where it is alone."""
    path, indices = tmp_path / "m.tflite", digits.splits["test"][:9]
    path.write_bytes(whole.float32)
    clean = kernel_agreement(path, digits.images_file, indices)
    assert clean["batch"]["max_difference"] < 1e-6
    assert clean["batch"]["agreement"] == 1
    path.write_bytes(edited(whole.float32).put("CUMSUM", np.int32(0)).bytes())
    mixed = kernel_agreement(path, digits.images_file, indices)
    assert mixed["threads"]["max_difference"] == 0
    assert mixed["batch"]["max_difference"] > 1e-3


def test_a_file_of_one_batch_says_which_operator_is_in_the_way(lite_int8, digits):
    row = kernel_agreement(lite_int8, digits.images_file, np.arange(4))["batch"]
    assert [*row] == ["refused"]
    assert "RESHAPE" in row["refused"]
    assert str(lite_int8) not in row["refused"]
