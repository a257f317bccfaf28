"""The errors a user can cause. Each carries the exit code that the command line ends with.

A message says what was given, what was expected, and what to type instead. Standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class KzooError(Exception):
    """A failure that is explained by its message; the command line shows no traceback for it.

    Exit code 1 is no error's: it says that the work was done and a gate was not met.
    """

    exit_code = 4


class UsageError(KzooError):
    """A wrong argument, an unknown name, an output that exists (exit code 2)."""

    exit_code = 2


class MissingError(KzooError):
    """A file, a package, a device or disk space is missing (exit code 3)."""

    exit_code = 3


class BadInputError(KzooError):
    """A model or a dataset is damaged, unsafe or does not fit (exit code 4)."""


def nearest(given: str, known: Iterable[str], count: int = 3) -> str:
    """Returns ``"; did you mean a, b?"`` for the names closest to ``given``, or ``""``."""
    close = difflib.get_close_matches(given, list(known), n=count, cutoff=0.5)
    return f"; did you mean {', '.join(close)}?" if close else ""


def one_of(what: str, given: str, allowed: Collection[str]) -> None:
    """Raises UsageError, with the nearest, unless ``given`` is one of the words ``allowed``."""
    if given not in allowed:
        close = nearest(str(given), allowed)
        raise UsageError(f"{what} {given!r} is none of {', '.join(allowed)}{close}")
