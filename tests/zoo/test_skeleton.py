"""What a skeleton shows of every registered architecture: counts, names, shapes, flavours, norms.

Variants of a row (flavour, norm, precision) are asked of one name of almost every builder here, and
of all names under the ``slow`` mark.
"""

from __future__ import annotations

import csv
import functools
import re

import keras
import pytest

from kzoo.errors import UsageError
from kzoo.network.count import macs, parameters
from kzoo.network.features import stage_features
from kzoo.registry import LAYER_NAME, entry, list_models, pair
from kzoo.zoo.blocks import FLAVOURS
from kzoo.zoo.build import build, skeleton

NAMES = list_models()
AUXILIARY = [n for n in NAMES if entry(n).auxiliary]

every = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def default():
    """default(name): the architecture as its row has it, without weights; built once."""
    return functools.cache(skeleton)


def test_there_are_over_120_names():
    assert len(NAMES) > 120


@every
def test_the_numbers_are_those_of_the_row(name, default):
    row, model = entry(name), default(name)
    assert model.input_shape == (None, *row.input)
    assert model.output_shape == (None, row.classes)
    assert parameters(model) == (row.params, row.total_params)
    assert macs(model) == row.macs


ALIASES = {
    "alexnet_2012_grouped": "alexnet_2012",
    "bn_inception_v2": "bn_inception",
    "googlenet_paper": "googlenet",
    "nin_cifar10": "nin_cifar10",
    "nin_imagenet": "nin",
    "torchvision/GoogLeNet.IMAGENET1K_V1": "googlenet_tv",
}


def our_name(theirs: str) -> str:
    """The name, without underscores, of a row of facts/architectures.csv."""
    if theirs in ALIASES:
        return ALIASES[theirs].replace("_", "")
    plain = re.sub(r"(\.IMAGENET1K_V1|\.in1k|_cifar10)$", "", theirs.rpartition("/")[2])
    plain = re.sub("^MobileNet(?=$|_a)", "mobilenet_v1", plain.removeprefix("tf_"))
    plain = re.sub(r"_a(\d)\.(\d+)$", lambda m: f"{m[1]}{m[2]:0<2}", plain)
    return plain.replace("_", "").lower()


@pytest.fixture(scope="module")
def published(shared) -> list:
    """(row of facts/architectures.csv, our name, arguments that make it what the row counts)."""
    ours = {name.replace("_", ""): name for name in NAMES}
    found = []
    with open(shared.parent / "facts" / "architectures.csv") as file:
        for row in csv.DictReader(file):
            if (name := ours.get(our_name(row["name"]))) is None:
                continue  # a detector, or larger than what is registered
            if not row["params_exact"]:
                continue  # an accuracy alone
            flavour = {"keras": "keras", "torchvision": "torch"}.get(row["name"].split("/")[0])
            options = {"flavour": flavour or entry(name).flavour, "size": int(row["input"])}
            if row["name"].startswith("torchvision/Inception_V3"):
                options["auxiliary"] = True  # counted there, though not in the MACs
            found.append((row, name, options))
    assert len({name for _, name, _ in found}) > 90, sorted(set(NAMES) - {n for _, n, _ in found})
    return found


def is_as_published(model, row, name, options) -> None:
    trainable, total = parameters(model)
    assert trainable == int(row["params_exact"]), row["name"]
    if keras_total := re.search(r"keras_total=(\d+)", row["notes"]):
        # EfficientNet's normalization there has 7 values in variables.
        assert int(keras_total[1]) - total in (0, 7), row["name"]
    # That table's pools of NIN round down, where Caffe's 6x6 pool at the end would not fit.
    if not options.get("auxiliary") and name != "nin":
        assert macs(model) / 1e9 == pytest.approx(float(row["gmacs"]), rel=1e-3, abs=6e-4)


def usual(name, options) -> bool:
    return options == {"flavour": entry(name).flavour, "size": entry(name).size}


def test_the_numbers_are_the_published_ones(published, default):
    rows = [each for each in published if usual(*each[1:])]
    assert len(rows) > 80
    for row, name, options in rows:
        is_as_published(default(name), row, name, options)


@pytest.mark.slow
def test_the_numbers_of_other_flavours_and_sizes_are_the_published_ones(published):
    rows = [each for each in published if not usual(*each[1:])]
    assert rows
    for row, name, options in rows:
        is_as_published(skeleton(name, **options), row, name, options)


@every
def test_layers_are_named_by_the_rule(name, default):
    image, *others = [operation.name for operation in default(name).operations]
    assert image == "image"
    assert [layer for layer in others if not LAYER_NAME.fullmatch(layer)] == []
    assert others[0] == "preprocess"
    assert others[-1].startswith("head")
    assert len(set(others)) == len(others)


