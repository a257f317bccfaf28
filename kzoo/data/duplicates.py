"""Files with the same bytes: harmless on one side of a split, a leak or a wrong label otherwise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from kzoo.data.item import Problem
from kzoo.data.rows import Entry


def duplicates(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The groups of two or more entries of one content, in the order of their first files."""
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.sha256].append(entry)
    return [group for group in groups.values() if len(group) > 1]


def suspicious(groups: Sequence[Sequence[Entry]]) -> list[Problem]:
    """Notes on the groups under two labels, and on those in two of the splits the source gives."""
    notes = []
    for first, *others in groups:
        other = next((each for each in others if each.label != first.label), None)
        if other:
            reason = (
                f"labelled {first.label!r}, and {other.path!r} with the same bytes "
                f"{other.label!r}; remove the wrong one"
            )
            notes.append(Problem(first.path, "note", reason))
        other = next((each for each in others if each.split != first.split), None)
        if other:
            reason = (
                f"in {first.split}, and {other.path!r} with the same bytes in {other.split}: "
                "a leak; remove one"
            )
            notes.append(Problem(first.path, "note", reason))
    return notes
