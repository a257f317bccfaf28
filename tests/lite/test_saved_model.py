"""The variables of a SavedModel, under the names that they have in the network."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from kzoo.errors import BadInputError, MissingError
from kzoo.lite.saved_model import read_saved_model


@pytest.fixture(scope="module")
def network():
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="stem_conv")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Dropout(0.5, name="drop")(layers.Flatten()(x))
    model = keras.Model(image, layers.Dense(2, name="head")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros(2, int), verbose=0)
    return model


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    network.export(folder, verbose=False)
    return folder


def test_the_names_the_order_and_the_values_are_those_of_the_network(network, exported):
    """The dropout's seed is no weight, nor is what the optimizer keeps."""
    found = read_saved_model(exported)
    assert list(found) == [each.path for each in network.weights]
    for each in network.weights:
        assert found[each.path].dtype == np.float32
        np.testing.assert_array_equal(found[each.path], each.numpy(), strict=True)


def test_variables_that_share_a_name_have_their_paths(tmp_path):
    """TensorFlow, other than Keras, lets two variables be called "kernel"."""
    import tensorflow as tf

    module = tf.Module()
    module.first = tf.Variable([1.0, 2.0], name="kernel")
    module.second = tf.Variable([3.0], name="kernel")
    module.half = tf.Variable(tf.constant([1.5], tf.bfloat16), name="half")
    module.again = module.half
    module.steps = tf.Variable(3, name="steps")
    tf.saved_model.save(module, tmp_path / "model")
    found = read_saved_model(tmp_path / "model")
    values = {name: array.tolist() for name, array in found.items()}
    assert values == {"first": [1.0, 2.0], "second": [3.0], "half": [1.5]}


@pytest.mark.slow
def test_kzoo_build_takes_one_as_weights(trained, kzoo_command, tmp_path):
    import keras

    network = keras.saving.load_model(trained)
    network.export(tmp_path / "saved", verbose=False)
    done = kzoo_command("build", "lenet5", "--weights", "saved", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights"]["file"] == "saved"
    built = keras.saving.load_model(tmp_path / "lenet5.keras")
    for ours, reference in zip(built.weights, network.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), reference.numpy(), err_msg=ours.path)


def test_what_is_no_saved_model(tmp_path):
    with pytest.raises(MissingError, match="does not exist"):
        read_saved_model(tmp_path / "none")
    with pytest.raises(BadInputError, match=r"has no saved_model\.pb"):
        read_saved_model(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(BadInputError, match=r"has no variables/variables\.index"):
        read_saved_model(tmp_path)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
@pytest.mark.parametrize("tenth", [0, 1, 5, 9])
def test_variables_cut_short(exported, tmp_path, name, tenth):
    folder = shutil.copytree(exported, tmp_path / "model")
    file = folder / "variables" / name
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(BadInputError, match="damaged"):
        read_saved_model(folder)
