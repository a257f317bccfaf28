"""Channel pruning: an ordinary smaller network, made in steps with training in between."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from kzoo.compress.channels import Channels, channels
from kzoo.compress.groups import groups
from kzoo.compress.kernels import kernels_of
from kzoo.compress.rounds import Asked, narrowed_for, prepared, renumbered, shared_out, workplace
from kzoo.compress.selection import shares_of
from kzoo.compress.slimming import Slimming
from kzoo.compress.tune import PHASE, Compressed, tune
from kzoo.data.dataset import Dataset
from kzoo.environment import environment
from kzoo.errors import UsageError
from kzoo.files import new_output, read_json, write_json
from kzoo.learn.inputs import matching_data
from kzoo.learn.loop import evaluate
from kzoo.learn.phase import Phase, as_phase
from kzoo.learn.training import weights_digest
from kzoo.network.model_file import keras_name, opened, read_notes
from kzoo.progress import Progress, silent

if TYPE_CHECKING:
    import keras

NO_MATTER = ("engine", "logs", "checkpoint_seconds", "force")
"""Arguments of a training that do not decide its weights."""


@dataclass(frozen=True)
class Slimmed(Compressed):
    """What came out of `slim`: a `Compressed`, whose training has the epochs of all rounds.

    Attributes:
        groups: of each group of layers that make the same channels ``layers``, their ``channels``
            before, and how many are ``left``; none of a block that was removed.
        duplicates: how many channels were joined with others like them.
        blocks: the names of the additions whose branches were removed, the first first.
        rounds: of each ``params`` and ``macs``, and its evaluations ``before`` and after its
            training.
    """

    groups: list[dict]
    duplicates: int
    blocks: list[str]
    rounds: list[dict]

    def to_dict(self) -> dict:
        """The record as JSON values, without the model."""
        own = ("groups", "duplicates", "blocks", "rounds")
        return super().to_dict() | {name: getattr(self, name) for name in own}


def slim(
    model: keras.Model | str | os.PathLike,
    data: Dataset | str | os.PathLike,
    *,
    macs: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    ratio: float | Mapping[str, float] | None = None,
    cost: Callable[[keras.Model], float] | None = None,
    importance: str = "taylor",
    scope: str | None = None,
    rounds: int = 1,
    multiple: int = 8,
    duplicates: float | None = None,
    blocks: int = 0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    phases: Sequence[Phase | Mapping[str, object]] = (PHASE,),
    data_options: Mapping[str, object] | None = None,
    seed: int = 0,
    output: str | os.PathLike | None = None,
    force: bool = False,
    progress: Progress = silent,
    **training: object,
) -> Slimmed:
    """Removes whole channels, and trains what is left: a smaller and faster network.

    Channels that an addition or a product makes one go together; inputs and outputs stay, and what
    a layer without a rule reads or makes. With ``output``, the networks between two rounds are kept
    beside it, and the same call after a kill goes on where it was.

    Args:
        model: a trained functional Keras model or its file, from kzoo or from elsewhere.
        data: as for `kzoo.finetune`; the split is by default the one that the model was trained on.
        macs: the share of the multiply-accumulates that is left: the largest network with at most
            so many. Or of the ``params``.
        latency: in their place, what ``cost`` of the network is at most; `kzoo.measure.cost` makes
            of a network the share of its latency.
        ratio: in their place, the share of channels that goes, [0, 1), or a share by prefix of
            layers.
        cost: what a network costs, in any unit; called with about seven untrained ones per round.
        importance: what goes first: "l1", "l2", "batch_norm", "taylor", "geometric_median" or
            "random", see `kzoo.compress.importance`.
        scope: "global", the least of all layers, or "local", the same share of each; None is local
            for a ratio and global else.
        rounds: steps to the target; the epochs are shared out among them, and importance is
            computed anew in each.
        multiple: numbers of channels that stay are multiples of so many, as kernels of int8 like
            it; of fewer in narrow layers.
        duplicates: before, filters that are so alike, 0.98 say, become one, which the layers behind
            then read in place of both.
        blocks: before, so many residual branches go, those that the outputs change least without.
        include: prefixes of the layers to narrow, by default all, and of those to ``exclude``.
        training: what else `kzoo.finetune` takes; with ``teacher`` as `kzoo.distill`, which may be
            the model itself.

    ``phases``, ``data_options``, ``seed``, ``output``, ``force`` and ``progress`` are as for
    `kzoo.finetune`; by default `kzoo.compress.tune` says for how long and at which rate.

    Raises:
        UsageError: an argument is wrong, a prefix fits no layer, the target cannot be met, or
            ``output`` exists.
        BadInputError: the model is damaged, has weights that are not finite, does not fit, or has
            nothing to remove.
        MissingError: a file or disk space is missing.
    """
    slimming = Slimming(
        macs=macs, params=params, latency=latency, ratio=ratio, importance=importance, scope=scope,
        rounds=rounds, multiple=multiple, duplicates=duplicates, blocks=blocks,
        include=tuple(include), exclude=tuple(exclude),
    )  # fmt: skip
    if (latency is None) != (cost is None):
        raise UsageError(
            "latency and cost go together: cost(network) is what is at most latency; "
            "kzoo.measure.cost.latency_share makes one"
        )
    if output is not None:
        output = new_output(keras_name(output), force=force)
    shared = shared_out([as_phase(phase) for phase in phases], rounds)
    notes = read_notes(model) if isinstance(model, (str, os.PathLike)) else {}
    whole = opened(model)
    kernels_of(whole, [""])  # they are finite
    found = channels(whole)
    among = groups(found, include, exclude)
    if ratio is not None:
        shares_of(among, ratio)
    # No image that the model was trained on is taken for a test.
    options = {"seed": seed, "progress": progress, **notes.get("split", {}), **(data_options or {})}
    data = matching_data(
        whole.inputs[0].shape[1:],
        whole.outputs[0].shape[1],
        data,
        {"classes": notes.get("classes", ())},
        **options,
    )
    recipe = _recipe(whole, data, slimming, phases, seed, training)
    judged = evaluate(whole, data, progress=progress)
    rows: list[dict] = []
    history: list[dict] = []
    with workplace(output, recipe) as folder:
        asked = Asked(slimming, cost, data, seed, notes, progress)
        began = prepared(folder, found.model, asked)
        for i in range(1, rounds + 1):
            last = i == rounds
            start, row = narrowed_for(folder, i, began, asked)
            trained = folder / f"{i}_trained.json"
            if not trained.exists():
                tuned = tune(
                    start,
                    data,
                    None,
                    phases=shared[i - 1],
                    output=output if last else folder / f"{i}_trained.keras",
                    force=force if last else True,
                    seed=seed,
                    progress=progress,
                    **training,
                )
                told = {"before": tuned.before.to_dict(), **tuned.training.to_dict()}
                if not last:
                    write_json(trained, told)
            else:
                told = read_json(trained)
            rows.append(row | {name: told[name] for name in ("before", "evaluation")})
            history += renumbered(told["history"], history)
    final = replace(
        tuned.training, history=history, recipe=tuned.training.recipe | {"slimming": recipe}
    )
    return Slimmed(
        **vars(tuned) | {"before": judged, "training": final},
        groups=_left(found, final.model),
        duplicates=began["duplicates"],
        blocks=began["blocks"],
        rounds=rows,
    )


def _recipe(
    model: keras.Model,
    data: Dataset,
    slimming: Slimming,
    phases: Sequence[Phase | Mapping[str, object]],
    seed: int,
    training: Mapping[str, object],
) -> dict:
    """Everything that determines the weights, as JSON values."""
    others = {name: value for name, value in training.items() if name not in NO_MATTER}
    if others.get("teacher") is not None:
        others["teacher"] = weights_digest(opened(others["teacher"]))
    return {
        "asked": asdict(slimming),
        "weights": weights_digest(model),
        "data": data.fingerprint,
        "phases": [vars(as_phase(phase)) for phase in phases],
        "seed": seed,
        "training": {name: str(value) for name, value in sorted(others.items())},
        "computed_by": {name: environment()[name] for name in ("backend", "packages")},
    }


def _left(found: Channels, model: keras.Model) -> list[dict]:
    """What is left of each group of layers, in channels."""
    now = {layer.name: layer.output.shape[-1] for layer in model.layers}
    rows = []
    for group in groups(found):
        layers = [found.model.get_layer(name) for name in group.layers]
        left = [now[name] for name in group.layers if name in now]
        rows.append(
            {
                "layers": [*group.layers],
                "channels": max(layer.output.shape[-1] for layer in layers),
                "left": max(left, default=0),
            }
        )
    return rows
