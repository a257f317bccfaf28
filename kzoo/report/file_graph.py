"""A drawing of a .tflite file: an operator a line in the order of execution, its ways at the left.

A line is a step in time, so that the column of memory is the plan of it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from kzoo.report.layout import lay_out, spine
from kzoo.report.structure import dimensions, stages_of
from kzoo.report.svg import curve, document, escaped, text_width, tooltip
from kzoo.report.table import byte_size, shortened

LINE, HIGH = 25.0, 16.0
"""Of an operator; of its box."""
TOP, LEFT, GUTTER = 112.0, 24.0, 26.0
BAR = 84.0
COLUMNS = {"output": 18.0, "dtype": 112.0, "weights": 186.0, "memory": 292.0}
"""Where they begin, right of the layers' names; those, right of the drawing."""
PIECE = 48
"""The most operators that are laid out at once; the time grows with their cube."""
APART = 7.0
"""Of the lines that pass pieces by."""
NAMES = 34.0
NAMES_FIT = 40
WIDE = COLUMNS["memory"] + BAR + 86.0
REPEATED = 700.0
"""A stage's name is written again after so many pixels, about a screen."""
KINDS = {
    "float island": "s32", "int8": "s4", "uint8": "s4", "int16": "s8", "float32": "s1",
    "float16": "s16", "other": "s0",
}  # fmt: skip
PACKED = {
    "int2": "s64",
    "int4": "s64",
    "uint4": "s64",
    "int8": "s2",
    "uint8": "s2",
    "float16": "s16",
}
"""Colours by what an operator writes; by what its weights are kept as, where that is less."""


def graph_svg(record: Mapping) -> str:
    """Draws the operators of a file.

    Args:
        record: of `kzoo.inspect` with ``tensors``.

    Returns:
        An SVG document. It follows the reader's light or dark mode; whole names and exact figures
        are tooltips.
    """
    return _Drawing(record).svg()


