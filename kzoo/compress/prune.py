"""Magnitude pruning: most weights become zero while the others learn to do without them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kzoo.compress.masks import Masks, Pruning
from kzoo.compress.tune import Compressed, tune
from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.training import weights_digest
from kzoo.network.model_file import opened

if TYPE_CHECKING:
    import keras


def prune(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    sparsity: float | Mapping[str, float] = 0.8,
    threshold: float | None = None,
    scope: str = "layer",
    pattern: str = "element",
    pruning_schedule: str = "polynomial",
    begin: float = 0.0,
    end: float = 0.75,
    frequency: int = 20,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    rewind: keras.Model | str | os.PathLike | None = None,
    **training: object,
) -> Compressed:
    """Sets the weights of least magnitude to zero while the others are trained.

    The zeros are exact, in every tensor of the file that is written, and of its .tflite. They make
    a download smaller where it is compressed; no runtime computes them faster. Zeros that the model
    comes with stay.

    Args:
        model: a trained functional Keras model or its file, from kzoo or from elsewhere.
        data: as for `kzoo.finetune`; the split is by default the one that the model was trained on.
        sparsity: the share of zeros in the end, [0, 1), or a share by prefix of layers.
        threshold: in place of a share: zero what is below so many standard deviations of its
            kernel.
        scope: "layer" or "global", where the share is counted.
        pattern: "element", "2:4", blocks "4x1", or "filter".
        pruning_schedule: "polynomial", "constant" or "one_shot".
        begin: of the schedule, in shares of all steps, as its ``end``.
        frequency: steps between two choices.
        include: prefixes of the layers to prune, by default all but depthwise ones, and of those to
            ``exclude``. Of all these `kzoo.compress.masks.Pruning` tells more.
        rewind: the same network in an earlier state of its training, whose weights those that are
            left go back to before they are trained: a winning ticket (Frankle et al. 2020,
            arXiv:1912.05671). All zeros are then chosen at once.
        training: as `kzoo.finetune` has it: ``phases``, ``batch_size``, ``augment``, ``seed``,
            ``output``, ...; with ``teacher`` as `kzoo.distill`. By default `kzoo.compress.tune`
            says for how long and at which rate. With ``engine="tfmot"`` TensorFlow Model
            Optimization trains instead, see `kzoo.compress.tfmot`.

    Raises:
        UsageError: an argument is wrong, a prefix fits no layer, or ``output`` exists.
        BadInputError: the model is damaged, has weights that are not finite, or does not fit.
        MissingError: a file or disk space is missing.
    """
    pruning = Pruning(
        sparsity=sparsity,
        threshold=threshold,
        scope=scope,
        pattern=pattern,
        schedule=pruning_schedule if rewind is None else "one_shot",
        begin=begin,
        end=end,
        frequency=frequency,
        include=tuple(include),
        exclude=tuple(exclude),
    )

    def held(opened_model: keras.Model) -> Masks:
        masks = Masks(opened_model, pruning)
        return masks if rewind is None else _ticket(opened_model, masks, opened(rewind))

    return tune(model, data, held, **training)


def _ticket(model: keras.Model, masks: Masks, early: keras.Model) -> Masks:
    """Takes the weights of an earlier state, without those that the trained one has least of."""
    shapes = [[weight.shape for weight in each.weights] for each in (model, early)]
    if shapes[0] != shapes[1]:
        raise BadInputError(
            "the model to rewind to is another network: its weights have other shapes"
        )
    if weights_digest(model) == weights_digest(early):
        raise UsageError("the model to rewind to is the trained one; give an earlier state of it")
    masks.choose()
    model.set_weights(early.get_weights())
    masks.project()
    kept = Masks(model, None)
    kept.recipe = {**masks.recipe, "rewind": weights_digest(early)}
    return kept
