"""What each layer bears: zeros, few bits, fewer channels, one layer at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.activations import pixels, walk
from kzoo.compress.channels import MAKERS, Channels, channels
from kzoo.compress.graph import flat, replay
from kzoo.compress.grid import levels, on_grid
from kzoo.compress.kernels import Kernel, kernels_of
from kzoo.compress.masks import Pruning, masks
from kzoo.compress.ratios import choose_shares
from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, UsageError, one_of
from kzoo.learn.evaluate import softmax
from kzoo.learn.inputs import matching_data
from kzoo.network.graph import calls
from kzoo.network.model_file import gives_probabilities, opened, read_notes
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

OF = ("sparsity", "bits", "channels")
BATCH = 64
FLOOR = 1e-7
"""Probabilities below it count as it: a sure network would make divergences infinite."""


@dataclass(frozen=True)
class Sensitivity:
    """What a network loses by a change of one layer.

    Attributes:
        model: its name.
        split, count: which images, and how many.
        accuracy: of the whole model on them.
        layers: one row per kernel, in the order of computation: ``layer`` (as
            `kzoo.compress.kernels` names it), ``weights``, ``depthwise``, and for each of
            "sparsity", "bits" and "channels" that was asked for a list of ``{"at", "accuracy",
            "divergence"}``. The divergence is the mean Kullback-Leibler divergence, in nats, of the
            changed network's probabilities from the whole one's. Channels that other layers write
            too go together, and are told of the first of these alone.
        shares: for an overall sparsity that was asked for the share of every layer, else None.
    """

    model: str
    split: str
    count: int
    accuracy: float
    layers: list[dict]
    shares: dict[str, float] | None = None

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def sensitivity(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    of: Sequence[str] = OF,
    sparsity: Sequence[float] = (0.3, 0.5, 0.7, 0.8, 0.9),
    bits: Sequence[int] = (8, 6, 4, 3),
    channels: Sequence[float] = (0.1, 0.25, 0.5),
    images: int = 256,
    split: str = "train",
    choose: float | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    data_options: Mapping[str, object] | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Changes one layer at a time, without training, and measures what that does.

    What enters a layer is computed once for all images; for each setting the rest of the network is
    run from there.

    Args:
        model: a functional Keras model or its file; it stays as it is.
        data: labelled images, as for `kzoo.finetune`; by default split as the model was trained.
        of: which of "sparsity", "bits" and "channels".
        sparsity: shares of a kernel's weights, those of least magnitude, that become zero.
        bits: of the grid that a kernel is rounded to, `kzoo.compress.grid`.
        channels: shares of a layer's output channels, those of least L2 norm, that are removed.
        images: how many, drawn from the split.
        split: "train" or "validation": what ratios are chosen on is no test any more.
        choose: an overall sparsity of all but depthwise kernels, for which shares by layer are
            chosen that lose least, see `kzoo.compress.ratios`.
        include: prefixes of layers, by default all, depthwise ones too.
        exclude: prefixes of layers to leave out.
        seed: of the choice of images.
        data_options: arguments of `kzoo.load_data` when ``data`` is a path.
        progress: called after every setting.

    Raises:
        UsageError: an argument is out of its range.
        MissingError, BadInputError: as for `kzoo.finetune`.
    """
    settings = _settings(of, {"sparsity": sparsity, "bits": bits, "channels": channels})
    one_of("split", split, ("train", "validation"))
    if images < 1:
        raise UsageError(f"images is at least 1; {images} was given")
    if choose is not None and "sparsity" not in settings:
        raise UsageError("shares are chosen from the sweep of sparsity; add sparsity to --of")
    net = opened(model)
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
    options = {"progress": progress, **(data_options or {})}
    data = matching_data(net.inputs[0].shape[1:], net.outputs[0].shape[1], data, notes, **options)
    chosen = np.sort(np.random.default_rng(seed).permutation(data.splits[split])[:images])
    if not len(chosen):
        raise BadInputError(f"the {split} split of {data.source} has no images")
    sweep = _Sweep(net, include, exclude, data.images[chosen], data.labels[chosen])
    rows = sweep.rows(settings, progress)
    shares = None
    if choose is not None:
        shares = choose_shares([row for row in rows if not row["depthwise"]], choose)
    return Sensitivity(net.name, split, len(chosen), sweep.accuracy, rows, shares)


def _settings(of: Sequence[str], values: Mapping[str, Sequence]) -> dict[str, list]:
    """What is swept, checked, in a fixed order."""
    for kind in of:
        one_of("of", kind, OF)
    found = {kind: [*values[kind]] for kind in OF if kind in of}
    for kind in ("sparsity", "channels"):
        for share in found.get(kind, ()):
            if not 0 <= share < 1:
                raise UsageError(f"{kind} is a share from 0 to below 1; {share!r} was given")
    for count in found.get("bits", ()):
        levels(count)
    if not any(found.values()):
        raise UsageError(f"there is nothing to sweep; give some of {', '.join(OF)}")
    return found


