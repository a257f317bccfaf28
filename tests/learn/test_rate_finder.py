"""The rate test minimizes what the training it is for would minimize, in its precision."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.errors import UsageError
from kzoo.learn.evaluate import outputs, softmax
from kzoo.learn.rate_finder import find_learning_rate

CLASS_WEIGHTS = {"0": 3.0, "7": 0.5}


def first_batch(data, batch_size=32):
    return np.sort(data.order("train", 0, 0)[:batch_size])


def cross_entropies(model, data, chosen, smoothing=0.0) -> np.ndarray:
    """Of each image, in float64."""
    values = np.log(softmax(outputs(model, data.images, chosen).astype(np.float64)))
    classes = values.shape[1]
    targets = (1 - smoothing) * np.eye(classes)[data.labels[chosen]] + smoothing / classes
    return -(targets * values).sum(axis=1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.3},
        {"class_weights": CLASS_WEIGHTS},
        {"class_weights": "balanced", "batch_size": 7},
    ],
    ids=str,
)
def test_the_first_loss_is_that_of_the_weights_given(options, few_digits, plain):
    model = plain((8, 16))
    found = find_learning_rate(model, few_digits, **options)
    chosen = first_batch(few_digits, options.get("batch_size", 32))
    losses = cross_entropies(model, few_digits, chosen, options.get("label_smoothing", 0.0))
    names = [few_digits.classes[label] for label in few_digits.labels[chosen]]
    weights = np.ones(len(chosen))
    if options.get("class_weights") == CLASS_WEIGHTS:
        weights = np.array([CLASS_WEIGHTS.get(name, 1.0) for name in names])
    assert found.losses[0] == pytest.approx((weights * losses).mean(), rel=1e-4)


def test_auxiliary_heads_count_by_their_weight(few_digits, plain):
    import keras

    main = plain((8, 16))
    early = main.get_layer("stage1_1_act").output
    pooled = keras.layers.GlobalAveragePooling2D(name="head_aux_pool")(early)
    aside = keras.Model(main.inputs, keras.layers.Dense(10, name="head_aux")(pooled))
    model = keras.Model(main.inputs, [*main.outputs, *aside.outputs])
    found = find_learning_rate(model, few_digits, auxiliary_weight=2.0)
    chosen = first_batch(few_digits)
    first, second = (cross_entropies(each, few_digits, chosen).mean() for each in (main, aside))
    assert found.losses[0] == pytest.approx(first + 2 * second, rel=1e-4)


def test_the_precision_is_that_of_the_training_and_the_model_is_left_as_it_was(few_digits, plain):
    model = plain((8, 16))
    before = [np.array(variable) for variable in model.variables]
    exact = cross_entropies(model, few_digits, first_batch(few_digits)).mean()
    first, *_ = find_learning_rate(model, few_digits, precision="mixed_bfloat16").losses
    assert 1e-5 < abs(first / exact - 1) < 0.02
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"label_smoothing": 1}, r"label_smoothing is in \[0, 1\)"),
        ({"precision": "float16"}, "mixed_bfloat16"),
        ({"auxiliary_weight": -1}, "auxiliary_weight is at least 0"),
        ({"class_weights": {"ten": 1.0}}, "class_weights names 'ten'"),
        ({"phase": {"epoch": 3}}, "did you mean epochs"),
    ],
    ids=str,
)
def test_what_training_would_refuse_is_refused(options, said, few_digits, plain):
    with pytest.raises(UsageError, match=said):
        find_learning_rate(plain((8,)), few_digits, **options)
