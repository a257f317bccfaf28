"""A sweep from cached activations is the whole network run again; the model given stays."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kzoo
from kzoo.compress.channels import channels
from kzoo.compress.grid import on_grid
from kzoo.compress.narrow import narrowed
from kzoo.compress.ratios import choose_shares
from kzoo.errors import UsageError
from kzoo.learn.evaluate import softmax


@pytest.fixture(scope="module")
def network():
    """Skips over several layers, a depthwise and a nested model, a layer called twice."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 1), name="image")
    x = layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(image)
    x = skip = layers.Conv2D(8, 3, 2, activation="relu", name="a")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="b")(x)
    inner = keras.Sequential(
        [keras.Input((7, 7, 8)), layers.Conv2D(12, 1, activation="relu", name="c")], name="inner"
    )
    x = layers.Conv2D(8, 3, padding="same", name="d")(inner(x))
    x = layers.Add(name="add")([x, skip])
    twice = layers.Conv2D(8, 3, padding="same", activation="relu", name="twice")
    x = layers.Concatenate(name="join")([twice(twice(x)), skip])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(10, name="head")(x), name="skips")
    kernel, bias = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([40 * kernel, bias])  # so that it is sure of something
    return model


SETTINGS = {"sparsity": (0, 0.5, 0.8), "bits": (8, 3), "channels": (0, 0.25, 0.5)}


@pytest.fixture(scope="module")
def swept(network, few_digits):
    before = network.get_weights()
    found = kzoo.sensitivity(network, few_digits, images=70, **SETTINGS)
    assert all(map(np.array_equal, before, network.get_weights()))
    assert network.get_layer("a").weights[0].constraint is None
    return found


def pixels(data) -> np.ndarray:
    chosen = np.random.default_rng(0).permutation(data.splits["train"])[:70]
    return data.images[np.sort(chosen)].astype(np.float32)


def log_probabilities(model, images) -> np.ndarray:
    return np.log(np.maximum(softmax(np.asarray(model(images), np.float64)), 1e-7))


def divergence(model, changed, data) -> float:
    whole, other = (log_probabilities(each, pixels(data)) for each in (model, changed))
    return (np.exp(whole) * (whole - other)).sum(1).mean()


@pytest.mark.parametrize("kind", ["sparsity", "bits"])
@pytest.mark.parametrize("name", ["a", "b", "c", "d", "twice", "head"])
def test_the_cached_sweep_is_the_whole_network_run_again(name, kind, network, swept, few_digits):
    (row,) = [row for row in swept.layers if row["layer"] == name]
    assert row["depthwise"] == (name == "b")
    for point in row[kind]:
        changed = keras.models.clone_model(network)
        changed.set_weights(network.get_weights())
        holder = changed.get_layer("inner").get_layer(name) if name == "c" else None
        layer = holder or changed.get_layer(name)
        kernel, bias = layer.get_weights()
        if kind == "bits":
            kernel = on_grid(kernel, depthwise=name == "b", bits=point["at"])
        else:
            count = round(point["at"] * kernel.size)
            kernel.ravel()[np.argsort(np.abs(kernel), axis=None)[:count]] = 0
        layer.set_weights([kernel, bias])
        assert divergence(network, changed, few_digits) == pytest.approx(
            point["divergence"], abs=1e-5
        )


def test_channels_that_are_removed_are_those_of_a_narrower_network(network, swept, few_digits):
    found = channels(network)
    (row,) = [row for row in swept.layers if row["layer"] == "c"]
    (node,) = [n for n in _calls(found.model) if n.operation.name == "c"]
    roots = found.root[found.of[id(node.outputs[0])]].ravel()
    norms = np.square(node.operation.get_weights()[0]).sum((0, 1, 2))
    for point in row["channels"]:
        keep = np.ones(len(found.root), bool)
        keep[roots[np.argsort(norms)[: round(12 * point["at"])]]] = False
        assert divergence(network, narrowed(found, keep), few_digits) == pytest.approx(
            point["divergence"], abs=1e-5
        )
    # d, a, b and the layer called twice go together, and are told of the first.
    told = {row["layer"] for row in swept.layers if row["channels"]}
    assert told == {"a", "c"}
    # Also where the first is left out: those who read it were computed before.
    part = kzoo.sensitivity(network, few_digits, of=["channels"], images=8, include=["c", "d"])
    assert [bool(row["channels"]) for row in part.layers] == [True, False]


