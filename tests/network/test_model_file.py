"""Keras models on disk: whole or not there, their class names inside, and no program that runs."""

from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest

from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.network.model_file import (
    gives_probabilities,
    load_model,
    opened,
    read_notes,
    save_model,
)
from kzoo.zoo.build import build

NOTHING = {
    "classes": [], "split": {}, "crop": 1.0, "weights": "", "licence": "", "ranges": {},
    "whole": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return build("lenet5", size=16, classes=3, seed=0)


def test_a_name_that_does_not_end_in_keras_is_refused(model, tmp_path):
    for name in ("model.h5", "model", "model.keras.zip"):
        with pytest.raises(UsageError, match=r"ends in \.keras"):
            save_model(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_without_force(model, tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        save_model(model, path)
    assert path.read_text() == "mine"
    save_model(model, path, force=True)
    assert load_model(path).name == "lenet5"


@pytest.mark.parametrize("before", [None, "mine"])
def test_a_failure_leaves_all_as_it_was(before, model, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    if before:
        path.write_text(before)

    def half(_, file):
        file.write_bytes(b"half")
        raise RuntimeError("Unable to write (No space left on device)")

    monkeypatch.setattr(type(model), "save", half)
    with pytest.raises(MissingError, match="no space left"):
        save_model(model, path, force=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == [before] * bool(before)


def test_no_folder_is_made_for_the_user(model, tmp_path):
    with pytest.raises(MissingError, match="make it first"):
        save_model(model, tmp_path / "gone" / "model.keras")


def test_the_optimizer_stays_out_of_the_file(model, tmp_path):
    trained = keras.models.clone_model(model)
    trained.set_weights(model.get_weights())
    bare = save_model(trained, tmp_path / "bare.keras").stat().st_size
    trained.compile("adam", "mse")
    trained.train_on_batch(np.zeros((1, 16, 16, 1)), np.zeros((1, 3)))
    path = save_model(trained, tmp_path / "trained.keras")
    assert path.stat().st_size < 1.05 * bare
    for ours, theirs in zip(trained.get_weights(), load_model(path).get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_file_without_notes_has_none(model, tmp_path):
    model.save(tmp_path / "plain.keras")
    assert read_notes(tmp_path / "plain.keras") == NOTHING
    assert read_notes(tmp_path / "gone.keras") == NOTHING
    (tmp_path / "text.keras").write_text("text")
    assert read_notes(tmp_path / "text.keras") == NOTHING
    huge = '{"classes": ["' + "x" * 2_000_000 + '"]}'
    for notes in ("5", '{"classes": 5}', "[]", "{", '{"split": {"path": "/"}}', huge):
        model.save(tmp_path / "odd.keras")
        with zipfile.ZipFile(tmp_path / "odd.keras", "a") as archive:
            archive.writestr("kzoo.json", notes)
        assert read_notes(tmp_path / "odd.keras") == NOTHING


@pytest.mark.parametrize("name", ["lenet5", "googlenet"])  # the latter calls keras.ops
def test_equal_models_are_equal_files(name, tmp_path):
    files = []
    for file in ("a.keras", "b.keras"):
        model = build(name, size=32, classes=3, seed=0)
        files.append(save_model(model, tmp_path / file, notes={"classes": ["x"]}).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "last",
    [
        keras.layers.Dense(1),
        keras.layers.Dense(1, activation="sigmoid"),
        keras.layers.Dense(3, activation="sigmoid"),
        keras.layers.Activation("sigmoid"),
    ],
    ids=["one output", "one sigmoid", "sigmoids", "sigmoid layer"],
)
def test_what_is_no_classifier_over_classes_is_refused(last, tmp_path):
    image = keras.Input((16, 16, 1))
    model = keras.Model(image, last(keras.layers.Flatten()(image)))
    model.save(tmp_path / "model.keras")
    with pytest.raises(BadInputError, match="softmax over at least 2"):
        load_model(tmp_path / "model.keras")


def test_an_h5_file_is_loaded_too(model, tmp_path):
    model.save(tmp_path / "model.h5")
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 1)).astype(np.float32)
    assert np.array_equal(load_model(tmp_path / "model.h5")(images), model(images))


@keras.saving.register_keras_serializable("tests")
class Custom(keras.layers.Layer):
    def call(self, x):
        return x


def test_a_class_that_is_not_keras_own_is_refused(tmp_path):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Dense(2)(keras.layers.Flatten()(Custom()(image)))
    keras.Model(image, x).save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().pop("tests>Custom")
    with pytest.raises(BadInputError, match="custom class"):
        load_model(tmp_path / "model.keras")


def with_heads(*names: str, order: int = 1, classes: int = 3) -> keras.Model:
    """An output of 3 classes from layer "head", and one from each of the others."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Flatten(name="stem")(image)
    outputs = [keras.layers.Dense(3, name="head")(x)]
    outputs += [keras.layers.Dense(classes, name=name)(x) for name in names]
    return keras.Model(image, outputs[::order], name="net")


@pytest.mark.parametrize("order", [1, -1])
def test_auxiliary_heads_are_in_the_file_and_come_out_when_asked(order, tmp_path):
    model = with_heads("head_aux1", "head_aux2", order=order)
    path = save_model(model, tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1)).astype(np.float32)
    expected = dict(zip(model.output_names, model(images), strict=True))
    for source in (model, path):
        alone = opened(source)
        assert alone.name == "net"
        assert [layer.name for layer in alone.layers] == ["image", "stem", "head"]
        assert np.array_equal(alone(images), expected["head"])
        every = opened(source, auxiliary=True)
        assert every.output_names[0] == "head"
        assert sorted(every.output_names) == ["head", "head_aux1", "head_aux2"]
        for name, output in zip(every.output_names, every(images), strict=True):
            assert np.array_equal(output, expected[name])


def test_without_auxiliary_heads_the_model_is_the_one_given(model):
    assert opened(model) is opened(model, auxiliary=True) is model


def test_a_functional_class_of_its_own_is_read_without_it(model, tmp_path):
    """As kimm's networks are, whose class no other process knows."""

    class Own(keras.Model):
        def __init__(self, model):
            super().__init__(model.inputs, model.outputs, name="own")

    own = Own(model)
    plain = opened(own)
    assert type(plain) is not Own
    assert plain.name == "own"
    assert plain.layers[-1] is own.layers[-1]
    read = load_model(save_model(plain, tmp_path / "m.keras"))
    images = np.random.default_rng(0).random((2, *model.input_shape[1:]), np.float32)
    assert np.array_equal(read.predict(images, verbose=0), own.predict(images, verbose=0))


def test_two_classifiers_are_refused_and_heads_of_other_classes_too():
    with pytest.raises(BadInputError, match="1 inputs and 2 outputs"):
        opened(with_heads("second", "head_aux1"))
    with pytest.raises(BadInputError, match=r"\(None, 4\) from an auxiliary head"):
        opened(with_heads("head_aux1", classes=4))


def test_a_missing_file_and_another_kind_are_told_apart(tmp_path):
    with pytest.raises(MissingError, match=r"gone\.keras"):
        load_model(tmp_path / "gone.keras")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match=r"\.keras or \.h5"):
        load_model(tmp_path / "model.onnx")


def softmax_inside(x):
    return keras.layers.Dense(3, "softmax")(x)


def softmax_layer(x):
    return keras.layers.Softmax()(keras.layers.Dense(3)(x))


def softmax_activation(x):
    return keras.layers.Activation("softmax", dtype="float32")(keras.layers.Dense(3)(x))


def softmax_operation(x):
    return keras.ops.softmax(keras.layers.Dense(3)(x))


def softmax_nested(x):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])(x)


def logits(x):
    return keras.layers.Dense(3)(x)


def logits_behind_a_softmax(x):
    return keras.layers.Dense(3)(keras.layers.Dense(3, "softmax")(x))


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (softmax_inside, True),
        (softmax_layer, True),
        (softmax_activation, True),
        (softmax_operation, True),
        (softmax_nested, True),
        (logits, False),
        (logits_behind_a_softmax, False),
    ],
)
def test_a_softmax_at_the_end_is_seen_however_it_is_written(end, expected):
    image = keras.Input((2, 2, 1))
    model = keras.Model(image, end(keras.layers.Flatten()(image)))
    assert gives_probabilities(model) == expected
