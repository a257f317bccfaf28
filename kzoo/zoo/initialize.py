"""Variables without values, and the values drawn into them.

Keras draws each weight by itself when its layer is built, with several backend operations. Built
without values and filled by NumPy, most networks are made in some 60 % of the time
(tools/bench/build.py).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 1 << 16
"""Numbers drawn and scaled while they are in the processor's cache."""
_MOST = 1 << 20
"""Of more numbers a copy costs more than the backend's operations: it draws them itself."""


@contextlib.contextmanager
def without_values() -> Iterator[list]:
    """Variables made inside have shape and initializer, and no value.

    Gives a list that holds them, in the order in which they were made, when the block has ended.
    """
    import keras
    from keras.src.backend.common import global_state

    made: list = []
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield made
        made += global_state.get_global_attribute("uninitialized_variables", [])
    finally:
        # Else the next scope that ends, in an unrelated model, would allocate them all.
        global_state.set_global_attribute("uninitialized_variables", [])


def initialize(variables: Collection) -> None:
    """Draws the values of variables made in `without_values`, each as its initializer says.

    The numbers come from a generator that NumPy's global one seeds, which
    ``keras.utils.set_random_seed`` seeds in turn.

    Raises:
        MemoryError: the machine has not as much; nothing was allocated.
    """
    import keras
    import numpy as np

    needed = np.float32().itemsize * sum(math.prod(variable.shape) for variable in variables)
    if needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise MemoryError(f"{needed:,} bytes of weights")
    random = np.random.Generator(np.random.SFC64(np.random.randint(0, 1 << 32, 4, np.uint32)))
    for variable in variables:
        # What Keras itself does when a scope ends, with the value in place of the initializer.
        value = keras.ops.convert_to_tensor(_value(variable, random), variable.dtype)
        variable._initialize(value)
        variable._initializer = None


def _value(variable, random: np.random.Generator):
    import keras
    import numpy as np
    from keras import initializers

    initializer, shape = variable._initializer, tuple(variable.shape)
    scaling = isinstance(initializer, initializers.VarianceScaling)
    small = len(shape) > 1 and math.prod(shape) <= _MOST
    if scaling and initializer.distribution == "uniform" and small:
        return _uniform(initializer, shape, random)
    if isinstance(initializer, (initializers.Zeros, initializers.Ones)):
        return np.full(shape, isinstance(initializer, initializers.Ones), np.float32)
    # Not every initializer can do with 16 bits: there is no such QR decomposition.
    whole = not keras.backend.is_float_dtype(variable.dtype)
    return initializer(shape, dtype=variable.dtype if whole else "float32")


def _uniform(initializer, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Uniform numbers of the variance ``scale / fan`` (He et al. 2015, section 2.2), float32.

    Of the one generator: `kzoo.build`'s seed decides all draws, and no builder gives an initializer
    a seed of its own.
    """
    import numpy as np

    *window, into, out = shape
    fans = {"fan_in": into, "fan_out": out, "fan_avg": (into + out) / 2}
    limit = math.sqrt(3 * initializer.scale / (fans[initializer.mode] * math.prod(window)))
    drawn = np.empty(math.prod(shape), np.float32)
    for start in range(0, drawn.size, _BLOCK):
        block = drawn[start : start + _BLOCK]
        random.random(out=block, dtype=np.float32)
        block -= 0.5
        block *= 2 * limit
    return drawn.reshape(shape)
