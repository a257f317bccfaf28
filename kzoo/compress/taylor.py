"""What the loss would change without a channel, to first order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.channels import MAKERS, Channels
from kzoo.network.graph import run
from kzoo.network.model_file import gives_probabilities

if TYPE_CHECKING:
    from kzoo.data.dataset import Dataset

BATCH = 32
IMAGES = 1024


def taylor(found: Channels, data: Dataset, seed: int) -> np.ndarray:
    """The squared gradient of the loss by a factor of each channel, averaged over batches.

    Molchanov et al. 2019 (arXiv:1906.10771), section 3.1, "gate": a factor of one stands wherever a
    kernel reads the channel, so that at zero the network is the one without it. One step of SGD
    with rate 1 makes of the factors, written as deviations from one, the gradient; such a step is
    all that Keras offers alike on every backend. Everything else is computed as for prediction.

    Args:
        found: of `kzoo.compress.channels.channels`.
        data: whose training images, at most `IMAGES`, are looked at.
        seed: of their choice.

    Returns:
        float64 (numbers,), by root; zero where a channel stays or nothing reads it.
    """
    import keras

    model, movable = found.model, np.flatnonzero(found.movable)
    # What is no root that may go has a place of its own behind the others.
    place = np.full(len(found.root), len(movable))
    place[movable] = np.arange(len(movable))

    class Gated(keras.Model):
        def __init__(self):
            super().__init__()
            self.deviations = self.add_weight(shape=(len(movable) + 1,), initializer="zeros")
            self.built = True

        # Without an argument ``training``, all layers inside are called as for prediction.
        def call(self, pixels):
            def visit(node, *args, **kwargs):
                if type(node.operation).__name__ not in MAKERS:
                    return node.operation(*args, **kwargs)
                (tensor,), (given, *others) = node.input_tensors, args
                places = place[found.root[found.of[id(tensor)]]]
                if (places == len(movable)).all():
                    return node.operation(*args, **kwargs)
                factors = 1 + keras.ops.take(self.deviations, places.astype("int32"))
                return node.operation(
                    given * keras.ops.cast(factors, given.dtype), *others, **kwargs
                )

            return run(model, [pixels], visit)[0]

    gated = Gated()
    gated.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=not gives_probabilities(model)),
    )
    chosen = data.order("train", seed, 0)[:IMAGES]
    batches = max(1, len(chosen) // BATCH)
    total = np.zeros(len(movable))
    for i in range(batches):
        rows = np.sort(chosen[i * BATCH : (i + 1) * BATCH])
        gated.train_on_batch(data.images[rows].astype(np.float32), data.labels[rows])
        gradient = keras.ops.convert_to_numpy(gated.deviations)[:-1].astype(np.float64)
        gated.deviations.assign(np.zeros(len(movable) + 1, np.float32))
        total += gradient**2
    scores = np.zeros(len(found.root))
    scores[movable] = total / batches
    return scores
