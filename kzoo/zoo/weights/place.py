"""Weights of any origin into a network of the zoo, each tensor exactly once.

Names decide where they are the network's own. Otherwise order and shape do: layers whose tensors
have the same shapes are taken in the order in which each side made them. That order is the file's
for Keras, and for torch that of the names, numbers as numbers, after `_ORDER` has renamed those
whose alphabet is not the order of definition; a file sorted by name is then as good as any.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kzoo.errors import BadInputError

if TYPE_CHECKING:
    import keras
    import numpy as np

ROLES = {
    **dict.fromkeys(("weight", "kernel", "depthwise_kernel", "gamma", "layer_scale"), "weight"),
    **dict.fromkeys(("bias", "beta"), "bias"),
    **dict.fromkeys(("running_mean", "moving_mean"), "mean"),
    **dict.fromkeys(("running_var", "moving_variance"), "variance"),
}
"""What a tensor is in its layer, by the last part of its name."""

_ORDER = {
    "": [
        (r"^(_?conv_stem|_bn0|conv1|bn1|stem)\b", "0."),
        (r"^(_?conv_head|norm_head|_bn1|bn2|classifier|_?fc|head)\b", "~."),
    ],
    "densenet": [
        (r"features\.(conv|norm)0", "0"), (r"denseblock(\d)", r"\1.0"),
        (r"transition(\d)", r"\1.1"), ("norm5", "5"),
    ],
    "ghostnet": [("primary_conv", "0"), ("cheap_operation", "1"), ("shortcut", "z")],
    "inception_v3": [
        ("branch_pool", "branch0"), (r"branch5x5_|branch3x3_1", "branch2_"),
        (r"branch3x3_2", "branch4"), (r"branch3x3dbl_3(?=[ab])", "branch5"),
    ],
    "mobilenet_v4": [("dw_start", "0"), ("pw_exp", "1"), ("dw_mid", "2"), ("pw_proj", "3")],
    "repvgg": [("conv_kxk", "0"), ("conv_1x1", "1")],
}  # fmt: skip
"""By family: what is replaced in torch's names, before they are sorted."""

IGNORED = re.compile(r"normalization(_\d+)?")
"""keras.applications' own normalization, which is kzoo's layer ``preprocess``."""


@dataclass(eq=False)
class Unit:
    """The tensors of one layer, by `ROLES`: arrays of a file, or variables of a network."""

    name: str
    tensors: dict = field(default_factory=dict)

    @property
    def shape(self) -> tuple:
        """What it must share with its counterpart."""
        return tuple(sorted((role, _shape(tensor)) for role, tensor in self.tensors.items()))


def _shape(tensor) -> tuple[int, ...]:
    """Without lengths of 1: a 1x1 convolution is a matrix, a depthwise one has no inputs to add.

    A window of 1x7 remains one that 7x1 is not.
    """
    shape = tuple(tensor.shape)
    window = shape[:2] if len(shape) == 4 and shape[:2] != (1, 1) else ()
    return window + tuple(length for length in shape[len(window) :] if length > 1)


def place(
    model: keras.Model,
    made: Sequence,
    weights: Mapping[str, np.ndarray],
    *,
    family: str,
    torch: bool,
    bgr: bool = False,
) -> list[str]:
    """Assigns ``weights`` to the layers of ``model``.

    Args:
        model: as `kzoo.build` makes it.
        made: its variables in the order in which the builder made them.
        weights: of `read_weights`.
        family: of the network's row.
        torch: whether names, order and layouts are torch's, not Keras'.
        bgr: whether the file's network takes blue first; its first layer is turned round.

    Returns:
        What is not as in the file, one sentence each: a head drawn anew, a first layer adapted,
        tensors left out.

    Raises:
        BadInputError: the weights are of another network, or hold a NaN.
    """
    sources = _units_of_torch(weights, family) if torch else _units_of_keras(weights)
    targets = _units_of_model(model, made if torch else None)
    first = _units_of_model(model, made)[0].name
    heads = [unit.name for unit in targets if unit.name == "head" or "aux" in unit.name]
    notes = []
    further = [unit for unit in sources if re.match("aux", unit.name, re.IGNORECASE)]
    if further and "head_aux" not in " ".join(heads):
        sources = [unit for unit in sources if unit not in further]
        notes.append(f"auxiliary classifiers left out ({_named(further)})")
    pairs, targets, sources = _matched(targets, sources)
    for target, source in itertools.product([*targets], [*sources]):
        if source not in sources or target not in targets:
            continue
        if target.name == first and (said := _other_channels(target, source)):
            pairs.append((target, source))
        elif target.name not in heads or not (said := _other_classes(target, source)):
            continue
        notes.append(said)
        targets.remove(target)
        sources.remove(source)
    if [target.name for target in targets] == ["head"] and not sources:
        notes.append("the file has no classifier: the head is drawn anew")
        targets = []
    if "head" not in heads and not targets and len(sources) == 1:
        notes.append(f"the classifier is left out ({_named(sources)})")
        sources = []
    if targets or sources:
        raise BadInputError(_another_network(model.name, pairs, targets, sources))
    flattened = _flattened(model) if torch else {}
    for target, source in pairs:
        for role, variable in target.tensors.items():
            value = source.tensors[role]
            if role == "weight" and target.name in flattened:
                value = _channels_last(value, flattened[target.name])
            if role == "weight" and target.name == first and bgr:
                value = value[:, :, ::-1]
            variable.assign(value.reshape(variable.shape))
    return notes


