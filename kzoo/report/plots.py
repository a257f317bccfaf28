"""The figures of a report, each a PNG, drawn without pyplot and so without state left behind."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kzoo.files import atomic
from kzoo.report.table import kilobytes, milliseconds, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any of the colour blindnesses tell apart.
BLUE, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7"
INK, FAINT, GRID = "#1b2733", "#5d6b78", "#e3e7eb"
FILES = {"float32": BLUE, "int8": ORANGE}
KINDS = {"weights": BLUE, "bias": SKY, "constants": PURPLE, "structure": "#b3bcc5"}
NUMBERS_FIT = 20
"""Up to so many classes a confusion matrix shows its counts."""
NAMES_FIT = 100
"""Up to so many classes it shows every name; above, the numbers of some."""
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": "#9aa5b0",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.facecolor": "white",
    "savefig.bbox": None,
}


@contextlib.contextmanager
def drawn(path: str | os.PathLike, width: float, height: float, title: str) -> Iterator[Figure]:
    """A figure of inches, written to ``path`` at the end."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
        if title:
            # parse_math: a "$" in a name is a "$", not the start of a formula.
            figure.suptitle(
                title, x=0.012, ha="left", fontsize=11.5, fontweight="bold", parse_math=False
            )
        yield figure
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def curves(history: Sequence[Mapping], path: str | os.PathLike, title: str = "") -> None:
    """Loss and accuracy per epoch, train and validation, over the learning rate; phases set apart.

    Args:
        history: a row per epoch: phase, epoch, loss, accuracy, val_loss, val_accuracy,
            learning_rate; a value that is None is not drawn.
        path: the PNG.
        title: above the figure.
    """
    epochs = [row["epoch"] for row in history]
    with drawn(path, 6.2, 5.2, title) as figure:
        loss, accuracy, rate = figure.subplots(
            3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 1]}
        )
        marker = {"marker": "o", "markersize": 3.5} if len(history) <= 40 else {}
        for axes, key, scale in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
            ends = []
            for name, field, color, line, width in (
                ("train", key, FAINT, (0, (4, 1.5)), 1.5),
                ("validation", f"val_{key}", BLUE, "-", 2),
            ):
                values = [_number(row.get(field), scale) for row in history]
                if all(map(math.isnan, values)):
                    continue
                style = {"color": color, "linestyle": line, "linewidth": width, **marker}
                axes.plot(epochs, values, label=name, **style)
                ends.append((values[-1], color))
            axes.grid(axis="y")
            _name_ends(axes, epochs[-1], ends, "{:.1f} %" if scale == 100 else "{:.3f}")
        loss.set_ylabel("loss (nats)")
        loss.set_ylim(0, 1.08 * loss.get_ylim()[1])
        # Above the axes: a loss that hardly falls runs through every corner inside.
        loss.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        accuracy.set_ylabel("accuracy (%)")
        accuracy.set_ylim(top=min(101.5, accuracy.get_ylim()[1]))
        rates = [_number(row.get("learning_rate")) for row in history]
        rate.plot(
            epochs, rates, color=GREEN, linewidth=1.2, **marker and {"marker": ".", "markersize": 4}
        )
        rate.set_ylabel("learning\nrate")
        rate.set_ylim(bottom=0)
        rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        rate.grid(axis="y")
        rate.set_xlabel("epoch")
        rate.locator_params(axis="x", integer=True)
        rate.locator_params(axis="y", nbins=2)
        margin = max(0.5, 0.02 * len(epochs))
        rate.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        if len(epochs) == 1:
            rate.set_xticks(epochs)
        _separate_phases(history, (loss, accuracy, rate))
        figure.align_ylabels()


