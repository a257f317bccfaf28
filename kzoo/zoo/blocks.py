"""Blocks that more than one family uses: tensor in, tensor out, names from the caller.

Padding, epsilon and the kind of normalization are no arguments: they are the `Flavour` that `build`
sets around a builder, as a dtype policy is set around Keras' layers. Keras is imported when the
first layer is made, so that registering a family costs nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass


class _Lazy:
    """A module that is imported at the first use of one of its attributes."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(importlib.import_module(self._name), attribute)


layers = _Lazy("keras.layers")
ops = _Lazy("keras.ops")
initializers = _Lazy("keras.initializers")

INITIALIZER = "he_uniform"
"""Of convolutions: as good as he_normal, whose truncation costs 3.5 times as long to draw."""
LINEAR_INITIALIZER = "lecun_uniform"
"""Of convolutions without activation: half the variance, or sums of many blocks would explode."""

NORMS = ("batch", "group", "layer", "none")


@dataclass(frozen=True)
class Flavour:
    """What one name means in one library: elsewhere it has another padding and another epsilon.

    Attributes:
        name: "keras" or "torch"; a builder may ask it where the two libraries differ in structure.
        symmetric: pad a strided window by ``kernel // 2`` on both sides (torch, Caffe) instead
            of TensorFlow's "same", which pads one pixel less at the top left for even sizes.
        epsilon: of the normalization.
        scale: whether BatchNorm has a gamma.
        gamma: what it begins with.
        norm: "batch"; "group": 32 groups or as many as divide the channels (Wu & He 2018);
            "layer": over the channels of each pixel (as in ConvNeXt); "none": biases instead.
        momentum: of BatchNorm's moving statistics. Keras' .99 leaves them far behind after a few
            hundred steps (chance accuracy at inference was seen), so .9 is used.
    """

    name: str
    symmetric: bool
    epsilon: float
    scale: bool = True
    gamma: float = 1.0
    norm: str = "batch"
    momentum: float = 0.9


FLAVOURS = {
    "keras": Flavour("keras", symmetric=False, epsilon=1e-3),
    "torch": Flavour("torch", symmetric=True, epsilon=1e-5),
}

_flavour: ContextVar[Flavour] = ContextVar("flavour")


def flavour() -> Flavour:
    """The flavour in force."""
    return _flavour.get()


@contextlib.contextmanager
def using(chosen: Flavour) -> Iterator[None]:
    """Builds what is built inside in this flavour."""
    token = _flavour.set(chosen)
    try:
        yield
    finally:
        _flavour.reset(token)


def divisible(channels: float, by: int = 8) -> int:
    """Rounds to a multiple of ``by``, never down by more than a tenth (MobileNetV2's code)."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def stage_names(strides: Iterable[int]) -> Iterator[str]:
    """The names of blocks behind a stem of stride 2: each further stride of 2 begins a stage.

    (1, 2, 1) -> stem_1, stage1_1, stage1_2.
    """
    stage = number = 0
    for stride in strides:
        stage, number = (stage + 1, 1) if stride == 2 else (stage, number + 1)
        yield f"stage{stage}_{number}" if stage else f"stem_{number}"


def activate(x, act: str | None, name: str):
    """The activation as a layer of its own; None for none."""
    return layers.Activation(act, name=f"{name}_act")(x) if act else x


def normalize(x, act: str | None = None, *, name: str):
    """The flavour's normalization, then the activation: (n, h, w, c) -> (n, h, w, c)."""
    now = flavour()
    if now.norm == "batch":
        x = layers.BatchNormalization(
            epsilon=now.epsilon, momentum=now.momentum, scale=now.scale, name=f"{name}_bn",
            gamma_initializer=initializers.Constant(now.gamma) if now.gamma != 1 else "ones",
        )(x)  # fmt: skip
    elif now.norm == "group":
        groups = math.gcd(32, x.shape[-1])
        x = layers.GroupNormalization(groups, epsilon=now.epsilon, name=f"{name}_gn")(x)
    elif now.norm == "layer":
        x = layers.LayerNormalization(epsilon=now.epsilon, name=f"{name}_ln")(x)
    return activate(x, act, name)


