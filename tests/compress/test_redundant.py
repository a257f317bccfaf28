"""The laws of what goes without a loss: equal filters, and residual branches that do nothing."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.compress.branches import branches, without_branches
from kzoo.compress.channels import channels
from kzoo.compress.duplicates import without_duplicates
from kzoo.compress.graph import flat
from kzoo.compress.groups import groups
from kzoo.errors import UsageError
from kzoo.network.count import parameters
from kzoo.network.graph import calls


def doubled(model, noise: float = 0.0) -> int:
    """Makes in each group the last channel equal to the first one; gives how many groups."""
    found, draw = channels(model), np.random.default_rng(0)
    pairs = [group.roots[[0, -1]] for group in groups(found) if len(group.roots) > 1]
    for node in calls(found.model):
        layer = node.operation
        roots = found.root[found.of[id(node.outputs[0])]].ravel()
        if not getattr(layer, "weights", ()):
            continue
        weights = layer.get_weights()
        for weight in weights:
            depthwise = type(layer).__name__ == "DepthwiseConv2D" and weight.ndim == 4
            rows = weight.reshape(-1, len(roots)) if depthwise else weight
            for first, last in pairs if rows.ndim and rows.shape[-1] == len(roots) else ():
                rows[..., roots == last] = rows[..., roots == first]
                if noise and rows.ndim > 1:
                    shape = rows[..., roots == last].shape
                    rows[..., roots == last] *= 1 + noise * draw.normal(size=shape)
        layer.set_weights(weights)
    return len(pairs)


@pytest.mark.parametrize(
    "name",
    ["resnet8",
     *(pytest.param(name, marks=pytest.mark.slow)
       for name in ("ds_cnn", "lenet5", "shufflenet_v2_x0_5", "mobilenet_v3_small",
                    "densenet121", "alexnet", "squeezenet1_1", "regnet_y_400mf", "inception_v3"))],
)  # fmt: skip
def test_an_equal_filter_is_joined_with_its_twin_and_no_logit_changes(name, network, difference):
    model = network(name)
    assert without_duplicates(channels(model), 0.999)[1] == 0
    count = doubled(model)
    small, joined = without_duplicates(channels(model), 1.0)
    assert 0.9 * count <= joined <= count  # groups that share layers may undo each other's twins
    assert parameters(small)[1] < parameters(model)[1]
    assert difference(model, small) < 1e-5


def test_what_two_twins_gave_the_one_that_stays_gives(difference):
    import keras

    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="a", activation="relu")(image)
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    kernel, bias = model.get_layer("a").get_weights()
    for twin in (2, 5):
        kernel[..., twin], bias[twin] = kernel[..., 1], bias[1]
    model.get_layer("a").set_weights([kernel, bias])
    small, joined = without_duplicates(channels(model), 1.0)
    assert joined == 2
    assert small.get_layer("a").filters == 4
    assert difference(model, small) < 1e-5


@pytest.mark.parametrize(("alike", "joined"), [(0.9999, 0), (0.98, 6)])
def test_near_duplicates_are_joined_from_the_likeness_on(network, alike, joined):
    model = network("resnet8")
    assert doubled(model, noise=0.05) == 6
    assert without_duplicates(channels(model), alike)[1] == joined


def test_filters_of_one_direction_and_other_lengths_are_not_alike(network):
    model = network("lenet5")
    found = channels(model)
    doubled(model)
    layer = model.get_layer(groups(found)[0].layers[0])
    before = without_duplicates(channels(model), 0.98)[1]
    kernel, *others = layer.get_weights()
    kernel[..., -1] *= 2
    layer.set_weights([kernel, *others])
    assert without_duplicates(channels(model), 0.98)[1] == before - 1


def test_a_layer_that_cannot_add_up_what_it_reads_keeps_its_twins(difference):
    import keras

    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="a")(image)
    x = keras.layers.SeparableConv2D(4, 3)(x)
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    doubled(model)
    small, joined = without_duplicates(channels(model), 1.0)
    assert small.get_layer("a").filters == 6
    assert joined == 1  # of what the separable convolution makes
    assert difference(model, small) < 1e-5


def residual(x, name: str, scale: float):
    import keras

    y = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name=f"{name}_1")(x)
    y = keras.layers.Conv2D(8, 3, padding="same", name=f"{name}_2")(y)
    added = keras.layers.Add(name=f"{name}_add")
    x = added([x, y] if name != "b" else [y, x])
    layer = added.input[1 if name != "b" else 0]._keras_history.operation
    layer.kernel.assign(np.array(layer.kernel) * scale)
    return x


@pytest.fixture
def chain():
    """Three residual branches; that of b does nothing, that of c little."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(8, 3, padding="same", name="stem")(
        keras.layers.Rescaling(1 / 255)(image)
    )
    for name, scale in (("a", 2.0), ("b", 0.0), ("c", 0.1)):
        x = residual(x, name, scale)
    x = keras.layers.Conv2D(8, 1, name="projection")(x)
    y = keras.layers.Conv2D(8, 3, padding="same", name="d_1")(x)
    y = keras.layers.Add(name="d_add")([y, keras.layers.Conv2D(8, 1, name="other")(x)])
    x = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(image, keras.layers.Dense(10, name="head")(x), name="chain")


def test_branches_have_the_identity_beside_them(chain):
    assert [branch.name for branch in branches(chain)] == ["a_add", "b_add", "c_add"]


def test_a_branch_without_effect_goes_first_and_no_logit_changes(chain, few_digits, difference):
    small, gone = without_branches(chain, 1, few_digits)
    assert gone == ["b_add"]
    assert difference(chain, small) < 1e-6
    assert not [layer for layer in small.layers if layer.name.startswith("b_")]
    smaller, gone = without_branches(chain, 2, few_digits)
    assert gone == ["b_add", "c_add"]
    assert 0 < difference(chain, smaller) < 0.5
    with pytest.raises(UsageError, match=r"chain has 3 residual branches .* 4 cannot"):
        without_branches(chain, 4, few_digits)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet8", 1), pytest.param("mobilenet_v2", 10, marks=pytest.mark.slow),
     pytest.param("convnext_tiny", 18, marks=pytest.mark.slow)],
)  # fmt: skip
def test_branches_of_registered_networks(name, count, network):
    assert len(branches(flat(network(name)))) == count