def rate_test(record: Mapping, path: str | os.PathLike) -> None:
    """Loss against the learning rate of a range test, with the rates that it tells.

    Args:
        record: as of `kzoo.learn.rate_finder.RateTest`.
        path: the PNG.
    """
    rates, losses, smoothed = (record[key] for key in ("rates", "losses", "smoothed"))
    with drawn(path, 6.2, 3.4, "Learning-rate range test") as figure:
        axes = figure.subplots()
        axes.plot(rates, losses, color=FAINT, linewidth=1, label="loss of a batch")
        axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="moving mean")
        for name, side in (("steepest", "right"), ("lowest", "left")):
            rate = record[name]
            axes.axvline(rate, color=GREEN, linewidth=1.2, linestyle=(0, (4, 1.5)))
            axes.annotate(
                f" {name} at {rate:.1e} ", (rate, 1), xycoords=("data", "axes fraction"),
                ha=side, va="top", fontsize=8, color=GREEN,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_ylim(0, 1.6 * max(smoothed[0], min(smoothed)))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss (nats)")
        axes.grid(axis="y")
        axes.legend(loc="lower left")


def _number(value: float | None, scale: float = 1) -> float:
    return math.nan if value is None or not math.isfinite(value) else scale * value


def _name_ends(axes: Axes, epoch: int, ends: list[tuple[float, str]], form: str) -> None:
    """The last values beside their points: what one reads a curve for."""
    ends = sorted(end for end in ends if not math.isnan(end[0]))
    for i, (value, color) in enumerate(ends):
        axes.annotate(
            form.format(value),
            (epoch, value),
            # Two curves often end together: the higher value is written higher.
            xytext=(7, 0 if len(ends) == 1 else 6 * (2 * i - 1)),
            textcoords="offset points",
            color=color,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
        )


def _separate_phases(history: Sequence[Mapping], panels: Sequence[Axes]) -> None:
    phases = [row.get("phase", 1) for row in history]
    starts = [i for i, phase in enumerate(phases) if i and phase != phases[i - 1]]
    for i in starts:
        for axes in panels:
            axes.axvline(history[i]["epoch"] - 0.5, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
    for start, end in itertools.pairwise([0, *starts, len(history)] if starts else []):
        fits = end - start >= 0.12 * len(history)
        panels[0].annotate(
            f"phase {phases[start]}" if fits else f"{phases[start]}",
            ((history[start]["epoch"] + history[end - 1]["epoch"]) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=FAINT,
        )


def confusion(
    matrix: Sequence[Sequence[int]],
    classes: Sequence[str],
    path: str | os.PathLike,
    title: str = "",
) -> None:
    """A confusion matrix, each row shaded by its share, with the counts where they fit.

    Args:
        matrix: ``matrix[label][predicted]`` counts, (classes, classes).
        classes: their names.
        path: the PNG.
        title: above the figure.
    """
    import numpy as np

    counts = np.asarray(matrix)
    size = len(counts)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    inches = min(10.5, max(4.4, 2.2 + 0.36 * size if size <= NUMBERS_FIT else 5.5 + 0.055 * size))
    with drawn(path, inches + 0.6, inches, title) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        ticks = np.arange(0, size, 1 if size <= NAMES_FIT else math.ceil(size / 40))
        cell = 72 * 0.78 * inches / len(ticks)
        font = min(9, max(3.6, 0.75 * cell))
        names = (
            [legible(name, f"#{i}") for i, name in enumerate(classes)]
            if size <= NAMES_FIT
            else [f"#{i}" for i in ticks]
        )
        turn = 0 if 0.65 * font * max(map(len, names)) < cell else 90
        axes.set_xticks(ticks, names, fontsize=font, parse_math=False, rotation=turn)
        axes.set_yticks(ticks, names, fontsize=font, parse_math=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if size <= NAMES_FIT:
            # Lines, not minor ticks: those took seconds to lay out at 100 classes.
            between, ends = np.arange(1, size) - 0.5, (-0.5, size - 0.5)
            line = {"color": "white" if size <= NUMBERS_FIT else GRID, "linewidth": 0.6}
            axes.hlines(between, *ends, **line)
            axes.vlines(between, *ends, **line)
        if size <= NUMBERS_FIT:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    axes.text(
                        column,
                        row,
                        f"{count}",
                        ha="center",
                        va="center",
                        fontsize=9 if count < 1000 else 6.5,
                        color="white" if shares[row, column] > 55 else INK,
                        fontweight="normal" if row == column else "bold",
                    )
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=26, pad=0.02, ticks=[0, 50, 100])
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
        bar.set_label("share of the true class (%)")


def legible(name: str, instead: str, longest: int = 16) -> str:
    """A name in so many letters; what stands for it where the font lacks a letter of it."""
    name = " ".join(name.split()) or instead
    if not all(ord(letter) in _letters() for letter in name):
        return instead
    return shortened(name, longest)


@functools.cache
def _letters() -> Mapping[int, int]:
    from matplotlib.font_manager import fontManager, get_font

    return get_font(fontManager.findfont("DejaVu Sans")).get_charmap()


def latency(profiles: Mapping[str, Mapping], path: str | os.PathLike, title: str = "") -> None:
    """Every timed run of every file and thread count, with p50 and the conservative p90 marked.

    Args:
        profiles: "float32" or "int8" → the record of a `kzoo.profile`.
        path: the PNG.
        title: above the figure.
    """
    import numpy as np
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rows = sorted(
        (
            (run["threads"], name, run)
            for name, profile in profiles.items()
            for run in profile["runs"]
        ),
        key=lambda row: (row[0], list(profiles).index(row[1])),
    )
    kinds = sorted({profile["kind"] for profile in profiles.values()})
    times = [np.maximum(np.asarray(run["samples_ms"], float), 1e-6) for _, _, run in rows]
    low, high = min(map(np.min, times)), max(map(np.max, times))
    edges = np.geomspace(low / 1.03, high * 1.03, 160)
    with drawn(path, 6.2, 1.3 + 0.72 * len(rows), title) as figure:
        axes = figure.subplots()
        for place, ((_, name, run), samples) in enumerate(zip(rows, times, strict=True)):
            color = FILES.get(name, GREEN)
            # Heights are each row's own: a row shows where its runs are, not how many there were.
            heights, _ = np.histogram(samples, edges)
            heights = 0.62 * heights / heights.max()
            axes.stairs(place - heights, edges, baseline=place, fill=True, color=color, alpha=0.45)
            slow = samples[samples > np.quantile(samples, 0.99)][:1000]
            axes.plot(
                slow,
                np.full(len(slow), place + 0.12),
                "|",
                color=color,
                alpha=0.35,
                markersize=4,
                markeredgewidth=0.7,
            )
            summary = run["latency"]
            axes.plot([summary["p50_ms"]] * 2, [place, place - 0.66], color=INK, linewidth=1.8)
            if summary["valid"]:
                axes.plot(
                    summary["p90_ms"],
                    place,
                    "D",
                    color=INK,
                    markersize=4.5,
                    clip_on=False,
                    zorder=4,
                )
            p90 = f"{milliseconds(summary['p90_ms'])} ms" if summary["valid"] else "INVALID"
            axes.text(
                1.02,
                place - 0.2,
                f"p50 {milliseconds(summary['p50_ms'])} ms\np90 {p90}",
                transform=axes.get_yaxis_transform(),
                fontsize=8.5,
                va="center",
                linespacing=1.35,
            )
        axes.set_yticks(
            [place - 0.15 for place in range(len(rows))],
            [f"{name}, {threads} thread{'s' * (threads > 1)}" for threads, name, _ in rows],
            fontsize=9,
            color=INK,
        )
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(rows) - 0.6, -0.85)
        axes.set_xscale("log")
        axes.set_xlim(edges[0], edges[-1])
        # Plain numbers, and enough of them where the runs span less than a decade.
        decades = math.log10(edges[-1] / edges[0])
        subs = (1, 2, 5) if decades > 1 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
        axes.grid(axis="x")
        axes.set_xlabel(f"{' and '.join(kinds)} time of one inference (ms, logarithmic)")
        axes.text(
            0,
            1.01,
            "bar: p50   diamond: conservative p90   ticks below: the slowest 1 %",
            transform=axes.transAxes,
            fontsize=8.5,
            color=FAINT,
            va="bottom",
        )


def sizes(contents: Mapping[str, Mapping], path: str | os.PathLike, title: str = "") -> None:
    """Where the bytes of the files are, by kind, and what a download of them costs.

    Args:
        contents: "float32" or "int8" → what `kzoo.lite.inspect` found: bytes, gzip_bytes,
            bytes_by_kind.
        path: the PNG.
        title: above the figure.
    """
    from matplotlib.patches import Patch

    with drawn(path, 6.2, 1.35 + 0.78 * len(contents), title) as figure:
        axes = figure.subplots()
        used = {}
        longest = max(each["bytes"] for each in contents.values()) / 1000
        for place, each in enumerate(contents.values()):
            left = 0.0
            for kind, count in sorted(each["bytes_by_kind"].items(), key=_kind_order):
                color = KINDS.get(kind.split()[0], GREEN)
                used.setdefault(kind.split()[0], color)
                axes.barh(
                    place, count / 1000, 0.4, left, color=color, edgecolor="white", linewidth=0.6
                )
                left += count / 1000
            compressed = each["gzip_bytes"] / 1000
            axes.barh(place + 0.33, compressed, 0.15, color="white", edgecolor=INK, linewidth=0.9)
            for length, below, text in (
                (left, 0, f"{kilobytes(each['bytes'])} kB"),
                (compressed, 0.33, f"{kilobytes(each['gzip_bytes'])} kB gzip"),
            ):
                axes.text(
                    length + 0.012 * longest,
                    place + below,
                    text,
                    va="center",
                    fontsize=9 if not below else 8.5,
                    color=INK if not below else FAINT,
                    fontweight="bold" if not below else "normal",
                )
        axes.set_yticks(range(len(contents)), list(contents), fontsize=9.5, color=INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(contents) - 0.4, -0.45)
        axes.set_xlim(0, 1.2 * longest)
        axes.set_xlabel("size on disk (kB of 1000 bytes)")
        axes.grid(axis="x")
        handles = [Patch(color=color, label=kind) for kind, color in used.items()]
        handles.append(Patch(facecolor="white", edgecolor=INK, label="whole file, gzip -9"))
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), fontsize=8.5)


