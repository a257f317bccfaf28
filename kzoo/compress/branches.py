"""Residual branches: which there are, what the outputs would be without, and a network without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.graph import Call, producer, replay
from kzoo.errors import UsageError
from kzoo.learn.heads import log_softmax
from kzoo.network.graph import calls, run
from kzoo.network.model_file import gives_probabilities
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

    from kzoo.data.dataset import Dataset

IMAGES, BATCH = 256, 64


@dataclass(frozen=True)
class Branch:
    """An addition of a tensor and of what a branch makes of that tensor alone.

    Attributes:
        node: the call of the Add.
        shortcut: the place of the tensor itself among its inputs, 0 or 1.
    """

    node: object
    shortcut: int

    @property
    def name(self) -> str:
        """That of the Add."""
        return self.node.operation.name


def branches(model: keras.Model) -> list[Branch]:
    """The residual branches of a flat model, in the order of computation."""
    found = []
    for node in calls(model):
        if type(node.operation).__name__ != "Add" or len(node.input_tensors) != 2:
            continue
        for place in (0, 1):
            if _made_of(node.input_tensors[1 - place], node.input_tensors[place]):
                found.append(Branch(node, place))
                break
    return found


def _made_of(tensor, source) -> bool:
    """Whether a tensor is computed from another, and from nothing else of the network."""
    seen, left = set(), [tensor]
    if tensor is source:
        return False
    while left:
        now = left.pop()
        if now is source or id(now) in seen:
            continue
        seen.add(id(now))
        node = producer(now)
        if node is None or not node.input_tensors:  # the image, or a constant
            return False
        left += node.input_tensors
    return True


def without_branches(
    model: keras.Model, count: int, data: Dataset, seed: int = 0, progress: Progress = silent
) -> tuple[keras.Model, list[str]]:
    """Removes the residual branches that the outputs change least without, one after the other.

    The change is the mean divergence KL(before || after) of the classes' probabilities on training
    images, each time to those of the whole network. What is left of an addition is its shortcut.
    Residual networks do without some branches even untrained for it (Veit et al. 2016,
    arXiv:1605.06431, section 4.1).

    Args:
        model: flat.
        count: how many.
        data: whose training images, at most `IMAGES`, are looked at.
        seed: of their choice.
        progress: called after each branch that was tried.

    Returns:
        The network, and the names of the additions, the first to go first.

    Raises:
        UsageError: it has fewer.
    """
    every = branches(model)
    if len(every) < count:
        raise UsageError(
            f"{model.name} has {len(every)} residual branches whose shortcut is the identity; "
            f"{count} cannot be removed"
        )
    if not count:
        return model, []
    logarithms = _measured(model, every, data, seed)
    whole = logarithms([])
    gone: list[int] = []
    total, done = sum(len(every) - i for i in range(count)), 0
    for _ in range(count):
        effects = {}
        for i in set(range(len(every))) - {*gone}:
            now = logarithms([*gone, i])
            effects[i] = float((np.exp(whole) * (whole - now)).sum(axis=1).mean())
            done += 1
            progress("residual branches", done, total)
        gone.append(min(effects, key=effects.get))
    removed = {id(every[i].node): every[i].shortcut for i in gone}

    def visit(call: Call):
        if id(call.node) in removed:
            return call.new(call.node.input_tensors[removed[id(call.node)]])
        return call.repeat()

    return replay(model, visit), [every[i].name for i in gone]


def _measured(model: keras.Model, every: Sequence[Branch], data: Dataset, seed: int):
    """Gives the log-probabilities (n, classes) on training images without some of the branches."""
    import keras

    places = {id(branch.node): i for i, branch in enumerate(every)}

    class Switched(keras.Model):
        def __init__(self):
            super().__init__()
            self.switches = self.add_weight(
                shape=(len(every),), initializer="ones", trainable=False
            )
            self.built = True

        # Without an argument ``training``, all layers inside are called as for prediction.
        def call(self, pixels):
            def visit(node, *args, **kwargs):
                i = places.get(id(node))
                if i is None:
                    return node.operation(*args, **kwargs)
                pair = keras.tree.flatten(args)
                shortcut = pair[every[i].shortcut]
                added = pair[1 - every[i].shortcut]
                return shortcut + keras.ops.cast(self.switches[i], added.dtype) * added

            return run(model, [pixels], visit)[0]

    switched = Switched()
    chosen = np.sort(data.order("train", seed, 0)[:IMAGES])
    images = data.images[chosen].astype(np.float32)
    probable = gives_probabilities(model)

    def logarithms(without: Sequence[int]) -> np.ndarray:
        switches = np.ones(len(every), np.float32)
        switches[without] = 0
        switched.switches.assign(switches)
        found = np.asarray(switched.predict(images, batch_size=BATCH, verbose=0), np.float64)
        return np.log(np.maximum(found, 1e-12)) if probable else log_softmax(found)

    return logarithms
