"""Quantization-aware training: the network learns with the rounding that int8 will do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kzoo.compress.clusters import Clusters
from kzoo.compress.masks import Masks
from kzoo.compress.ranges import baked, rounding, spread
from kzoo.compress.tune import PHASE, Compressed, tune
from kzoo.data.dataset import Dataset
from kzoo.errors import UsageError, one_of
from kzoo.learn.phase import Phase
from kzoo.learn.projection import Projection
from kzoo.network.model_file import read_notes

if TYPE_CHECKING:
    import keras

ROUNDED_PHASE = replace(PHASE, learning_rate=1e-4)
"""A third of the rate of other compressions: a higher one moves weights by more than rounding."""
RANGES = ("average", "learned")


def qat(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    ranges: str = "average",
    freeze: float = 0.5,
    keep: bool = True,
    phases: Sequence[Phase | Mapping[str, object]] = (ROUNDED_PHASE,),
    **training: object,
) -> Compressed:
    """Trains a network whose weights and activations are rounded as in its int8 file.

    Its graph is first made one of LiteRT's operators: BatchNormalization is folded, and where
    LiteRT rounds, the network does (Jacob et al. 2018, arXiv:1712.05877, section 3). Weights are
    rounded per output channel, symmetrically; activations in ranges. Nothing has to be annotated;
    between operators that LiteRT has none for, such as GroupNormalization, their result is rounded.

    The file is a plain Keras model with the rounded weights. Its notes hold the ranges, and
    `kzoo.quantize` takes them in place of calibrated ones: the .tflite computes what was trained.

    Args:
        model: a trained functional Keras model or its file, from kzoo or from elsewhere.
        data: as for `kzoo.finetune`; the split is by default the one that the model was trained on.
        ranges: "average", moving averages of the batches' extremes; "learned", these times trained
            factors, for activations and for the steps of weights (Jain et al. 2020,
            arXiv:1903.08066; Esser et al. 2020, arXiv:1902.08153).
        freeze: the averages stand still from this share of all steps on, [0, 1].
        keep: zeros of the model stay zeros, and what shares a value goes on sharing one.
        phases: as for `kzoo.finetune`; a third of the usual rate of a compression by default.
        training: as for `kzoo.prune`.

    Returns:
        ``training.evaluation`` is of the rounding network, ``training.model`` the plain one.

    Raises:
        As `kzoo.prune`.
    """
    one_of("ranges", ranges, RANGES)
    if not isinstance(freeze, (int, float)) or not 0 <= freeze <= 1:
        raise UsageError(f"freeze is a share of all steps, [0, 1]; {freeze!r} was given")
    plain = {}
    rounded_before = bool(isinstance(model, (str, os.PathLike)) and read_notes(model).get("ranges"))

    def prepare(opened: keras.Model) -> keras.Model:
        plain["model"] = spread(opened)
        kept = Clusters(plain["model"], None) if keep and not rounded_before else None
        plain["whole"] = frozenset(kept.few if kept else ())
        return rounding(plain["model"], learned=ranges == "learned", whole=plain["whole"])

    def held(network: keras.Model) -> Ranges:
        kept = []
        if keep:
            kept = [Masks(network, None)]
            kept += [] if rounded_before else [Clusters(network, None)]
        return Ranges(network, plain["model"], freeze, kept, plain["whole"])

    return tune(model, data, held, prepare, phases=phases, **training)


class Ranges(Projection):
    """Stops the ranges of a rounding network in time, and holds its weights to what they were.

    Args:
        network: from `kzoo.compress.ranges.rounding`.
        plain: what it was made of.
        freeze: as in `qat`.
        kept: what else holds the weights.
        whole: layers of one step, as `rounding` was given them.
    """

    def __init__(self, network, plain, freeze, kept, whole):
        from kzoo.compress.fake_quant import Range

        self.network, self.plain, self.freeze = network, plain, freeze
        self.kept, self.whole = kept, whole
        self.layers = [
            layer for layer in network.layers if isinstance(layer, Range) and not layer.fixed
        ]
        self.recipe = {"ranges": freeze, "kept": [each.recipe for each in kept]}
        self.settled = freeze >= 1

    @contextlib.contextmanager
    def attached(self, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
        """As `Projection`."""
        with contextlib.ExitStack() as stack:
            for each in self.kept:
                stack.enter_context(each.attached(optimizer))
            yield

    def update(self, step: int, total: int) -> None:
        """As `Projection`."""
        # The first batch gives the ranges in any case.
        if not self.settled and step >= max(1, self.freeze * total):
            self.settled = True
            for layer in self.layers:
                layer.rate.assign(0.0)

    def project(self) -> None:
        """As `Projection`."""
        for each in self.kept:
            each.project()

    def finished(self, model: keras.Model) -> tuple[keras.Model, dict]:
        """The plain network with the rounded weights, and the ranges."""
        ranges = baked(model, self.plain)
        return self.plain, {"ranges": ranges, "whole": sorted(self.whole)}
