"""A network as a reader sees it: blocks of boxes, from the rows of its layers.

A normalization or an activation is a tag on its convolution; blocks that are built alike are one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BLOCK = re.compile(r"(stem|stage(\d+)_(\d+)|head)(?=_|$)")
NORMS = {"BatchNormalization": "BN", "GroupNormalization": "GN", "LayerNormalization": "LN"}
ACTIVATIONS = {
    "relu": "ReLU", "relu6": "ReLU6", "silu": "SiLU", "hard_silu": "h-swish", "gelu": "GELU",
    "sigmoid": "σ", "hard_sigmoid": "h-σ", "leaky_relu": "LReLU",
}  # fmt: skip
TAGS = {
    *NORMS, "Activation", "ReLU", "LeakyReLU", "PReLU", "Softmax", "ZeroPadding2D", "Dropout",
    "SpatialDropout2D", "Flatten", "Reshape", "Rescaling", "Identity",
}  # fmt: skip
"""Layers that are drawn as a small tag on the one before, or after."""
SIGNS = {"Add": "+", "Multiply": "×", "Subtract": "−", "Maximum": "max", "Average": "avg"}
WORDS = {
    "Conv2D": "conv", "Conv1D": "conv", "DepthwiseConv2D": "depthwise",
    "SeparableConv2D": "separable", "Conv2DTranspose": "transposed conv", "Dense": "dense",
    "MaxPooling2D": "max pool", "AveragePooling2D": "avg pool",
    "GlobalAveragePooling2D": "global avg pool", "GlobalMaxPooling2D": "global max pool",
    "Concatenate": "concat", "InputLayer": "image", "Cropping2D": "crop",
    "UpSampling2D": "upsample",
}  # fmt: skip


@dataclass
class Node:
    """One box: a layer with what is fused into it.

    Attributes:
        rows: the layers, in order.
        inputs: the nodes of the block before it, or the names of layers of other blocks.
        alike: it, and the node in its place in every block that its own stands for.
    """

    rows: list[Mapping]
    inputs: list[int | str] = field(default_factory=list)
    alike: list[Node] = field(default_factory=list)

    @property
    def main(self) -> Mapping | None:
        """The layer that gives the box its name; None where all are tags."""
        return next((row for row in self.rows if row["kind"] not in TAGS), None)

    @property
    def kind(self) -> str:
        """Of that layer."""
        return self.main["kind"] if self.main else ""


@dataclass
class Block:
    """Layers with one prefix, as nodes; ``members`` are the blocks that it stands for."""

    name: str
    nodes: list[Node]
    number: int = 0
    members: list[Block] = field(default_factory=list)

    @property
    def rows(self) -> list[Mapping]:
        """The layers of all members."""
        return [row for block in self.members for node in block.nodes for row in node.rows]


def blocks_of(table: Sequence[Mapping]) -> list[Block]:
    """The blocks of a `kzoo.network.count.layer_table`, from the image to the head."""
    readers: dict[str, list[str]] = {}
    for row in table:
        for name in row["inputs"]:
            readers.setdefault(name, []).append(row["name"])
    prefix: dict[str, str] = {}
    grouped: dict[str, list[Mapping]] = {}
    for row in table:
        found = BLOCK.match(row["name"])
        # An operation without a name of its own belongs where its input is.
        before = next((prefix[name] for name in row["inputs"] if name in prefix), "image")
        own = row["name"] in ("image", "preprocess") or not row["inputs"]
        prefix[row["name"]] = found[1] if found else "image" if own else before
        grouped.setdefault(prefix[row["name"]], []).append(row)
    ordered = sorted(grouped, key=_place)
    return [Block(name, _nodes(grouped[name], readers), i) for i, name in enumerate(ordered)]


def stages_of(layers: Sequence[str]) -> list[tuple[str, int, int]]:
    """(``stage 1``, first, last) of each run of layers of one stage; none if names do not tell."""
    named = [BLOCK.match(layer) for layer in layers]
    if sum(map(bool, named)) < len(layers) / 2:
        return []
    found: list[tuple[str, int, int]] = []
    for number, match in enumerate(named):
        name = match[1].split("_")[0].replace("stage", "stage ") if match else ""
        name = name or (found[-1][0] if found else "in")
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], number)
        else:
            found.append((name, number, number))
    return found


def _place(name: str) -> tuple[int, int, int]:
    if found := re.fullmatch(r"stage(\d+)_(\d+)", name):
        return 2, int(found[1]), int(found[2])
    return {"image": 0, "stem": 1, "head": 3}.get(name, 1), 0, 0


def _nodes(rows: list[Mapping], readers: Mapping[str, list[str]]) -> list[Node]:
    owner: dict[str, Node] = {}
    nodes: list[Node] = []
    for row in rows:
        before = owner.get(row["inputs"][0]) if len(row["inputs"]) == 1 else None
        tag = row["kind"] in TAGS and row["kind"] != "ZeroPadding2D"
        if tag and before and len(readers[row["inputs"][0]]) == 1:
            before.rows.append(row)
            owner[row["name"]] = before
        else:
            nodes.append(Node([row]))
            owner[row["name"]] = nodes[-1]
    # Tags that stand alone go to what reads them: padding, and normalization before a convolution.
    for node in reversed(nodes[:]):
        reading = readers.get(node.rows[-1]["name"], [])
        after = owner.get(reading[0]) if len(reading) == 1 else None
        if node.main is None and after and after is not node:
            first = after.rows[0]
            if first["name"] == reading[0] and len(first["inputs"]) == 1:
                after.rows[:0] = node.rows
                owner |= {row["name"]: after for row in node.rows}
                nodes = [other for other in nodes if other is not node]
    nodes.sort(key=lambda node: max(rows.index(row) for row in node.rows))
    place = {id(node): i for i, node in enumerate(nodes)}
    for node in nodes:
        for name in node.rows[0]["inputs"]:
            if name not in owner:
                node.inputs.append(name)
            # A layer that is called twice would come before itself.
            elif place[id(owner[name])] < place[id(node)]:
                node.inputs.append(place[id(owner[name])])
    return nodes


def fold(blocks: list[Block]) -> list[Block]:
    """Runs of blocks with the same structure become one; their channels may differ."""
    home = {
        row["name"]: (block.number, node is block.nodes[-1])
        for block in blocks
        for node in block.nodes
        for row in node.rows
    }
    folded: list[Block] = []
    last = None
    for block in blocks:
        now = [block.name.split("_")[0], *(_structure(n, block, home) for n in block.nodes)]
        if now == last:
            folded[-1].members.append(block)
            for first, node in zip(folded[-1].nodes, block.nodes, strict=True):
                first.alike.append(node)
        else:
            block.members = [block]
            for node in block.nodes:
                node.alike = [node]
            folded.append(block)
        last = now
    return folded


def _structure(node: Node, block: Block, home: Mapping) -> tuple:
    layers = []
    for row in node.rows:
        settings = str(sorted(row.get("settings", {}).items()))
        layers.append((row["kind"], settings, *row["shape"][:-1]))
    sources = []
    for given in node.inputs:
        number, whole = home.get(given, (0, True)) if isinstance(given, str) else (0, True)
        sources.append((block.number - number, whole) if isinstance(given, str) else given)
    return tuple(layers), tuple(sources)


def label(node: Node) -> str:
    """What stands in a box: ``3×3 conv, 64, /2``; the channels of all that are drawn as one."""
    row = node.main
    if row is None:
        return ""
    kind, settings = row["kind"], row.get("settings", {})
    if kind in SIGNS:
        return SIGNS[kind]
    word = WORDS.get(kind) or " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", kind))
    if kind not in WORDS and not word.isupper():
        word = word.lower()
    if kind == "InputLayer":
        return f"{word} {dimensions(row['shape'])}"
    kernel = settings.get("kernel_size") or settings.get("pool_size")
    parts = [f"{'×'.join(map(str, _both(kernel)))} {word}" if kernel else word]
    if kind not in ("DepthwiseConv2D", "Concatenate") and row["macs"]:
        parts.append(span([other.main["shape"][-1] for other in node.alike]))
    groups = settings.get("groups", 1)
    if groups and groups > 1 and kind == "Conv2D":
        parts.append(f"g{groups}")
    strides = _both(settings.get("strides") or 1)
    if max(strides) > 1:
        parts.append("/" + ("×".join(map(str, dict.fromkeys(strides)))))
    if max(_both(settings.get("dilation_rate") or 1)) > 1:
        parts.append(f"dilated {max(_both(settings['dilation_rate']))}")
    return ", ".join(parts)


def _both(value: object) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value, value]


def span(values: Sequence[int]) -> str:
    """``64``, or ``64–128`` where they differ."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}–{high}"


