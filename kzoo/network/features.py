"""The outputs of a network's stages, for detection, segmentation and distillation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kzoo.errors import BadInputError

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

    last = {}
    for operation in model.operations:
        if found := STAGE.fullmatch(operation.name):
            last[found[1]] = operation.output
    if not last:
        raise BadInputError(
            f"{model.name} has no layer named stage1_1*, stage2_1*, ...: its stages are unknown"
        )
    ordered = sorted(last.items(), key=lambda stage: int(stage[0].removeprefix("stage")))
    return keras.Model(model.inputs[0], dict(ordered), name=f"{model.name}_stages")
