"""The picture of a sensitivity sweep: layers by settings, shaded by what is lost."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kzoo.report.plots import FAINT, INK, drawn, legible

KINDS = {
    "sparsity": ("zeros", lambda at: f"{100 * at:g} %"),
    "bits": ("bits", lambda at: f"{at:g}"),
    "channels": ("channels removed", lambda at: f"{100 * at:g} %"),
}
LEAST = 1e-4
"""Divergences below it, nats, are shown alike."""


def worst(record: Mapping, count: int) -> list[tuple[str, str, Mapping]]:
    """The layers that lose most, (kind, layer, point), by the middle setting of each sweep."""
    found = []
    for kind in KINDS:
        rows = [row for row in record["layers"] if row.get(kind)]
        for row in rows:
            # Its ends spare or break them all.
            point = row[kind][len(row[kind]) // 2]
            found.append((kind, row["layer"], point))
    return sorted(found, key=lambda each: -each[2]["divergence"])[:count]


def sensitivity_plot(record: Mapping, path: str | os.PathLike, title: str = "") -> None:
    """Layers from the input at the top to the output, a panel of settings for each sweep.

    The shade is the divergence; the number the points of accuracy that are lost, from one on.

    Args:
        record: of `kzoo.sensitivity`.
        path: the PNG.
        title: above the figure.
    """
    import numpy as np
    from matplotlib.colors import LogNorm

    rows = record["layers"]
    kinds = [kind for kind in KINDS if any(row.get(kind) for row in rows)]
    settings = {
        kind: [point["at"] for point in next(row[kind] for row in rows if row.get(kind))]
        for kind in kinds
    }
    grids = {}
    for kind in kinds:
        grids[kind] = np.full((2, len(rows), len(settings[kind])), np.nan)
        for i, row in enumerate(rows):
            for j, point in enumerate(row.get(kind) or ()):
                lost = 100 * (record["accuracy"] - point["accuracy"])
                grids[kind][:, i, j] = max(point["divergence"], LEAST), lost
    most = max(np.nanmax(grid[0]) for grid in grids.values())
    norm = LogNorm(LEAST, max(most, 10 * LEAST))
    columns = sum(map(len, settings.values()))
    height = 1.5 + max(0.19 * len(rows), 1.2)
    with drawn(path, 3.0 + 0.46 * columns + 0.25 * len(kinds), height, title) as figure:
        panels = figure.subplots(
            1, len(kinds), sharey=True, squeeze=False,
            gridspec_kw={"width_ratios": [len(settings[kind]) for kind in kinds]},
        )[0]  # fmt: skip
        for axes, kind in zip(panels, kinds, strict=True):
            told, form = KINDS[kind]
            shades, lost = grids[kind]
            axes.set_facecolor("#f2f4f6")
            image = axes.imshow(
                shades, cmap="Oranges", norm=norm, aspect="auto", interpolation="nearest"
            )
            axes.set_title(told)
            axes.set_xticks(range(len(settings[kind])), [form(at) for at in settings[kind]])
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.hlines(np.arange(1, len(rows)) - 0.5, -0.5, len(settings[kind]) - 0.5,
                        color="white", linewidth=0.7)  # fmt: skip
            axes.vlines(np.arange(1, len(settings[kind])) - 0.5, -0.5, len(rows) - 0.5,
                        color="white", linewidth=0.7)  # fmt: skip
            for (i, j), points in np.ndenumerate(lost):
                if points >= 1:
                    dark = norm(shades[i, j]) > 0.6
                    axes.text(j, i, f"{points:.0f}", ha="center", va="center", fontsize=7,
                              color="white" if dark else INK)  # fmt: skip
        names = [legible(row["layer"], f"#{i}", 30) for i, row in enumerate(rows)]
        panels[0].set_yticks(range(len(rows)), names, fontsize=7.5, parse_math=False)
        _mark_worst(record, panels[0], rows)
        bar = figure.colorbar(image, ax=list(panels), shrink=min(1, 2.6 / height), aspect=18,
                              pad=0.02, anchor=(0, 1))  # fmt: skip
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, which="both")
        bar.set_label("divergence (nats)")
        figure.supxlabel(
            "numbers: points of accuracy lost, from 1 on; bold: the layers that lose most",
            fontsize=8, color=FAINT, x=0.012, ha="left",
        )  # fmt: skip


def _mark_worst(record: Mapping, axes, rows) -> None:
    """Sets the names of the layers that lose most in bold, whatever by."""
    names = list(dict.fromkeys(layer for _, layer, _ in worst(record, 3 * len(rows))))
    names = names[: max(1, min(5, len(rows) // 4))]
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        if row["layer"] in names:
            label.set(fontweight="bold", color=INK)
