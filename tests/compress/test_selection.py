"""The laws of what goes: scores as their sources define them, targets met from below."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kzoo.compress.channels import channels
from kzoo.compress.groups import groups
from kzoo.compress.importance import importance
from kzoo.compress.narrow import narrowed, narrowed_counts
from kzoo.compress.selection import Ranking
from kzoo.compress.slimming import ELEMENT, Slimming, Whole, per_cost, remaining
from kzoo.errors import BadInputError, UsageError
from kzoo.network.count import macs, parameters
from kzoo.registry import list_models

QUICK = ("resnet8",)
ALL_STAY = {"row_lstm": r" \(LSTM\)", "row_rnn": r" \(SimpleRNN\)", "perceptron": "outputs"}
"""A recurrent layer is unknown, and there is nothing else; or the outputs are all."""
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in list_models()
    if name not in ALL_STAY
]


def asked(found, part=1.0, **settings):
    """What stays, for a network that is asked to become smaller in one round."""
    slimming = Slimming(**{"importance": "l2"} | settings)  # taylor would need images
    among = groups(found, slimming.include, slimming.exclude)
    sizes = {group.layers: len(group.roots) for group in among}
    whole = Whole(parameters(found.model)[1], macs(found.model), None, sizes)
    return remaining(found, slimming, whole, part, None, 0)


def sizes(found, keep) -> dict[tuple[str, ...], tuple[int, int]]:
    return {g.layers: (len(g.roots), int(keep[g.roots].sum())) for g in groups(found)}


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_macs_of_any_network(name, network, unread, difference):
    half(network(name), unread, difference)


def test_half_of_the_macs_of_a_network_from_elsewhere(elsewhere, unread, difference):
    half(elsewhere, unread, difference)


def half(model, unread, difference) -> None:
    """Asserts that a network of half the MACs computes what the whole does without the rest."""
    found = channels(model)
    whole = macs(found.model)
    keep = asked(found, macs=0.5)
    small = narrowed(found, keep)
    assert (parameters(small)[1], macs(small)) == narrowed_counts(found, keep)
    assert macs(small) <= 0.5 * whole
    # What is left is within a step of a group of the target, however few groups there are.
    assert macs(small) > 0.35 * whole
    assert difference(unread(found, keep), small) < 1e-5
    assert all(left >= max(1, 0.1 * count) for count, left in sizes(found, keep).values())


@pytest.mark.parametrize("name", ALL_STAY)
def test_a_network_with_nothing_to_remove_is_refused(name, network):
    with pytest.raises(BadInputError, match=f"nothing of {name} can be removed.*{ALL_STAY[name]}"):
        groups(channels(network(name)))


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("target", [{"macs": 0.4}, {"params": 0.3}], ids=str)
def test_the_largest_network_within_the_target(network, scope, target):
    found = channels(network("resnet8"))
    among = groups(found)
    scores = importance(found, among, "l2", None, 0)
    ranking = Ranking(found, among, scores, [len(g.roots) for g in among], scope)
    ((name, share),) = target.items()
    index = ("params", "macs").index(name)
    limit = share * narrowed_counts(found, ranking.without(0))[index]
    every = [narrowed_counts(found, ranking.without(i))[index] for i in range(ranking.count + 1)]
    assert every == sorted(every, reverse=True)
    keep = asked(found, **target, scope=scope, multiple=1)
    assert narrowed_counts(found, keep)[index] == max(each for each in every if each <= limit)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_ratio_is_the_share_of_channels_that_goes(network, scope):
    found = channels(network("resnet8"))
    keep = asked(found, ratio=0.3, scope=scope, multiple=1)
    rows = sizes(found, keep)
    if scope == "local":
        assert all(left == round(0.7 * count) for count, left in rows.values())
    total, left = (sum(row[i] for row in rows.values()) for i in (0, 1))
    assert abs(left - 0.7 * total) <= len(rows) / 2
    halfway = asked(found, 0.5, ratio=0.3, scope=scope, multiple=1)
    assert (halfway | ~keep).all()  # what goes in the end is not back in between
    assert halfway.sum() > keep.sum()


def test_shares_by_prefix_leave_the_other_layers_whole(network):
    found = channels(network("resnet8"))
    rows = sizes(found, asked(found, ratio={"stage3": 0.5, "stage3_1_1": 0.25}, multiple=1))
    for layers, (count, left) in rows.items():
        share = 0.25 if layers == ("stage3_1_1_conv",) else 0.5 * layers[0].startswith("stage3")
        assert left == round((1 - share) * count), layers


@pytest.mark.parametrize(("multiple", "of_64", "of_16"), [(8, 8, 2), (4, 4, 2), (1, 1, 1)])
def test_numbers_of_channels_are_multiples(network, multiple, of_64, of_16):
    found = channels(network("resnet8"))
    rows = sizes(found, asked(found, macs=0.3, multiple=multiple))
    for count, left in rows.values():
        assert left % {64: of_64, 16: of_16}.get(count, 1) == 0


def test_groups_are_included_and_excluded_whole(network):
    found = channels(network("resnet8"))
    rows = sizes(found, asked(found, ratio=0.5, include=["stage"], exclude=["stage3"]))
    for layers, (count, left) in rows.items():
        spared = layers[0].startswith(("stem", "stage3"))  # stage 1 adds up with the stem
        assert (left == count) == spared, layers
    with pytest.raises(UsageError, match="did you mean stage3"):
        asked(found, ratio=0.5, exclude=["stag3"])
    with pytest.raises(UsageError, match="did you mean stage3"):
        asked(found, ratio={"stag3": 0.5})
    with pytest.raises(BadInputError, match="go together"):
        asked(found, ratio=0.5, include=["stem"])


@pytest.fixture
def pair():
    """Two convolutions with BatchNorm, without anything that joins channels."""
    import keras

    keras.utils.set_random_seed(2)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3, name="a", use_bias=False)(image)
    x = keras.layers.BatchNormalization(name="a_bn")(x)
    x = keras.layers.DepthwiseConv2D(3, name="b")(keras.layers.ReLU()(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(image, keras.layers.Dense(10, name="head")(x))
    draw = np.random.default_rng(0)
    norm = model.get_layer("a_bn")
    norm.gamma.assign(draw.normal(size=6))
    norm.beta.assign(draw.normal(size=6))
    return model


def test_scores_are_the_sources(pair):
    found = channels(pair)
    among = groups(found)
    (group,) = among
    first = np.array(pair.get_layer("a").kernel).reshape(-1, 6)
    rows = np.concatenate([first, np.array(pair.get_layer("b").kernel).reshape(-1, 6)]).T
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    wanted = {
        "l1": np.abs(rows).sum(axis=1),
        "l2": np.linalg.norm(rows, axis=1),
        "geometric_median": distances.sum(axis=1),
    }
    for kind, score in wanted.items():
        own = importance(found, among, kind, None, 0)[group.roots]
        np.testing.assert_allclose(own, score / score.mean(), rtol=1e-5)
    own = importance(found, among, "batch_norm", None, 0)[group.roots]
    np.testing.assert_allclose(own, np.abs(np.array(pair.get_layer("a_bn").gamma)), rtol=1e-6)
    drawn = [importance(found, among, "random", None, seed) for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()


def test_the_filter_in_the_middle_goes_first(pair):
    kernel = np.array(pair.get_layer("a").kernel)
    kernel[..., 3] = np.delete(kernel, 3, axis=-1).mean(axis=-1)
    pair.get_layer("a").kernel.assign(kernel)
    pair.get_layer("b").kernel.assign(np.ones((3, 3, 6, 1)))
    found = channels(pair)
    (group,) = among = groups(found)
    own = importance(found, among, "geometric_median", None, 0)[group.roots]
    assert own.argmin() == 3


def test_taylor_is_the_squared_slope_of_the_loss(pair, digits_folder):
    import keras

    from kzoo.compress import taylor
    from kzoo.data.load import load_data

    data = load_data(digits_folder, channels=1, size=8)
    found = channels(pair)
    (group,) = groups(found)
    slopes = []
    chosen = data.order("train", 5, 0)
    chosen = chosen[: len(chosen) // taylor.BATCH * taylor.BATCH].reshape(-1, taylor.BATCH)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    head = pair.get_layer("head")
    kernel, step = np.array(head.kernel), 1e-2
    for rows in np.sort(chosen, axis=1):
        pixels = data.images[rows].astype(np.float32)
        for channel in range(6):
            values = []
            for sign in (1, -1):
                changed = kernel.copy()
                changed[channel] *= 1 + sign * step
                head.kernel.assign(changed)
                values.append(float(loss(data.labels[rows], pair(pixels))))
            slopes.append((values[0] - values[1]) / (2 * step))
    head.kernel.assign(kernel)
    wanted = (np.array(slopes).reshape(-1, 6) ** 2).mean(axis=0)
    own = importance(found, [group], "taylor", data, 5)[group.roots]
    np.testing.assert_allclose(own, wanted, rtol=2e-2, atol=1e-3 * wanted.max())


def test_batch_norm_needs_scales_and_leaves_alone_what_has_none(network):
    found = channels(network("ds_cnn"))
    assert np.isfinite(importance(found, groups(found), "batch_norm", None, 0)).all()
    bare = channels(network("alexnet"))
    with pytest.raises(BadInputError, match="l2 or taylor"):
        importance(bare, groups(bare), "batch_norm", None, 0)
    import keras

    image = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(6, 3, name="normal")(image))
    x = keras.layers.Flatten()(keras.layers.Conv2D(6, 3, name="bare")(x))
    found = channels(keras.Model(image, keras.layers.Dense(5)(x)))
    rows = sizes(found, asked(found, macs=0.6, importance="batch_norm"))
    assert rows[("bare",)] == (6, 6)
    assert rows[("normal",)][1] < 6


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_what_a_channel_costs_is_what_the_network_without_it_lacks(network, unit):
    found = channels(network("resnet8"))
    among, count = groups(found), {"macs": macs, "params": lambda net: parameters(net)[1]}[unit]
    costs = 1 / per_cost(found, among, np.ones(len(found.root)), unit)
    for group in among:
        keep = np.ones(len(found.root), bool)
        keep[group.roots[-1]] = False
        small = narrowed(found, keep)
        lacks = count(found.model) - count(small)
        if unit == "macs":
            lacks += ELEMENT * (written(found.model) - written(small))
        np.testing.assert_allclose(costs[group.roots], lacks)


def written(model) -> int:
    """Elements that convolutions and dense layers write."""
    kinds = ("Conv2D", "Dense", "DepthwiseConv2D")
    shapes = [layer.output.shape[1:] for layer in model.layers if type(layer).__name__ in kinds]
    return sum(map(math.prod, shapes))


def test_of_equal_losses_the_dearer_channels_go_first(network, monkeypatch):
    """By the loss alone, as many of each group would go."""
    from kzoo.compress import slimming

    monkeypatch.setattr(
        slimming, "importance", lambda found, *_: np.random.default_rng(0).random(len(found.root))
    )
    found = channels(network("resnet8"))
    keep = asked(found, importance="taylor", macs=0.6)
    cost = 1 / per_cost(found, groups(found), np.ones(len(found.root)), "macs")
    shares = [left / count for count, left in sizes(found, keep).values()]
    order = np.argsort([cost[group.roots[0]] for group in groups(found)])
    assert shares[order[0]] > shares[order[-1]]
    assert macs(narrowed(found, keep)) <= 0.6 * macs(found.model)
