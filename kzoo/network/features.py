"""Where a network is cut: its stages, the features that enter its classifier, its logits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kzoo.errors import BadInputError, UsageError, nearest
from kzoo.network.graph import calls, graph_of

if TYPE_CHECKING:
    import keras

STAGE = re.compile(r"(stage\d+)_\d+(_\w+)?")


def stage_features(model: keras.Model) -> keras.Model:
    """A model with the same input and weights that gives the last output of every stage.

    The ImageNet networks have four: "stage1" (n, h / 4, w / 4, c) to "stage4" (n, h / 32, w / 32,
    c); Lin et al. 2017 build their pyramid on these.

    Returns:
        A model with a dict of outputs, in the order of the stages.

    Raises:
        BadInputError: no layer is named by the rule ``stage{i}_{j}*``.
    """
    import keras

    last = _stages(model)
    if not last:
        raise BadInputError(
            f"{model.name} has no layer named stage1_1*, stage2_1*, ...: its stages are unknown"
        )
    return keras.Model(model.inputs[0], last, name=f"{model.name}_stages")


def cut_names(model: keras.Model) -> list[str]:
    """Where a functional classifier can be cut, from its input on: "stage1", ..., "head", "logits".

    "stage1", "stage2", ... are the last outputs of the stages, as `stage_features` gives them;
    "head" is what enters the classifier, the last layer with weights; "logits" is the output, also
    where that is probabilities.
    """
    return [*_stages(model), "head", "logits"]


def cut_tensors(model: keras.Model, cuts: Sequence[str]) -> dict[str, keras.KerasTensor]:
    """The tensors of a functional classifier at some of its cuts, see `cut_names`.

    Raises:
        UsageError: the network has no such cut.
        BadInputError: "head" is asked of a network that does not end in one classifying layer.
    """
    stages, known = _stages(model), cut_names(model)
    for cut in cuts:
        if cut not in known:
            raise UsageError(
                f"{model.name} cannot be cut at {cut!r}{nearest(cut, known)} "
                f"(its cuts are {', '.join(known)})"
            )
    own = {
        "head": lambda model: _classifier(model).input_tensors[0],
        "logits": lambda model: model.outputs[0],
    }
    return {cut: own[cut](model) if cut in own else stages[cut] for cut in cuts}


def classifier_model(model: keras.Model) -> keras.Model:
    """The last layer with weights and what stands behind it: features at "head" -> the output.

    It shares its layers with ``model``; auxiliary heads are no part of it.

    Raises:
        BadInputError: the network does not end in one classifying layer.
    """
    import keras

    return keras.Model(
        _classifier(model).input_tensors[0], model.outputs[0], name=f"{model.name}_classifier"
    )


def classifier_layer(model: keras.Model) -> keras.Layer:
    """The last layer with weights; raises BadInputError as `classifier_model`."""
    return _classifier(model).operation


def _classifier(model: keras.Model):
    """The call of the layer that classifies."""
    makers = {id(output): node for node in calls(model) for output in node.outputs}
    node = makers[id(model.outputs[0])]
    # Behind it stand an activation, a pooling or a softmax at most.
    while not getattr(node.operation, "weights", ()) and len(node.input_tensors) == 1:
        if id(node.input_tensors[0]) not in makers:
            break
        node = makers[id(node.input_tensors[0])]
    if len(node.input_tensors) != 1 or graph_of(node.operation):
        raise BadInputError(
            f"the classifier of {model.name} is unknown: {node.operation.name!r} is no single "
            "layer; cut the network at a stage or at its logits"
        )
    return node


def _stages(model: keras.Model) -> dict[str, keras.KerasTensor]:
    last = {}
    for operation in model.operations:
        if found := STAGE.fullmatch(operation.name):
            last[found[1]] = operation.output
    return dict(sorted(last.items(), key=lambda stage: int(stage[0].removeprefix("stage"))))
