"""Figures of a classifier: known values, and laws between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kzoo.errors import BadInputError
from kzoo.learn.evaluate import BATCH, outputs, score, softmax, wilson

# The first three are in Newcombe 1998 (Statistics in Medicine 17), table I, method 3.
KNOWN = {
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0, 0.1611),
    (1, 29): (0.0061, 0.1718),
    (10, 10): (0.7225, 1.0),
    (5, 10): (0.2366, 0.7634),
}


@pytest.mark.parametrize(("case", "interval"), KNOWN.items(), ids=str)
def test_wilson_gives_the_published_intervals(case, interval):
    assert wilson(*case) == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_holds_the_share_and_mirrors(count, share):
    successes = round(share * count)
    low, high = wilson(successes, count)
    assert 0 <= low <= successes / count <= high <= 1
    assert wilson(count - successes, count) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(2, 7))
def test_the_figures_of_a_score_agree_with_each_other(seed, count, classes):
    rng = np.random.default_rng(seed)
    probabilities = softmax(rng.normal(0, 3, (count, classes)).astype(np.float32))
    labels = rng.integers(0, classes, count)
    found = score(probabilities, labels, "test")
    confusion = np.array(found.confusion)
    assert confusion.sum() == found.count == count
    assert np.array_equal(confusion.sum(axis=1), np.bincount(labels, minlength=classes))
    assert found.accuracy == np.trace(confusion) / count
    assert found.interval == wilson(int(np.trace(confusion)), count)
    order = rng.permutation(count)
    again = score(probabilities[order], labels[order], "test")
    assert again.confusion == found.confusion
    assert again.log_loss == pytest.approx(found.log_loss)


def test_known_log_losses():
    even = np.full((4, 5), 0.2, np.float32)
    assert score(even, np.arange(4), "test").log_loss == pytest.approx(math.log(5))
    certain = np.eye(3, dtype=np.float32)
    assert score(certain, np.arange(3), "test").log_loss == 0
    wrong = score(certain, np.array([1, 2, 0]), "test", floor=1 / 512)
    assert (wrong.accuracy, wrong.log_loss) == (0, pytest.approx(math.log(512)))


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [(np.zeros((0, 3)), "no images"), (np.array([[0.5, np.nan]]), "NaN")],
    ids=["no images", "NaN"],
)
def test_what_has_no_figures_is_refused(probabilities, message):
    with pytest.raises(BadInputError, match=message):
        score(probabilities, np.zeros(len(probabilities), int), "test")


def test_softmax_sums_to_one_and_ignores_a_shift():
    logits = np.array([[1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0]], np.float32)
    found = softmax(logits)
    assert found.sum(axis=1) == pytest.approx(1)
    assert np.allclose(found, softmax(logits - 500))


def test_outputs_are_those_of_predict_whatever_is_left_in_the_last_batch(tiny):
    model = tiny()
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 1), np.uint8)
    order = np.random.default_rng(1).permutation(200)
    expected = model.predict(images.astype(np.float32), verbose=0)
    for count in (1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH, 2 * BATCH + 3):
        seen = []
        found = outputs(model, images, order[:count], lambda *event, seen=seen: seen.append(event))
        assert found.shape == (count, 10)
        assert np.allclose(found, expected[order[:count]], atol=1e-5)
        assert seen[-1][1:] == (count, count)
