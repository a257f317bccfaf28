"""Heads on few images: equal to the textbook, to retraining, and to scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from kzoo.learn.heads import (
    ONE_SHOT,
    PENALTIES,
    SHARPNESS,
    SOFTMAX_PENALTY,
    accuracy,
    coordinates,
    log_loss,
    log_softmax,
    ridge,
    softmax_regression,
)

SHAPES = [(6, 40), (40, 6), (12, 12)]
"""(images, features): more features than images, and fewer."""


def blobs(count: int, size: int, classes: int = 3, seed: int = 0):
    """Features around a centre per class, and labels of all classes in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    spread = rng.uniform(0.1, 10, size)
    values = (rng.normal(0, 1, (classes, size))[labels] + rng.normal(0, 1, (count, size))) * spread
    return (values + rng.normal(0, 5, size)).astype(np.float32), labels


def standardized(train: np.ndarray, test: np.ndarray):
    """As the docstring of `coordinates` says, without the turn."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    sd = train.std(axis=0)
    sd = np.maximum(sd, sd.mean() / 2)
    train, test = (train - train.mean(axis=0)) / sd, (test - train.mean(axis=0)) / sd
    scale = np.sqrt((train**2).sum(axis=1).mean())
    return train / scale, test / scale


@pytest.mark.parametrize("shape", SHAPES)
def test_coordinates_turn_standardized_features_and_lose_no_angle(shape):
    train, _ = blobs(*shape)
    test, _ = blobs(9, shape[1], seed=1)
    x, x_test = coordinates(train, test)
    plain, plain_test = standardized(train, test)
    assert x.shape[1] <= min(shape)
    assert np.allclose(x @ x.T, plain @ plain.T)
    assert np.allclose(x_test @ x.T, plain_test @ plain.T)
    products = x.T @ x
    assert np.allclose(products, np.diag(np.diag(products)), atol=1e-9)
    assert (x**2).sum(axis=1).mean() == pytest.approx(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_is_scikit_learns_on_all_features(shape):
    train, labels = blobs(*shape)
    test, _ = blobs(9, shape[1], seed=1)
    x, x_test = coordinates(train, test)
    plain, plain_test = standardized(train, test)
    head = ridge(x, labels, 3)
    oracle = Ridge(head.penalty).fit(plain, 2 * np.eye(3)[labels] - 1)
    assert np.allclose(head.logits(x_test), SHARPNESS * oracle.predict(plain_test), atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ridges_penalty_is_the_best_when_each_image_is_left_out(shape):
    train, labels = blobs(*shape, seed=3)
    x, _ = coordinates(train, train)
    targets = 2 * np.eye(3)[labels] - 1

    def error(penalty: float) -> float:
        found = []
        for i in range(len(x)):
            rest = np.arange(len(x)) != i
            oracle = Ridge(penalty).fit(x[rest], targets[rest])
            found.append(((oracle.predict(x[i : i + 1]) - targets[i]) ** 2).mean())
        return float(np.mean(found))

    assert ridge(x, labels, 3).penalty == min(PENALTIES, key=error)


def test_with_one_image_of_a_class_nothing_can_be_left_out():
    train, labels = blobs(3, 20)
    x, _ = coordinates(train, train)
    head = ridge(x, labels, 3)
    assert head.penalty == ONE_SHOT
    assert accuracy(head.logits(x), labels) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_the_softmax_head_is_scikit_learns(shape):
    train, labels = blobs(*shape)
    test, _ = blobs(9, shape[1], seed=1)
    x, x_test = coordinates(train, test)
    plain, plain_test = standardized(train, test)
    oracle = LogisticRegression(C=1 / SOFTMAX_PENALTY, tol=1e-8, max_iter=5000).fit(plain, labels)
    found = log_softmax(softmax_regression(x, labels, 3).logits(x_test))
    assert np.allclose(found, oracle.predict_log_proba(plain_test), atol=0.02)


def test_the_softmax_head_tells_of_every_iteration_and_improves():
    train, labels = blobs(60, 10)
    x, _ = coordinates(train, train)
    seen = []
    head = softmax_regression(x, labels, 3, seen.append)
    assert [each.iterations for each in seen] == list(range(1, head.iterations + 1))
    assert np.array_equal(seen[-1].weights, head.weights)

    def objective(head) -> float:
        return (
            len(x) * log_loss(head.logits(x), labels)
            + SOFTMAX_PENALTY / 2 * (head.weights**2).sum()
        )

    values = [objective(each) for each in seen]
    assert values == sorted(values, reverse=True)
    assert values[0] < len(x) * np.log(3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SHAPES))
def test_the_order_of_images_and_features_is_of_no_concern(seed, shape):
    rng = np.random.default_rng(seed)
    train, labels = blobs(*shape, seed=seed)
    test, _ = blobs(5, shape[1], seed=seed + 1)
    rows, columns = rng.permutation(shape[0]), rng.permutation(shape[1])
    first = coordinates(train, test)
    second = coordinates(train[rows][:, columns], test[:, columns])
    for fit in (ridge, softmax_regression):
        expected = fit(first[0], labels, 3).logits(first[1])
        found = fit(second[0], labels[rows], 3).logits(second[1])
        assert np.allclose(log_softmax(found), log_softmax(expected), atol=0.02)


def test_features_that_are_all_alike_give_no_opinion():
    x, x_test = coordinates(np.full((6, 5), 7.0), np.random.default_rng(0).normal(size=(4, 5)))
    labels = np.arange(6) % 3
    for head in (ridge(x, labels, 3), softmax_regression(x, labels, 3)):
        assert np.allclose(np.exp(log_softmax(head.logits(x_test))), 1 / 3)


def test_one_feature_that_happens_to_agree_does_not_decide():
    """Its standard deviation over few images says little: it is not blown up a thousand times."""
    train, labels = blobs(6, 50)
    train[:, 0] = train[0, 0] + 1e-4 * np.arange(6)
    test = train.copy()
    test[:, 0] += train[:, 1:].std()
    x, x_test = coordinates(train, test)
    assert accuracy(ridge(x, labels, 3).logits(x_test), labels) == 1


def test_logarithms_of_probabilities_stay_finite():
    logits = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]])
    found = log_softmax(logits)
    assert np.isfinite(found).all()
    assert np.exp(found).sum(axis=1) == pytest.approx(1)
    assert log_loss(logits, np.array([2, 0])) == pytest.approx((2e4 + np.log(3)) / 2)