class _Drawing:
    """Collects the elements of the picture from the top down."""

    def __init__(self, record: Mapping):
        self.record = record
        self.rows, self.unpacked = _drawn(record["tensors"])
        self.edges = _edges(self.rows)
        self.labels = [record["input"]["name"] or "input", *map(_label, self.rows)]
        self.kinds = [_kind(row, set(record["float_islands"])) for row in self.rows]
        self.widths = [text_width(label, 9.5) + 16 for label in self.labels]
        self.xs, self.wires, passing, left, right = _ways(self.widths, self.edges, self.rows)
        self.stages = stages_of([row["layer"] for row in self.rows])
        self.start = LEFT + GUTTER * bool(self.stages)
        self.passing = _beside(passing)
        lanes = max((lane for *_, lane in self.passing), default=-1) + 1
        self.axis = self.start + 8 + lanes * APART + left
        self.side = self.axis + right + 20
        self.named = [shortened(row["layer"], NAMES_FIT) for row in self.rows]
        self.columns = self.side + NAMES + max(40.0, *(text_width(name, 11) for name in self.named))
        self.width = self.columns + WIDE
        self.parts: list[str] = []

    def svg(self) -> str:
        """The document."""
        self._head()
        self._stripes()
        for wire in self.wires:
            path = curve([(self.axis + x, TOP + LINE * y) for x, y in wire])
            self.parts.append(f'<path class="wire" d="{path}"/>')
        for start, end, lane in self.passing:
            self._pass(start, end, self.start + 6 + lane * APART)
        self._image()
        most = [max(1, *(row[key] for row in self.rows)) for key in ("weight_bytes", "live_bytes")]
        peak = [row["live_bytes"] for row in self.rows].index(most[1]) if most[1] > 1 else -1
        for number, row in enumerate(self.rows):
            self._operator(number, row, most, number == peak)
        height = TOP + LINE * len(self.labels) + 24
        return document(self.record["file"], self.width + 12, height, self.parts)

    def _head(self) -> None:
        record, many = self.record, len(self.record["tensors"])
        name = escaped(Path(record["file"]).name)
        ports = " → ".join(
            f"{dimensions(port['shape'])} {port['dtype']}"
            for port in (record["input"], record["output"])
        )
        said = f"{many:,} operator{'s' * (many > 1)} · {byte_size(record['bytes'])} · {ports}"
        if record["peak_bytes"]:
            said += f" · peak memory {byte_size(record['peak_bytes'])}"
        self.parts += [
            f'<text class="ink title" x="{LEFT}" y="38">{name}</text>',
            f'<text class="faint sub" x="{LEFT}" y="58">{escaped(said)}</text>',
        ]
        x = LEFT
        for kind, count in Counter(self.kinds).most_common():
            text = f"{count} {kind}"
            self.parts.append(
                f'<rect class="{_colour(kind)}" x="{x:.1f}" y="70" width="10" height="10" '
                f'rx="2.5"/><text class="faint key" x="{x + 15:.1f}" y="79">{text}</text>'
            )
            x += 34 + text_width(text, 10)
        text = "the fuller a box, the more bytes of weights"
        if self.unpacked:
            text += f"; {self.unpacked} that unpack constants are not drawn"
        self.parts.append(f'<text class="faint key" x="{x + 6:.1f}" y="79">{text}</text>')
        for name, at in {"layer": self.side + NAMES - self.columns, **COLUMNS}.items():
            head = {"memory": "alive in memory"}.get(name, name)
            x = self.columns + at
            self.parts.append(
                f'<text class="faint column" x="{x:.1f}" y="{TOP - 8:.1f}">{head}</text>'
            )

    def _stripes(self) -> None:
        """Every other line, blocks apart, and the stages at the left."""
        line = f'x="{self.start:.1f}" width="{self.width - self.start:.1f}" height="{LINE}"'
        for i in range(0, len(self.labels), 2):
            self.parts.append(
                f'<rect class="track" fill-opacity=".35" y="{TOP + LINE * i:.1f}" {line}/>'
            )
        for name, first, last in self.stages:
            top, high = TOP + LINE * (first + 1), LINE * (last + 1 - first)
            self.parts.append(
                f'<g>{tooltip(name)}<rect class="s1" x="{LEFT}" y="{top + 1:.1f}" width="18" '
                f'height="{high - 2:.1f}" rx="4"/></g>'
            )
            times = math.ceil(high / REPEATED) if high - 4 > text_width(name, 10.5) else 0
            self.parts += [
                f'<text class="band" transform="translate({LEFT + 13} '
                f'{top + high * (i + 0.5) / times:.1f}) rotate(-90)">{name}</text>'
                for i in range(times)
            ]
            if first:
                line = f"M{LEFT} {top:.1f}H{self.width:.1f}"
                self.parts.append(f'<path class="wire" stroke-opacity=".4" d="{line}"/>')

    def _pass(self, start: int, end: int, x: float) -> None:
        """From the left side of a box, past all pieces, to that of another."""
        (left, y), (right, down) = (
            (self.axis + self.xs[i] - self.widths[i] / 2, TOP + LINE * (i + 0.5))
            for i in (start, end)
        )
        self.parts.append(
            f'<path class="wire" d="M{left:.1f} {y:.1f} H{x + 6:.1f} Q{x:.1f} {y:.1f} {x:.1f} '
            f"{y + 6:.1f} V{down - 6:.1f} Q{x:.1f} {down:.1f} {x + 6:.1f} {down:.1f} "
            f'H{right:.1f}"/>'
        )

    def _image(self) -> None:
        port, y = self.record["input"], TOP + LINE / 2
        x, width = self.axis + self.xs[0], self.widths[0]
        told = f"{port['name']}: {dimensions(port['shape'])} {port['dtype']}"
        self.parts.append(
            f'<g>{tooltip(told)}<rect class="box s1-edge" x="{x - width / 2:.1f}" '
            f'y="{y - HIGH / 2:.1f}" width="{width:.1f}" height="{HIGH}" rx="{HIGH / 2}"/>'
            f'<text class="ink label small" x="{x:.1f}" y="{y + 3.3:.1f}">'
            f"{escaped(shortened(self.labels[0], 24))}</text></g>"
        )
        self._cells({"output": dimensions(port["shape"]), "dtype": port["dtype"]}, y)

    def _operator(self, number: int, row: Mapping, most: Sequence[int], peak: bool) -> None:
        x, y = self.axis + self.xs[number + 1], TOP + LINE * (number + 1.5)
        width, kind = self.widths[number + 1], self.kinds[number]
        colour = _colour(kind)
        box = f'x="{x - width / 2:.1f}" y="{y - HIGH / 2:.1f}" width="{width:.1f}" '
        box += f'height="{HIGH}" rx="4"'
        full = 0.08 + 0.5 * (row["weight_bytes"] / most[0]) ** 0.5
        edge = ' stroke-width="2.2"' if kind == "float island" else ""
        self.parts.append("<g>")
        if kind == "float island" or peak:
            mark = f"{colour if kind == 'float island' else 's32'}-tint"
            self.parts.append(
                f'<rect class="{mark}" x="{self.start:.1f}" y="{y - LINE / 2:.1f}" '
                f'width="{self.width - self.start:.1f}" height="{LINE}"/>'
            )
        self.parts += [
            tooltip(_told(row, kind)),
            f'<rect class="box" {box}/>',
            f'<rect class="{colour} {colour}-edge" fill-opacity="{full:.2f}"{edge} {box}/>',
            f'<text class="ink label small" x="{x:.1f}" y="{y + 3.3:.1f}">'
            f"{escaped(self.labels[number + 1])}</text>",
            f'<text class="faint figure" text-anchor="end" x="{self.side + 24:.1f}" '
            f'y="{y + 3.5:.1f}">{row["index"]}</text>',
        ]
        self._cells(
            {
                "layer": self.named[number],
                "output": dimensions(row["shape"]),
                "dtype": row["dtype"],
            },
            y,
        )
        if row["weight_bytes"]:
            self._bar("weights", row["weight_bytes"], most[0], y, colour, 44.0)
        self._bar("memory", row["live_bytes"], most[1], y, "s32" if peak else "s1", BAR, peak)
        self.parts.append("</g>")

    def _cells(self, cells: Mapping[str, str], y: float) -> None:
        for name, text in cells.items():
            x = self.side + NAMES if name == "layer" else self.columns + COLUMNS[name]
            self.parts.append(
                f'<text class="ink figure" x="{x:.1f}" y="{y + 3.5:.1f}">{escaped(text)}</text>'
            )

    def _bar(self, column, value, most, y, colour, length, peak=False) -> None:
        x = self.columns + COLUMNS[column]
        high = LINE if column == "memory" else 8.0  # one below the other, they are the plan
        wide = max(0.8, length * value / most)
        self.parts.append(
            f'<rect class="{colour}" fill-opacity="{0.9 if peak else 0.55}" x="{x:.1f}" '
            f'y="{y - high / 2:.1f}" width="{wide:.1f}" height="{high}"/>'
            f'<text class="ink figure{" peak" if peak else ""}" x="{x + length + 6:.1f}" '
            f'y="{y + 3.5:.1f}">{byte_size(value)}{" peak" if peak else ""}</text>'
        )


