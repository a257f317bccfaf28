import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kzoo.errors import UsageError
from kzoo.measure.statistics import (
    conservative_percentile,
    latency,
    median,
    percentile,
)

times = st.floats(0.001, 1e4)


def many(low, high):
    return st.lists(times, min_size=low, max_size=high)


@given(many(64, 400))
def test_conservative_p90_is_a_sample_not_below_the_plain_one(samples):
    bound = conservative_percentile(samples)
    assert bound in samples
    assert bound >= percentile(samples, 0.9)


@given(many(0, 63))
def test_under_64_samples_there_is_no_p90(samples):
    assert conservative_percentile(samples) is None
    if samples:
        summary = latency(samples)
        assert summary.p90_ms is None
        assert not summary.valid


@given(many(1, 300), st.floats(0.51, 0.999), st.floats(0.51, 0.999))
def test_more_confidence_never_lowers_the_bound(samples, one, other):
    low, high = sorted((one, other))
    bounds = [conservative_percentile(samples, confidence=c) for c in (low, high)]
    low_bound, high_bound = (math.inf if bound is None else bound for bound in bounds)
    assert low_bound <= high_bound


@given(many(1, 200), st.randoms())
def test_the_order_of_the_samples_does_not_matter(samples, random):
    shuffled = samples.copy()
    random.shuffle(shuffled)
    assert latency(shuffled) == latency(samples)


@given(many(1, 200))
def test_a_summary_is_ordered(samples):
    summary = latency(samples)
    assert summary.min_ms <= summary.p50_ms <= summary.max_ms
    assert summary.min_ms <= summary.p99_ms <= summary.max_ms
    assert summary.spread >= 0
    assert summary.count == len(samples)


@pytest.mark.parametrize(
    ("count", "discarded"), [(64, 0), (1024, 79)], ids=["the floor", "MLPerf Mobile"]
)
def test_discards_as_many_as_loadgen(count, discarded):
    assert conservative_percentile(range(count)) == count - 1 - discarded


def test_p99_takes_662_samples():
    assert conservative_percentile(range(661), 0.99) is None
    assert conservative_percentile(range(662), 0.99) == 661


@pytest.mark.parametrize("draw", ["lognormal", "exponential"])
def test_the_bound_holds_in_98_percent_of_trials(draw):
    random = np.random.default_rng(0)
    true_p90 = {"lognormal": math.exp(1.2815515655446004), "exponential": math.log(10)}[draw]
    trials = getattr(random, draw)(size=(2000, 200))
    covered = sum(conservative_percentile(trial) >= true_p90 for trial in trials.tolist())
    assert covered >= 0.98 * 2000


def test_a_long_run_is_summarized():
    samples = np.random.default_rng(0).exponential(size=100_000).tolist()
    summary = latency(samples)
    assert math.log(10) < summary.p90_ms < math.log(10) * 1.03


def test_percentile_is_the_nearest_rank():
    samples = list(range(1, 101))
    assert [percentile(samples, p) for p in (0.07, 0.5, 0.9, 0.99, 1)] == [7, 50, 90, 99, 100]
    assert median([1, 2, 3, 10]) == 2.5


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: median([]),
        lambda: percentile([], 0.9),
        lambda: percentile([1], 90),
        lambda: conservative_percentile([1], 90),
        lambda: conservative_percentile([1], confidence=0.1),
    ],
)
def test_wrong_arguments_say_so(wrong):
    with pytest.raises(UsageError):
        wrong()
