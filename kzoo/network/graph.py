"""The calls that make up a Keras model, read from Keras' private records in this file alone."""

from __future__ import annotations

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
