"""Mixed precision for the time of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kzoo.network.model_file import last_operation

if TYPE_CHECKING:
    import keras

PRECISIONS = ("float32", "mixed_bfloat16")


@contextlib.contextmanager
def computed_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Lets the layers compute in bfloat16; variables and the last layer's logits stay float32.

    Micikevicius et al. 2018 (arXiv:1710.03740), with bfloat16, whose range needs no scaling of the
    loss. It helps where the hardware multiplies bfloat16: recent GPUs, TPUs, CPUs with AVX512-BF16
    or AMX; elsewhere it is slower than float32. Afterwards the layers are as they were.
    """
    last = last_operation(model)
    layers = [] if precision == "float32" else [x for x in model._flatten_layers() if x is not last]
    layers = [layer for layer in layers if not hasattr(layer, "operations")]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = precision
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy
