"""How long work reports itself: one callback, called as ``progress(task, done, total)``.

Functions take ``progress`` and print nothing; the command line gives one that draws a bar.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``(task, done, total)``: the task's name, units finished, units in all."""


def silent(task: str, done: int, total: int) -> None:
    """The default: reports nothing."""
