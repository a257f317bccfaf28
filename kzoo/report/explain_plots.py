"""The figures of an explanation: what decides, at every stage, activations, filters."""

from __future__ import annotations

import functools
import math
import os
from typing import TYPE_CHECKING

from kzoo.report.plots import FAINT, GRID, INK, drawn, legible

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

WIDTH = 11.0
"""Inches of a whole figure."""
FOR = ("#fbe3bf", "#f3a53f", "#D55E00", "#8c2d04")
AGAINST = ("#d4e8f5", "#56B4E9", "#0072B2", "#08306b")
NONE = "#eceff2"
FILTERS = 96
"""So many are drawn."""
TILE = 96
"""Pixels of a map or a filter at least, so that the gaps between them are narrow."""


def decisive(seen, patch: int, stride: int, path: str | os.PathLike, title: str = "") -> None:
    """The input, the most probable classes, Grad-CAM at the last map and the occlusion map.

    Args:
        seen: an image, see `kzoo.learn.explain.Seen`.
        patch, stride: of the occlusion, pixels.
        path: the PNG.
        title: above the figure.
    """
    import numpy as np

    high, wide = seen.pixels.shape[:2]
    side = min(2.35, 4.5 * wide / high)
    columns = [side, 2.1, *[side] * (2 if seen.grad_cam else 1)]
    width = sum(columns) + 0.3 + 0.8 * (len(columns) - 2)
    with drawn(path, width, max(2.35, side * high / wide) + _above(title), title) as figure:
        photo, bars, *panels = figure.subplots(1, len(columns), width_ratios=columns)
        photo.imshow(_rgb(seen.pixels), interpolation="nearest")
        _bare(photo, f"input, {high} × {wide}")
        _classes(bars, seen)
        bars.set_box_aspect(max(1.9, side * high / wide) / 2.1)
        if seen.grad_cam:
            name, cam = [*seen.grad_cam.items()][-1]
            drawing = _over(panels[0], seen.pixels, cam / (cam.max() or 1))
            _bare(panels[0], f"Grad-CAM at {name}, {cam.shape[0]} × {cam.shape[1]}")
            _scale(drawing, panels[0], 0, 1, "speaks for it, share of the maximum")
            if not cam.any():
                panels[0].text(wide / 2, high / 2, "nothing here\nspeaks for it", ha="center")
        points = 100 * seen.occlusion
        most = max(1e-9, float(np.abs(points).max()))
        drawing = _over(panels[-1], seen.pixels, points, most, stride)
        _bare(panels[-1], f"occlusion by a square of {patch} pixels")
        low = min(0.0, float(points.min()))
        _scale(drawing, panels[-1], low, max(0.0, float(points.max())), "less probable, points")


def stages(seen, path: str | os.PathLike, title: str = "") -> None:
    """Grad-CAM at the last map of every stage and of the network, as `decisive`."""
    high, wide = seen.pixels.shape[:2]
    columns = max(5, len(seen.grad_cam))
    side = min(WIDTH / columns - 0.15, 3 * wide / high)
    with drawn(path, WIDTH, side * high / wide + _above(title), title) as figure:
        panels = figure.subplots(1, columns)
        for axes in panels[len(seen.grad_cam) :]:
            axes.set_visible(False)
        for axes, (name, cam) in zip(panels, seen.grad_cam.items(), strict=False):
            _over(axes, seen.pixels, cam / (cam.max() or 1))
            _bare(axes, f"{name}, {cam.shape[0]} × {cam.shape[1]}")


def activations(seen, path: str | os.PathLike, title: str = "") -> None:
    """The strongest channels of the convolutions, a row per stage, first and last side by side."""
    from PIL import Image

    parts: dict[str, list] = {}
    for each in seen.activations:
        parts.setdefault(each.part, []).append(each)
    tiles = {part: [_mosaic(_signed(each.maps), 8) for each in row] for part, row in parts.items()}
    width = WIDTH / 2 - 0.2
    heights = [
        0.3 + max(width * tile.shape[0] / tile.shape[1] for tile in row) for row in tiles.values()
    ]
    with drawn(path, WIDTH, sum(heights) + _above(title) - 0.3, title) as figure:
        grid = figure.subplots(len(parts), 2, squeeze=False, height_ratios=heights)
        for panels, (part, row) in zip(grid, parts.items(), strict=True):
            for axes in panels:
                axes.set_visible(False)
            for axes, each, tile in zip(panels, row, tiles[part], strict=False):
                axes.set_visible(True)
                axes.imshow(tile)
                high, wide, shown = each.maps.shape
                _bare(axes, f"{each.layer}, {high} × {wide}, {shown} of {each.count} channels")
    # In full colour they weigh more than all else on a page together, and look the same.
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, "PNG")


