"""Weights of any origin into a network of the zoo, each tensor exactly once.

Names decide where they are the network's own. Otherwise order and shape do: layers whose tensors
have the same shapes are taken in the order in which each side made them. That order is the file's
for Keras, and for torch that of the names, numbers as numbers, after `_ORDER` has renamed those
whose alphabet is not the order of definition. Files of safetensors keep no other order. Names that
nobody knows here may be sorted wrongly.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kzoo.errors import BadInputError
from kzoo.network.model_file import AUXILIARY
from kzoo.zoo.weights.first_layer import first_layers, shift_outputs

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
WHOLE = "save the whole model: model.save('net.keras')"


@dataclass
class Placed:
    """What is not as in the file.

    Attributes:
        notes: one sentence each: a head drawn anew, a first layer adapted, tensors left out.
        anew: the layers that keep the weights they were drawn with.
    """

    notes: list[str] = field(default_factory=list)
    anew: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Unit:
    """The tensors of one layer, by `ROLES`: arrays of a file, or variables of a network.

    ``kind`` as in `Checkpoint`; ``shift`` is what is to be added to the layer's outputs.
    """

    name: str
    tensors: dict = field(default_factory=dict)
    kind: str = ""
    shift: np.ndarray | None = None

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
    kinds: Mapping[str, str] | None = None,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Placed:
    """Assigns ``weights`` to the layers of ``model``.

    Args:
        model: as `kzoo.build` makes it.
        made: its variables in the order in which the builder made them.
        weights, kinds: of `Checkpoint`.
        family: of the network's row.
        torch: whether names, order and layouts are torch's, not Keras'.
        bgr: whether the file's network takes blue first; its first layer is turned round.
        normalization: scale and offset of the pixels in the file's network; that of the model
            unless given.

    Raises:
        BadInputError: the weights are of another network, or do not tell which layer is which.
    """
    if not weights:
        raise BadInputError(f"there are no weights of {model.name}")
    sources = _units_of_torch(weights, family) if torch else _units_of_keras(weights, kinds or {})
    targets = _units_of_model(model, made if torch else None)
    placed = Placed()
    aux, sources = _split(sources, lambda unit: re.match(r"aux|head_aux", unit.name, re.IGNORECASE))
    aux_targets, targets = _split(targets, lambda unit: unit.name.startswith(AUXILIARY))
    by_name = {unit.name for unit in targets} - {"head"} <= {unit.name for unit in sources}
    preprocess = model.get_layer("preprocess")
    ours = preprocess.scale, preprocess.offset
    first = functools.partial(first_layers, model, (normalization or ours, ours), bgr)
    pairs = [] if by_name else first(targets, sources, placed)
    more, targets, sources = _matched(targets, sources, by_name)
    pairs += more
    if by_name:
        pairs += first(targets, sources, placed)
    _heads(targets, sources, placed)
    headless = all(unit.name != "head" for unit in _units_of_model(model, None))
    if headless and not targets and len(sources) == 1:
        placed.notes.append(f"the classifier is left out ({_named(sources)})")
        sources = []
    if targets or sources:
        raise BadInputError(_another_network(model.name, pairs, targets, sources))
    if not by_name:
        _check_order([source for _, source in more])
    more, aux_targets, aux = _matched(aux_targets, aux, by_name)
    pairs += more
    _heads(aux_targets, aux, placed)
    if aux_targets:
        raise BadInputError(_another_network(model.name, pairs, aux_targets, aux))
    if aux:
        placed.notes.append(f"auxiliary classifiers are left out ({_named(aux)})")
    flattened = _flattened(model) if torch else {}
    for target, source in pairs:
        for role, variable in target.tensors.items():
            value = source.tensors[role]
            if role == "weight" and target.name in flattened:
                value = _channels_last(value, flattened[target.name])
            variable.assign(value.reshape(variable.shape))
    for target, source in pairs:
        if source.shift is not None:
            shift_outputs(model, target.name, source.shift, placed)
    return placed


def _split(units: list[Unit], holds: Callable) -> tuple[list[Unit], list[Unit]]:
    return [u for u in units if holds(u)], [u for u in units if not holds(u)]


def _heads(targets: list[Unit], sources: list[Unit], placed: Placed) -> None:
    """Takes out classifiers for other classes, and those that the file lacks; they stay drawn."""
    for target in [unit for unit in targets if unit.name.startswith("head")]:
        for source in sources:
            if said := _other_classes(target, source):
                placed.notes.append(said)
                placed.anew.append(target.name)
                targets.remove(target)
                sources.remove(source)
                break
    if targets and not sources and all(unit.name.startswith("head") for unit in targets):
        placed.notes.append(f"the file has no classifier: {_named(targets)} drawn anew")
        placed.anew += [unit.name for unit in targets]
        targets.clear()


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
    start = _unwrapped([*weights])
    for name, value in weights.items():
        layer, _, last = name[start:].rpartition(".")
        if last not in ROLES:
            layer, last = name[start:], "weight"  # of its own, such as a layer scale
        elif last == "layer_scale":
            layer = name[start:]
        order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim)
        value = value.transpose(order) if order else value
        units.setdefault(layer, Unit(layer)).tensors[ROLES[last]] = value
    return sorted(units.values(), key=lambda unit: _natural(_renamed(unit.name, family)))


def _unwrapped(names: Sequence[str]) -> int:
    """The length of what wrappers put before every name: ``model.``, ``_orig_mod.backbone.``."""
    prefix = re.match(r"((module|model|backbone|network|net|encoder|_orig_mod)\.)*", names[0])[0]
    while not all(name.startswith(prefix) for name in names):
        prefix = prefix[: prefix.rstrip(".").rfind(".") + 1]
    return len(prefix)


def _renamed(name: str, family: str) -> str:
    for pattern, new in _ORDER.get(family, []) + _ORDER[""]:
        name = re.sub(pattern, new, name)
    return name


def _natural(name: str) -> list[tuple]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _units_of_keras(weights: Mapping[str, np.ndarray], kinds: Mapping[str, str]) -> list[Unit]:
    units: dict[str, Unit] = {}
    separable = {name.rpartition("/")[0] for name in weights if name.endswith("/pointwise_kernel")}
    for name, value in weights.items():
        layer, _, last = name.rpartition("/")
        # One layer of theirs is two of ours, as nothing else tells depthwise kernels apart.
        part = layer
        if layer in separable and last != "depthwise_kernel":
            part, last = f"{layer}/pointwise", last.removeprefix("pointwise_")
        units.setdefault(part, Unit(part, kind=kinds.get(layer, ""))).tensors[last] = value
    for unit in units.values():
        # A layer scale's only weight has no name of its own. Of several none is told from others:
        # they keep their names, which no layer of ours has.
        unknown = [last for last in unit.tensors if last not in ROLES]
        known = ROLES | (dict.fromkeys(unknown, "weight") if len(unknown) == 1 else {})
        roles = [known.get(last, last) for last in unit.tensors]
        if len(set(roles)) == len(roles):
            unit.tensors = dict(zip(roles, unit.tensors.values(), strict=True))
    return [*units.values()]


def _matched(
    targets: list[Unit], sources: list[Unit], by_name: bool
) -> tuple[list, list[Unit], list[Unit]]:
    """Pairs of target and source, and what has none on either side."""
    named = {unit.name: unit for unit in sources}
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


def _other_classes(target: Unit, source: Unit) -> str | None:
    """Says that a head stays as it was drawn, if ``source`` is one for other classes."""
    ours, theirs = target.tensors.get("weight"), source.tensors.get("weight")
    if {*target.tensors} != {*source.tensors} or theirs.ndim not in (2, 4):
        return None
    if ours.shape[-2] != theirs.shape[-2] or ours.shape[-1] == theirs.shape[-1]:
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


def _check_order(sources: Sequence[Unit]) -> None:
    """Refuses what order alone tells apart, where the file tells no order."""
    seen: dict[tuple, Unit] = {}
    for source in sources:
        other = seen.setdefault(source.shape, source)
        if other.kind != source.kind:
            raise BadInputError(
                "the file groups layers by class and tells no order between classes: "
                f"{_named([other, source], True)} may be one where the other is; {WHOLE}"
            )


def _named(units: Sequence[Unit], shapes: bool = False) -> str:
    def text(unit: Unit) -> str:
        if {*unit.tensors} - {*ROLES.values()}:
            return ", ".join(f"{unit.name}/{each}" for each in unit.tensors)
        shape = max((tuple(tensor.shape) for tensor in unit.tensors.values()), key=len)
        return f"{unit.name} {' x '.join(map(str, shape))}" if shapes else unit.name

    return ", ".join(map(text, units[:3])) + (", ..." if len(units) > 3 else "")


def _another_network(name: str, pairs: list, targets: list[Unit], sources: list[Unit]) -> str:
    said = [f"the weights are not of {name}: {len(pairs)} layers fit"]
    if targets:
        said.append(f"nothing fits {len(targets)} of its layers ({_named(targets, True)})")
    if sources:
        said.append(f"{len(sources)} of the file's are left over ({_named(sources, True)})")
    if any(role.isdigit() for unit in sources for role in unit.tensors):
        said.append(f"variables that the file does not name are read as none; {WHOLE}")
    if any(unit.name.startswith("head_fc") for unit in targets):
        said.append("a dense layer on the whole map needs the size that the weights were made for")
    return ", ".join(said)
