"""A loaded dataset: pixels, labels and splits as arrays, and what was found on the way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kzoo.data.item import Problem
from kzoo.errors import UsageError, nearest


@dataclass(frozen=True, eq=False)
class Dataset:
    """Made by `kzoo.data.load.load_data`; all arrays are read-only.

    Attributes:
        source: as the user gave it.
        classes: names, sorted; a label is an index into them.
        images: uint8 (n, h, w, c), a memmap of ``images_file``, which a child process can map too.
        labels: int64 (n,).
        paths: n file names, relative to the source.
        splits: {"train", "validation", "test"}: int64 indices into images; test may be empty.
        fingerprint: SHA-256 of pixels, labels and splits: the dataset's identity in a recipe.
        split_settings: {"seed", "validation", "test"}: what the splits were made with.
        problems: findings of validation, file by file.
        duplicates: groups of paths whose files have the same bytes.
    """

    source: str
    classes: tuple[str, ...]
    images: np.ndarray
    images_file: Path
    labels: np.ndarray
    paths: tuple[str, ...]
    splits: dict[str, np.ndarray]
    fingerprint: str
    split_settings: dict[str, float]
    problems: tuple[Problem, ...]
    duplicates: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[1:3]

    @property
    def channels(self) -> int:
        """1 for gray, 3 for RGB."""
        return self.images.shape[3]

    @property
    def evaluation_split(self) -> str:
        """The split that final numbers come from: "test" if it has images, else "validation"."""
        return "test" if len(self.splits["test"]) else "validation"

    def order(self, split: str, seed: int, epoch: int) -> np.ndarray:
        """The split's indices, int64, in the order of ``epoch``: a pure function of (seed, epoch).

        So a run resumed at an epoch sees the images as the uninterrupted run does.

        Raises:
            UsageError: there is no such split.
        """
        if split not in self.splits:
            hint = nearest(split, self.splits)
            raise UsageError(f"no split {split!r}; there are {', '.join(self.splits)}{hint}")
        return np.random.default_rng([seed, epoch]).permutation(self.splits[split])

    def summary(self) -> dict:
        """What ``kzoo data`` shows, as JSON values; classes have their counts per split."""
        counts = {
            split: np.bincount(self.labels[indices], minlength=len(self.classes)).tolist()
            for split, indices in self.splits.items()
        }
        return {
            "source": self.source,
            "classes": {
                name: {split: counts[split][i] for split in counts}
                for i, name in enumerate(self.classes)
            },
            "images": len(self.images),
            "splits": {split: len(indices) for split, indices in self.splits.items()},
            "evaluation_split": self.evaluation_split,
            "size": list(self.size),
            "channels": self.channels,
            "fingerprint": self.fingerprint,
            "store": str(self.images_file.parent),
            "problems": [asdict(problem) for problem in self.problems],
            "duplicates": [list(group) for group in self.duplicates],
        }
