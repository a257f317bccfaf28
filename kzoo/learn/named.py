"""What Keras has by name: optimizers, schedules, augmentation layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from kzoo.errors import UsageError, nearest


def named(
    module: ModuleType,
    base: type,
    what: str,
    chosen: str | Mapping[str, object],
    *,
    also: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Callable:
    """A function that makes the chosen class with the user's arguments and those it is given.

    Args:
        module: of Keras.
        base: the class that those meant derive from.
        what: the word for it, in messages.
        chosen: a name, as the class's or in snake case, or a mapping of ``name`` and arguments.
        also: further names to tell of.
        without: classes of the module that are not offered.

    Raises:
        UsageError: an unknown name, with the nearest; when called, a wrong argument.
    """
    settings = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    name = str(settings.pop("name", ""))
    classes = {
        short(key): value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value is not base
        and key not in without
    }
    if short(name) not in classes:
        known = sorted({*classes, *also})
        raise UsageError(
            f"no {what} of Keras is called {name!r}{nearest(short(name), known)} "
            f"(known: {', '.join(known)})"
        )

    def make(**arguments):
        try:
            return classes[short(name)](**{**arguments, **settings})
        except (TypeError, ValueError) as error:
            raise UsageError(f"{what} {name!r}: {error}") from error

    return make


def short(name: str) -> str:
    """``CosineDecay``, ``cosine_decay`` and ``cosine`` are one name, as ``AdamW`` and ``adamw``."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()
    return snake.replace("_decay", "")
