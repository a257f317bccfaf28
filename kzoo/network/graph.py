"""The calls that make up a Keras model, read from Keras' private records in this file alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def graph_of(operation):
    """The graph inside a functional or Sequential model; None for all else."""
    import keras

    graph = getattr(operation, "_functional", operation)
    return graph if isinstance(graph, keras.Model) and hasattr(graph, "_nodes_by_depth") else None


def calls(model: keras.Model, *, inputs: bool = False) -> list:
    """Keras' nodes of a graph in the order of computation, those of its inputs when asked.

    A layer's own list of nodes would have its calls in other models too.
    """
    levels = graph_of(model)._nodes_by_depth
    return [
        node
        for depth in sorted(levels, reverse=True)
        for node in levels[depth]
        if inputs or not node.is_input
    ]


def nested_calls(model: keras.Model) -> list:
    """The nodes of a model and, in the place of the models inside it, theirs; with all inputs."""
    found = []
    for node in calls(model, inputs=True):
        found += nested_calls(node.operation) if graph_of(node.operation) else [node]
    return found


def run(model: keras.Model, inputs: Sequence, visit: Callable) -> list:
    """Computes a model's outputs, call by call, from backend tensors or arrays.

    Args:
        model: functional or Sequential; models inside it are opened.
        inputs: what stands for each of its inputs.
        visit: ``visit(node, *args, **kwargs)`` gives what stands for the outputs of a call; it
            computes them by ``node.operation(*args, **kwargs)``.
    """
    import keras

    graph = graph_of(model)
    tensors = {id(old): new for old, new in zip(graph.inputs, inputs, strict=True)}
    for node in calls(model):
        args, kwargs = node.arguments.fill_in(tensors)
        if graph_of(node.operation):
            given = keras.tree.flatten(args or kwargs["inputs"])
            found = run(node.operation, given, visit)
        else:
            found = visit(node, *args, **kwargs)
        tensors |= {
            id(old): new for old, new in zip(node.outputs, keras.tree.flatten(found), strict=True)
        }
    return [tensors[id(output)] for output in graph.outputs]