def _units_of_model(model, made: Sequence | None) -> list[Unit]:
    """In the order of ``made``, or else of the model's layers."""
    layers = [layer for layer in model.layers if layer.weights]
    if made is not None:
        number = {id(variable): i for i, variable in enumerate(made)}
        layers.sort(key=lambda layer: number[id(layer.weights[0])])
    return [
        Unit(layer.name, {ROLES.get(v.name, v.name): v for v in layer.weights}) for layer in layers
    ]


def _units_of_torch(weights: Mapping[str, np.ndarray], family: str) -> list[Unit]:
    units: dict[str, Unit] = {}
    for name, value in weights.items():
        layer, _, last = name.rpartition(".")
        if last not in ROLES:
            layer, last = name, "weight"  # a parameter of its own, such as a layer scale
        elif last == "layer_scale":
            layer = name
        order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim)
        value = value.transpose(order) if order else value
        units.setdefault(layer, Unit(layer)).tensors[ROLES[last]] = value
    return sorted(units.values(), key=lambda unit: _natural(_renamed(unit.name, family)))


def _renamed(name: str, family: str) -> str:
    for pattern, new in _ORDER.get(family, []) + _ORDER[""]:
        name = re.sub(pattern, new, name)
    return name


def _natural(name: str) -> list[tuple]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _units_of_keras(weights: Mapping[str, np.ndarray]) -> list[Unit]:
    units: dict[str, Unit] = {}
    separable = {name.rpartition("/")[0] for name in weights if name.endswith("/pointwise_kernel")}
    for name, value in weights.items():
        layer, _, last = name.rpartition("/")
        if IGNORED.fullmatch(layer):
            continue
        # One layer of theirs is two of ours, as nothing else tells depthwise kernels apart.
        part = layer
        if layer in separable and last != "depthwise_kernel":
            part, last = f"{layer}/pointwise", last.removeprefix("pointwise_")
        # A layer scale's only weight has no name of its own.
        units.setdefault(part, Unit(part)).tensors[ROLES.get(last, "weight")] = value
    return [*units.values()]


def _matched(targets: list[Unit], sources: list[Unit]) -> tuple[list, list[Unit], list[Unit]]:
    """Pairs of target and source, and what has none on either side."""
    named = {unit.name: unit for unit in sources}
    by_name = {unit.name for unit in targets} - {"head"} <= set(named)
    queues = defaultdict(deque)
    for source in sources:
        queues[source.shape].append(source)
    pairs, alone = [], []
    for target in targets:
        if by_name:
            source = named.get(target.name)
            source = source if source and source.shape == target.shape else None
        else:
            queue = queues[target.shape]
            source = queue.popleft() if queue else None
        if source is None:
            alone.append(target)
        else:
            pairs.append((target, source))
    used = {id(source) for _, source in pairs}
    return pairs, alone, [source for source in sources if id(source) not in used]


def _other_channels(target: Unit, source: Unit) -> str | None:
    """Fits the kernel of a first convolution to another number of channels; says so."""
    ours, theirs = target.tensors.get("weight"), source.tensors.get("weight")
    if {*target.tensors} != {*source.tensors} or ours is None or theirs.ndim != 4:
        return None
    same = (*theirs.shape[:2], theirs.shape[3]) == (*ours.shape[:2], ours.shape[3])
    if len(ours.shape) != 4 or not same:
        return None
    found, wanted = theirs.shape[2], ours.shape[2]
    if wanted == 1:
        source.tensors["weight"] = theirs.sum(axis=2, keepdims=True)
        return f"the first layer's {found} channels are summed for 1"
    source.tensors["weight"] = theirs[:, :, [i % found for i in range(wanted)]] * (found / wanted)
    return f"the first layer's {found} channels are repeated for {wanted}"


def _other_classes(target: Unit, source: Unit) -> str | None:
    """Says that a head stays as it was drawn, if ``source`` is one for other classes."""
    ours, theirs = target.tensors.get("weight"), source.tensors.get("weight")
    if ours is None or theirs is None or theirs.ndim < 2:
        return None
    if ours.shape[-2] != theirs.shape[-2] or {*target.tensors} != {*source.tensors}:
        return None
    return (
        f"the file has {theirs.shape[-1]:,} classes, {ours.shape[-1]:,} are asked: "
        f"{target.name} is drawn anew"
    )


def _flattened(model) -> dict[str, tuple[int, int, int]]:
    """Dense layers behind a Flatten, and the (h, w, c) that it flattens.

    torch flattens channels first: (c, h, w).
    """
    import keras

    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            before = layer.input._keras_history.operation
            while isinstance(before, (keras.layers.Dropout, keras.layers.Activation)):
                before = before.input._keras_history.operation
            if isinstance(before, keras.layers.Flatten) and len(before.input.shape) == 4:
                found[layer.name] = tuple(before.input.shape[1:])
    return found


def _channels_last(kernel: np.ndarray, image: tuple[int, int, int]) -> np.ndarray:
    """(c * h * w, out) -> (h * w * c, out)."""
    h, w, c = image
    return kernel.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)


def _named(units: Sequence[Unit]) -> str:
    more = ", ..." if len(units) > 3 else ""
    return ", ".join(unit.name for unit in units[:3]) + more


def _another_network(name: str, pairs: list, targets: list[Unit], sources: list[Unit]) -> str:
    said = [f"the weights are not of {name}: {len(pairs)} layers fit"]
    if targets:
        said.append(f"nothing fits {len(targets)} of its layers ({_named(targets)})")
    if sources:
        said.append(f"{len(sources)} of the file's are left over ({_named(sources)})")
    return ", ".join(said)