def _drawn(rows: Sequence[Mapping]) -> tuple[list[dict], int]:
    """The operators that compute, and how many do not: they unpack constants for others.

    The constants count as those of the first that reads them.
    """
    constant: dict[int, dict] = {}
    kept = []
    for row in rows:
        row = dict(row)
        for source in row["inputs"]:
            if (found := constant.get(source)) and found["weight_bytes"]:
                if found["weight_bytes"] > row["weight_bytes"]:
                    row |= {key: found[key] for key in ("weight_dtype", "weight_shape")}
                row["weight_bytes"] += found["weight_bytes"]
                found["weight_bytes"] = 0
        if row["weight_bytes"] and all(source in constant for source in row["inputs"]):
            constant[row["index"]] = row
        else:
            row["inputs"] = [source for source in row["inputs"] if source not in constant]
            kept.append(row)
    if not kept:  # a file of nothing else
        return [dict(row) for row in rows], 0
    return kept, len(constant)


def _edges(rows: Sequence[Mapping]) -> list[tuple[int, int]]:
    """(from, to) of what is drawn, by line; 0 is what the file takes."""
    line = {-1: 0} | {row["index"]: number for number, row in enumerate(rows, 1)}
    return [
        (start, number)
        for number, row in enumerate(rows, 1)
        for start in dict.fromkeys(line[source] for source in row["inputs"] if source in line)
    ]


