"""How much a network would miss each of its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.channels import Channels
from kzoo.compress.groups import Group, parts, vectors
from kzoo.errors import BadInputError

if TYPE_CHECKING:
    from kzoo.data.dataset import Dataset

IMPORTANCES = ("l1", "l2", "batch_norm", "taylor", "geometric_median", "random")
KERNELS = ("kernel", "depthwise")


def importance(
    found: Channels, among: Sequence[Group], kind: str, data: Dataset, seed: int
) -> np.ndarray:
    """A score for each channel, by root; what is of no group has none.

    "l1" and "l2" are norms of all kernels that make the channel (Li et al. 2017, arXiv:1608.08710,
    section 3.1), depthwise ones too; "geometric_median" is the sum of its kernels' distances from
    those of the others in the group (He et al. 2019, arXiv:1811.00250, equation 6);
    "batch_norm" the sum of BatchNormalization's |gamma| (Liu et al. 2017, arXiv:1708.06519);
    "taylor" see `kzoo.compress.taylor`; "random" is drawn from ``seed``.

    The first three are divided by their mean in the group, so that groups of different fan-in
    compare (Fang et al. 2023, arXiv:2301.12900, section 3.3, with the mean of all channels). The
    others compare as they are: a loss, or factors of normalized maps.

    Returns:
        float64 (numbers,); infinite where a channel stays: one without BatchNormalization that has
        a scale, for "batch_norm".

    Raises:
        BadInputError: "batch_norm" of a network where no group has one.
    """
    scores = np.zeros(len(found.root))
    if kind == "random":
        draw = np.random.default_rng(seed)
        for group in among:
            scores[group.roots] = draw.random(len(group.roots))
        return scores
    if kind == "taylor":
        from kzoo.compress.taylor import taylor

        return taylor(found, data, seed)
    held, bare = parts(found), []
    for group in among:
        if kind == "batch_norm":
            scale = np.abs(vectors(group, held, ["scale"])).sum(axis=1, dtype=np.float64)
            bare += [] if scale.any() else [group]
            scores[group.roots] = scale if scale.any() else np.inf
            continue
        rows = vectors(group, held, KERNELS)
        if kind == "l1":
            score = np.abs(rows).sum(axis=1, dtype=np.float64)
        elif kind == "l2":
            score = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
        else:
            score = np.sqrt(squared_distances(rows)).sum(axis=1)
        scores[group.roots] = score / (score.mean() or 1.0)
    if len(bare) == len(among):
        raise BadInputError(
            "no channels that may go have a BatchNormalization with a scale; the importance "
            "batch_norm needs them: take l2 or taylor"
        )
    return scores


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """Between all rows of (n, d): float64 (n, n), at least 0."""
    products = rows.astype(np.float64) @ rows.astype(np.float64).T
    norms = products.diagonal()
    return np.maximum(norms[:, None] + norms[None, :] - 2 * products, 0)
