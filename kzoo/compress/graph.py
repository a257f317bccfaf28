"""A model's graph, replayed call by call: the one structure that all compression works on.

Keras and NumPy alone. Private names of Keras are used here and in `kzoo.network.graph`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import BadInputError
from kzoo.network.graph import calls, graph_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Call:
    """One call of a layer or of a `keras.ops` function on its way into a new model.

    Attributes:
        node: Keras' record of the call in the old model: ``operation``, ``input_tensors``,
            ``outputs``, and ``arguments`` with their ``args`` and ``kwargs``.
        new: gives the new model's tensor that stands for a tensor of the old one.
        repeat: ``repeat(weights=None, kind=None, **config)`` makes the call in the new model and
            returns its outputs. The layer is copied, as one of another class if ``kind`` is given,
            with these weights (by default its own, which come first) and these entries of its
            config changed. All calls of a layer share the copy that the first one made.
    """

    node: object
    new: Callable
    repeat: Callable


def replay(
    model: keras.Model, visit: Callable[[Call], object] = lambda call: call.repeat()
) -> keras.Model:
    """Builds a model anew, in the order of computation, where ``visit`` decides on every call.

    ``visit`` returns what stands for the call's outputs: ``call.repeat()`` copies the call,
    ``call.new(call.node.input_tensors[0])`` leaves it out, and any function of new tensors replaces
    it. What no output needs afterwards does not become part of the new model.

    Models inside the model are opened, so that ``visit`` sees one flat graph. Names stay, except
    where a layer inside a nested model has the name of another: it gets its model's name in front.
    A layer that is called several times stays shared. The new model has weights of its own and is
    not compiled.

    Args:
        model: functional or Sequential, with any inputs and outputs; it stays as it is.
        visit: as above; by default it copies.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    import keras

    graph = graph_of(model)
    if graph is None:
        raise BadInputError(
            f"{model.name} is a {type(model).__name__} whose graph is not known; a functional "
            "model, or a Sequential that begins with keras.Input, is needed"
        )
    names = Counter(operation.name for operation in _operations(graph))
    copies = {}

    def repeat(operation, path, args, kwargs, weights=None, kind=None, **config):
        if operation not in copies:
            name = "_".join([*path, operation.name])
            named = {"name": name} if path and names[operation.name] > 1 else {}
            config = operation.get_config() | named | config
            copies[operation] = (kind or type(operation)).from_config(config), weights
        return copies[operation][0](*args, **kwargs)

    def run(graph, inputs, path, context):
        tensors = {id(old): new for old, new in zip(graph.inputs, inputs, strict=True)}

        def new(tensor):
            return tensors[id(tensor)]

        for node in calls(graph):
            operation, (args, kwargs) = node.operation, node.arguments.fill_in(tensors)
            # A nested model passes the training=False of its call on to its layers.
            if "training" in getattr(operation, "_call_context_args", ()):
                kwargs = kwargs | context
            if inner := graph_of(operation):
                given = args[0] if args else kwargs["inputs"]
                if isinstance(given, dict) and not isinstance(inner._inputs_struct, dict):
                    given = [given[tensor.name] for tensor in inner.inputs]
                asked = {key: kwargs[key] for key in ("training",) if kwargs.get(key) is not None}
                found = run(inner, keras.tree.flatten(given), (*path, operation.name), asked)
            else:
                found = visit(Call(node, new, partial(repeat, operation, path, args, kwargs)))
            found = keras.tree.flatten(found)
            tensors |= {id(old): new for old, new in zip(node.outputs, found, strict=True)}
        return keras.tree.map_structure(new, graph._outputs_struct)

    def entry(tensor):
        layer = tensor._keras_history.operation
        return type(layer).from_config(layer.get_config()).output

    inputs = keras.tree.map_structure(entry, graph._inputs_struct)
    outputs = run(graph, keras.tree.flatten(inputs), (), {})
    for old, (new, weights) in copies.items():
        if weights is not None:
            new.set_weights(weights)
            continue
        own = getattr(old, "variables", ())
        for source, target in zip(own, getattr(new, "variables", ())[: len(own)], strict=True):
            target.assign(source)
        if hasattr(new, "finalize_state"):  # Normalization keeps tensors made of its variables
            new.finalize_state()
    return keras.Model(inputs, outputs, name=model.name)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Folds every BatchNormalization into the convolution or dense layer in front of it.

    The layer (Conv2D, DepthwiseConv2D, SeparableConv2D or Dense) gets a scaled kernel and a bias
    and computes alone what both computed at inference: Jacob et al. 2018 (arXiv:1712.05877),
    section 3.2, equation 14. Left alone is a BatchNormalization whose input has another reader,
    that has an activation or padding in front, that was called with ``training=True``, or that
    comes first, as in DenseNet: behind it a convolution pads zeros that were never normalized.

    Args:
        model: functional or Sequential; it stays as it is.

    Returns:
        A new model, flat as `replay` makes it, with the names of the layers that are left.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    model = flat(model)
    norms = norm_behind(model)
    gone = {node for nodes in norms.values() for node in nodes}

    def visit(call: Call):
        layer = call.node.operation
        if layer in norms:
            return call.repeat(folded(layer, norms[layer][0].operation), use_bias=True)
        return call.new(call.node.input_tensors[0]) if call.node in gone else call.repeat()

    return replay(model, visit)