def _ways(widths, edges, rows) -> tuple[list[float], list, list, float, float]:
    """Lays the boxes out piece by piece.

    Returns:
        x of every box; (x, line) of the points of every way inside of a piece; the (from, to) of
        the others; how far it all reaches to the left and to the right.
    """
    cuts = _cuts(len(widths), edges)
    piece = {}
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        piece |= dict.fromkeys(range(first + 1, last + 1), (number, first))
    inside: dict[int, list[tuple[int, int]]] = {}
    passing = []
    for start, end in edges:
        number, first = piece[end]
        if start >= first:
            inside.setdefault(number, []).append((start - first, end - first))
        else:
            passing.append((start, end))
    xs, wires = [0.0] * len(widths), []
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        size, inner = last + 1 - first, inside.get(number, [])
        products = {i for i in range(1, size) if rows[first + i - 1]["operator"] == "MUL"}
        above = spine(inner, products)
        # Rounded up, pieces that differ in a digit alone are laid out once.
        rounded = tuple(10.0 * math.ceil(width / 10) for width in widths[first : last + 1])
        straight = tuple(above.get(i, -1) for i in range(size))
        layout = lay_out(rounded, tuple(inner), straight, in_order=True)
        shift = xs[first]
        xs[first : last + 1] = [shift + x for x in layout.x]
        for edge in inner:
            half, points = HIGH / 2 / LINE, []
            for x, rank in layout.routes[edge]:
                middle = first + rank + 0.5
                points += [(shift + x, middle - half), (shift + x, middle + half)]
            wires.append(points[1:-1])
    ends = [(x - width / 2, x + width / 2) for x, width in zip(xs, widths, strict=True)]
    ends += [(x, x) for wire in wires for x, _ in wire]
    return xs, wires, passing, -min(left for left, _ in ends), max(right for _, right in ends)


def _cuts(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The lines at which one piece of the drawing ends and the next begins, both ends included.

    Where one tensor alone is alive, what is above and what is below have nothing to do with each
    other. A piece that is too large is cut where fewest others pass by, as between the cells of
    NASNet, which read the last two.
    """
    far = list(range(count))
    for start, end in edges:
        far[start] = max(far[start], end)
    change = [0] * (count + 1)
    for start, end in enumerate(far):
        change[min(start + 1, end)] += 1
        change[end] -= 1
    passing = list(itertools.accumulate(change))
    cuts = [0]
    for cut in [i for i in range(1, count - 1) if not passing[i]] + [count - 1]:
        while cut - cuts[-1] > PIECE:
            near = range(cuts[-1] + PIECE // 2, cuts[-1] + PIECE + 1)
            cuts.append(min(near, key=lambda i: (passing[i], -i)))
        cuts.append(cut)
    return cuts


def _beside(passing: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(from, to, lane) of lines that pass pieces by; those from one box share a lane."""
    far: dict[int, int] = {}
    for start, end in passing:
        far[start] = max(far.get(start, 0), end)
    free: list[int] = []  # where the last line of every lane ends
    lane_of = {}
    for start in sorted(far):
        lane = next((i for i, end in enumerate(free) if end < start), len(free))
        free[lane : lane + 1] = [far[start]]
        lane_of[start] = lane
    return [(start, end, lane_of[start]) for start, end in passing]


def _kind(row: Mapping, islands: set[str]) -> str:
    """By what it writes, and by what its weights are kept as where that is less."""
    if f"{row['operator']} in {row['layer']}" in islands:
        return "float island"
    dtype, kept = row["dtype"], row["weight_dtype"]
    if kept in PACKED and kept != dtype and not (dtype == "uint8" and kept == "int8"):
        return f"{dtype}, {kept} weights"
    return dtype if dtype in KINDS else "other"


def _colour(kind: str) -> str:
    """Its class."""
    dtype, _, kept = kind.partition(", ")
    return KINDS[dtype] if dtype == "int16" or not kept else PACKED[kept.split()[0]]


def _label(row: Mapping) -> str:
    """What stands in a box: ``CONV_2D 3×3``."""
    text, shape = shortened(row["operator"], 28), row["weight_shape"]
    if row["operator"].endswith("CONV_2D") or row["operator"] == "TRANSPOSE_CONV":
        text += f" {shape[1]}×{shape[2]}" if len(shape) == 4 else ""
    return text


def _told(row: Mapping, kind: str) -> str:
    told = [
        f"{row['index']} {row['operator']}",
        row["layer"],
        f"{dimensions(row['shape'])} {row['dtype']}",
        kind if kind not in row["dtype"] else "",
        f"scale {row['scale']:.6g}, zero point {row['zero_point']}" if row["scale"] else "",
        f"{row['weight_bytes']:,} bytes of weights, {row['weight_dtype']}"
        if row["weight_bytes"]
        else "",
        f"{row['live_bytes']:,} bytes alive",
    ]
    return "\n".join(filter(None, told))
