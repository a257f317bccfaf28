"""Layers that compute in floating point what int8 will: they round forward, gradients pass.

Jacob et al. 2018 (arXiv:1712.05877), section 3, on the grids of LiteRT's 8-bit specification.
Imported where a network is made ready for it: it imports Keras.
"""

from __future__ import annotations

import keras
from keras import ops

from kzoo.compress.grid import LEAST, LEVELS, levels

LARGEST = levels()
"""Of a weight: its range is symmetric, so -128 is not used and a zero stays zero."""
MOMENTUM = 0.95


def rounded(x):
    """The nearest whole numbers; the gradient is that of ``x`` (Bengio et al. 2013)."""
    return x + ops.stop_gradient(ops.round(x) - x)


def fake_quant(x, low, high, means: bool = False):
    """``x`` in 256 values from ``low`` <= 0 to ``high`` > 0, of which zero is one.

    Jacob et al. 2018, equation 12, with the zero point rounded as in section 3.1. What lies outside
    is clipped and has no gradient. With an empty range ``x`` is returned as it is.

    ``means``: ``x`` has means of values of the grid, of which every fourth is in the middle between
    two. LiteRT's AVERAGE_POOL_2D rounds these away from the int8 number 0, the level 128.
    """
    known = high > low
    scale = ops.where(known, high - low, 1.0) / LEVELS
    zero = ops.round(ops.stop_gradient(-low / scale))
    level = x / scale + zero
    if means:
        number = ops.round(level * 1024) / 1024 - 128  # float32 is not sure of the middle
        level = level + ops.stop_gradient(number + ops.sign(number) / 4096 + 128 - level)
    level = ops.clip(rounded(level), 0, LEVELS)
    return ops.where(known, (level - zero) * scale, x)


def kernel_scale(kernel, axes, factor=None):
    """The step of every output channel, shape (1, ..., channels) by ``axes``, float32.

    Args:
        kernel: any shape.
        axes: those that a channel extends over; all of them for one step for the whole kernel.
        factor: a share of the step that is learned, in logarithms: at most 0 counts, so that some
            weight is the largest of its channel, from which an exporter finds the step again.
    """
    largest = ops.max(ops.abs(kernel), axes, keepdims=True)
    # Of a channel of zeros, too, the step is the exporter's: its bias is rounded to it.
    scale = ops.stop_gradient(ops.maximum(largest, LEAST)) / LARGEST
    return scale if factor is None else scale * ops.exp(ops.minimum(factor, 0.0))


def fake_quant_kernel(kernel, axes, factor=None):
    """A kernel on its grid of int8 steps, see `kernel_scale`."""
    scale = kernel_scale(kernel, axes, factor)
    return rounded(ops.clip(kernel / scale, -LARGEST, LARGEST)) * scale


