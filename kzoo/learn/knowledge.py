"""What one network can pass on to another, as tensors, and the losses that compare them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kzoo.learn.features import cut_features

if TYPE_CHECKING:
    import keras

MOMENTUM = 0.99
"""Of the average that teaches in "self"; Tarvainen, Valpola 2017, appendix B.1, while a student
improves quickly."""


def adapted(x: keras.KerasTensor, width: int, name: str, seed: int) -> keras.KerasTensor:
    """The channels mapped linearly to so many, by weights that are trained with the student.

    On maps it is a 1x1 convolution, as the regressor of Romero et al. 2015, section 2.2.
    """
    import keras

    (drawn,) = np.random.SeedSequence([seed, *name.encode()]).generate_state(1)
    draw = keras.initializers.GlorotUniform(int(drawn >> 1))
    return keras.layers.Dense(width, kernel_initializer=draw, name=f"{name}_adapter")(x)


def pooled_to(x: keras.KerasTensor, size: tuple[int, int]) -> keras.KerasTensor:
    """A map averaged to a smaller size, (n, h, w, c) -> (n, *size, c)."""
    import keras

    (height, width), (h, w) = x.shape[1:3], size
    if height % h == 0 and width % w == 0:
        step = (height // h, width // w)
        return x if step == (1, 1) else keras.layers.AveragePooling2D(step)(x)
    # Not by Keras' adaptive pooling, which gives NaN at the edges on JAX (3.15).
    x = keras.ops.einsum("ah,nhwc->nawc", _windows(height, h), x)
    return keras.ops.einsum("bw,nawc->nabc", _windows(width, w), x)


def _windows(length: int, cells: int) -> np.ndarray:
    """float32 (cells, length): the means of windows that begin and end at the nearest places."""
    found = np.zeros((cells, length), np.float32)
    for i in range(cells):
        begin, end = i * length // cells, -(-(i + 1) * length // cells)
        found[i, begin:end] = 1 / (end - begin)
    return found


def attention(x: keras.KerasTensor, size: tuple[int, int]) -> keras.KerasTensor:
    """Where a map is strong: (n, h, w, c) -> (n, cells of ``size``), of mean square 1 each.

    The mean of the squared channels (Zagoruyko, Komodakis 2017, section 3.1: F_sum^2). There the
    length is 1, so that the mean squared error falls with the cells; here maps of 3 x 3 and of
    56 x 56 cells count alike.
    """
    import keras

    energy = keras.ops.mean(keras.ops.square(x), axis=-1, keepdims=True)
    found = keras.layers.UnitNormalization()(keras.layers.Flatten()(pooled_to(energy, size)))
    return found * math.sqrt(math.prod(size))


def flow(x: keras.KerasTensor, y: keras.KerasTensor) -> keras.KerasTensor:
    """What becomes of each channel: (n, h, w, a), (n, h / i, w / i, b) -> (n, a, b).

    The products of the channels, averaged over the places (Yim et al. 2017, equation 1).
    """
    import keras

    places = y.shape[1] * y.shape[2]
    x = keras.layers.Reshape((places, x.shape[-1]))(pooled_to(x, y.shape[1:3]))
    y = keras.layers.Reshape((places, y.shape[-1]))(y)
    return keras.layers.Dot(axes=1)([x, y]) / places


def average_logits(student: keras.Model) -> keras.KerasTensor:
    """(n, 2, classes): the student's logits, and those of the average of its weights so far.

    The average follows within the training step; it sees the same images, without dropout and with
    its own BatchNorm statistics (Tarvainen, Valpola 2017, section 2).
    """
    import keras

    copy = type(student).from_config(student.get_config())
    copy.set_weights(student.get_weights())
    weights = [*zip(copy.weights, student.weights, strict=True)]

    class Average(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="average")
            self.network = keras.Model(copy.inputs[0], cut_features(copy, "logits"))
            self.network.trainable = False
            self.steps = self.add_weight(name="steps", initializer="zeros", trainable=False)

        def call(self, images, training=False):
            if training:
                # At first the mean of all steps, so that the random beginning is soon forgotten.
                kept = keras.ops.minimum(MOMENTUM, self.steps / (self.steps + 1))
                self.steps.assign_add(1.0)
                for mean, weight in weights:
                    new = keras.ops.stop_gradient(weight.value)
                    mean.assign(kept * mean + (1 - kept) * new)
            return keras.ops.stop_gradient(self.network(images, training=False))

    logits = cut_features(student, "logits")
    return keras.ops.stack([logits, Average()(student.inputs[0])], axis=1)


def softened(temperature: float) -> Callable:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of logits (n, classes), in nats.

    Hinton, Vinyals, Dean 2015, section 2: with T^2 the gradients keep their size.
    """
    import keras

    def loss(teacher, student):
        teacher, student = (
            keras.ops.log_softmax(logits / temperature) for logits in (teacher, student)
        )
        divergence = keras.ops.sum(keras.ops.exp(teacher) * (teacher - student), axis=-1)
        return temperature**2 * divergence

    return loss


def squared_error(centre: np.ndarray | float = 0.0, unit: float = 1.0) -> Callable:
    """The mean of an image's squared differences from ``(teacher - centre) / unit``."""
    import keras

    def loss(teacher, student):
        squares = keras.ops.square(student - (teacher - centre) / unit)
        return keras.ops.mean(squares, axis=tuple(range(1, len(squares.shape))))

    return loss
