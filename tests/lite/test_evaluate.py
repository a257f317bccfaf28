"""A model's figures are the same by every way: from Keras, from a file, by check, by predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.data.load import load_data
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import sha256
from kzoo.lite import flatbuffer
from kzoo.lite.check import check
from kzoo.lite.convert import convert
from kzoo.lite.evaluate import evaluate
from kzoo.network.model_file import load_model, save_model
from kzoo.zoo.build import build


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory) -> Path:
    """12 digits of each class as files."""
    folder = tmp_path_factory.mktemp("digits")
    for label, name in enumerate(digits.classes):
        (folder / name).mkdir()
        for i in np.flatnonzero(digits.labels == label)[:12]:
            Image.fromarray(digits.images[i, ..., 0]).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """A LeNet-5 on 16 x 16 x 1 that knows which split it was not trained on, and its .tflite."""
    path = tmp_path_factory.mktemp("untrained") / "m.keras"
    notes = {"split": {"seed": 3, "validation": 0.2, "test": 0.4}}
    save_model(build("lenet5", size=16, seed=5), path, notes=notes)
    convert(path, path.with_suffix(".tflite"))
    return path


def test_the_figures_are_those_of_check(lite_int8, lite_float, trained, digits):
    for file in (lite_int8, lite_float):
        found, checked = evaluate(file, digits), check(file, against=trained, data=digits)
        assert found.evaluation == checked.lite
        assert (found.model, found.sha256) == (str(file), checked.contents.sha256)


def test_a_model_its_file_and_what_was_exported_agree(trained, lite_float, digits, tmp_path):
    convert(trained, tmp_path / "logits.tflite", head="logits")
    by_file, *others = (
        evaluate(model, digits, split="train")
        for model in (trained, load_model(trained), lite_float, tmp_path / "logits.tflite")
    )
    expected = by_file.evaluation
    assert (expected.split, expected.count) == ("train", len(digits.splits["train"]))
    assert by_file.sha256 == sha256(trained)
    assert others[0].sha256 is None
    for found in others:
        assert found.classes == by_file.classes == digits.classes
        assert found.fingerprint == by_file.fingerprint
        assert found.evaluation.confusion == expected.confusion
        assert found.evaluation.per_class == expected.per_class
        for name in ("log_loss", "ece"):
            wanted = getattr(expected, name)
            assert getattr(found.evaluation, name) == pytest.approx(wanted, abs=1e-4)
        assert [row["path"] for row in found.mistakes] == [row["path"] for row in by_file.mistakes]


@pytest.mark.parametrize("suffix", [".keras", ".tflite"])
def test_the_mistakes_are_those_of_predict(suffix, untrained, folder):
    found = evaluate(untrained.with_suffix(suffix), folder, split="train")
    assert 0 < len(found.mistakes) <= 12
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["data"] == str(folder)
    files = [folder / row["path"] for row in found.mistakes]
    said = kzoo.predict(untrained.with_suffix(suffix), files, top=1, classes=found.classes)
    for row, file, one in zip(found.mistakes, files, said, strict=True):
        assert row["label"] == file.parent.name != row["predicted"]
        assert one["top"][0]["class"] == row["predicted"]
        assert one["top"][0]["probability"] == pytest.approx(row["probability"], abs=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".tflite"])
def test_the_split_is_the_one_the_model_was_trained_on(suffix, untrained):
    data = load_data("digits", channels=1, size=16, seed=3, validation=0.2, test=0.4)
    found = evaluate(untrained.with_suffix(suffix), "digits")
    assert found.fingerprint == data.fingerprint
    assert found.evaluation.count == len(data.splits["test"])
    other = evaluate(untrained.with_suffix(suffix), "digits", data_options={"seed": 4})
    assert other.fingerprint != data.fingerprint


def test_what_cannot_be_evaluated_is_told(untrained, folder, tmp_path):
    lite = untrained.with_suffix(".tflite")
    tree = flatbuffer.parse(lite.read_bytes())
    tree.subgraphs[0].outputs = [tree.subgraphs[0].operators[1].outputs[0]]
    tree.signatureDefs = []
    (tmp_path / "map.tflite").write_bytes(flatbuffer.serialize(tree))
    (tmp_path / "m.onnx").write_bytes(b"")
    whole = {"validation": 0.0, "test": 0.3}
    for model, options, error, said in (
        (tmp_path / "map.tflite", {}, BadInputError, r"to \(n, classes\) is expected"),
        (tmp_path / "m.onnx", {}, UsageError, "ends in .keras, .h5 or .tflite"),
        (tmp_path / "gone.tflite", {}, MissingError, "does not exist"),
        (lite, {"split": "tset"}, UsageError, "no split 'tset'"),
        (lite, {"split": "validation", "data_options": whole}, UsageError, "with images in it"),
    ):
        with pytest.raises(error, match=said):
            evaluate(model, folder, **options)
