"""How good a network's features are with few images per class: shots x draws x cuts x heads."""

from __future__ import annotations

import functools
import itertools
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Dataset
from kzoo.errors import UsageError, one_of
from kzoo.learn.fan_out import on_ray
from kzoo.learn.features import Engine, cut_model, features, fitting
from kzoo.learn.heads import (
    Head,
    accuracy,
    coordinates,
    log_loss,
    log_softmax,
    ridge,
    softmax_regression,
)
from kzoo.learn.inputs import matching_images
from kzoo.network.features import cut_names
from kzoo.network.identity import tensor_digests
from kzoo.network.model_file import opened, read_notes
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

HEADS = ("softmax", "ridge", "logits-T")
SETTING = ("cut", "head", "temperature", "shots")
"""What the draws of a mean have in common."""


@dataclass(frozen=True)
class Fewshot:
    """What came out of `fewshot`.

    Attributes:
        model: the network's name.
        classes: of the data.
        split: which images the heads were tested on, and ``count``, how many.
        rows: one per head that was trained: cut, head, temperature (of logits-T, else None), shots,
            seed (the number of the draw), train_accuracy, accuracy, log_loss (nats; these two on
            ``split``), penalty, iterations, seconds, and curve: None, or lists per iteration of
            train_loss, train_accuracy, loss, accuracy.
        means: one per cut, head, temperature and shots: the means of accuracy and log_loss over
            ``seeds`` draws, and their 95 % intervals (Student's t; None for a single draw). They
            tell how much the choice of the images matters, not how few the test images are.
        recipe: all that was asked, and the identities of the network and the data.
        seconds: of "features", extraction or reading, and of "heads".
    """

    model: str
    classes: tuple[str, ...]
    split: str
    count: int
    rows: list[dict]
    means: list[dict]
    recipe: dict
    seconds: dict[str, float]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def fewshot(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    seeds: int = 5,
    at: Sequence[str] = (),
    head: Sequence[str] = ("softmax", "ridge"),
    temperature: Sequence[float] = (1, 2, 4, 8, 16),
    seed: int = 0,
    engine: Engine | None = None,
    ray: str | None = None,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Fewshot:
    """Trains heads on few images per class, on cached features of a network that stays as it is.

    Every draw takes ``shots`` training images of each class; those of a draw with fewer shots are
    among them. The heads are "softmax" (multinomial logistic regression, told iteration by
    iteration) and "ridge" (in closed form), see `kzoo.learn.heads`, on standardized features. With
    "logits-T" a softmax head gets the probabilities of the network's own classes, the softmax of
    its logits divided by T, for every T of ``temperature``.

    Args:
        model: a functional Keras classifier or its file; its classes need not be those of ``data``.
        data: a dataset, or what `kzoo.load_data` takes (then ``data_options`` are its arguments).
        shots: training images per class.
        seeds: how many draws.
        at: the cuts, "stage1", "stage2", ..., "head" (what enters the classifier), "logits"; by
            default the last three stages and the head.
        head: "softmax", "ridge", "logits-T".
        temperature: T of the "logits-T".
        seed: of the draws, and of the split where neither ``model``'s file nor ``data`` has one.
        engine: what extracts the features, see `kzoo.learn.features`; by default Keras.
        ray: the address of a Ray cluster whose workers train the heads, a draw and cut at a time:
            "local" for workers on this machine's cores, HOST:PORT, or "auto" for the cluster that
            this machine belongs to. The rows are the same.
        progress: called after every batch of extraction, and after every draw.

    Raises:
        UsageError: an argument is wrong, a class has too few training images, no cut of that name,
            or no split is left to test on.
        BadInputError: the model and the data do not fit, or the model gives NaN.
        MissingError: a file, disk space, Ray or its cluster is missing.
    """
    shots = _checked(shots, seeds, head, temperature)
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
    model = opened(model)
    # No image that the network itself was trained on is taken for a test.
    split = {"seed": seed} | notes.get("split", {})
    data = matching_images(
        model.inputs[0].shape[1:],
        data,
        notes | {"split": split},
        **{"progress": progress} | dict(data_options or {}),
    )
    drawn = draws(data, shots[-1], seeds, seed)
    test = data.splits[data.evaluation_split]
    if not len(test):
        raise UsageError(
            "nothing is left to test on; load the data with validation or test above 0"
        )
    linear = [name for name in HEADS if name in head and name != "logits-T"]
    cuts = list(dict.fromkeys(at or cut_names(model)[-5:-1])) if linear else []
    temperatures = list(dict.fromkeys(temperature)) if "logits-T" in head else []
    started = time.perf_counter()
    wanted = [*cuts, *["logits"] * bool(temperatures)]
    engine = fitting(engine, cut_model(model, wanted))
    arrays = features(model, data, wanted, engine=engine, progress=progress)
    extracted = time.perf_counter()
    sources = [*((cut, None) for cut in cuts), *(("logits", T) for T in temperatures)]
    y_test = data.labels[test]

    def jobs() -> Iterator[tuple]:
        for cut, T in sources:
            values = arrays[cut] if T is None else np.exp(log_softmax(arrays[cut] / T))
            x_test = values[test]
            for images in drawn:
                yield values[images], x_test, y_test, shots, ["logits-T"] if T else linear

    settings = [
        {"cut": cut, "temperature": T, "seed": number}
        for cut, T in sources
        for number in range(seeds)
    ]
    run = functools.partial(on_ray, ray) if ray else itertools.starmap
    rows = []
    for done, (setting, found) in enumerate(zip(settings, run(_draw, jobs()), strict=True), 1):
        rows += [setting | row for row in found]
        progress("train heads", done, len(settings))
    return Fewshot(
        model=model.name,
        classes=data.classes,
        split=data.evaluation_split,
        count=len(test),
        rows=rows,
        means=_means(rows),
        recipe={
            "network": tensor_digests(model, model.outputs)[0],
            "data": data.fingerprint,
            "source": data.source,
            "size": list(data.size),
            "cuts": cuts,
            "heads": [name for name in HEADS if name in head],
            "temperatures": temperatures,
            "shots": shots,
            "seeds": seeds,
            "seed": seed,
            "engine": f"{engine.name} {engine.version}",
        },
        seconds={
            "features": round(extracted - started, 3),
            "heads": round(time.perf_counter() - extracted, 3),
        },
    )


def _checked(
    shots: Sequence[int], seeds: int, head: Sequence[str], temperature: Sequence[float]
) -> list[int]:
    """The shots in order; raises as `fewshot`."""
    for what, given in (("shots", shots), ("head", head), ("temperature", temperature)):
        if not given:
            raise UsageError(f"{what} is empty; at least one is needed")
    for name in head:
        one_of("head", name, HEADS)
    for what, given in (("shots", shots), ("seeds", [seeds])):
        for number in given:
            if not isinstance(number, int) or number < 1:
                raise UsageError(f"{what} are whole numbers from 1; {number!r} was given")
    for T in temperature:
        if not 0 < T < math.inf:
            raise UsageError(f"a temperature is a number above 0; {T!r} was given")
    return sorted(set(shots))


def draws(data: Dataset, most: int, seeds: int, seed: int) -> list[np.ndarray]:
    """For every draw ``most`` training images of each class, int64 (classes, most).

    The first columns are a draw of fewer, so that more shots never lose an image.
    """
    train = data.splits["train"]
    of_class = [train[data.labels[train] == label] for label in range(len(data.classes))]
    for name, images in zip(data.classes, of_class, strict=True):
        if len(images) < most:
            raise UsageError(
                f"{most} shots were asked, and class {name!r} has {len(images)} training images; "
                "ask for fewer, or add images to it"
            )
    return [
        np.stack(
            [
                np.random.default_rng([seed, number, label]).permutation(images)[:most]
                for label, images in enumerate(of_class)
            ]
        )
        for number in range(seeds)
    ]


def _draw(
    x: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    shots: Sequence[int],
    heads: Sequence[str],
) -> list[dict]:
    """Trains the heads on the first ``shots`` of a draw's features, (classes, most, d)."""
    from threadpoolctl import threadpool_limits

    # Matrices of a few hundred rows: on two busy cores a second thread made it 11 times slower.
    with threadpool_limits(1):
        return [
            {"shots": count} | row
            for count in shots
            for row in _trained(x[:, :count], x_test, y_test, heads)
        ]


def _trained(
    values: np.ndarray, values_test: np.ndarray, y_test: np.ndarray, heads: Sequence[str]
) -> Iterator[dict]:
    """Trains the heads on the same images; they share their standardization and decomposition."""
    started = time.perf_counter()
    classes, count, width = values.shape
    x, x_test = coordinates(values.reshape(-1, width), values_test)
    y = np.repeat(np.arange(classes), count)
    shared = time.perf_counter() - started
    for name in heads:
        started = time.perf_counter()
        curve = None
        if name == "ridge":
            head = ridge(x, y, classes)
        else:
            curve = {"train_loss": [], "train_accuracy": [], "loss": [], "accuracy": []}

            def watch(now: Head, curve: dict[str, list[float]] = curve) -> None:
                for prefix, inputs, labels in (("train_", x, y), ("", x_test, y_test)):
                    logits = now.logits(inputs)
                    curve[f"{prefix}loss"].append(round(log_loss(logits, labels), 4))
                    curve[f"{prefix}accuracy"].append(round(accuracy(logits, labels), 4))

            head = softmax_regression(x, y, classes, watch)
        seconds = shared + time.perf_counter() - started
        logits = head.logits(x_test)
        yield {
            "head": name,
            "train_accuracy": accuracy(head.logits(x), y),
            "accuracy": accuracy(logits, y_test),
            "log_loss": log_loss(logits, y_test),
            "penalty": head.penalty,
            "iterations": head.iterations,
            "seconds": round(seconds, 5),
            "curve": curve,
        }


def _means(rows: Sequence[Mapping]) -> list[dict]:
    """The draws of each setting in one row, in the order in which they were trained."""
    grouped = defaultdict(list)
    for row in rows:
        grouped[tuple(row[key] for key in SETTING)].append(row)
    found = []
    for setting, group in grouped.items():
        mean = dict(zip(SETTING, setting, strict=True)) | {"seeds": len(group)}
        for key in ("accuracy", "log_loss"):
            values = [row[key] for row in group]
            mean |= {key: float(np.mean(values)), f"{key}_interval": _interval(values)}
        found.append(mean)
    return found


def _interval(values: Sequence[float]) -> list[float] | None:
    """The 95 % interval of the mean by Student's t; None for one value."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return None
    half = stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values))
    return [float(np.mean(values) - half), float(np.mean(values) + half)]