def depthwise_initializer(channels: int, kernel: int | tuple[int, int], act: str | None = "relu"):
    """Uniform; where a normalization follows, of the standard deviation 0.09 of the MobileNets'
    authors (tensorflow/models, slim/nets/mobilenet/mobilenet.py, training_scope).

    Keras' own rule counts all channels into the fan-in, though an output sees one: it comes near
    BatchNorm's epsilon where channels are many. At `INITIALIZER`'s scale (0.47 for 3 x 3) a step of
    the same length changes a smaller share of them. Without normalization only He's scale keeps a
    deep network's signal.
    """
    taps = math.prod((kernel, kernel) if isinstance(kernel, int) else kernel)
    gain = 0.09**2 * taps if flavour().norm != "none" else 2.0 if act else 1.0
    return initializers.VarianceScaling(gain * channels, "fan_in", "uniform")


def _convolution(kind: str, x, *filters: int, kernel, stride, act, padding, name, **options):
    """A stock convolution, padded by the flavour unless ``padding`` says "valid".

    ``act``, which follows later, decides how its weights are drawn.
    """
    if not padding:
        x, padding = padded(x, kernel, stride, name)
    if kind == "DepthwiseConv2D":
        options["depthwise_initializer"] = depthwise_initializer(x.shape[-1], kernel, act)
    else:
        options["kernel_initializer"] = INITIALIZER if act else LINEAR_INITIALIZER
    return getattr(layers, kind)(
        *filters, kernel, stride, padding, name=f"{name}_conv", **options
    )(x)  # fmt: skip


