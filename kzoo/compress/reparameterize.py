"""Parallel linear branches merged into single convolutions."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kzoo.compress.graph import (
    Call,
    flat,
    fold_batch_norm,
    is_batch_norm,
    is_linear,
    producer,
    readers,
    replay,
    scale_and_offset,
)
from kzoo.network.graph import calls

if TYPE_CHECKING:
    import keras

Pads = tuple[tuple[int, int], tuple[int, int]]


def reparameterize(model: keras.Model) -> keras.Model:
    """Turns sums of parallel linear branches into plain convolutions that compute the same.

    Ding et al. 2021 (RepVGG, arXiv:2101.03697), section 3.3; 2019 (ACNet, arXiv:1908.03930),
    section 3.2; Vasu et al. 2023 (MobileOne, arXiv:2206.04040), section 3.3. An Add becomes one
    Conv2D (a DepthwiseConv2D where all its convolutions are) if each of its terms is the same
    tensor (n, h, w, c), convolved (Conv2D or DepthwiseConv2D with zero padding), normalized by
    BatchNormalization, both, or as it is; a term may be such a sum again. Every other
    BatchNormalization is folded as `kzoo.compress.graph.fold_batch_norm` does. Kernels are placed
    where their padding puts them, so odd, even and asymmetric ones merge exactly, also under
    "same" at stride 2, where a 1x1 lies in a corner of a 3x3.

    A sum stays as it is where a merged kernel would not be exact (other strides, dilation,
    precisions; a branch that is read elsewhere too) or would cost more than its branches (a 1x7
    beside a 7x1). The Add ``stage1_1_add`` becomes ``stage1_1_conv``, after ``stage1_1_pad``
    if its padding is none that a convolution has by itself.

    Args:
        model: functional or Sequential, images to anything; it stays as it is.

    Returns:
        A new model of the same inputs and outputs, in which models inside the model are opened. It
        is for inference: trained further, it is not the network that the branches made of it.

    Raises:
        BadInputError: the model is not made of a graph.
    """
    model = flat(model)
    reads = readers(model)
    merged: dict[object, Branch] = {}
    gone = set()
    for node in reversed(calls(model)):
        if node not in gone and _is_sum(node) and (found := _cheapest(_sums(node, reads))):
            merged[node] = found
            gone |= set(found.nodes)
    names = {node.operation.name for node in calls(model) if node not in gone}
    layers: dict[tuple, list] = {}

    def visit(call: Call):
        if call.node in gone:
            # Nothing reads it any more; its input stands for it until the new model leaves it out.
            return call.new(call.node.input_tensors[0])
        if call.node not in merged:
            return call.repeat()
        branch = merged[call.node]
        shared = tuple(node.operation for node in (call.node, *branch.nodes))
        if shared not in layers:
            layers[shared] = branch.layers(_free(call.node.operation.name, names))
        x = call.new(branch.source)
        for layer in layers[shared]:
            x = layer(x)
        layers[shared][-1].set_weights([branch.layer_kernel, branch.bias])
        return x

    return fold_batch_norm(replay(model, visit))


@dataclass(frozen=True, eq=False)
class Branch:
    """A tensor as a convolution of another one, with the zeros around it written out.

    Attributes:
        source: the tensor that is convolved, (n, h, w, c).
        kernel: (kh, kw, c / groups, filters), float64.
        bias: (filters,), float64.
        groups: of the convolution; c for a depthwise one, for BatchNormalization and identity.
        strides: high and wide.
        pads: zeros before and after the source, high and wide.
        template: the convolution whose further settings hold; None if there is none.
        cost: the kernels' weights of the convolutions that it stands for.
        nodes: the calls that it stands for.
    """

    source: keras.KerasTensor
    kernel: np.ndarray
    bias: np.ndarray
    groups: int
    strides: tuple[int, int] = (1, 1)
    pads: Pads = ((0, 0), (0, 0))
    template: object = None
    cost: int = 0
    nodes: tuple = ()

    @property
    def layer_kernel(self) -> np.ndarray:
        """The kernel in the shape that the template's class has it in."""
        if not _is_depthwise(self.template):
            return self.kernel
        return self.kernel.reshape(*self.kernel.shape[:2], self.groups, -1)

    def layers(self, name: str) -> list:
        """The layers that compute it: a convolution, behind a ZeroPadding2D if need be."""
        import keras

        size = self.kernel.shape[:2]
        own = same_padding(self.source.shape[1:3], size, self.strides) == self.pads
        pads = not own and any(sum(pad) for pad in self.pads)
        config = self.template.get_config() | {
            "name": f"{name}_conv",
            "kernel_size": size,
            "padding": "same" if own else "valid",
            "use_bias": True,
        }
        if not _is_depthwise(self.template):
            config["groups"] = self.groups
        conv = type(self.template).from_config(config)
        return [keras.layers.ZeroPadding2D(self.pads, name=f"{name}_pad"), conv] if pads else [conv]


