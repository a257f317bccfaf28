"""A replayed model is the model; a folded one computes the same without its BatchNormalization."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kzoo.compress.graph import calls, flat, fold_batch_norm, replay
from kzoo.errors import BadInputError
from kzoo.network.model_file import load_model, save_model
from kzoo.zoo.build import build


def conv_norm(filters: int, name: str, **options) -> keras.Sequential:
    """As users write blocks: the layers inside have the same names in every one."""
    return keras.Sequential(
        [
            layers.Conv2D(filters, 3, padding="same", use_bias=False, name="conv", **options),
            layers.BatchNormalization(name="bn"),
        ],
        name=name,
    )


def nested():
    image = keras.Input((8, 8, 3), name="image")
    x = conv_norm(4, "first")(image, training=False)
    x = layers.ReLU(name="relu")(conv_norm(4, "second")(x))
    inner_input = keras.Input((8, 8, 4))
    inner = keras.Model(inner_input, layers.Dropout(0.5, name="drop")(inner_input), name="inner")
    return keras.Model(image, layers.Flatten(name="flat")(inner(x)), name="nested")


def shared():
    image = keras.Input((8, 8, 3), name="image")
    conv, norm = layers.Conv2D(3, 3, padding="same", name="conv"), layers.BatchNormalization()
    x = norm(conv(norm(conv(image))))
    return keras.Model(image, layers.Flatten()(x), name="shared")


def twice():
    """One nested model called on two inputs."""
    tower = keras.Sequential([keras.Input((8, 8, 3)), *conv_norm(4, "tower").layers], name="tower")
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    x = layers.Subtract(name="minus")([tower(left), tower(right)])
    return keras.Model([left, right], layers.Flatten(name="flat")(x), name="twice")


def several():
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 1), name="right")
    x = layers.Concatenate(name="join")([left, right])
    found = {"sum": layers.Dense(2, name="dense")(x), "image": left}
    return keras.Model({"left": left, "right": right}, found, name="several")


def operations():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image / 255)
    low, high = keras.ops.split(x, 2, axis=-1)
    x = keras.ops.concatenate([low * 2 + high, keras.ops.relu(high)], axis=-1)
    return keras.Model(image, keras.ops.mean(x, axis=(1, 2)), name="operations")


def sequential():
    norm = layers.Normalization(name="preprocess")
    norm.adapt(np.random.default_rng(0).normal(3, 2, (9, 8, 8, 3)))
    head = [norm, layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn")]
    return keras.Sequential([keras.Input((8, 8, 3), name="image"), *head, layers.Flatten()])


MODELS = {
    "lenet5": lambda: build("lenet5", seed=0),
    "resnet8": lambda: build("resnet8", seed=0),
    "mobilenet_v2_035": lambda: build("mobilenet_v2_035", size=64, classes=7, seed=0),
    "group norm": lambda: build("mobilenet_v1_025", size=64, classes=7, norm="group", seed=0),
    **{make.__name__: make for make in (nested, shared, twice, several, operations, sequential)},
}
FLAT = sorted(set(MODELS) - {"nested", "twice"})


@pytest.fixture(scope="module")
def made(shaken):
    """made(name): a network and its replay, made once; not to be changed."""
    found = {}

    def make(name: str):
        if name not in found:
            keras.utils.set_random_seed(0)
            model = shaken(MODELS[name]())
            found[name] = model, replay(model)
        return found[name]

    return make


def names(model) -> list[str]:
    return [operation.name for operation in getattr(model, "_functional", model).operations]


@pytest.mark.parametrize("name", MODELS)
def test_a_replay_computes_the_same(name, made, difference):
    assert difference(*made(name)) < 1e-6


@pytest.mark.parametrize("name", FLAT)
def test_a_replay_keeps_every_name_shape_and_structure(name, made):
    model, again = made(name)
    assert names(again) == names(model)
    assert again.name == model.name
    for struct in ("_inputs_struct", "_outputs_struct"):
        old, new = (getattr(getattr(m, "_functional", m), struct) for m in (model, again))
        keras.tree.assert_same_structure(old, new)
    assert [(w.name, w.shape) for w in again.weights] == [(w.name, w.shape) for w in model.weights]


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"group norm"}))
def test_a_replay_saves_and_loads(name, made, difference, tmp_path):
    again = made(name)[1]
    again.save(tmp_path / "m.keras")
    assert difference(again, keras.saving.load_model(tmp_path / "m.keras")) == 0


def test_a_replay_has_weights_of_its_own(made):
    model = made("resnet8")[0]
    before = model.get_weights()
    again = replay(model)
    again.set_weights([weight + 1 for weight in again.get_weights()])
    assert all(map(np.array_equal, before, model.get_weights()))


def test_what_is_frozen_stays_frozen():
    model = build("lenet5")
    model.layers[2].trainable = False
    assert [w.path for w in replay(model).trainable_weights] == [
        w.path for w in model.trainable_weights
    ]


def test_nested_models_are_opened_and_equal_names_get_their_model_s_in_front(made):
    again = made("nested")[1]
    assert names(again) == [
        "image", "first_conv", "first_bn", "second_conv", "second_bn", "relu", "drop", "flat",
    ]  # fmt: skip
    assert again.get_layer("first_bn")._inbound_nodes[0].arguments.kwargs["training"] is False


def test_a_shared_layer_and_a_shared_model_stay_shared(made):
    for name, weights in (("shared", 6), ("twice", 5)):
        model, again = made(name)
        assert len(again.weights) == len(model.weights) == weights
        assert len(again.get_layer("conv")._inbound_nodes) == 2


def test_replaying_leaves_the_old_graph_alone(made):
    model, _ = made("operations")
    before = [len(operation._outbound_nodes) for operation in model.operations]
    replay(model)
    assert before == [len(operation._outbound_nodes) for operation in model.operations]


def test_a_visitor_wraps_replaces_and_leaves_out(made, difference):
    model = made("resnet8")[0]

    def visit(call):
        match call.node.operation:
            case layers.Conv2D(name=name):  # as quantization-aware training does
                return layers.Identity(name=f"{name}_fake_quant")(call.repeat())
            case layers.Activation():
                return call.new(call.node.input_tensors[0])

        return call.repeat()

    changed = replay(model, visit)
    kinds = [type(layer).__name__ for layer in changed.layers]
    assert "Activation" not in kinds
    assert kinds.count("Identity") == kinds.count("Conv2D") > 0
    assert difference(model, changed) > 1e-3


def test_a_visitor_cuts_channels_of_all_calls_of_a_layer():
    image = keras.Input((4, 4, 2))
    dense = layers.Dense(3, name="dense")
    model = keras.Model(image, layers.Concatenate()([dense(image), dense(image * 2)]))

    def visit(call):
        if call.node.operation is not dense:
            return call.repeat()
        return call.repeat([weight[..., :2] for weight in dense.get_weights()], units=2)

    thin = replay(model, visit)
    pixels = np.random.default_rng(0).normal(size=(1, 4, 4, 2))
    assert np.allclose(thin(pixels), np.asarray(model(pixels))[..., [0, 1, 3, 4]], atol=1e-6)
    assert len(thin.weights) == 2


def test_what_no_output_needs_is_left_out():
    image = keras.Input((4, 4, 2))
    long, short = layers.Conv2D(2, 1, name="long")(image), layers.Identity()(image)
    add = layers.Add()
    model = keras.Model(image, add([long, short]))

    def visit(call):
        last = call.node.operation is add
        return call.new(call.node.input_tensors[1]) if last else call.repeat()

    assert [layer.name for layer in replay(model, visit).layers[1:]] == ["identity"]


def test_a_flat_model_is_returned_as_it_is(made):
    assert flat(made("resnet8")[0]) is made("resnet8")[0]
    assert flat(made("nested")[0]) is not made("nested")[0]


@pytest.mark.parametrize("kind", ["subclassed", "no input"])
def test_a_model_without_a_graph_is_refused(kind):
    class Own(keras.Model):
        pass

    model = Own(name="net") if kind == "subclassed" else keras.Sequential(name="net")
    with pytest.raises(BadInputError, match=r"net is a (Own|Sequential) whose graph is not known"):
        fold_batch_norm(model)


def norms(model) -> list[str]:
    return [
        node.operation.name
        for node in calls(model)
        if isinstance(node.operation, layers.BatchNormalization)
    ]


@pytest.mark.parametrize(
    "name", ["resnet8", "mobilenet_v2_035", "shared", "sequential", "nested", "twice"]
)
def test_folding_keeps_the_logits_and_removes_every_batch_norm_behind_a_layer(
    name, made, difference
):
    model = made(name)[0]
    before = [np.array(weight) for weight in model.get_weights()]
    folded = fold_batch_norm(model)
    assert difference(model, folded) < 1e-5
    assert norms(folded) == []
    assert set(names(folded)) <= set(names(replay(model)))
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, groups=2),
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        layers.SeparableConv2D(6, 3, use_bias=False),
        layers.Dense(5),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
def test_every_kind_of_layer_takes_its_batch_norm_in(layer, options, shaken, difference):
    image = keras.Input((7, 8, 2))
    layer = type(layer).from_config(layer.get_config())
    model = shaken(keras.Model(image, layers.BatchNormalization(**options)(layer(image))))
    folded = fold_batch_norm(model)
    assert difference(model, folded) < 1e-5
    assert [found.name for found in folded.layers[1:]] == [layer.name]


def left_alone():
    """Networks in which a BatchNormalization must stay."""

    def norm(**options):
        return layers.BatchNormalization(name="bn", **options)

    def conv(**options):
        return layers.Conv2D(3, 3, padding="same", name="conv", **options)

    other = layers.BatchNormalization(name="bn2")
    one = conv()

    def two_readers(x):
        x = conv()(x)
        return layers.Add()([x, norm()(x)])

    def output_too(x):
        x = conv()(x)
        return [x, norm()(x)]

    return {
        "first": lambda x: conv()(norm()(x)),
        "padding between": lambda x: norm()(layers.ZeroPadding2D()(conv()(x))),
        "activation inside": lambda x: norm()(conv(activation="relu")(x)),
        "two readers": two_readers,
        "output too": output_too,
        "along the width": lambda x: norm(axis=2)(conv()(x)),
        "of the batch": lambda x: norm()(conv()(x), training=True),
        "shared, two norms": lambda x: norm()(one(other(one(x)))),
    }


@pytest.mark.parametrize("kind", left_alone())
def test_a_batch_norm_that_cannot_be_folded_stays(kind, shaken, difference):
    image = keras.Input((6, 6, 3))
    model = shaken(keras.Model(image, left_alone()[kind](image)))
    folded = fold_batch_norm(model)
    assert "bn" in norms(folded)
    assert difference(model, folded) < 1e-6


def test_a_folded_network_is_trained_and_saved_on(made, tmp_path):
    folded = fold_batch_norm(made("resnet8")[0])
    path = save_model(folded, tmp_path / "m.keras")
    assert names(load_model(path)) == names(folded)
    assert all(variable.trainable for variable in folded.weights)
