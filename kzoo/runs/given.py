"""A network that a run is given as a file: taken over as it is, and kept away from its test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.data.load import load_data
from kzoo.errors import BadInputError, UsageError
from kzoo.files import existing, write_bytes
from kzoo.learn.inputs import matching_classes
from kzoo.network.count import counted
from kzoo.network.model_file import load_model, read_notes, save_model


def take_over(source: str, file: Path) -> dict:
    """Copies a trained ``.keras``, or writes an ``.h5`` as one, and returns its counts.

    Raises:
        MissingError, BadInputError: as `kzoo.network.model_file.load_model`.
    """
    model = load_model(source)
    if Path(source).suffix == file.suffix:
        write_bytes(file, Path(source).read_bytes())  # with its notes
    else:
        save_model(model, file, force=True)
    return counted(model)


def check_given(source: str, data: Dataset, what: str) -> None:
    """Refuses a network that is no classifier of these images, or was trained on those of the test.

    Raises:
        BadInputError: its channels or classes are others, or it is damaged.
        UsageError, MissingError: as `check_split`.
    """
    check_split(source, data, what)
    network = load_model(source)
    channels = network.inputs[0].shape[-1]
    if channels != data.channels:
        raise BadInputError(
            f"{what} {source!r} takes {channels} channels, the run's images have {data.channels}; "
            f"give data.channels={channels}"
        )
    matching_classes(network.outputs[0].shape[-1], data, read_notes(source))


def check_split(source: str, data: Dataset, what: str) -> None:
    """Refuses data that would test a network on images that it was trained on.

    ``what`` it is: "the teacher".

    Raises:
        UsageError: its file tells of another split of the same images.
        MissingError: there is no such file.
    """
    told = read_notes(existing(source, what))["split"]
    if not told or told == data.split_settings:
        return
    options = {"bad": "skip", "max_bad": 1.0, "channels": data.channels}
    other = load_data(data.source, size=data.size, **options, **told)
    seen = set(np.array(other.paths)[other.splits["train"]].tolist())
    if seen & {data.paths[i] for i in data.splits[data.evaluation_split]}:
        wanted = ", ".join(f"{key}={value}" for key, value in told.items())
        raise UsageError(
            f"{what} {source!r} was trained on images that this run would test on; "
            f"its split has {wanted}: give these as seed, data.validation and data.test"
        )