def _kind_order(item: tuple[str, int]) -> tuple[int, str]:
    kind = item[0].split()[0]
    return (list(KINDS).index(kind) if kind in KINDS else len(KINDS), item[0])


def accuracy_against_latency(
    points: Sequence[Mapping], path: str | os.PathLike, title: str = ""
) -> None:
    """Top-1 of every network against its time, float32 and int8.

    A line joins those than which none is both faster and more accurate; they are numbered, and
    named beside the panel.

    Args:
        points: ``name``, ``top1`` (percent), and per file "float32" and "int8" the p50 (ms).
        path: the PNG.
        title: above the figure.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with drawn(path, 9.4, 9.6, title) as figure:
        panels = figure.subplots(2, 1, sharex=True, sharey=True)
        for axes, (kind, color) in zip(panels, FILES.items(), strict=True):
            known = sorted(points, key=lambda point: point[kind])
            times, top1 = ([point[key] for point in known] for key in (kind, "top1"))
            axes.scatter(times, top1, s=15, color=color, alpha=0.45, linewidths=0)
            best = [-math.inf, *itertools.accumulate(top1, max)]
            front = [point for point, before in zip(known, best, strict=False)
                     if point["top1"] > before]  # fmt: skip
            axes.step(
                [point[kind] for point in front], [point["top1"] for point in front],
                where="post", color=color, linewidth=1.2, marker="o", markersize=3.5,
            )  # fmt: skip
            axes.text(
                1.02, 1.0,
                "\n".join(
                    f"{number:2d}  {point['name']}  {point['top1']:.1f} %, "
                    f"{milliseconds(point[kind])} ms"
                    for number, point in enumerate(front, start=1)
                ),
                transform=axes.transAxes, va="top", fontsize=7.5, linespacing=1.5, parse_math=False,
            )  # fmt: skip
            above = True
            for number, point in enumerate(front, start=1):
                # Beside the line's other side where the one before is too near.
                last = front[max(0, number - 2)]
                near = point[kind] / last[kind] < 1.3 and point["top1"] - last["top1"] < 1
                above = not (number > 1 and near and above)
                axes.annotate(
                    str(number), (point[kind], point["top1"]), (-3, 3) if above else (3, -9),
                    fontsize=7.5, textcoords="offset points", ha="right" if above else "left",
                )  # fmt: skip
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.grid(visible=True)
            axes.set_ylabel("published top-1, ImageNet-1k (%)")
            axes.set_title(f"{kind}: none is both faster and more accurate than those on the line")
        panels[-1].set_xlabel("measured p50 of one inference (ms, logarithmic)")
