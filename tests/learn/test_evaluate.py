"""Figures of a classifier: known values, and laws between them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.errors import BadInputError
from kzoo.learn.evaluate import BATCH, BINS, WORST, outputs, score, softmax, wilson

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


@st.composite
def classified(draw) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes), float32 or in the steps of an int8 file, and labels."""
    count, classes = draw(st.integers(1, 60)), draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probabilities = softmax(rng.normal(0, 3, (count, classes)).astype(np.float32))
    if draw(st.booleans()):
        probabilities = np.round(probabilities * 256).astype(np.float32) / 256
    return probabilities, rng.integers(0, classes, count)


@given(classified())
def test_the_figures_of_a_score_agree_with_each_other(case):
    probabilities, labels = case
    count, classes = probabilities.shape
    found = score(probabilities, labels, "test")
    confusion = np.array(found.confusion)
    right = int(np.trace(confusion))
    assert confusion.sum() == found.count == count
    assert np.array_equal(confusion.sum(axis=1), np.bincount(labels, minlength=classes))
    assert found.accuracy == right / count
    assert found.interval == wilson(right, count)
    assert [row["count"] for row in found.per_class] == confusion.sum(axis=1).tolist()
    for row, own, of_it, as_it in zip(
        found.per_class, np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0),
        strict=True,
    ):  # fmt: skip
        assert row["precision"] == (own / as_it if as_it else None)
        assert row["recall"] == (own / of_it if of_it else None)
        assert (row["f1"] is None) == (of_it == as_it == 0)
        if own:
            ratios = row["precision"], row["recall"]
            assert row["f1"] == pytest.approx(2 * math.prod(ratios) / sum(ratios))
        elif row["f1"] is not None:
            assert row["f1"] == 0
    shown = [row for row in found.reliability if row["count"]]
    assert len(found.reliability) == BINS
    assert sum(row["count"] for row in shown) == count
    assert sum(row["count"] * row["accuracy"] for row in shown) == pytest.approx(right)
    gaps = [row["count"] * abs(row["accuracy"] - row["confidence"]) for row in shown]
    assert found.ece == pytest.approx(sum(gaps) / count)
    assert len(found.worst) == min(WORST, count - right)
    if classes > 5:
        assert found.accuracy <= found.top5_accuracy <= 1
    else:
        assert found.top5_accuracy is None
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record == found.to_dict() | {"interval": list(found.interval)}


@given(classified(), st.randoms())
def test_the_order_of_images_changes_nothing(case, random):
    probabilities, labels = case
    order = random.sample(range(len(labels)), len(labels))
    found = score(probabilities, labels, "test")
    again = score(probabilities[order], labels[order], "test")
    for row, other in zip(found.reliability, again.reliability, strict=True):
        assert row == pytest.approx(other)
    assert (again.log_loss, again.ece) == pytest.approx((found.log_loss, found.ece))
    sums = {"log_loss": 0.0, "ece": 0.0, "reliability": [], "worst": []}
    assert replace(again, **sums) == replace(found, **sums)
    # Of equally confident mistakes the first come first.
    assert [row["probability"] for row in again.worst] == [
        row["probability"] for row in found.worst
    ]
    placed = sorted(found.worst, key=lambda row: (-row["probability"], row["image"]))
    assert placed == found.worst


@given(classified())
def test_the_worst_are_the_most_confident_mistakes(case):
    probabilities, labels = case
    worst = score(probabilities, labels, "test").worst
    kept = {row["image"] for row in worst}
    assert len(kept) == len(worst)
    for row in worst:
        values = probabilities[row["image"]]
        assert row["label"] == labels[row["image"]] != row["predicted"]
        assert row["probability"] == values[row["predicted"]] == values.max()
    others = [i for i in range(len(labels)) if i not in kept]
    mistakes = [i for i in others if probabilities[i].argmax() != labels[i]]
    if mistakes:
        assert probabilities[mistakes].max() <= worst[-1]["probability"]


@settings(deadline=None)  # the first example imports scikit-learn
@given(classified())
def test_the_figures_are_those_of_scikit_learn(case):
    from sklearn import metrics
    from sklearn.calibration import calibration_curve

    probabilities, labels = case
    classes = probabilities.shape[1]
    predicted, known = probabilities.argmax(axis=1), np.arange(classes)
    found = score(probabilities, labels, "test")
    assert found.accuracy == metrics.accuracy_score(labels, predicted)
    matrix = metrics.confusion_matrix(labels, predicted, labels=known)
    assert found.confusion == matrix.tolist()
    columns = metrics.precision_recall_fscore_support(
        labels, predicted, labels=known, zero_division=np.nan
    )
    for name, column in zip(("precision", "recall", "f1", "count"), columns, strict=True):
        ours = np.array([row[name] for row in found.per_class], np.float64)
        assert ours == pytest.approx(column, nan_ok=True)
    macro = metrics.f1_score(labels, predicted, labels=known, average="macro", zero_division=np.nan)
    assert found.macro_f1 == pytest.approx(macro)
    if classes > 5:
        # Of equal probabilities it takes the last class for the most probable one, kzoo the first.
        top5 = metrics.top_k_accuracy_score(
            classes - 1 - labels, probabilities[:, ::-1], k=5, labels=known
        )
        assert found.top5_accuracy == pytest.approx(top5)
    accuracies, confidences = calibration_curve(
        predicted == labels, probabilities.max(axis=1), n_bins=BINS
    )
    shown = [row for row in found.reliability if row["count"]]
    assert [row["accuracy"] for row in shown] == pytest.approx(accuracies)
    assert [row["confidence"] for row in shown] == pytest.approx(confidences)


