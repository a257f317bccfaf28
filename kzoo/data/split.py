"""Which image is for training, validation or test: stratified, stable, and without leakage.

Within a class, contents are ordered by a hash of the seed and the content and cut at the fractions.
So a new photo moves at most two others across a cut, and identical files stay on the same side.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from kzoo.errors import BadInputError, KzooError, UsageError
from kzoo.files import read_json, write_json

SPLITS = ("train", "validation", "test")


class Labelled(Protocol):
    """What a split is made of: a class, the split the source gives or "", a content's hash."""

    label: str
    split: str
    sha256: str


def split_name(name: str) -> str:
    """The split that ``name`` means ("val" and "valid" are validation), or ""."""
    name = name.strip().lower()
    return {"val": "validation", "valid": "validation"}.get(name, name if name in SPLITS else "")


def check_fractions(validation: float, test: float) -> None:
    """Raises UsageError unless both are in [0, 1) and leave something to train on."""
    for name, value in (("validation", validation), ("test", test)):
        if not 0 <= value < 1:
            raise UsageError(
                f"{name} is a fraction in [0, 1), not {value!r}; 0.15 keeps 15 % for it"
            )
    if validation + test >= 1:
        raise UsageError(
            f"validation {validation} and test {test} leave nothing to train on; "
            "their sum must be below 1"
        )


def carved(given: set[str], validation: float, test: float) -> tuple[float, float]:
    """The fractions of the training images that go to (validation, test).

    Splits the source gives are kept as they are. Without a given validation one is carved out of
    train; a test set is carved only if the source gives neither.
    """
    if "validation" in given:
        return 0.0, 0.0
    return (validation, 0.0) if "test" in given else (validation, test)


def check_classes(labels: Sequence[tuple[str, str]], validation: float, test: float) -> None:
    """Checks (class, given split) of each image before anything is decoded.

    Raises:
        BadInputError: some images have a given split and others have none, there are fewer than two
            classes, or one has too few images to train on and to fill the splits carved out of it.
    """
    given = {split for _, split in labels}
    if "" in given and len(given) > 1:
        count = sum(not split for _, split in labels)
        raise BadInputError(f"{count} of {len(labels)} images have no split; give all one, or none")
    if given != {""} and "train" not in given:
        raise BadInputError(
            f"all images are in {' and '.join(sorted(given))}; none is for training"
        )
    classes = sorted({label for label, _ in labels})
    if len(classes) < 2:
        raise BadInputError(
            f"only one class, {classes[0]!r}; a classifier needs two or more "
            "(a dataset's folder has one sub-folder per class)"
        )
    counts = Counter(label for label, split in labels if split in ("", "train"))
    for label in classes:
        _check_count(label, counts[label], *carved(given, validation, test))


def _check_count(label: str, count: int, validation: float, test: float) -> None:
    wanted = ["train", *["validation"] * (validation > 0), *["test"] * (test > 0)]
    if count >= len(wanted):
        return
    zero = " and ".join(f"{name}=0" for name in wanted[1:])
    raise BadInputError(
        f"class {label!r} has {count} different image{'' if count == 1 else 's'} for "
        f"{', '.join(wanted)}, and each needs one at least; add images to it"
        + (f", or ask for fewer splits ({zero})" if zero and count else ", or remove the class")
    )


def boundaries(count: int, validation: float, test: float) -> tuple[int, int]:
    """Where ``count`` ordered contents are cut: test is [0, a), validation [a, b), train the rest.

    Rounded to the nearest, with one at least for each fraction above 0 and for train. One more
    content moves each cut by 0 or 1, which is what keeps a split stable.
    """
    first = max(math.floor(test * count + 0.5), int(test > 0))
    second = max(math.floor((test + validation) * count + 0.5), first + int(validation > 0))
    second = min(second, count - 1)
    return min(first, second - int(validation > 0)), second


def split(
    images: Sequence[Labelled], *, validation: float, test: float, seed: int
) -> dict[str, np.ndarray]:
    """Divides ``images`` and returns {"train", "validation", "test"}: sorted int64 indices.

    A content that stands under two labels is never used to judge a model: it stays in train.

    Raises:
        BadInputError: a class has too few different images for the splits asked.
    """
    given = {image.split for image in images} - {""}
    validation, test = carved(given, validation, test)
    side = [image.split or "train" for image in images]
    labels_of = defaultdict(set)
    by_class: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, image in enumerate(images):
        if side[index] == "train":
            labels_of[image.sha256].add(image.label)
            by_class[image.label][image.sha256].append(index)
    for label, contents in by_class.items():
        free = [content for content in contents if len(labels_of[content]) == 1]
        if not validation and not test:
            continue
        _check_count(label, len(free), validation, test)
        free.sort(key=lambda content: hashlib.sha256(f"{seed}:{content}".encode()).digest())
        first, second = boundaries(len(free), validation, test)
        for rank, content in enumerate(free[:second]):
            for index in contents[content]:
                side[index] = "test" if rank < first else "validation"
    return {
        name: np.array([i for i, s in enumerate(side) if s == name], np.int64) for name in SPLITS
    }


def stored_split(
    folder: Path, images: Sequence[Labelled], *, validation: float, test: float, seed: int
) -> dict[str, np.ndarray]:
    """As `split`, kept as JSON in ``folder`` and read back from there the next time."""
    file = folder / f"{seed}-{float(validation)!r}-{float(test)!r}.json"
    # A missing or damaged file is made again.
    with contextlib.suppress(OSError, KzooError, KeyError, TypeError, ValueError):
        kept = {name: np.array(read_json(file)[name], np.int64) for name in SPLITS}
        if np.array_equal(np.sort(np.concatenate(list(kept.values()))), np.arange(len(images))):
            return kept
    made = split(images, validation=validation, test=test, seed=seed)
    folder.mkdir(exist_ok=True)
    write_json(file, {name: indices.tolist() for name, indices in made.items()})
    return made