@pytest.mark.parametrize("name", [n for n in NAMES if entry(n).classes == 1000])
def test_stages_come_out_at_strides_4_to_32(name, default):
    size = entry(name).size
    outputs = stage_features(default(name)).output
    strides = {"stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
    if entry(name).family == "squeezenet":
        strides.pop("stage4")  # it ends at 16
    assert list(outputs) == list(strides)
    for stage, stride in strides.items():
        # Windows without padding lose some pixels at the borders.
        assert outputs[stage].shape[1] == pytest.approx(size / stride, rel=0.18)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_it_builds_in_both_flavours(case, flavour):
    model = skeleton(case.name, flavour=flavour, size=case.odd_size, classes=7, **case.variant)
    assert model.output_shape == (None, 7)


NORM_LAYERS = {"group": "GroupNormalization", "layer": "LayerNormalization", "none": "nothing"}


@pytest.fixture(scope="module")
def before(case):
    """The network as its row has it; the tests of one case run in a row."""
    return skeleton(case.name, **case.variant)


@pytest.mark.parametrize("norm", NORM_LAYERS)
def test_another_norm_stands_wherever_batch_norm_stood(case, norm, before):
    if entry(case.name).params == entry(case.name).total_params:
        with pytest.raises(UsageError, match="no BatchNorm"):
            skeleton(case.name, norm=norm)
        return

    def kinds(model, kind):
        return sum(type(layer).__name__ == kind for layer in model.layers)

    model = skeleton(case.name, norm=norm, **case.variant)
    trainable, total = parameters(model)
    replaced = kinds(before, "BatchNormalization")
    own = kinds(before, NORM_LAYERS[norm])
    assert replaced > 0
    assert kinds(model, "BatchNormalization") == 0
    assert kinds(model, NORM_LAYERS[norm]) == own + replaced * (norm != "none")
    assert trainable == total
    assert macs(model) == macs(before)
    if norm == "none":
        # No gamma any more; every convolution has a bias that beta was.
        assert trainable <= parameters(before)[0]
        kernels = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
        unbiased = [la.name for la in model.layers if isinstance(la, kernels) and not la.use_bias]
        assert unbiased == [layer.name for layer in unbiased_before(before)]


def unbiased_before(model) -> list:
    """Convolutions without bias and without BatchNorm behind: they were so in the paper."""
    return [
        layer
        for layer in model.layers
        if getattr(layer, "use_bias", True) is False and not meets_batch_norm(layer)
    ]


def meets_batch_norm(layer) -> bool:
    """At once, or behind the concatenation or pooling of a DenseNet."""
    behind = [node.operation for node in layer._outbound_nodes]
    passing = (keras.layers.Concatenate, keras.layers.AveragePooling2D)
    return any(
        isinstance(each, keras.layers.BatchNormalization)
        or (isinstance(each, passing) and meets_batch_norm(each))
        for each in behind
    )


@pytest.mark.parametrize("name", AUXILIARY)
def test_auxiliary_heads_are_further_outputs(name):
    size = entry(name).size
    model = skeleton(name, auxiliary=True, classes=7, size=size)
    logits, *others = model.outputs
    assert logits.shape == (None, 7)
    assert [tensor.shape for tensor in others] == [(None, 7)] * len(others)
    assert [t._keras_history.operation.name for t in others] == [
        f"head_aux{i}" for i in range(1, len(others) + 1)
    ]
    alone = keras.Model(model.input, logits)
    assert parameters(alone) == parameters(skeleton(name, classes=7))


@pytest.mark.parametrize(
    "policy",
    [
        "mixed_bfloat16",
        "float16",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mixed_float16", "bfloat16")),
    ],
)
def test_it_builds_in_half_precision(case, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = skeleton(case.name, classes=7, channels=1, size=case.odd_size, **case.variant)
    finally:
        keras.config.set_dtype_policy(before)
    half = policy.removeprefix("mixed_")
    kept = {variable.dtype for variable in model.trainable_variables}
    assert kept == {half if half == policy else "float32"}
    assert model.compute_dtype == half
    assert model.output_shape == (None, 7)


def test_a_skeleton_leaves_nothing_behind():
    drawn = skeleton("vgg16")
    build("lenet5")  # scopes end inside
    assert all(weight._value is None for weight in drawn.weights)


@every
def test_a_size_below_the_smallest_is_refused(name):
    height, width = pair(entry(name).min_size)
    with pytest.raises(UsageError, match=f"at least {height} x {width}"):
        build(name, size=(height, width - 1))