def test_the_log_loss_is_that_of_scikit_learn():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), 500), rng.integers(0, 4, 500)
    assert score(probabilities, labels, "test").log_loss == pytest.approx(
        log_loss(labels, probabilities)
    )


@given(st.lists(st.integers(0, 7), min_size=1, max_size=30), st.integers(0, 3))
def test_a_perfect_classifier(labels, more):
    classes = max(2, max(labels) + 1) + more
    found = score(np.eye(classes, dtype=np.float32)[labels], np.array(labels), "test")
    assert (found.accuracy, found.macro_f1, found.log_loss, found.ece) == (1, 1, 0, 0)
    assert found.top5_accuracy == (1 if classes > 5 else None)
    assert found.worst == []
    for i, row in enumerate(found.per_class):
        count = labels.count(i)
        ratio = 1 if count else None
        assert row == {"count": count, "precision": ratio, "recall": ratio, "f1": ratio}
    assert found.reliability[-1] == {"count": len(labels), "confidence": 1, "accuracy": 1}


@given(st.lists(st.integers(0, 7), min_size=1, max_size=30), st.integers(0, 3))
def test_a_uniform_classifier_says_the_first_class(labels, more):
    classes = max(2, max(labels) + 1) + more
    even = np.full((len(labels), classes), 1 / classes, np.float32)
    found = score(even, np.array(labels), "test")
    share = labels.count(0) / len(labels)
    assert found.accuracy == share
    if classes > 5:
        assert found.top5_accuracy == np.mean(np.array(labels) < 5)
    assert found.log_loss == pytest.approx(math.log(classes))
    assert found.ece == pytest.approx(abs(share - 1 / classes), abs=1e-7)
    assert sum(row["count"] > 0 for row in found.reliability) == 1
    first, *others = found.per_class
    assert (first["precision"], first["recall"]) == (share, 1 if share else None)
    for row in others:
        assert row["precision"] is None
        assert row["recall"] == row["f1"] == (0 if row["count"] else None)


@pytest.mark.parametrize("count", [100, 1000, 10_000, 100_000])
def test_the_calibration_error_of_calibrated_predictions_vanishes(count):
    rng = np.random.default_rng(count)
    probabilities = rng.dirichlet(np.ones(6), count)
    drawn = rng.uniform(size=(count, 1))
    labels = np.minimum((probabilities.cumsum(axis=1) < drawn).sum(axis=1), 5)
    assert 0 < score(probabilities, labels, "test").ece < math.sqrt(BINS / count) / 2
    sure = softmax(3 * np.log(probabilities))
    assert score(sure, labels, "test").ece > 0.2
    timid = softmax(0.3 * np.log(probabilities))
    assert score(timid, labels, "test").ece > 0.1


@pytest.mark.parametrize("confidence", [4 / 15, 0.5, 8 / 15, 0.6, 1.0])
def test_a_bin_holds_its_upper_edge_and_not_its_lower(confidence):
    for value, wanted in (
        (confidence, math.ceil(round(confidence * BINS, 6)) - 1),
        (np.nextafter(confidence, 2), math.floor(round(confidence * BINS, 6))),
    ):
        rest = np.full(9, (1 - value) / 9)
        found = score(np.array([[value, *rest]]), np.array([0]), "test")
        counts = [row["count"] for row in found.reliability]
        assert counts.index(1) == min(wanted, BINS - 1)


def test_a_class_that_is_absent_counts_only_where_images_are_taken_for_it():
    probabilities = np.array([[0.9, 0.1, 0, 0], [0.2, 0.8, 0, 0], [0.1, 0.2, 0.7, 0]])
    found = score(probabilities, np.array([0, 1, 1]), "test")
    assert found.per_class[2] == {"count": 0, "precision": 0, "recall": None, "f1": 0}
    assert found.per_class[3] == {"count": 0, "precision": None, "recall": None, "f1": None}
    assert found.macro_f1 == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found.worst == [{"image": 2, "label": 1, "predicted": 2, "probability": 0.7}]


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
