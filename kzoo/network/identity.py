"""What a network computes, as a hash: its calls, their settings and its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras

UNSEEN = ("name", "trainable")
"""Entries of a layer's config that no inference depends on."""


def tensor_digests(model: keras.Model, tensors: Sequence[keras.KerasTensor]) -> list[str]:
    """The SHA-256 of all that decides each of the ``tensors`` of a functional model.

    These are the layers before it, their settings, weights and connections. What the layers are
    called, whether they are frozen, and what stands behind the tensor does not count: a network
    that got another head has the same stages.
    """
    import keras

    of_tensor: dict[int, str] = {}
    of_operation: dict[object, str] = {}

    def plain(value: object) -> object:
        if id(value) in of_tensor:
            return of_tensor[id(value)]
        if isinstance(value, np.ndarray):
            return value.tolist()
        return keras.saving.serialize_keras_object(value)

    def described(operation) -> str:
        config = {k: v for k, v in operation.get_config().items() if k not in UNSEEN}
        kind = f"{type(operation).__module__}.{type(operation).__qualname__}"
        state = hashlib.sha256(_json([kind, config], plain))
        for weight in getattr(operation, "weights", ()):
            array = np.ascontiguousarray(weight)
            state.update(f"{array.dtype}{array.shape}".encode())
            state.update(array)
        return state.hexdigest()

    for node in calls(model, inputs=True):
        operation, given = node.operation, node.arguments
        if operation not in of_operation:
            of_operation[operation] = described(operation)
        call = _json([of_operation[operation], given.args, given.kwargs], plain)
        for i, output in enumerate(node.outputs):
            of_tensor[id(output)] = hashlib.sha256(call + str(i).encode()).hexdigest()
    return [of_tensor[id(tensor)] for tensor in tensors]


def _json(value: object, plain) -> bytes:
    return json.dumps(value, sort_keys=True, default=plain).encode()