def filters(found, path: str | os.PathLike, title: str = "") -> None:
    """The kernels of the first convolution, see `kzoo.learn.explain.Filters`."""
    import numpy as np

    kernels = found.kernels[:FILTERS]
    largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    tiles = 0.5 + 0.5 * kernels / np.where(largest > 0, largest, 1)
    tile = _mosaic(np.broadcast_to(tiles, (*tiles.shape[:3], 3)), 16)
    with drawn(path, WIDTH, WIDTH * tile.shape[0] / tile.shape[1] + _above(title), title) as figure:
        axes = figure.subplots()
        axes.imshow(tile)
        count, high, wide, _ = found.kernels.shape
        shown = f"{len(kernels)} of {count:,}" if count > FILTERS else f"{count}"
        _bare(axes, f"{found.layer}: {shown} kernels, {high} × {wide}")


def _classes(axes: Axes, seen) -> None:
    """Bars with the names above them, that of the class explained in orange."""
    named = {row["index"]: (row["class"], row["probability"]) for row in seen.top}
    named.setdefault(seen.index, (seen.name, seen.probability))
    for place, (index, (name, share)) in enumerate(named.items()):
        asked = index == seen.index
        axes.barh(place, share, 0.32, color=FOR[2] if asked else "#8a96a3")
        axes.barh(place, 1, 0.32, color=GRID, zorder=0)
        weight = "bold" if asked else "normal"
        short = legible(name, f"#{index}", 20)
        for x, side, text in ((0, "left", short), (1, "right", percent(share))):
            axes.text(
                x, place - 0.24, text, ha=side, va="bottom", fontsize=8.5, color=INK,
                fontweight=weight, parse_math=False,
            )  # fmt: skip
    axes.set_ylim(max(5, len(named)) - 0.6, -0.75)
    axes.set_xlim(0, 1)
    _bare(axes, "most probable")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else f"{100 * share:.2g} %"


def _over(axes: Axes, pixels, heat, most: float = 1.0, cell: int | None = None):
    """The photo in grey, and over it what speaks for the class and against it.

    ``heat`` (rows, columns) covers the photo, or with ``cell`` has a value for so many pixels.
    """
    import numpy as np

    high, wide = pixels.shape[:2]
    gray = _rgb(pixels) @ np.array([0.299, 0.587, 0.114])
    axes.imshow(0.2 + 0.8 * gray / 255, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    rows, columns = heat.shape
    extent = (0, columns * cell, rows * cell, 0) if cell else (0, wide, high, 0)
    extent = [edge - 0.5 for edge in extent]
    drawing = axes.imshow(
        heat, cmap=_veil(), vmin=-most, vmax=most, extent=extent, interpolation="bilinear"
    )
    axes.set_xlim(-0.5, wide - 0.5)
    axes.set_ylim(high - 0.5, -0.5)
    return drawing


def _scale(drawing, axes: Axes, low: float, high: float, label: str) -> None:
    beside = axes.inset_axes((1.04, 0, 0.055, 1))
    bar = axes.figure.colorbar(drawing, cax=beside)
    bar.ax.set_ylim(low, high if high > low else low + 1e-9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.ax.locator_params(axis="y", nbins=5)
    bar.set_label(label, fontsize=8.5)


@functools.cache
def _veil() -> Colormap:
    """Blue for what speaks against the class, clear for nothing, orange for what speaks for it."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    values = np.linspace(-1, 1, 513)
    stops = np.linspace(-1, 1, 9)
    colors = np.array([to_rgb(c) for c in (*AGAINST[::-1], NONE, *FOR)])
    rgb = np.stack([np.interp(values, stops, colors[:, i]) for i in range(3)], axis=1)
    alpha = 0.78 * np.minimum(1, 1.6 * np.abs(values))
    return LinearSegmentedColormap.from_list("veil", np.column_stack([rgb, alpha]), N=513)


def _signed(maps: np.ndarray) -> np.ndarray:
    """Maps (h, w, k), each by its own largest magnitude, as colours (k, h, w, 3)."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    ramp = LinearSegmentedColormap.from_list("signed", [*AGAINST[::-1], NONE, *FOR])
    largest = np.abs(maps).max(axis=(0, 1))
    scaled = 0.5 + 0.5 * maps / np.where(largest > 0, largest, 1)
    return np.moveaxis(ramp(scaled)[..., :3], 2, 0)


def _mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (n, h, w, 3) side by side, enlarged where they are small, with gaps: (h', w', 3)."""
    import numpy as np

    count, high, wide, _ = tiles.shape
    factor = math.ceil(TILE / max(high, wide))
    tiles = tiles.repeat(factor, axis=1).repeat(factor, axis=2)
    high, wide = tiles.shape[1:3]
    gap = max(2, max(high, wide) // 16)
    rows = math.ceil(count / columns)
    canvas = np.ones((rows * (high + gap) - gap, columns * (wide + gap) - gap, 3), np.float32)
    for i, tile in enumerate(tiles):
        y, x = i // columns * (high + gap), i % columns * (wide + gap)
        canvas[y : y + high, x : x + wide] = tile
    return canvas


def _rgb(pixels: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _above(title: str) -> float:
    """Inches that the names of the panels and, if any, the figure's title take."""
    return 0.7 if title else 0.4


def _bare(axes: Axes, title: str) -> None:
    axes.axis("off")
    axes.set_title(title, fontsize=9, color=FAINT, parse_math=False)