def _calls(model) -> list:
    from kzoo.network.graph import calls

    return calls(model)


def test_nothing_changed_is_nothing_lost(swept):
    points = [
        point
        for row in swept.layers
        for kind in ("sparsity", "channels")
        for point in row[kind]
        if point["at"] == 0
    ]
    assert len(points) == 8
    for point in points:
        assert point["divergence"] < 1e-6
        assert point["accuracy"] == swept.accuracy
    assert max(row["bits"][1]["divergence"] for row in swept.layers) > 1e-3


def test_shares_have_the_sparsity_asked_for_and_lose_no_more_than_others():
    draw = np.random.default_rng(0)
    rows = [
        {
            "layer": f"layer{i}",
            "weights": int(draw.integers(10, 1000)),
            "sparsity": [
                {"at": at, "divergence": float(slope * at**3)} for at in np.arange(0.1, 0.95, 0.1)
            ],
        }
        for i, slope in enumerate(10 ** draw.uniform(-3, 0, 6))
    ]
    shares = choose_shares(rows, 0.6)
    weights = np.array([row["weights"] for row in rows])

    def lost(chosen) -> float:
        return sum(
            np.interp(
                share,
                [0, *(p["at"] for p in row["sparsity"])],
                [0, *(p["divergence"] for p in row["sparsity"])],
            )
            for share, row in zip(chosen, rows, strict=True)
        )

    found = np.array([*shares.values()])
    assert found @ weights / weights.sum() == pytest.approx(0.6, abs=1e-3)
    assert lost(found) < lost([0.6] * 6)
    for _ in range(300):  # zeros moved from a layer to another lose more
        i, j = draw.choice(6, 2, replace=False)
        moved, count = found.copy(), draw.uniform(0, 0.2) * min(weights[i], weights[j])
        moved[[i, j]] += count / weights[i], -count / weights[j]
        if moved[j] >= 0 and moved[i] <= 0.9:
            assert lost(moved) >= lost(found) - 1e-3 * lost(found)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"of": ("sparsity", "width")}, "width"),
        ({"sparsity": (1.0,)}, "sparsity"),
        ({"of": ("bits",), "bits": (1,)}, "bits"),
        ({"choose": 0.95}, "at most"),
        ({"of": ("bits",), "choose": 0.5}, "--of"),
        ({"images": 0}, "images"),
        ({"split": "test"}, "split"),
        ({"include": ("stage7",)}, "stage7"),
    ],
)
def test_what_cannot_be_is_said(wrong, said, tiny, few_digits):
    options = {"sparsity": (0.5,), "of": ("sparsity",), "images": 8} | wrong
    with pytest.raises(UsageError, match=said):
        kzoo.sensitivity(tiny(), few_digits, **options)


def test_the_command_ends_in_what_prune_takes(digits_folder, tiny, tmp_path, kzoo_command):
    import json

    from kzoo.network.model_file import save_model

    save_model(tiny(), tmp_path / "m.keras")
    done = kzoo_command(
        "sensitivity", tmp_path / "m.keras", digits_folder, "-o", tmp_path / "s.json",
        "--of", "sparsity", "--sparsity", 0.5, 0.9, "--images", 32, "--choose", 0.6,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "s.json").read_text())["result"]
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    for name, share in record["shares"].items():
        assert f" {name}={share:g}" in done.stdout.splitlines()[-1]
