"""The reliability diagram: how often a network is right when it says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kzoo.report.plots import BLUE, FAINT, ORANGE, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 3.1, 4.1
"""Inches of one panel with its histogram."""


def reliability(found: Mapping[str, Mapping], path: str | os.PathLike, title: str = "") -> None:
    """Accuracy against confidence, bin by bin, over how many images are in each bin.

    After Guo et al. 2017, figure 1: where the bars end below the diagonal the network is more
    confident than it is right.

    Args:
        found: name of the panel -> record of a `kzoo.learn.evaluate.Evaluation`.
        path: the PNG.
        title: above the figure.
    """
    with drawn(path, WIDTH * max(len(found), 1.5), HEIGHT, title) as figure:
        grid = figure.subplots(
            2, len(found), sharex=True, sharey="row", squeeze=False,
            gridspec_kw={"height_ratios": [3, 1]},
        )  # fmt: skip
        for column, (name, each) in enumerate(found.items()):
            _panel(grid[0, column], each)
            _histogram(grid[1, column], each)
            grid[0, column].set_title(f"{name}: ECE {100 * each['ece']:.1f} %", parse_math=False)
        grid[0, 0].set_ylabel("accuracy (%)")
        grid[1, 0].set_ylabel("images (%)")
        figure.align_ylabels()
        figure.legend(  # below: inside it would lie over the first bins
            grid[0, 0].patches[:2], ["right", "gap to confidence"], loc="outside lower center",
            ncols=2, fontsize=8, labelcolor=FAINT,
        )  # fmt: skip


def _panel(axes: Axes, found: Mapping) -> None:
    bins = found["reliability"]
    width = 100 / len(bins)
    for i, each in enumerate(bins):
        if not each["count"]:
            continue
        confidence, accuracy = 100 * each["confidence"], 100 * each["accuracy"]
        low, high = sorted((confidence, accuracy))
        left = i * width
        axes.bar(left, accuracy, width, align="edge", color=BLUE, edgecolor="white", linewidth=0.6)
        axes.bar(
            left, high - low, width, low, align="edge", facecolor="none", edgecolor=ORANGE,
            linewidth=0.8, hatch="/////",
        )  # fmt: skip
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)


def _histogram(axes: Axes, found: Mapping) -> None:
    bins = found["reliability"]
    width = 100 / len(bins)
    shares = [100 * each["count"] / found["count"] for each in bins]
    lefts = [i * width for i in range(len(bins))]
    axes.bar(lefts, shares, width, align="edge", color="#b3bcc5", edgecolor="white", linewidth=0.6)
    axes.axvline(100 * found["accuracy"], color=BLUE, linewidth=1.4)
    axes.set_xlabel("confidence (%), line: accuracy")
