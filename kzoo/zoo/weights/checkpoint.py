"""What a file of weights holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Checkpoint:
    """Arrays, and what else their file tells of the network.

    Attributes:
        arrays: name → float32 array, see `kzoo.zoo.weights.read.read_checkpoint`.
        kinds: layer → its class, of layers of which the file tells no order between classes.
        normalization: scale and offset, (channels,) or (1,) each: what the network's first layers
            make of a pixel. None where the file does not tell.
    """

    arrays: Mapping[str, np.ndarray]
    kinds: Mapping[str, str] = field(default_factory=dict)
    normalization: tuple[np.ndarray, np.ndarray] | None = None