def _cheapest(sums: list[Branch]) -> Branch | None:
    """The sum over the tensor furthest back, of those that cost no more than their branches."""
    found = [each for each in sums if each.template and each.kernel.size <= each.cost]
    return found[-1] if found else None


def _sums(node, reads) -> list[Branch]:
    """The ways to see a sum as a convolution: one for each tensor that all its terms come from."""
    terms = [{id(b.source): b for b in _readings(t, reads)} for t in node.input_tensors]
    common = [source for source in terms[0] if all(source in term for term in terms)]
    found = [_sum([term[source] for term in terms]) for source in common]
    return [each for each in found if each]


def _is_sum(node) -> bool:
    """Whether a call adds feature maps of one shape: a layer Add, `keras.ops.add` or ``+``."""
    import keras

    kind, arguments = type(node.operation), node.arguments
    shape = node.outputs[0].shape
    return (
        kind.__name__ == "Add"
        and kind.__module__.startswith("keras.")
        and len(shape) == 4
        and shape[-1] is not None
        and all(
            isinstance(each, keras.KerasTensor) and each.shape == shape
            for each in keras.tree.flatten((arguments.args, arguments.kwargs))
        )
    )


def _readings(tensor, reads) -> list[Branch]:
    """The ways to see a tensor as a convolution: of itself, and of what it was made from if
    nothing else reads it."""
    import keras

    channels = tensor.shape[-1]
    identity = Branch(tensor, np.ones((1, 1, 1, channels)), np.zeros(channels), channels)
    node = producer(tensor)
    if node is None or len(reads[id(tensor)]) != 1:
        return [identity]
    found = []
    if _is_sum(node):
        found = _sums(node, reads)
    elif is_batch_norm(node):
        scale, offset = scale_and_offset(node.operation)
        found = [
            dataclasses.replace(each, kernel=each.kernel * scale, bias=each.bias * scale + offset)
            for each in _readings(node.input_tensors[0], reads)
        ]
    elif type(node.operation) is keras.layers.Identity:
        found = _readings(node.input_tensors[0], reads)
    elif isinstance(node.operation, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        found = _convolutions(node)
    return [identity, *(dataclasses.replace(each, nodes=(*each.nodes, node)) for each in found)]


def _convolutions(node) -> list[Branch]:
    """A convolution of its input and, where zeros were padded to that, of what was padded."""
    import keras

    layer, source = node.operation, node.input_tensors[0]
    before = producer(source)
    size, strides = tuple(layer.kernel_size), tuple(layer.strides)
    same = layer.padding == "same"
    pads = same_padding(source.shape[1:3], size, strides) if same else ((0, 0), (0, 0))
    if (
        not is_linear(layer)
        or layer.data_format != "channels_last"
        or set(layer.dilation_rate) != {1}
        or pads is None
    ):
        return []
    kernel, bias = [*layer.get_weights(), *([] if layer.use_bias else [0.0])]
    groups = kernel.shape[2] if _is_depthwise(layer) else layer.groups
    kernel = kernel.astype(np.float64).reshape(*size, source.shape[-1] // groups, -1)
    bias = np.zeros(kernel.shape[-1]) + bias
    conv = Branch(source, kernel, bias, groups, strides, pads, layer, kernel.size)
    pad = before and before.operation
    if type(pad) is not keras.layers.ZeroPadding2D or pad.data_format != "channels_last":
        return [conv]
    pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(pads, pad.padding, strict=True))
    return [conv, dataclasses.replace(conv, source=before.input_tensors[0], pads=pads)]


def _sum(branches: list[Branch]) -> Branch | None:
    """The sum of convolutions of one source; None where strides or precisions differ."""
    convs = [branch for branch in branches if branch.template]
    policies = {branch.template.dtype_policy.name for branch in convs}
    if len({branch.strides for branch in branches}) > 1 or len(policies) > 1:
        return None
    groups = math.gcd(*(branch.groups for branch in branches))
    pads, size = [], []
    for axis in (0, 1):
        before = max(branch.pads[axis][0] for branch in branches)
        # How many pixels of the source itself the first output reads.
        reach = [branch.kernel.shape[axis] - branch.pads[axis][0] for branch in branches]
        after = min(
            max(reach) - own + branch.pads[axis][1]
            for own, branch in zip(reach, branches, strict=True)
        )
        pads.append((before, after))
        size.append(before + max(reach))
    # A kernel's first pixel lies where its own padding begins.
    first = branches[0]
    kernel = np.zeros((*size, first.source.shape[-1] // groups, len(first.bias)))
    for branch in branches:
        high, wide = branch.kernel.shape[:2]
        top, left = (pads[axis][0] - branch.pads[axis][0] for axis in (0, 1))
        part = _regrouped(branch.kernel, branch.groups, groups)
        kernel[top : top + high, left : left + wide] += part
    dense = [branch for branch in convs if not _is_depthwise(branch.template)]
    widest = max(dense or convs or branches, key=lambda branch: branch.kernel.size)
    return dataclasses.replace(
        widest,
        kernel=kernel,
        bias=sum(branch.bias for branch in branches),
        groups=groups,
        pads=tuple(pads),
        cost=sum(branch.cost for branch in branches),
        nodes=tuple(node for branch in branches for node in branch.nodes),
    )


def _regrouped(kernel: np.ndarray, groups: int, fewer: int) -> np.ndarray:
    """The same convolution in fewer groups, a divisor of ``groups``: zeros between channels."""
    high, wide, inputs, filters = kernel.shape
    group = np.arange(filters) // (filters // groups) % (groups // fewer)
    found = np.zeros((high, wide, groups // fewer, inputs, filters))
    found[:, :, group, :, np.arange(filters)] = kernel.transpose(3, 0, 1, 2)
    return found.reshape(high, wide, -1, filters)


def same_padding(image, size, strides) -> Pads | None:
    """The zeros of padding "same", before and after; None where an unknown size decides."""
    found = []
    for length, kernel, stride in zip(image, size, strides, strict=True):
        if stride == 1 or kernel == 1:
            total = kernel - 1
        elif length is None:
            return None
        else:
            total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
        found.append((total // 2, total - total // 2))
    return tuple(found)


def _is_depthwise(layer) -> bool:
    return type(layer).__name__ == "DepthwiseConv2D"


def _free(name: str, names: set[str]) -> str:
    """What stands before ``_conv`` and ``_pad`` in the names of merged layers; takes them."""
    base = name = name.removesuffix("_add")
    number = 1
    while {f"{base}_conv", f"{base}_pad"} & names:
        number += 1
        base = f"{name}_{number}"
    names |= {f"{base}_conv", f"{base}_pad"}
    return base
