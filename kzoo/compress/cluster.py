"""Weight sharing: a kernel's weights become few distinct values, and these are trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from kzoo.compress.clusters import Clustering, Clusters
from kzoo.compress.graph import fold_batch_norm
from kzoo.compress.tune import Compressed, tune
from kzoo.data.dataset import Dataset

if TYPE_CHECKING:
    import keras


def cluster(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    clusters: int = 16,
    init: str = "linear",
    per: str = "tensor",
    keep_zeros: bool = True,
    fold: bool = True,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    **training: object,
) -> Compressed:
    """Gives every kernel few distinct values, by k-means, and trains them.

    The values are as few in every tensor of the file that is written and of its float .tflite. They
    make a download smaller where it is compressed; no runtime computes them faster. (Deep
    Compression, Han et al. 2016, arXiv:1510.00149, section 3.)

    Args:
        model: a trained functional Keras model or its file, from kzoo or from elsewhere.
        data: as for `kzoo.finetune`; the split is by default the one that the model was trained on.
        clusters: distinct values of a kernel, zero included where it is kept.
        init: where k-means begins: "linear", "density" or "kmeans++".
        per: "tensor", or "channel" for so many values per output channel.
        keep_zeros: zeros stay zero.
        fold: fold BatchNormalization into the kernels before, `kzoo.compress.graph`; folded by an
            exporter afterwards it would give each channel values of its own.
        include: prefixes of the layers to cluster, by default all but depthwise ones, and of those
            to ``exclude``. Of all these `kzoo.compress.clusters.Clustering` tells more.
        seed: also of "kmeans++".
        training: as for `kzoo.prune`.

    Raises:
        As `kzoo.prune`.
    """
    clustering = Clustering(
        clusters=clusters,
        init=init,
        per=per,
        keep_zeros=keep_zeros,
        include=tuple(include),
        exclude=tuple(exclude),
    )
    held = partial(Clusters, clustering=clustering, seed=seed)
    return tune(model, data, held, fold_batch_norm if fold else None, seed=seed, **training)
