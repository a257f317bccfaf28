"""What in an image decides: the gradient of a class at a network's maps, and what hiding it does.

Grad-CAM: Selvaraju et al. 2017 (arXiv:1610.02391), section 3. Occlusion: Zeiler, Fergus 2014
(arXiv:1311.2901), section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import BadInputError
from kzoo.learn.evaluate import softmax
from kzoo.network.graph import run
from kzoo.network.model_file import gives_probabilities, last_operation
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

GRAY = 127.5
BATCH = 64
BATCH_PIXELS = 32 * 224 * 224
"""Of occluded images at once: large ones need memory."""


def feature_maps(
    model: keras.Model, pixels: np.ndarray, nodes: Sequence[object]
) -> list[np.ndarray]:
    """What some calls of a functional model give for an image (h, w, c): float32 (h', w', c') each.

    ``nodes`` are as `kzoo.network.maps` gives them.
    """
    if not nodes:
        return []
    import keras

    class Maps(keras.Model):
        def call(self, pixels):
            found = dict.fromkeys(map(id, nodes))

            def visit(node, *args, **kwargs):
                given = node.operation(*args, **kwargs)
                if id(node) in found:
                    found[id(node)] = given
                return given

            run(model, [pixels], visit)
            return [found[id(node)] for node in nodes]

    maps = Maps()
    maps.built, maps.run_eagerly = True, _eagerly()
    found = maps.predict_on_batch(pixels[None].astype(np.float32))
    return [np.asarray(each[0], np.float32) for each in found]


def mean_gradients(
    model: keras.Model, pixels: np.ndarray, index: int, nodes: Sequence[object]
) -> list[np.ndarray]:
    """The gradient of a class' logit by the maps that some calls give, averaged over each map.

    Selvaraju et al. 2017, equation 1. The sum over a map is the gradient by a number that is added
    to all of it. So a zero is added, and one step of SGD with learning rate 1 up the logit makes of
    it the gradient, exactly: such a step is all that Keras offers alike on every backend.

    Args:
        model: functional, pixels (n, h, w, c) -> logits or probabilities (n, classes). It is run as
            for prediction, and stays as it is.
        pixels: an image (h, w, c).
        index: of the class.
        nodes: as `kzoo.network.maps` gives them.

    Returns:
        float32 (channels,) for each of the nodes.
    """
    if not nodes:
        return []
    import keras

    places = {id(node): i for i, node in enumerate(nodes)}
    classifier = last_operation(model)
    logits = _without_softmax(classifier) if gives_probabilities(model) else classifier

    class Shifted(keras.Model):
        def __init__(self):
            super().__init__()
            self.shifts = [
                self.add_weight(shape=(node.outputs[0].shape[-1],), initializer="zeros")
                for node in nodes
            ]
            self.built = True

        # Without an argument ``training``, all layers inside are called as for prediction.
        def call(self, pixels):
            def visit(node, *args, **kwargs):
                operation = logits if node.operation is classifier else node.operation
                found = operation(*args, **kwargs)
                if id(node) in places:
                    found = found + keras.ops.cast(self.shifts[places[id(node)]], found.dtype)
                return found

            return run(model, [pixels], visit)[0]

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # noqa: ARG002
            return -y_pred[0, index]

    shifted = Shifted()
    shifted.compile(keras.optimizers.SGD(1.0), run_eagerly=_eagerly())
    shifted.train_on_batch(pixels[None].astype(np.float32))
    return [
        np.asarray(keras.ops.convert_to_numpy(shift), np.float32)
        / (node.outputs[0].shape[1] * node.outputs[0].shape[2])
        for shift, node in zip(shifted.shifts, nodes, strict=True)
    ]


def grad_cam(maps: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Equation 2: what in the maps (h, w, c) speaks for the class, float32 (h, w), at least 0.

    ``gradients`` (c,) are those of `mean_gradients`.
    """
    return np.maximum(maps @ gradients, 0)


def occlude(
    model: keras.Model,
    pixels: np.ndarray,
    patch: int,
    stride: int,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """How the probabilities change when a gray square hides a part of the image.

    Args:
        model: functional, pixels (n, h, w, c) in [0, 255] -> logits or probabilities (n, classes).
        pixels: the image, (h, w, c).
        patch: side of the square, which stands in the middle of one cell after the other, cut off
            at the borders.
        stride: side of a cell; the first cell lies in the upper left corner.
        progress: called at the start and after every batch.

    Returns:
        The probabilities (classes,) of the whole image, and by how much they are lower for each
        cell: (rows, columns, classes), float64.

    Raises:
        BadInputError: the model gives NaN or infinity.
    """
    height, width, _ = pixels.shape
    corners = [
        (y + (stride - patch) // 2, x + (stride - patch) // 2)
        for y in range(0, height, stride)
        for x in range(0, width, stride)
    ]
    total = len(corners) + 1
    # Multiples of 8: the images that are left over are computed in another order, and then what a
    # network does not see would change its answer in the last bit.
    size = 8 * min(-(-total // 8), BATCH // 8, max(1, BATCH_PIXELS // (8 * height * width)))
    found = []
    progress("occlude", 0, total)
    for start in range(0, total, size):
        # The whole image stands in front, and behind the last: one compiled shape serves all.
        batch = np.repeat(pixels[None].astype(np.float32), size, axis=0)
        for image, corner in zip(batch, [None, *corners][start : start + size], strict=False):
            if corner:
                top, left = (max(0, at) for at in corner)
                bottom, right = (max(0, at + patch) for at in corner)
                image[top:bottom, left:right] = GRAY
        given = np.asarray(model.predict_on_batch(batch), np.float64)
        if not np.isfinite(given).all():
            raise BadInputError(f"{model.name} gives NaN or infinity; has it NaN in its weights?")
        found.append(given if gives_probabilities(model) else softmax(given))
        progress("occlude", min(start + size, total), total)
    probabilities = np.concatenate(found)[:total]
    rows = -(-height // stride)
    drops = probabilities[0] - probabilities[1:]
    return probabilities[0], drops.reshape(rows, -1, drops.shape[1])


def _eagerly() -> bool:
    """For one image compiling costs more than it saves; but JAX compiles each operation alone."""
    import keras

    return keras.backend.backend() != "jax"


def _without_softmax(operation):
    """The operation that gives the logits where ``operation`` gives their softmax."""
    if type(operation).__name__ == "Softmax":
        return lambda logits, **_: logits
    copy = type(operation).from_config(operation.get_config() | {"activation": "linear"})
    copy.build_from_config(operation.get_build_config())
    copy.set_weights(operation.get_weights())
    return copy
