"""Several files of one network, judged on images it was not calibrated on; one of them is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError
from kzoo.files import write_bytes
from kzoo.learn.evaluate import softmax
from kzoo.lite.classify import FLOOR, evaluated, gives_logits, spread
from kzoo.lite.convert import (
    Conversion,
    check_arguments,
    convert,
    images_for,
    model_outputs,
    model_path,
    notes_of,
)
from kzoo.lite.inspect import inspect
from kzoo.lite.interpret import lite_outputs
from kzoo.lite.localize import SMALL, Localization, localize
from kzoo.lite.quantize import quantize
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

ENOUGH = 0.99
"""Share of equal top-1 that `cured` stops at."""
COUNTS = (1, 2, 4, 8)
"""So many of the findings of `kzoo.localize` are left in float, one after another."""
BY_BITS = ("int4", "int8", "dynamic", "weights8", "int16x8", "fp16", "float32")
"""What `smallest` tries. Files of equally many bits per weight differ by their scales and tables
alone: those that are computed in whole numbers come first."""
JUDGED = 512
"""Images that files are compared on, at most."""


@dataclass(frozen=True)
class Trial:
    """A file that was made, and how it compares with its network.

    Attributes:
        name: what was done.
        bytes: its size.
        agreement: share of images with the same top-1.
        divergence: mean Kullback-Leibler divergence of the probabilities, nats.
        drop: accuracy lost, percentage points; None where labels were not looked at.
        cost: what ``cost`` gave, as a share of the plain int8 file's; None if it was not asked.
        written: whether it is the one that was kept.
        refused: why it could not be made; nothing else is told then.
        made: its record.
    """

    name: str
    bytes: int | None = None
    agreement: float | None = None
    divergence: float | None = None
    drop: float | None = None
    cost: float | None = None
    written: bool = False
    refused: str = ""
    made: Conversion | None = field(default=None, repr=False)

    def to_dict(self) -> dict:
        """The record as JSON values, without ``made``."""
        found = asdict(replace(self, made=None))
        return {key: value for key, value in found.items() if key != "made"}


@contextmanager
def _bench(
    model, data, *, labelled: bool, normalize, data_options, progress
) -> Iterator[Callable[..., Trial]]:
    """Yields ``attempt(name, make)``: the trial of the file that ``make(file)`` writes, and it."""
    with model_path(model) as path, tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        data = images_for(path, model, data, data_options, progress, normalize, labelled)
        indices = spread(evaluated(data, None)[1], JUDGED)
        expected, probable = model_outputs(path, model, data.images_file, indices, normalize)
        expected = expected if probable else softmax(expected)
        right = (expected.argmax(1) == data.labels[indices]).mean() if labelled else None

        def attempt(name: str, make: Callable[[Path], Conversion]) -> tuple[Trial, Path]:
            file = Path(folder, f"{len(os.listdir(folder))}.tflite")
            made = make(file)
            found, logits = lite_outputs(file, data.images_file, indices, progress=progress)
            if logits is not None:
                found = softmax(logits)  # probabilities of whole numbers end at 1 / 256
            elif gives_logits(found, None):
                found = softmax(found)
            p, q = (np.maximum(values, FLOOR / 1e3) for values in (expected, found))
            drop = None
            if labelled:
                drop = 100 * float(right - (found.argmax(1) == data.labels[indices]).mean())
            trial = Trial(
                name=name,
                bytes=made.contents.bytes,
                agreement=float((p.argmax(1) == q.argmax(1)).mean()),
                divergence=float((p * np.log(p / q)).sum(1).mean()),
                drop=drop,
                made=made,
            )
            return trial, file

        yield attempt


def _kept(trial: Trial, file: Path, output: Path) -> Trial:
    """Writes the file to ``output``."""
    write_bytes(output, file.read_bytes())
    contents = replace(trial.made.contents, file=str(output))
    return replace(
        trial, written=True, made=replace(trial.made, output=str(output), contents=contents)
    )


def cured(
    found: Localization,
    output: str | os.PathLike,
    *,
    against: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    enough: float = ENOUGH,
    normalize: Sequence[Sequence[float]] | None = None,
    force: bool = False,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> list[Trial]:
    """Writes an int8 file with the cheapest cure that brings the network's answers back.

    In this order: calibration anew on these images, ranges that clip, equalized channels, and the
    layers of the first 1, 2, 4 and 8 findings in float. It stops at the first that does.

    Args:
        found: of `localize`.
        output: the ``.tflite`` to write.
        against, data, normalize, data_options: as there.
        enough: share of images with the same top-1 as the network, of the test split or else of
            validation.
        force: overwrite.
        progress: called at the stages of the work.

    Returns:
        What was tried. Where nothing is enough, nothing is written: it needs training
        (`kzoo.qat`).

    Raises:
        As `kzoo.quantize` and `kzoo.check`.
    """
    output = check_arguments(output, "probabilities", force)
    contents = inspect(found.file, packed=False)
    io = contents.input["dtype"]
    head = "logits" if contents.output["name"].startswith("logits") else "probabilities"
    with model_path(against) as path:
        learned, network = notes_of(path)["ranges"], path.suffix != ".tflite"
    cures: list[tuple[str, dict]] = []
    if not learned:  # the ranges of a training are not calibrated
        cures.append(("calibrate anew", {}))
        cures += [(f"--ranges {name}", {"ranges": name}) for name in ("percentile", "mse")]
    if network and not learned:
        cures.append(("--equalize", {"equalize": True}))
    cures += [(_excluding(names), {"exclude": names}) for names in _in_float(found)]
    options = {"normalize": normalize, "data_options": data_options, "progress": progress}
    tried: list[Trial] = []
    with _bench(against, data, labelled=False, **options) as attempt:
        for name, cure in cures:
            trial, file = attempt(
                name,
                lambda file, cure=cure: quantize(
                    against, file, calibrate=data, io=io, head=head, **cure, **options
                ),
            )
            if trial.agreement >= enough:
                return [*tried, _kept(trial, file, output)]
            tried.append(trial)
    return tried


def _in_float(found: Localization) -> list[list[str]]:
    """The layers of the first findings, of more and more of them."""
    groups = [each["affected"] for each in found.findings if each["affected"]]
    sets = [list(dict.fromkeys(name for group in groups[:n] for name in group)) for n in COUNTS]
    return [names for i, names in enumerate(sets) if names and names not in sets[:i]]


def _excluding(names: Sequence[str]) -> str:
    return " ".join(f"--exclude {name}" for name in names)


def smallest(
    model: keras.Model | str | os.PathLike,
    output: str | os.PathLike,
    *,
    calibrate: Dataset | str | os.PathLike,
    budget_drop: float,
    force: bool = False,
    progress: Progress = silent,
    **options: object,
) -> list[Trial]:
    """Writes the file of the fewest bits per weight that loses no more than a budget of accuracy.

    Recipes are tried in the order of `BY_BITS`, on the test split or else on validation, until one
    fits; float32 always does.

    Args:
        model, output, calibrate, force, progress: as for `kzoo.quantize`; images have labels.
        budget_drop: percentage points.
        options: what else `kzoo.quantize` takes.

    Returns:
        What was tried; the last one was written.

    Raises:
        As `kzoo.quantize`; UsageError for a budget below 0.
    """
    if not budget_drop >= 0:
        raise UsageError(f"a budget is 0 points of accuracy or more; {budget_drop} was given")
    output = check_arguments(output, str(options.get("head", "probabilities")), force)
    options["progress"] = progress
    shared = {name: options.get(name) for name in ("normalize", "data_options", "progress")}
    head = {name: options[name] for name in ("io", "head", "normalize") if options.get(name)}
    tried: list[Trial] = []
    with _bench(model, calibrate, labelled=True, **shared) as attempt:
        for name in BY_BITS:

            def make(file: Path, name: str = name) -> Conversion:
                if name == "float32":
                    return convert(model, file, progress=progress, **head)
                return quantize(model, file, calibrate=calibrate, recipe=name, **options)

            try:
                trial, file = attempt(name, make)
            except BadInputError as error:
                if name == BY_BITS[-1]:
                    raise
                tried.append(Trial(name, refused=str(error).splitlines()[0]))
                continue
            if trial.drop <= budget_drop or name == BY_BITS[-1]:
                return [*tried, _kept(trial, file, output)]
            tried.append(trial)
    raise AssertionError("float32 is the last recipe")


def mixed(
    model: keras.Model | str | os.PathLike,
    output: str | os.PathLike,
    *,
    calibrate: Dataset | str | os.PathLike,
    cost: Callable[[Path, Path], float] | None = None,
    most: float = 1.1,
    force: bool = False,
    progress: Progress = silent,
    **options: object,
) -> list[Trial]:
    """Writes an int8 file in which the layers that lose most are float32.

    The first 1, 2, 4 and 8 findings of `localize` are left in float, and the file that diverges
    least from the network is kept, among those that cost no more than is allowed and agree with it
    on as many images as plain int8; where none does, or plain int8 diverges by no more than `SMALL`
    of `kzoo.lite.localize`, it is plain int8.

    Args:
        model, output, calibrate, force, progress: as for `kzoo.quantize`.
        cost: of a file and the plain int8 one, as a share of the latter's, such as
            `kzoo.measure.cost.file_share`; None looks at no cost.
        most: what it may be.
        options: what else `kzoo.quantize` takes.

    Returns:
        What was tried, plain int8 first.

    Raises:
        As `kzoo.quantize`.
    """
    output = check_arguments(output, str(options.get("head", "probabilities")), force)
    options["progress"] = progress
    shared = {name: options.get(name) for name in ("normalize", "data_options", "progress")}

    def make(names: Sequence[str]) -> Callable[[Path], Conversion]:
        exclude = [*options.get("exclude", ()), *names]
        return lambda file: quantize(
            model, file, calibrate=calibrate, **{**options, "recipe": "int8", "exclude": exclude}
        )

    with _bench(model, calibrate, labelled=False, **shared) as attempt:
        plain, whole = attempt("int8", make([]))
        found = localize(whole, against=model, data=calibrate, **shared)
        rows = [(replace(plain, cost=1.0 if cost else None), whole)]
        for names in _in_float(found) if plain.divergence > SMALL else []:
            trial, file = attempt(_excluding(names), make(names))
            rows.append((replace(trial, cost=cost(file, whole) if cost else None), file))
        fitting = [
            number
            for number, (trial, _) in enumerate(rows)
            if (trial.cost or 0) <= most and trial.agreement >= plain.agreement
        ]
        best = min(fitting, key=lambda number: rows[number][0].divergence)
        return [
            _kept(trial, file, output) if number == best else trial
            for number, (trial, file) in enumerate(rows)
        ]
