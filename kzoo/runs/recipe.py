"""A chain of compressions for a trained network that stands in a file: a run of it alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kzoo.errors import UsageError, nearest
from kzoo.network.model_file import load_model, read_notes
from kzoo.progress import Progress, silent
from kzoo.runs.config import checked, read_values
from kzoo.runs.run import Run, run
from kzoo.runs.shipped import shipped_configs

KEYS = ("name", "compress", "quantize", "check", "profile", "steps", "seed")
"""What a recipe may say; the rest of a config is of a network and its images."""


def recipe(
    recipe: str | os.PathLike,
    model: str | os.PathLike,
    data: str | os.PathLike,
    *,
    output: str | os.PathLike | None = None,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
) -> Run:
    """Compresses a trained network in several steps; each is trained, exported, measured, reported.

    It is `kzoo.run` with a config that the recipe and the network's file make: the images have the
    network's size, channels and split, so that none that it was trained on is taken for a test.
    What was done is not done again, and what was killed goes on where it was.

    Args:
        recipe: a YAML file of `KEYS`, or the name of one that ships with kzoo: "small".
        model: a trained ``.keras`` file.
        data: as for `kzoo.run`: a folder of photos, or what else `kzoo.load_data` takes.
        output: the run's folder, ``runs/<model>_<recipe>`` by default.
        overrides: ``"compress.train.epochs=3"`` and the like.
        progress: called all along.

    Raises:
        KzooError: as `kzoo.run`.
    """
    values = read_values(recipe, shipped_configs("recipes"), "recipe")
    for key in values:
        if key not in KEYS:
            close = nearest(str(key), KEYS)
            raise UsageError(f"{recipe}: a recipe has no {key!r}{close} (known: {', '.join(KEYS)})")
    if not values.get("compress"):
        raise UsageError(f"{recipe}: a recipe has a section compress with a chain")
    height, width, channels = load_model(model).inputs[0].shape[1:]
    split = dict(read_notes(model)["split"])
    if "seed" in split:
        values["seed"] = split.pop("seed")
    values |= {
        "name": f"{Path(model).stem}_{values.get('name', Path(recipe).stem)}",
        "models": [str(model)],
        "data": {"path": str(data), "size": [height, width], "channels": channels, **split},
    }
    return run(checked(values, overrides, str(recipe)), output=output, progress=progress)
