"""What a list of run times says: medians, and percentiles that err on the slow side.

Times are in whatever unit is given unless a name says ``_ms``. The standard library only.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from kzoo.errors import UsageError

STEADY_TOLERANCE = 0.02


@dataclass(frozen=True)
class Latency:
    """A summary of the timed runs, in milliseconds. The headline is ``p50_ms``, never a mean.

    Attributes:
        count: the number of timed runs.
        p50_ms: their median.
        p90_ms: the conservative 90th percentile at 99 % confidence; None below 64 runs, and where
            the single runs are not told.
        valid: whether there were runs enough for ``p90_ms``; where not, print INVALID.
        p99_ms: the plain 99th percentile, with no confidence attached; None as ``spread``.
        min_ms: the fastest run.
        max_ms: the slowest run.
        spread: the interquartile range over the median: 0.02 is quiet, 0.5 is a busy machine; None
            where the single runs are not told.
    """

    count: int
    p50_ms: float
    p90_ms: float | None
    valid: bool
    p99_ms: float | None
    min_ms: float
    max_ms: float
    spread: float | None


def latency(samples_ms: Sequence[float]) -> Latency:
    """Summarizes at least one run time, each in milliseconds."""
    middle = median(samples_ms)
    quartiles = percentile(samples_ms, 0.25), percentile(samples_ms, 0.75)
    bound = conservative_percentile(samples_ms)
    return Latency(
        count=len(samples_ms),
        p50_ms=middle,
        p90_ms=bound,
        valid=bound is not None,
        p99_ms=percentile(samples_ms, 0.99),
        min_ms=min(samples_ms),
        max_ms=max(samples_ms),
        spread=(quartiles[1] - quartiles[0]) / middle if middle else 0.0,
    )


def median(samples: Sequence[float]) -> float:
    """The middle of the samples; between the two middle ones when they are even in number."""
    if not samples:
        raise UsageError("no samples: a median needs at least one")
    return statistics.median(samples)


def interquartile_mean(samples: Sequence[float]) -> float:
    """The mean of the middle half of the samples: as calm as a median, and finer than their step.

    Of fewer than four it is the mean of all.
    """
    if not samples:
        raise UsageError("no samples: a mean needs at least one")
    quarter = len(samples) // 4
    middle = sorted(samples)[quarter : len(samples) - quarter]
    return sum(middle) / len(middle)


def percentile(samples: Sequence[float], p: float) -> float:
    """The smallest sample that at least the share ``p`` of the samples does not exceed.

    The nearest-rank definition: always a run that happened, never a mix of two.
    """
    if not samples:
        raise UsageError("no samples: a percentile needs at least one")
    if not 0 < p <= 1:
        raise UsageError(f"a percentile is a share in (0, 1], such as 0.9; not {p}")
    rank = math.ceil(round(p * len(samples), 9))  # 0.07 * 100 is 7.000000000000001
    return sorted(samples)[rank - 1]


def conservative_percentile(
    samples: Sequence[float], p: float = 0.9, confidence: float = 0.99
) -> float | None:
    """An upper bound of the true ``p`` percentile, or None when there are too few samples.

    With n samples, t is the largest count for which ``BinomCDF(t; n, 1 - p) <= 1 - confidence``;
    the t - 1 slowest samples are discarded and the slowest left is returned. The true percentile is
    above it with a probability of at most ``1 - confidence``, whatever the distribution, if the
    runs are independent. t must be at least 1: for p = 0.9 and 99 % that takes 64 samples (the
    bound is then their maximum), for p = 0.99 662; 1,024 samples discard 79.

    Source: MLPerf Inference LoadGen, early stopping (``loadgen/early_stopping.cc`` and the rules'
    appendix "Early Stopping Criterion", tolerance d = 0).
    """
    if not 0 < p < 1:
        raise UsageError(f"a percentile is a share between 0 and 1, such as 0.9; not {p}")
    if not 0.5 < confidence < 1:
        raise UsageError(f"a confidence is between 0.5 and 1, such as 0.99; not {confidence}")
    allowed = _slow_samples_allowed(len(samples), p, confidence)
    return None if allowed < 1 else sorted(samples)[len(samples) - allowed]


@functools.lru_cache(maxsize=256)
def _slow_samples_allowed(count: int, p: float, confidence: float) -> int:
    """The largest t with BinomCDF(t; count, 1 - p) <= 1 - confidence, or -1.

    In logarithms, because 0.9 ** 10_000 is 0 in floating point.
    """
    limit = math.log(1 - confidence)
    log_odds = math.log(1 - p) - math.log(p)
    log_term = log_sum = count * math.log(p)
    t = -1
    while log_sum <= limit and t < count:
        t += 1
        log_term += math.log((count - t) / (t + 1)) + log_odds
        high, low = max(log_sum, log_term), min(log_sum, log_term)
        log_sum = high + math.log1p(math.exp(low - high))
    return t