def norm_behind(model: keras.Model) -> dict[object, list]:
    """Of a flat model the layers that a BatchNormalization can be folded into: its calls."""
    reads, calls_of, found = readers(model), {}, {}
    for node in calls(model):
        calls_of.setdefault(node.operation, []).append(node)
    for layer, nodes in calls_of.items():
        if is_linear(layer):
            axis = 1 if getattr(layer, "data_format", "") == "channels_first" else -1
            behind = [reads[id(node.outputs[0])] for node in nodes]
            behind = [each[0] if len(each) == 1 else None for each in behind]
            # A shared layer is folded where all its calls lead to one BatchNormalization.
            one = len({node and node.operation for node in behind}) == 1
            if one and all(is_batch_norm(node, axis) for node in behind):
                found[layer] = behind
    return found


def is_linear(layer) -> bool:
    """Whether a layer is a stock convolution or dense layer of plain weights, not activated."""
    import keras

    kinds = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense")
    plain = {"kernel", "depthwise_kernel", "pointwise_kernel", "bias"}  # neither LoRA nor int8
    return (
        type(layer) in [getattr(keras.layers, kind) for kind in kinds]
        and layer.activation is keras.activations.linear
        and {weight.name for weight in layer.weights} <= plain
    )


def is_batch_norm(node, axis: int = -1) -> bool:
    """Whether a call is BatchNormalization along ``axis``, by its moving statistics."""
    import keras

    return (
        node is not None
        and type(node.operation) is keras.layers.BatchNormalization
        and (node.operation.axis - axis) % len(node.outputs[0].shape) == 0
        and not node.arguments.kwargs.get("training")
    )


def scale_and_offset(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """What a BatchNormalization multiplies by and adds at inference, float64 (c,) each."""
    import keras

    mean, variance, gamma, beta = (
        np.asarray(keras.ops.convert_to_numpy(value), np.float64) if used else unused
        for value, used, unused in (
            (norm.moving_mean, True, None),
            (norm.moving_variance, True, None),
            (norm.gamma, norm.scale, 1.0),
            (norm.beta, norm.center, 0.0),
        )
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def folded(layer, norm) -> list[np.ndarray]:
    """Weights, a bias last, by which a layer computes what it and the norm behind it did."""
    *kernels, bias = [*layer.get_weights(), *([] if layer.use_bias else [0.0])]
    scale, offset = scale_and_offset(norm)
    # The output channels are the last axis, or the last two of a depthwise kernel.
    kernels[-1] = (kernels[-1].reshape(-1, len(scale)) * scale).reshape(kernels[-1].shape)
    return [*kernels, bias * scale + offset]


def flat(model: keras.Model) -> keras.Model:
    """The model itself if it is functional and holds no models, else its replay."""
    if graph_of(model) is model and not any(graph_of(node.operation) for node in calls(model)):
        return model
    return replay(model)


def producer(tensor: keras.KerasTensor) -> object | None:
    """The call that gave a tensor; None for an input of the model."""
    operation, index, _ = tensor._keras_history
    node = operation._inbound_nodes[index]
    return None if node.is_input else node


def readers(model: keras.Model) -> dict[int, list]:
    """For the ``id`` of each tensor the calls that read it; None among them is a model's output."""
    found: dict[int, list] = {id(tensor): [] for tensor in model.inputs}
    for node in calls(model):
        for tensor in node.input_tensors:
            found[id(tensor)].append(node)
        found |= {id(tensor): [] for tensor in node.outputs}
    for tensor in model.outputs:
        found[id(tensor)].append(None)
    return found


def _operations(graph) -> set:
    """The operations of a graph and of the graphs inside it, without their inputs."""
    nested, found = [], set()
    for operation in {node.operation for node in calls(graph)}:
        (nested.append if graph_of(operation) else found.add)(operation)
    return found.union(*map(_operations, nested))