def padded(x, kernel, stride: int, name: str):
    """Returns x, zero-padded where the flavour wants it, and what is left for a layer to pad."""
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    if stride == 1 or max(high, wide) == 1 or not flavour().symmetric:
        return x, "same"
    return layers.ZeroPadding2D((high // 2, wide // 2), name=f"{name}_pad")(x), "valid"


def conv(
    x, filters, kernel=1, stride=1, *, groups=1, act="relu", bias=False, padding=None, name
):  # fmt: skip
    """Convolution, normalization, activation.

    (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), filters), less with padding "valid".
    """
    x = _convolution(
        "Conv2D", x, filters, kernel=kernel, stride=stride, act=act, padding=padding, name=name,
        groups=groups, use_bias=bias or flavour().norm == "none",
    )  # fmt: skip
    return normalize(x, act, name=name)


def plain(x, filters, kernel=1, stride=1, *, groups=1, act="relu", padding=None, name):
    """Convolution with biases, activation; no normalization. Shapes as in `conv`."""
    x = _convolution(
        "Conv2D", x, filters, kernel=kernel, stride=stride, act=act, padding=padding, name=name,
        groups=groups,
    )  # fmt: skip
    return activate(x, act, name)


def depthwise(x, kernel=3, stride=1, *, act="relu", bias=False, padding=None, name):
    """Depthwise convolution, normalization, activation; the channels stay: (n, h, w, c)."""
    x = _convolution(
        "DepthwiseConv2D", x, kernel=kernel, stride=stride, act=act, padding=padding, name=name,
        use_bias=bias or flavour().norm == "none",
    )  # fmt: skip
    return normalize(x, act, name=name)


def separable(x, filters, kernel=3, stride=1, *, act="relu", name):
    """Depthwise, then 1x1 convolution with nothing between (Chollet 2017). Shapes as in `conv`."""
    x = _convolution(
        "DepthwiseConv2D", x, kernel=kernel, stride=stride, act=None, padding=None,
        name=f"{name}_depthwise", use_bias=False,
    )  # fmt: skip
    return conv(x, filters, act=act, name=name)


def max_pool(x, kernel=3, stride=2, *, name):
    """Max pooling: (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), c).

    A flavour that pads does it with zeros, as keras.applications' ResNets do.
    """
    x, padding = padded(x, kernel, stride, name)
    return layers.MaxPooling2D(kernel, stride, padding, name=f"{name}_pool")(x)


def ceil_pool(x, kernel=3, *, name):
    """Max pooling whose last window may hang over the edge: (n, h, w, c) -> (n, h // 2, w // 2, c).

    Caffe's pooling, and torch's with ceil_mode; h / 2 is rounded up if ``kernel`` is even.
    """
    high, wide = ((kernel - length) % 2 for length in x.shape[1:3])
    if high != wide:
        x = layers.ZeroPadding2D(((0, high), (0, wide)), name=f"{name}_pad")(x)
    padding = "same" if high and wide else "valid"
    return layers.MaxPooling2D(kernel, 2, padding, name=f"{name}_pool")(x)


def local_response(x, k: float, n: int, alpha: float, beta: float, *, name):
    """x / (k + alpha * the sum of x^2 over n adjacent channels, n odd) ^ beta.

    Krizhevsky, Sutskever, Hinton 2012, section 3.3; Caffe and torch divide alpha by n.
    """
    # Scaled before it is squared, which float16 could not hold. Told "channels_first", padding and
    # pooling act on (w, c). The power is exp(-beta log), as LiteRT has int8 kernels for both, and
    # for neither a power nor its own normalization.
    s = layers.Rescaling((alpha * n) ** 0.5, name=f"{name}_lrn_scale")(x)
    s = layers.Multiply(name=f"{name}_lrn_square")([s, s])
    across = {"data_format": "channels_first"}
    s = layers.ZeroPadding2D((0, n // 2), **across, name=f"{name}_lrn_pad")(s)
    s = layers.AveragePooling2D((1, n), 1, **across, name=f"{name}_lrn_pool")(s)
    s = layers.Rescaling(1.0, k, name=f"{name}_lrn_offset")(s)
    s = ops.log(s)
    # Keras numbers such nodes by process; equal networks are to be equal files.
    s._keras_history.operation.name = f"{name}_lrn_log"
    s = layers.Rescaling(-beta, name=f"{name}_lrn_exponent")(s)
    s = layers.Activation("exponential", name=f"{name}_lrn_power")(s)
    return layers.Multiply(name=f"{name}_lrn")([x, s])


def squeeze_excite(x, filters: int, *, act="relu", gate="sigmoid", name):
    """Scales channels by a gate computed from their means: Hu, Shen, Sun 2018, figure 2."""
    s = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    s = plain(s, filters, act=act, name=f"{name}_reduce")
    s = plain(s, x.shape[-1], act=gate, name=f"{name}_excite")
    return layers.Multiply(name=f"{name}_scale")([x, s])


def residual_add(x, y, act: str | None = None, *, drop: float = 0.0, name):
    """x + y, then the activation; ``drop``: the branch y is left out of that share of images in
    training (stochastic depth, Huang et al. 2016)."""
    if drop:
        y = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(y)
    return activate(layers.Add(name=f"{name}_add")([x, y]), act, name)


def inverted_residual(
    x, filters, kernel, stride, middle, *, act="relu6", attend: Callable | None = None,
    drop: float = 0.0, name,
):  # fmt: skip
    """Expand to ``middle`` channels, filter depthwise, attend, project: MobileNetV2, figure 3.

    ``attend(x, name=...)`` is squeeze-and-excite or the like. (n, h, w, c) -> (n, ceil(h / stride),
    ceil(w / stride), filters), with a shortcut where shapes allow.
    """
    y = conv(x, middle, act=act, name=f"{name}_expand") if middle != x.shape[-1] else x
    y = depthwise(y, kernel, stride, act=act, name=f"{name}_depthwise")
    y = attend(y, name=name) if attend else y
    y = conv(y, filters, act=None, name=f"{name}_project")
    same = stride == 1 and filters == x.shape[-1]
    return residual_add(x, y, drop=drop, name=name) if same else y


def towers(x, *rows, unit=conv, stride=1, padding=None, name):
    """Rows of convolutions side by side, of one input: a list of (n, h / stride, w / stride, c).

    A row is the (filters, kernel) of its convolutions; the last of it has stride and padding.
    """
    ends = []
    for i, row in enumerate(rows, 1):
        y = x
        for j, (filters, kernel) in enumerate(row, 1):
            last = {"stride": stride, "padding": padding} if j == len(row) else {}
            y = unit(y, filters, kernel, **last, name=f"{name}_{i}_{j}")
        ends.append(y)
    return ends


def concatenate(branches, name):
    """The branches' channels behind each other."""
    return layers.Concatenate(name=f"{name}_concat")(branches)


def classifier(x, classes: int | None, dropout: float = 0.0):
    """Global average pooling and a dense layer: (n, h, w, c) -> logits (n, classes).

    With ``classes`` None it stops at the pooled features, (n, c). It may be given these as well.
    """
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    if classes is None:
        return x
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout")(x)
    return layers.Dense(classes, name="head")(x)
