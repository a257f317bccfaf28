"""AdaRound: whether each weight is rounded up or down is learned, layer after layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.activations import BATCH, pixels, walk
from kzoo.compress.apart import apart, linear_calls
from kzoo.compress.graph import readers
from kzoo.compress.grid import levels, rounded, scales
from kzoo.compress.patches import Places, places
from kzoo.network.graph import run
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

ROWS, VALUES = 4096, 1 << 24
"""Places in the images' feature maps that a layer's error is measured at, and the values that they
are computed from, at most."""
ROWS_AT_ONCE = 128
REACH = 10.0
"""The steps times Adam's rate: how far a choice can go, whatever the steps, before the sigmoid."""
STRENGTH = 20.0
"""Of the regularizer's mean, where the error of nearest rounding is 1."""
WARM_UP, SHARPNESS = 0.2, (20.0, 2.0)
"""The share of steps without the regularizer, and its exponent from then to the end."""
STRETCH = (-0.1, 1.1)
"""Of the rectified sigmoid (equation 23)."""
ON_GRID = 1e-3
"""A weight this close to a point, in steps of the grid, is there: zeros, and what was baked."""
ACTIVATIONS = {"relu", "relu6", "leaky_relu", "elu", "silu", "hard_silu", "gelu", "sigmoid",
               "hard_sigmoid", "tanh"}  # fmt: skip


def adaround(
    model: keras.Model,
    images: np.ndarray,
    *,
    bits: int = 8,
    steps: int = 500,
    seed: int = 0,
    progress: Progress = silent,
) -> keras.Model:
    """Rounds every kernel to its grid so that the layer's output differs least.

    Nagel et al. 2020 (arXiv:2004.10568): of each layer the input is what the layers rounded so far
    give, the target what the float network gives, both behind the activation (section 3.4), at
    places drawn from all images. A layer that rounding to the nearest serves better gets that.

    Args:
        model: functional, pixels (n, h, w, c) in [0, 255] -> anything; it stays as it is.
        images: uint8 or float32 (n, h, w, c), as it was trained on; some hundred.
        bits: of the grid, `kzoo.compress.grid`.
        steps: of Adam for each layer.
        seed: of the places and batches.
        progress: called after every layer.

    Returns:
        A new model as `kzoo.compress.apart.apart` makes it, whose kernels lie on the grid: an
        exporter to int8 finds the same whole numbers.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    model = apart(model)
    drawn = {
        node: places(node, len(images), ROWS, VALUES, np.random.default_rng([seed, i]))
        for i, node in enumerate(linear_calls(model))
    }
    wanted = _targets(model, [*drawn.values()], images)
    reads, done = readers(model), 0
    for node, tensors in walk(model, images):
        if node not in drawn:
            continue
        task = _Task(
            drawn[node], tensors[id(node.input_tensors[0])], wanted.pop(node),
            _activation(reads[id(node.outputs[0])]), bits,
        )  # fmt: skip
        task.layer.set_weights([task.best(steps, seed + done), task.layer.get_weights()[1]])
        done += 1
        progress("round the kernels", done, len(drawn))
    return model


def _targets(model, drawn: list[Places], images: np.ndarray) -> dict:
    """Of each call its output at the places drawn, (rows, c)."""
    import keras

    found = {each.node: [] for each in drawn}
    by_node = {each.node: each for each in drawn}

    def visit(node, *args, **kwargs):
        given = node.operation(*args, **kwargs)
        if node in found:
            values = keras.ops.convert_to_numpy(given)
            found[node].append(by_node[node].outputs(values, start))
        return given

    for start in range(0, len(images), BATCH):
        batch = pixels(images[start : start + BATCH])
        run(model, [keras.ops.convert_to_tensor(batch)], visit)
    return {node: np.concatenate(parts) for node, parts in found.items()}


def _activation(behind: list):
    """The layer that alone reads an output, if it works on each value alone; else None."""
    import keras

    layer = behind[0].operation if len(behind) == 1 and behind[0] else None
    if type(layer) is keras.layers.Activation:
        return layer if layer.activation.__name__ in ACTIVATIONS else None
    return layer if type(layer) in (keras.layers.ReLU, keras.layers.LeakyReLU) else None


class _Task:
    """The rounding of one layer's kernel, as the product of (rows, g, k) and (g, k, f)."""

    def __init__(self, at: Places, inputs, outputs, activation, bits: int):
        self.at, self.layer, self.activation = at, at.node.operation, activation
        self.limit = levels(bits)
        kernel, self.bias = self.layer.get_weights()
        deep = type(self.layer).__name__ == "DepthwiseConv2D"
        scale = scales(kernel, depthwise=deep, bits=bits)
        exact = at.matrix(kernel / scale.astype(np.float64))
        self.scale = at.matrix(scale)
        self.nearest = at.matrix(rounded(kernel, scale, bits=bits)).astype(np.float32)
        self.fixed = np.abs(exact - self.nearest) < ON_GRID
        self.low = np.where(self.fixed, self.nearest, np.floor(exact)).astype(np.float32)
        self.part = np.where(self.fixed, 0, exact - self.low).astype(np.float32)
        self.inputs = at.inputs(inputs)
        self.outputs = self.activated(outputs)

    def activated(self, values):
        import keras

        return keras.ops.convert_to_numpy(self.activation(values)) if self.activation else values

    def error(self, whole: np.ndarray) -> float:
        """The mean squared error of a rounding at all places."""
        found = np.matmul(self.inputs.swapaxes(0, 1), whole * self.scale).swapaxes(0, 1)
        found = found.reshape(len(found), -1) + self.bias
        return float(np.square(self.activated(found) - self.outputs).mean(dtype=np.float64))

    def best(self, steps: int, seed: int) -> np.ndarray:
        """The kernel on the grid, float32."""
        nearest, whole = self.error(self.nearest), self.nearest
        if nearest > 0 and not self.fixed.all():
            learned = self.low + (self.learned(steps, seed, nearest) >= 0.5)
            learned = np.where(self.fixed, self.low, learned).clip(-self.limit, self.limit)
            learned = learned.astype(np.float32)
            whole = learned if self.error(learned) < nearest else whole
        return self.at.kernel(whole * self.scale)

    def learned(self, steps: int, seed: int, unit: float) -> np.ndarray:
        """How far up each weight goes, [0, 1]; errors count in the unit given."""
        import keras

        rounding = _rounding(self)
        rounding.compile(
            keras.optimizers.Adam(REACH / steps),
            loss=lambda wanted, found: keras.ops.mean(keras.ops.square(wanted - found)) / unit,
            jit_compile=keras.backend.backend() == "jax",
        )
        draw = np.random.default_rng(seed)
        size = min(ROWS_AT_ONCE, len(self.inputs))
        for step in range(steps):
            rounding.anneal((step / steps - WARM_UP) / (1 - WARM_UP))
            rows = draw.integers(0, len(self.inputs), size)
            rounding.train_on_batch(self.inputs[rows], self.outputs[rows])
        return keras.ops.convert_to_numpy(rounding.up())