def dimensions(shape: Sequence[object]) -> str:
    """``56×56×64``"""
    return "×".join("?" if size is None else str(size) for size in shape)


def _tags_of(rows: Sequence[Mapping]) -> list[tuple[str, str]]:
    """(text, "norm" | "act" | "other") of every tag."""
    found = []
    for row in rows:
        kind, settings = row["kind"], row.get("settings", {})
        activation = settings.get("activation")
        if kind in NORMS:
            found.append((NORMS[kind], "norm"))
        elif row["name"] == "preprocess":
            found.append(("normalize", "other"))
        elif kind == "Rescaling":
            found.append((f"× {settings.get('scale', 1):.3g}".replace("-", "−"), "other"))
        elif kind in ("Dropout", "SpatialDropout2D"):
            found.append(("dropout", "other"))
        elif kind in ("Flatten", "Reshape"):
            found.append((kind.lower(), "other"))
        elif kind in ("ReLU", "LeakyReLU", "PReLU"):
            found.append(("LReLU" if kind == "LeakyReLU" else kind, "act"))
        elif activation or kind == "Softmax":
            name = activation or "softmax"
            found.append((ACTIVATIONS.get(name, name.replace("_", " ")), "act"))
    return found


def tags(node: Node) -> tuple[list, list]:
    """The tags before and after a node's own layer; a layer's own activation comes after it."""
    if node.main is None:
        return [], _tags_of(node.rows) or [("pad", "other")]
    at = next(i for i, row in enumerate(node.rows) if row is node.main)
    return _tags_of(node.rows[:at]), _tags_of(node.rows[at:])
