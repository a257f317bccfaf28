"""What holds weights to a form while they are trained: to zeros, to shared values."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


class Projection:
    """Leaves all weights free; `kzoo.compress` has those that do not.

    `Loop` attaches it to the optimizer of every phase and updates it before every step.
    """

    recipe: object = None
    """What of it decides the weights, as JSON values."""
    settled: bool = True
    """Whether the form has its final strictness: the weights of an epoch before are no result."""

    def attached(
        self,
        optimizer: keras.optimizers.Optimizer,  # noqa: ARG002
    ) -> contextlib.AbstractContextManager:
        """Holds the weights inside the optimizer's compiled step, which is not compiled yet.

        What changes with the steps are variables of the optimizer: they are part of the compiled
        step's state on every backend, and of checkpoints.
        """
        return contextlib.nullcontext()

    def update(self, step: int, total: int) -> None:
        """Called before every step, numbered from 0, of so many in all phases."""

    def project(self) -> None:
        """Brings weights that were set from outside, averaged ones say, to the form."""

    def finished(self, model: keras.Model) -> tuple[keras.Model, dict]:
        """What is written of the trained model, and what its notes tell besides."""
        return model, {}
