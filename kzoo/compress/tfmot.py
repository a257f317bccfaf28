"""TensorFlow Model Optimization in place of kzoo's own training of a compression.

``engine="tfmot"`` of `kzoo.prune`, ``cluster`` and ``qat``: the same images in the same order at
the same rates, by another implementation. TFMOT stands on Keras 2, so it runs in a process of its
own (`kzoo.compress.tfmot_process`), on the network rebuilt there; what comes back are weights.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.child import call
from kzoo.compress.clusters import Clusters
from kzoo.compress.masks import Masks
from kzoo.compress.qat import Ranges, qat
from kzoo.compress.ranges import points, rounding
from kzoo.data.dataset import Dataset
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import new_output, sha256
from kzoo.learn.batch_norm import recalibrate
from kzoo.learn.finetune import finetune
from kzoo.learn.loop import evaluate
from kzoo.learn.phase import MONITORS, Phase, all_phases, set_trainable
from kzoo.learn.projection import Projection
from kzoo.learn.training import (
    Training,
    check_arguments,
    notes_of,
    planned,
    recipe_of,
    trained_as_planned,
)
from kzoo.network.graph import calls
from kzoo.network.model_file import keras_name, opened, read_notes, save_model
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

SCHEDULES = ("constant", "cosine")
INDIFFERENT = ("engine", "checkpoint_seconds", "monitor")
"""Options of `kzoo.finetune` that decide no weight here; what else TFMOT lacks is refused."""
RANGE_IMAGES = 256
"""On so many a range is measured that TFMOT has none for."""


def train(
    model: keras.Model | str | os.PathLike,
    data: Dataset,
    *,
    projection,
    phases: Sequence[Phase | Mapping[str, object]],
    batch_size: int = 32,
    class_weights: str | Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
    seed: int = 0,
    output: str | os.PathLike | None = None,
    force: bool = False,
    progress: Progress = silent,
    **others: object,
) -> Training:
    """As `kzoo.finetune` with a ``projection`` of `Masks`, `Clusters` or `Ranges`, by TFMOT.

    One phase of all layers, with any optimizer of Keras 2 at a constant or a cosine rate. Nothing
    is kept between the steps: a killed training begins again.

    Raises:
        UsageError: TFMOT or this way to it has no such option.
        BadInputError: Keras 2 or TFMOT does not know a layer; said before the first step.
        MissingError: it is not installed.
    """
    if importlib.util.find_spec("tensorflow_model_optimization") is None:
        raise MissingError("engine tfmot needs TFMOT and Keras 2: pip install 'kzoo[tfmot]'")
    if projection is None:
        raise UsageError("engine tfmot prunes, clusters and rounds, and removes no channels")
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
    phase = _only_phase(all_phases(phases, bool(notes.get("weights"))), others)
    check_arguments([phase], batch_size, label_smoothing, None, "val_loss", "float32")
    if output is not None:
        output = new_output(keras_name(output), force=force)
    model = opened(model)
    plan = planned(
        data,
        phases=[phase],
        batch_size=batch_size,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        head_weights=[1.0],
        augment=(),
        early_stopping=None,
        monitor="val_loss",
        seed=seed,
    )
    recipe = recipe_of(plan, model, data, None, "float32")
    came = model.get_weights()
    held = projection(model)
    model.set_weights(came)  # clusters are TFMOT's own to find
    network, task = _asked(held, model)
    recipe |= {"projection": held.recipe, "engine": "tfmot"}
    steps = max(1, len(data.splits["train"]) // plan.batch_size)
    task |= {
        "phase": asdict(phase),
        "steps": steps,
        "label_smoothing": label_smoothing,
        "class_weights": recipe["class_weights"],
        "seed": seed,
    }
    orders = [data.order("train", seed, epoch) for epoch in range(phase.epochs)]
    with trained_as_planned(model, plan, "float32"):
        set_trainable(network, phase.trainable, phase.batch_norm)
        found, weights = _in_process(network, data, orders, steps * plan.batch_size, task, progress)
        if isinstance(held, Ranges):
            images = data.images[np.sort(orders[0][:RANGE_IMAGES])]
            model, held = _rounding(held, weights, found, images)
        else:
            for name, values in weights.items():
                model.get_layer(name).set_weights(values)
            if phase.batch_norm == "recalibrate":
                recalibrate(model, data.images, orders[0], progress)
    if isinstance(held, Clusters):
        _check_values(held)
    finished, told = held.finished(model)
    evaluation = evaluate(model, data, progress=progress)
    if output:
        made = notes_of(data, notes) | told
        save_model(finished, output, notes=made, force=force)
    empty = {"phase": 1, **dict.fromkeys(MONITORS)}
    return Training(
        model=finished,
        classes=data.classes,
        history=[empty | row for row in found["history"]],
        evaluation=evaluation,
        recipe=recipe,
        output=str(output) if output else None,
        sha256=sha256(output) if output else None,
        stopped_early=False,
    )


def _in_process(network, data, orders, taken: int, task: dict, progress) -> tuple[dict, dict]:
    """What the process tells, and the weights that it trained, by layer."""
    with tempfile.TemporaryDirectory(prefix="kzoo-") as work:
        save_model(network, Path(work, "network.keras"))
        order = np.stack([each[:taken] for each in orders])
        np.save(f"{work}/order.npy", order.reshape(len(orders), task["steps"], -1))
        np.save(f"{work}/labels.npy", np.eye(len(data.classes), dtype=np.float32)[data.labels])
        found = call(
            "kzoo.compress.tfmot_process:train",
            work=work,
            images_file=str(data.images_file),
            task=task,
            progress=progress,
        )
        weights: dict[str, list] = {name: [] for name in found["layers"]}
        with np.load(f"{work}/weights.npz") as trained:
            for key in trained.files:  # in the order that they were written in
                weights[key.rpartition("/")[0]].append(trained[key])
    return found, weights


def _only_phase(phases: Sequence[Phase], others: Mapping) -> Phase:
    """The phase; raises UsageError for what TFMOT is not asked to do."""
    defaults = {name: each.default for name, each in inspect.signature(finetune).parameters.items()}
    for name, value in others.items():
        if name not in defaults and name != "teacher":
            raise TypeError(f"a training has no argument {name!r}")
        if name not in INDIFFERENT and value not in (defaults.get(name), None, (), []):
            raise UsageError(f"engine tfmot has no {name}; leave it out, or leave out the engine")
    if len(phases) != 1:
        raise UsageError(f"engine tfmot trains one phase; {len(phases)} were given")
    (phase,) = phases
    for name, allowed in (("trainable", ("all",)), ("decay", (1.0,)), ("schedule", SCHEDULES)):
        if getattr(phase, name) not in allowed:
            raise UsageError(
                f"engine tfmot has {name} {' or '.join(map(str, allowed))}; "
                f"{getattr(phase, name)!r} was given"
            )
    return phase


def _asked(held: Projection, model: keras.Model) -> tuple[keras.Model, dict]:
    """The network to train, and what is asked of TFMOT."""
    if isinstance(held, Ranges):
        return held.plain, _ranges(held)
    return model, {Masks: _masks, Clusters: _clusters}[type(held)](held)


def _masks(held: Masks) -> dict:
    pruning = held.pruning
    if pruning is None:
        raise UsageError("engine tfmot does not rewind; leave out one of them")
    if pruning.scope == "global" or pruning.pattern == "filter":
        raise UsageError(
            "engine tfmot prunes layer by layer, single weights, n of m, or blocks of dense layers"
        )
    if pruning.n_of_m and pruning.begin:
        raise UsageError("engine tfmot has n of m from the first step on; leave out begin")
    kernels = [*zip(held.kernels, held.shares, strict=True)]
    if pruning.n_of_m:  # as kzoo's own engine leaves them
        kernels = [each for each in kernels if each[0].variable.shape[-2] % pruning.n_of_m[1] == 0]
    for kernel, share in zip(held.kernels, held.shares, strict=True):
        zeros, count = int((kernel.values == 0).sum()), kernel.values.size
        if zeros > (0 if pruning.n_of_m else round(share * count)):
            raise UsageError(
                f"engine tfmot does not hold the zeros that {kernel.name} comes with, "
                f"{zeros:,} of {count:,}; ask for at least that share, or leave out the engine"
            )
    return {
        "verb": "prune",
        "shares": _by_layer(*zip(*kernels, strict=True)) if kernels else {},
        "n_of_m": pruning.n_of_m,
        "block": pruning.block,
        "schedule": pruning.schedule,
        "begin": pruning.begin,
        "end": pruning.end,
        "frequency": pruning.frequency,
    }


def _clusters(held: Clusters) -> dict:
    clustering = held.clustering
    # It takes zeros for those of a pruned kernel, and makes more where there were none.
    zeros = [clustering.keep_zeros and not kernel.values.all() for kernel in held.kernels]
    return {
        "verb": "cluster",
        "keep_zeros": _by_layer(held.kernels, zeros),
        "clusters": clustering.clusters,
        "init": clustering.init,
        "per_channel": clustering.per == "channel",
    }


def _check_values(held: Clusters) -> None:
    """Raises BadInputError where TFMOT left more values than were asked for."""
    asked, per = held.clustering.clusters, held.clustering.per
    for kernel in held.kernels:
        values = kernel.values.reshape(kernel.matrix_shape).T
        parts = values if per == "channel" else [values]
        most = max(len(np.unique(part)) for part in parts)
        if most > asked:
            raise BadInputError(
                f"TFMOT left {most} values per {per} in {kernel.name}, {asked} were asked for; "
                "kzoo's own engine takes it"
            )


def _ranges(held: Ranges) -> dict:
    if any(layer.learned for layer in held.layers):
        raise UsageError("engine tfmot has ranges average alone; 'learned' was given")
    if held.freeze != inspect.signature(qat).parameters["freeze"].default:
        raise UsageError("engine tfmot averages ranges to the end; leave out freeze")
    kept = {type(each): each for each in held.kept}
    masks, clusters = kept.get(Masks), kept.get(Clusters)
    return {
        "verb": "qat",
        "zeros": bool(masks and any((~mask).any() for mask in masks.masks)),
        "clusters": bool(clusters and clusters.few),
    }


def _by_layer(kernels, values) -> dict:
    found = {}
    for kernel, value in zip(kernels, values, strict=True):
        layer = kernel.name.split("/")[0]
        if kernel.depthwise:
            raise UsageError(f"TFMOT leaves depthwise kernels as they are, also that of {layer}")
        found[layer] = value
    return found


def _rounding(held: Ranges, weights: dict, found: dict, images) -> tuple[keras.Model, Ranges]:
    """The twin of the trained network that rounds as TFMOT's did, and what makes its file."""
    from kzoo.compress.fake_quant import Range

    plain = held.plain
    for name, values in weights.items():
        plain.get_layer(name).set_weights(values)
    whole = frozenset(found["whole"])
    twin = rounding(plain, whole=whole)
    own = {layer.name: layer for layer in twin.layers if isinstance(layer, Range)}
    placed, missing = points(plain).of, []
    for node in calls(plain):
        for tensor in node.outputs:
            point = placed.get(id(tensor))
            if point is None or point.fixed:
                continue
            if node.operation.name in found["ranges"]:
                _assign(own, point, *found["ranges"][node.operation.name])
            else:
                missing.append((point, tensor))
    if missing:
        import keras

        probe = keras.Model(plain.inputs, [tensor for _, tensor in missing])
        seen = []
        for batch in np.array_split(images, -(-len(images) // 32)):
            values = keras.tree.flatten(probe(batch.astype(np.float32)))
            seen.append([(float(np.min(value)), float(np.max(value))) for value in values])
        for (point, _), ends in zip(missing, zip(*seen, strict=True), strict=True):
            _assign(own, point, min(low for low, _ in ends), max(high for _, high in ends))
    return twin, Ranges(twin, plain, held.freeze, [], whole)


def _assign(layers: Mapping, point, low: float, high: float) -> None:
    layer = layers[f"{point.name}_range"]
    for variable, value in ((layer.low, min(low, 0.0)), (layer.high, max(high, 0.0))):
        values = np.array(variable)
        values[point.site] = value
        variable.assign(values)