def _rounding(task: _Task) -> keras.Model:
    """The layer with a kernel between the points of the grid, and what is learned of it."""
    import keras
    from keras import ops

    low, high = STRETCH
    free = (~task.fixed).astype(np.float32)

    class Rounding(keras.Model):
        def __init__(self):
            super().__init__()
            start = -np.log((high - low) / (task.part - low) - 1)
            self.choice = self.add_weight(shape=start.shape, initializer="zeros")
            self.choice.assign(start)
            self.sharpness = self.add_weight(shape=(), initializer="ones", trainable=False)
            self.strength = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.built = True

        def anneal(self, part: float) -> None:
            """Sets the regularizer at a part of its time, below 0 before it begins."""
            first, last = SHARPNESS
            self.strength.assign(STRENGTH * (part >= 0))
            self.sharpness.assign(first + (last - first) * max(part, 0))

        def up(self):
            return ops.clip(ops.sigmoid(self.choice) * (high - low) + low, 0, 1)

        def call(self, rows):
            up = self.up()
            # The exponential of the logarithm: a power takes four times as long.
            far = ops.exp(self.sharpness * ops.log(ops.abs(2 * up - 1) + 1e-7))
            between = (1 - far) * free
            self.add_loss(self.strength * ops.mean(between))
            kernel = ops.clip(task.low + up * free, -task.limit, task.limit) * task.scale
            if kernel.shape[0] == 1:
                found = ops.matmul(rows[:, 0], kernel[0])
            elif kernel.shape[-1] == 1:
                found = ops.sum(rows * kernel[..., 0], axis=-1)
            else:
                found = ops.einsum("rgk,gkf->rgf", rows, kernel)
            found = ops.reshape(found, (-1, len(task.bias))) + task.bias
            return task.activation(found) if task.activation else found

    return Rounding()
