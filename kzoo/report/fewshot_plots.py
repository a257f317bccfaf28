"""The figures of a few-shot study: per shots, per depth, per temperature, per iteration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kzoo.report.plots import FAINT, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 3.9, 3.5
"""Inches of one panel."""


def per_shots(means: Sequence[Mapping], path: str | os.PathLike, title: str = "") -> None:
    """Accuracy over the shots, a panel per head, a line per cut (per temperature for logits-T).

    Args:
        means: rows of cut, head, temperature, shots, accuracy, accuracy_interval (None or [low,
            high]).
        path: the PNG.
        title: above the figure.
    """
    heads = _values(means, "head")
    with drawn(path, WIDTH * len(heads), HEIGHT, title) as figure:
        for axes, head in zip(_row(figure, len(heads)), heads, strict=True):
            of_head = [row for row in means if row["head"] == head]
            key = "cut" if head != "logits-T" else "temperature"
            _lines(axes, of_head, "shots", key, "accuracy", 100)
            _logarithmic(axes, _values(means, "shots"))
            axes.set_title(head)
            axes.set_xlabel("images per class")
        figure.axes[0].set_ylabel("accuracy (%)")


def per_depth(means: Sequence[Mapping], path: str | os.PathLike, title: str = "") -> None:
    """Accuracy over the cuts, a panel per head, a line per number of shots; as `per_shots`."""
    heads, cuts = _values(means, "head"), _values(means, "cut")
    with drawn(path, WIDTH * len(heads), HEIGHT, title) as figure:
        for axes, head in zip(_row(figure, len(heads)), heads, strict=True):
            places = [
                dict(row, place=cuts.index(row["cut"])) for row in means if row["head"] == head
            ]
            _lines(axes, places, "place", "shots", "accuracy", 100)
            axes.set_xticks(range(len(cuts)), cuts, parse_math=False)
            axes.set_title(head)
            axes.set_xlabel("features of")
        figure.axes[0].set_ylabel("accuracy (%)")


def per_temperature(means: Sequence[Mapping], path: str | os.PathLike, title: str = "") -> None:
    """Accuracy and log-loss of logits-T over the temperature, a line per number of shots."""
    with drawn(path, 2 * WIDTH, HEIGHT, title) as figure:
        panels = figure.subplots(1, 2)
        for axes, (key, scale) in zip(
            panels, {"accuracy": 100, "log_loss": 1}.items(), strict=True
        ):
            _lines(axes, means, "temperature", "shots", key, scale)
            _logarithmic(axes, _values(means, "temperature"))
            axes.set_xlabel("temperature T of the source network's softmax")
        panels[0].set_ylabel("accuracy (%)")
        panels[1].set_ylabel("log-loss (nats)")


def per_iteration(
    rows: Sequence[Mapping], key: str, path: str | os.PathLike, title: str = ""
) -> None:
    """Loss and accuracy over the optimizer's iterations, means over the draws.

    Args:
        rows: of one head, with cut, temperature, shots and curve.
        key: "cut" or "temperature": a column of panels for each of its values.
        path: the PNG.
        title: above the figure.
    """
    columns, shots = _values(rows, key), _values(rows, "shots")
    with drawn(path, max(2.9 * len(columns), 5.2), 4.9, title) as figure:
        grid = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False)
        for column, value in enumerate(columns):
            for count, color in zip(shots, _ramp(len(shots)), strict=True):
                curves = [r["curve"] for r in rows if (r[key], r["shots"]) == (value, count)]
                for axes, name, scale in zip(
                    grid[:, column], ("loss", "accuracy"), (1, 100), strict=True
                ):
                    for field, line in ((name, "-"), (f"train_{name}", (0, (3, 1.5)))):
                        mean = _mean([curve[field] for curve in curves], scale)
                        style = {"color": color, "linestyle": line, "linewidth": 1.4}
                        label = f"{count}" if field == "loss" else None
                        axes.plot(range(1, len(mean) + 1), mean, label=label, **style)
            name = value if key == "cut" else f"T = {value:g}"
            grid[0, column].set_title(name, parse_math=False)
            grid[1, column].set_xlabel("iteration")
        for axes in grid.flat:
            axes.grid(axis="y")
            axes.locator_params(axis="x", integer=True)
        grid[0, 0].set_ylabel("log-loss (nats)")
        grid[1, 0].set_ylabel("accuracy (%)")
        # One head that fits nothing must not flatten all others.
        ends = [row["curve"]["loss"][-1] for row in rows if row["curve"]["loss"]]
        grid[0, 0].set_ylim(0, 1.6 * sorted(ends)[int(0.9 * (len(ends) - 1))])
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, title="images per class; dashed: on these, the training images",
            loc="outside upper right", ncols=len(shots),
        )  # fmt: skip


def _mean(curves: Sequence[Sequence[float]], scale: float) -> list[float]:
    """Per iteration; a draw that converged earlier stays where it ended."""
    longest = max(map(len, curves))
    filled = [[*curve, *[curve[-1]] * (longest - len(curve))] for curve in curves if len(curve)]
    return [scale * sum(each) / len(filled) for each in zip(*filled, strict=True)]


def _values(rows: Sequence[Mapping], key: str) -> list:
    """What occurs, in the order of its first occurrence."""
    return list(dict.fromkeys(row[key] for row in rows))


def _row(figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


def _ramp(count: int) -> list:
    """Colours in an order that everybody sees, from few to many."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.88 - 0.78 * i / max(count - 1, 1)) for i in range(count)]


def _lines(axes: Axes, rows: Sequence[Mapping], x: str, line: str, y: str, scale: float) -> None:
    """A line with error bars for every value of ``line``; x is a place, or drawn to base 2."""
    names = _values(rows, line)
    for i, (name, color) in enumerate(zip(names, _ramp(len(names)), strict=True)):
        chosen = [row for row in rows if row[line] == name]
        aside = 0.06 * (i - (len(names) - 1) / 2)  # so that bars do not hide each other
        places = [row[x] + aside if x == "place" else row[x] * 2**aside for row in chosen]
        middle = [scale * row[y] for row in chosen]
        ends = [row[f"{y}_interval"] or [row[y]] * 2 for row in chosen]
        bars = [
            [value - scale * low for value, (low, _) in zip(middle, ends, strict=True)],
            [scale * high - value for value, (_, high) in zip(middle, ends, strict=True)],
        ]
        axes.errorbar(
            places, middle, bars, label=_label(line, name), color=color, marker="o", markersize=4,
            linewidth=1.6, elinewidth=1, capsize=2.5,
        )  # fmt: skip
    axes.grid(axis="y")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1, 1), fontsize=8,
        labelcolor=FAINT,
    )  # fmt: skip


def _label(line: str, value: float | str) -> str:
    if line == "shots":
        return f"{value} image{'s' * (value > 1)}"
    return f"T = {value:g}" if line == "temperature" else value


def _logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