@keras.saving.register_keras_serializable("kzoo")
class Range(keras.layers.Layer):
    """Rounds what passes to the int8 grid of a range that it follows while it is trained.

    The range is the moving average of the batches' least and largest values (Jacob et al. 2018,
    section 3.1), always with zero, until ``rate`` is set to 0. Where it is called for several
    tensors, it is the least range that has them all.

    Args:
        sites: for how many tensors.
        learned: the range is multiplied by two trained factors, in logarithms (Jain et al. 2020,
            arXiv:1903.08066, section 3).
        fixed: (low, high) in place of all this.
    """

    def __init__(
        self,
        sites: int = 1,
        learned: bool = False,
        fixed: tuple[float, float] | None = None,
        **config,
    ):
        super().__init__(**config)
        self.sites, self.learned, self.fixed = sites, learned, fixed and tuple(fixed)

    def build(self, input_shape):  # noqa: ARG002
        if self.fixed:
            return
        shape, start = (self.sites,), keras.initializers.Constant(1 - MOMENTUM)
        self.low = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="low")
        self.high = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="high")
        self.rate = self.add_weight(shape=(), initializer=start, trainable=False, name="rate")
        if self.learned:
            self.factors = self.add_weight(shape=(2,), initializer="zeros", name="factors")

    def call(self, x, site=0, means=False, training=False):
        if training and not self.fixed:
            here = ops.one_hot(site, self.sites, dtype=self.low.dtype)
            empty = ops.cast(ops.equal(self.low, self.high), self.low.dtype)
            rate = here * ops.maximum(empty, self.rate)  # the first batch's own
            for own, seen in (
                (self.low, ops.minimum(ops.min(x), 0.0)),
                (self.high, ops.maximum(ops.max(x), 0.0)),
            ):
                seen = ops.cast(ops.stop_gradient(seen), own.dtype)
                own.assign(own + rate * (seen - own))
        return fake_quant(x, *self.range(), means)

    def range(self):
        """(low, high) as tensors."""
        if self.fixed:
            return tuple(ops.convert_to_tensor(value, self.compute_dtype) for value in self.fixed)
        low, high = ops.min(self.low), ops.max(self.high)
        if self.learned:
            shares = ops.exp(self.factors)
            low, high = low * shares[0], high * shares[1]
        return low, high

    def compute_output_spec(self, x, site=0, means=False, training=False):  # noqa: ARG002
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self):
        own = {"sites": self.sites, "learned": self.learned, "fixed": self.fixed}
        return {**super().get_config(), **own}


class _Rounded:
    """A layer whose kernel is rounded to int8 steps whenever it computes.

    Args:
        learned: the steps are multiplied by trained factors, a factor per output channel.
        whole: one step for the whole kernel, in place of one per output channel.
    """

    def __init__(self, *args, learned: bool = False, whole: bool = False, **config):
        super().__init__(*args, **config)
        self.learned, self.whole = learned, whole

    def build(self, input_shape):
        super().build(input_shape)
        ones = [1 if i in self.axes else size for i, size in enumerate(self.kernel.shape)]
        self.factors = (
            self.add_weight(shape=ones, initializer="zeros", name="factors")
            if self.learned
            else None
        )

    @property
    def axes(self) -> tuple[int, ...]:
        """Those that a step is for: all but those of the output channels."""
        rank = len(self.kernel.shape)
        outputs = () if self.whole else tuple(axis % rank for axis in self.channel_axes)
        return tuple(axis for axis in range(rank) if axis not in outputs)

    def step(self):
        """Of the kernel's values, (1, ..., channels) by ``axes``."""
        return kernel_scale(ops.convert_to_tensor(self.kernel), self.axes, self.factors)

    def rounded_kernel(self):
        """What it computes with."""
        return fake_quant_kernel(ops.convert_to_tensor(self.kernel), self.axes, self.factors)

    def call(self, inputs, **kwargs):
        # Its own call, with another value for one variable: no layer's arithmetic stands twice.
        values = [(each, each.value) for each in self.variables if each is not self.kernel]
        values.append((self.kernel, self.rounded_kernel()))
        with keras.StatelessScope(values):
            return super().call(inputs, **kwargs)

    # Keras' own layers name what they save, and would forget the factors.
    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self):
        return {**super().get_config(), "learned": self.learned, "whole": self.whole}


def _rounded(name: str, channel_axes: tuple[int, ...]):
    kind = type(
        f"Rounded{name}", (_Rounded, getattr(keras.layers, name)), {"channel_axes": channel_axes}
    )
    return keras.saving.register_keras_serializable("kzoo")(kind)


ROUNDED = {
    name: _rounded(name, axes)
    for name, axes in (
        ("Conv2D", (-1,)),
        ("Conv1D", (-1,)),
        ("Dense", (-1,)),
        ("DepthwiseConv2D", (-2, -1)),
        ("Conv2DTranspose", (-2,)),
    )
}
"""By the name of the layer whose kernel they round, and the axes of its channels."""
