"""NASNet-A: Zoph, Vasudevan, Shlens, Le 2018 (arXiv:1707.07012), figure 4 and appendix A."""

from __future__ import annotations

from kzoo.registry import model
from kzoo.zoo.blocks import (
    INITIALIZER,
    activate,
    classifier,
    conv,
    flavour,
    layers,
    normalize,
    separable,
)

# Figure 4: what is added, as (operation, input). A number is the kernel of two separable
# convolutions; "p" is the output of the cell before the last, "h" that of the last, "z" the same
# with zeros around; 1 and 2 are the sums made before.
NORMAL = (
    ((5, "h"), (3, "p")),
    ((5, "p"), (3, "p")),
    (("mean", "h"), ("same", "p")),
    (("mean", "p"), ("mean", "p")),
    ((3, "h"), ("same", "h")),
)
REDUCTION = (
    ((5, "h"), (7, "p")),
    (("max", "z"), (7, "p")),
    (("mean", "z"), (5, "p")),
    (("same", 2), ("mean", 1)),
    ((3, 1), ("max", "z")),
)


def operate(kind, x, filters, stride, name):
    """One operation of figure 4: (n, h, w, c) -> (n, ceil(h / stride), ceil(w / stride), c)."""
    padding = "same" if stride == 1 else "valid"  # "z" is padded already
    if kind == "same":
        return x
    if kind == "mean":
        return layers.AveragePooling2D(3, stride, padding, name=f"{name}_pool")(x)
    if kind == "max":
        return layers.MaxPooling2D(3, stride, padding, name=f"{name}_pool")(x)
    x = activate(x, "relu", f"{name}_enter")
    x = separable(x, filters, kind, stride, name=f"{name}_1")
    return separable(x, filters, kind, act=None, name=f"{name}_2")


def fitted(x, like, filters, name):
    """x at the height and width of ``like``, with ``filters`` channels; the first x stays."""
    same = x.shape[1:3] == like.shape[1:3]
    if x is like or (same and x.shape[-1] == filters):
        return x
    x = activate(x, "relu", f"{name}_enter")
    if same:
        return conv(x, filters, act=None, name=name)
    # Every second pixel, and every second of the image shifted by one: half the filters each.
    shifted = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    shifted = layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_crop")(shifted)
    halves = [
        layers.Conv2D(
            filters // 2, 1, 2, use_bias=flavour().norm == "none",
            kernel_initializer=INITIALIZER, name=f"{name}_{part}_conv",
        )(pixels)
        for part, pixels in (("even", x), ("odd", shifted))
    ]  # fmt: skip
    return normalize(layers.Concatenate(name=f"{name}_concat")(halves), name=name)


def cell(x, previous, filters, stride, name):
    """The normal cell, or with stride 2 the reduction cell: (n, h / stride, w / stride, c)."""
    sums, joined = (NORMAL, ("p", 1, 2, 3, 4, 5)) if stride == 1 else (REDUCTION, (2, 3, 4, 5))
    h = conv(activate(x, "relu", f"{name}_enter"), filters, act=None, name=f"{name}_h")
    nodes = {"h": h, "p": fitted(previous, x, filters, f"{name}_p")}
    if stride == 2:
        before = [1 if flavour().symmetric else length % 2 for length in h.shape[1:3]]
        pad = layers.ZeroPadding2D([(pixels, 1) for pixels in before], name=f"{name}_z_pad")
        nodes["z"] = pad(h)
    for i, pair in enumerate(sums, start=1):
        sides = []
        for side, (kind, of) in zip(("left", "right"), pair, strict=True):
            step = 1 if of in (1, 2) else stride
            sides.append(operate(kind, nodes[of], filters, step, f"{name}_{i}_{side}"))
        nodes[i] = layers.Add(name=f"{name}_{i}_add")(sides)
    return layers.Concatenate(name=f"{name}_concat")([nodes[n] for n in joined])


# filters of the reduction cell, of the normal cells, number of normal cells
STAGES = ((11, 0, 0), (22, 44, 4), (88, 88, 4), (176, 176, 4))


@model("nasnet_mobile", 5_289_978, 5_326_716, 563_638_816,
       paper="Zoph et al. 2018 (arXiv:1707.07012), NASNet-A (4 @ 1056)", top1=74.366,
       top1_source="keras-applications")  # fmt: skip
def nasnet_mobile(x, classes):
    x = previous = conv(x, 32, 3, 2, act=None, padding="valid", name="stem")
    for i, (reduced, filters, cells) in enumerate(STAGES, start=1):
        x, previous = cell(x, previous, reduced, 2, f"stage{i}_1"), x
        for j in range(2, 2 + cells):
            x, previous = cell(x, previous, filters, 1, f"stage{i}_{j}"), x
    return classifier(activate(x, "relu", "head"), classes)