class _Sweep:
    """A copy of a network, of which one layer at a time is changed."""

    def __init__(self, model, include, exclude, images: np.ndarray, labels: np.ndarray):
        self.model = replay(flat(model))
        self.images, self.labels = images, labels
        self.kernels: dict[object, list[Kernel]] = {}
        owners = {id(weight): layer for layer in self.model.layers for weight in layer.weights}
        for kernel in kernels_of(self.model, include or [""], exclude):
            self.kernels.setdefault(owners[id(kernel.variable)], []).append(kernel)
        self.found = channels(self.model)
        self.probabilities = gives_probabilities(self.model)

    def rows(self, settings: Mapping[str, list], progress: Progress) -> list[dict]:
        """See `Sensitivity`."""
        done, rows, seen = 0, [], np.zeros(len(self.found.root), bool)
        total = len(self.kernels)
        places = {
            id(tensor): tensor
            for node in calls(self.model)
            for tensor in (*node.input_tensors, *node.outputs)
        }
        self.whole = self.run(self.model, [self.images])
        self.accuracy = float((self.whole.argmax(1) == self.labels).mean())
        progress("sweep", 0, total)
        left = dict(self.kernels)
        for node, tensors in walk(self.model, self.images):
            if node is None or node.operation not in left:
                if node is not None:  # what was written before is read before, from the cache
                    for tensor in node.outputs:
                        seen[self.found.root[self.found.of[id(tensor)]]] = True
                continue
            rest = self.rest([places[key] for key in tensors])
            given = [*tensors.values()]
            kernels = left.pop(node.operation)
            for kernel in kernels:
                row = {
                    "layer": kernel.name,
                    "weights": int(kernel.values.size),
                    "depthwise": kernel.depthwise,
                }
                for kind in ("sparsity", "bits"):
                    if kind in settings:
                        row[kind] = [
                            self.judged(rest, given, at, [(kernel.variable, changed)])
                            for at, changed in _changed(kernel, kind, settings[kind])
                        ]
                if "channels" in settings:
                    row["channels"] = []
                rows.append(row)
            if "channels" in settings:
                rows[-1]["channels"] = [
                    self.judged(rest, given, at, changes)
                    for at, changes in self.without(node, seen, settings["channels"])
                ]
            done += 1
            progress(f"sweep: {node.operation.name}", done, total)
        return rows

    def rest(self, tensors: list) -> keras.Model:
        """From the tensors that are there to the outputs, with the layers of the copy."""
        import keras

        return keras.Model(tensors, self.model.outputs[0])

    def run(self, model, given: list[np.ndarray]) -> np.ndarray:
        """Log-probabilities (n, classes), float64; the last batch is filled up."""
        parts, count = [], len(self.labels)
        for start in range(0, count, BATCH):
            index = np.minimum(np.arange(start, start + min(BATCH, count)), count - 1)
            batch = [pixels(each[index]) for each in given]
            found = np.asarray(model.predict_on_batch(batch if len(batch) > 1 else batch[0]))
            parts.append(found[: count - start])
        found = np.concatenate(parts).astype(np.float64)
        return np.log(np.maximum(found if self.probabilities else softmax(found), FLOOR))

    def judged(self, rest, given, at, changes: list[tuple]) -> dict:
        """Accuracy and divergence with other values of some weights, which are put back."""
        before = [(variable, np.array(variable)) for variable, _ in changes]
        for variable, values in changes:
            variable.assign(values)
        found = self.run(rest, given)
        for variable, values in before:
            variable.assign(values)
        divergence = (np.exp(self.whole) * (self.whole - found)).sum(1).mean()
        accuracy = float((found.argmax(1) == self.labels).mean())
        return {"at": at, "accuracy": accuracy, "divergence": max(float(divergence), 0.0)}

    def without(self, node, seen: np.ndarray, shares: list) -> Iterator[tuple[float, list]]:
        """The changes that leave a part of a layer's channels unread; marks them as seen."""
        if type(node.operation).__name__ not in MAKERS:
            return
        roots = np.unique(self.found.root[self.found.of[id(node.outputs[0])]])
        roots = roots[self.found.movable[roots] & ~seen[roots]]
        seen[roots] = True
        if not len(roots):
            return
        order = roots[np.argsort(_norms(self.found)[roots], kind="stable")]
        for share in shares:
            keep = np.ones(len(seen), bool)
            keep[order[: min(round(share * len(order)), len(order) - 1)]] = False
            yield share, _unread(self.found, keep)


def _changed(kernel: Kernel, kind: str, settings: list) -> Iterator[tuple[float, np.ndarray]]:
    values = kernel.values
    for at in settings:
        if kind == "bits":
            yield at, on_grid(values, depthwise=kernel.depthwise, bits=at)
        else:
            (kept,) = masks([values], [kernel.matrix_shape], [at], Pruning(sparsity=at))
            yield at, np.where(kept, values, 0)


def _norms(found: Channels) -> np.ndarray:
    """The squared L2 norm of all that writes a channel, by root."""
    norms = np.zeros(len(found.root))
    for node in calls(found.model):
        if type(node.operation).__name__ in MAKERS and id(node.outputs[0]) in found.of:
            kernel = np.asarray(node.operation.weights[-1 - node.operation.use_bias], np.float64)
            written = found.root[found.of[id(node.outputs[0])]].ravel()
            if len(written) == kernel.shape[-1]:
                squares = np.square(kernel).reshape(-1, kernel.shape[-1]).sum(0)
                np.add.at(norms, written, squares)
    return norms


def _unread(found: Channels, keep: np.ndarray) -> list[tuple]:
    """The kernels with zeros where they would read a channel that does not stay."""
    changes, seen = [], set()
    for node in calls(found.model):
        layer = node.operation
        if type(layer).__name__ not in MAKERS or layer in seen:
            continue
        seen.add(layer)
        (came, *_), _ = found.masks(keep, node)
        gone = ~came.ravel()[: came.size // getattr(layer, "groups", 1)]
        if gone.any():
            kernel = np.array(layer.weights[0])
            axis = 2 if type(layer).__name__ == "SeparableConv2D" else kernel.ndim - 2
            np.moveaxis(kernel, axis, 0)[gone] = 0
            changes.append((layer.weights[0], kernel))
    return changes
