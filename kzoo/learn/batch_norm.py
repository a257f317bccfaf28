"""The stored statistics of BatchNorm, computed anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

BATCH = 64
BATCHES = 50
"""At most; a mean of 3,200 images has some 2 % of one image's noise."""


def recalibrate(
    model: keras.Model, images: np.ndarray, indices: np.ndarray, progress: Progress = silent
) -> None:
    """Sets moving means and variances to the means over batches of images, with today's weights.

    So they do not lag behind the weights, as moving averages of momentum 0.99 do for hundreds of
    steps (Izmailov et al. 2018, section 3.2, do it for averaged weights). Only BatchNorm that is
    trainable is touched.

    Args:
        model: pixels (n, h, w, c) -> anything; changed in place.
        images: uint8 (n, h, w, c).
        indices: of the images that count, the first BATCHES * BATCH of them.
        progress: called after every batch.
    """
    import keras

    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    momenta = [layer.momentum for layer in norms]
    size = min(BATCH, len(indices))
    batches = min(BATCHES, len(indices) // size) if norms else 0
    try:
        for i in range(batches):
            for layer in norms:
                layer.momentum = i / (i + 1)  # the running mean of i + 1 batches
            model(images[np.sort(indices[i * size :][:size])].astype(np.float32), training=True)
            progress("recalibrate BatchNorm", i + 1, batches)
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
