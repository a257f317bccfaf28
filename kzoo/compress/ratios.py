"""How an overall sparsity is shared among layers so that least is lost, from their curves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from kzoo.errors import UsageError


def choose_shares(layers: Sequence[dict], sparsity: float) -> dict[str, float]:
    """The share of zeros of every layer, for a share of all their weights.

    Divergences of layers are taken to add up. Of every layer's curve the lower convex hull counts,
    from nothing lost by no zeros on; the segments of all hulls are taken by their loss per zero,
    the least first, the last one in part: the minimum of the sum, as by a Lagrange multiplier.

    Args:
        layers: with ``layer``, ``weights``, and the list ``sparsity`` of ``{"at", "divergence"}``.
        sparsity: the overall share.

    Raises:
        UsageError: it is not between 0 and what the curves reach.
    """
    total = sum(row["weights"] for row in layers)
    reach = sum(row["weights"] * max(point["at"] for point in row["sparsity"]) for row in layers)
    if not 0 < sparsity <= reach / total:
        raise UsageError(
            f"the sparsity to choose shares for is above 0 and, as far as the sweep goes, at most "
            f"{reach / total:.2f}; {sparsity!r} was given"
        )
    segments = [
        ((after[1] - before[1]) / (weights := row["weights"] * (after[0] - before[0])), i, weights)
        for i, row in enumerate(layers)
        for before, after in itertools.pairwise(_hull(row["sparsity"]))
    ]
    zeros, missing = [0.0] * len(layers), sparsity * total
    for _, i, weights in sorted(segments):
        taken = min(weights, missing)
        zeros[i] += taken
        missing -= taken
    return {
        row["layer"]: round(count / row["weights"], 4)
        for row, count in zip(layers, zeros, strict=True)
    }


def _hull(curve: Sequence[dict]) -> list[tuple[float, float]]:
    """The lower convex hull of (share, divergence), from (0, 0) on, by Andrew's monotone chain."""
    points = sorted({(0.0, 0.0), *((p["at"], p["divergence"]) for p in curve if p["at"] > 0)})
    found: list[tuple[float, float]] = []
    for x, y in points:
        while len(found) > 1:
            (x0, y0), (x1, y1) = found[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            found.pop()
        found.append((x, y))
    return found
