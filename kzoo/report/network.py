"""A drawing of a network, as a figure of a paper would show it, from the table of its layers.

Blocks stand below each other, what is equal once; in a block its branches stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kzoo.report.layout import Layout, lay_out, spine
from kzoo.report.structure import (
    SIGNS,
    Block,
    Node,
    blocks_of,
    dimensions,
    fold,
    label,
    span,
    tags,
)
from kzoo.report.svg import curve, document, escaped, text_width, tooltip
from kzoo.report.table import scaled

HIGH, GAP, PAD = 23.0, 14.0, 13.0
"""Of a box; between two below each other; between a block's frame and its boxes."""
BAND, GUTTER, SIDE = 30.0, 26.0, 262.0
BEND = 8.0
"""Radius of the corners of lines that pass a block by."""
PARAMS, MACS = 104.0, 172.0
"""Where the columns at the right begin."""


def network_svg(table: Sequence[Mapping], title: str) -> str:
    """Draws a network.

    Args:
        table: a row per layer in the order of computation: name, kind, inputs (names), shape of
            the output without the batch, params, macs, settings; see `kzoo.network.count`.
        title: above the drawing.

    Returns:
        An SVG document. It follows the reader's light or dark mode; exact figures are tooltips.
    """
    blocks = fold(blocks_of(table))
    return _Drawing(blocks, table, title).svg()


def _pill_width(tag: tuple[str, str]) -> float:
    return text_width(tag[0], 8.5) + 9


def _width(node: Node) -> float:
    leading, trailing = tags(node)
    pills = sum(_pill_width(tag) + 4 for tag in (*leading, *trailing))
    if node.kind in SIGNS:
        return 2 * (11 + pills) if pills else 22.0
    text = text_width(label(node), 11)
    return text + pills + 18 if text else pills + 8


class _Drawing:
    """Collects the elements of the picture from the top down."""

    def __init__(self, blocks: list[Block], table: Sequence[Mapping], title: str):
        self.blocks, self.table, self.title = blocks, table, title
        self.macs = max(1, sum(row["macs"] for row in table))
        self.parts: list[str] = []
        self.home = {row["name"]: i for i, block in enumerate(blocks) for row in block.rows}
        self.inside = [_Inside(block, self.home) for block in blocks]
        self.left = max(each.left for each in self.inside) + PAD
        self.right = max(each.right for each in self.inside) + PAD
        spare = max(0.0, 300 - self.left - self.right) / 2
        self.left, self.right = self.left + spare, self.right + spare
        self.skips = self._skips()
        lanes = max((lane for *_, lane in self.skips), default=-1) + 1
        self.edge = 24 + BAND + GUTTER / 2 + 11 * lanes
        self.axis = self.edge + self.left
        self.far = self.axis + self.right
        self.width = self.far + SIDE

    def _skips(self) -> list[tuple[int, int, int, int]]:
        """(from, to, port, lane in the gutter) of what passes a block by."""
        found, taken = [], []
        for i, inside in enumerate(self.inside):
            for port, name in enumerate(inside.ports):
                source = self.home.get(name, i)
                if source == i or (port == 0 and source == i - 1):
                    continue
                busy = {lane for a, b, lane in taken if a < i and source < b}
                lane = next(n for n in range(99) if n not in busy)
                taken.append((source, i, lane))
                found.append((source, i, port, lane))
        return found

    def svg(self) -> str:
        """The document."""
        y = 92.0
        tops = []
        for inside in self.inside:
            tops.append(y)
            y += inside.height + (24 if len(inside.block.members) == 1 else 32)
        bottoms = [top + each.height for top, each in zip(tops, self.inside, strict=True)]
        self._bands(tops, bottoms)
        for i, inside in enumerate(self.inside):
            self._block(inside, tops[i])
            if i and inside.ports and self.home.get(inside.ports[0]) == i - 1:
                folded = 8 if len(self.inside[i - 1].block.members) > 1 else 0
                x = self.axis + self.inside[i - 1].exit
                end = self.axis + inside.port_xs[0], tops[i] - 1
                bend = curve([(x, bottoms[i - 1] + folded), end])
                self.parts.append(f'<path class="wire" marker-end="url(#tip)" d="{bend}"/>')
        for source, target, port, lane in self.skips:
            self._skip(bottoms[source], tops[target], self.inside[target], port, lane)
        height = y + 34
        self._legend(height - 30)
        return document(self.title, self.width, height, [*self._head(), *self.parts])

    def _head(self) -> list[str]:
        params = sum(row["params"] for row in self.table)
        image = next((row["shape"] for row in self.table if row["kind"] == "InputLayer"), [])
        said = f"{scaled(params)} parameters · {scaled(self.macs)} MACs · input {dimensions(image)}"
        side = self.far + 22
        return [
            f'<text class="ink title" x="24" y="38">{escaped(self.title)}</text>',
            f'<text class="faint sub" x="24" y="58">{escaped(said)}</text>',
            f'<text class="faint column" x="{side:.1f}" y="80">output</text>',
            f'<text class="faint column" x="{side + PARAMS:.1f}" y="80">parameters</text>',
            f'<text class="faint column" x="{side + MACS:.1f}" y="80">MACs</text>',
        ]

    def _bands(self, tops: list[float], bottoms: list[float]) -> None:
        """The stages at the left, in the colour of their stride."""
        start = 0
        for i in range(1, len(self.blocks) + 1):
            if i < len(self.blocks) and self._stage(i) == self._stage(start):
                continue
            name, colour = self._stage(start), self._colour(i - 1)
            top, high = tops[start], bottoms[i - 1] - tops[start]
            stride = colour.removeprefix("s")
            said = name.replace("stage", "stage ")
            if stride != "0" and high > 130:
                said += f" · stride {stride}"
            self.parts.append(
                f'<rect class="{colour}" x="24" y="{top:.1f}" width="20" height="{high:.1f}" '
                f'rx="5"/><text class="band" transform="translate(38 {top + high / 2:.1f}) '
                f'rotate(-90)">{escaped(said) if high > 34 else ""}</text>'
            )
            start = i

    def _stage(self, i: int) -> str:
        return self.blocks[i].name.split("_")[0].replace("image", "in")

    def _colour(self, i: int) -> str:
        """The class of a block's stride."""
        image = next((row["shape"] for row in self.table if row["kind"] == "InputLayer"), [])
        shape = self.blocks[i].nodes[-1].rows[-1]["shape"]
        if len(shape) < 3 or len(image) < 3 or not image[0] or not shape[0] or shape[0] == 1:
            return "s0"
        stride = image[0] / shape[0]
        return "s" + str(min((1, 2, 4, 8, 16, 32, 64), key=lambda s: abs(s / stride - 1)))

    def _block(self, inside: _Inside, top: float) -> None:
        i = self.inside.index(inside)
        block, colour = inside.block, self._colour(i)
        count = len(block.members)
        wide, params, macs = (
            self.far - self.edge,
            *(sum(row[key] for row in block.rows) for key in ("params", "macs")),
        )
        name = block.name if count == 1 else f"{block.name} … {block.members[-1].name}"
        self.parts.append("<g>")
        self.parts.append(tooltip(f"{name}\n{params:,} parameters\n{self._share(macs)}"))
        for shift in (8, 4) if count > 1 else ():
            self.parts.append(
                f'<rect class="box {colour}-edge stack" x="{self.edge + shift:.1f}" '
                f'y="{top + shift:.1f}" width="{wide:.1f}" height="{inside.height:.1f}" rx="9"/>'
            )
        frame = f'x="{self.edge:.1f}" y="{top:.1f}" width="{wide:.1f}" '
        frame += f'height="{inside.height:.1f}" rx="9"'
        self.parts.append(f'<rect class="box" {frame}/>')
        self.parts.append(f'<rect class="{colour}-tint {colour}-edge" {frame}/>')
        self.parts.append("</g>")
        if count > 1:
            text = f"× {count}"
            half = text_width(text, 11.5) / 2 + 8
            x = self.far - half - 8
            self.parts.append(
                f'<rect class="{colour}" x="{x - half:.1f}" y="{top - 9:.1f}" '
                f'width="{2 * half:.1f}" height="18" rx="9"/>'
                f'<text class="badge" x="{x:.1f}" y="{top + 4:.1f}">{text}</text>'
            )
        self._wires(inside, top)
        for node, x, y in zip(block.nodes, inside.xs, inside.ys, strict=True):
            self._node(node, self.axis + x, top + y, colour)
        self._side(block, name, top + inside.height / 2, colour)

    def _wires(self, inside: _Inside, top: float) -> None:
        for points in inside.wires:
            path = curve([(self.axis + x, top + y) for x, y in points])
            self.parts.append(f'<path class="wire" d="{path}"/>')

    def _node(self, node: Node, x: float, y: float, colour: str) -> None:
        leading, trailing = tags(node)
        width, text = _width(node), label(node)
        self.parts.append("<g>")
        others = [other.main for other in node.alike[1:] if other.main]
        self.parts.append(tooltip("\n".join(self._told(row) for row in (*node.rows, *others))))
        if node.kind in SIGNS:
            self.parts.append(
                f'<circle class="box {colour}-edge" cx="{x:.1f}" cy="{y:.1f}" r="10"/>'
                f'<text class="ink sign" x="{x:.1f}" y="{y + 5:.1f}">{text}</text>'
            )
            self._pills(trailing, x + 14, y)
        else:
            quiet = not any(row["params"] or row["macs"] for row in node.rows)
            tint = "" if quiet else f" {colour}-full"
            box = f'x="{x - width / 2:.1f}" y="{y - HIGH / 2:.1f}" width="{width:.1f}"'
            box += f' height="{HIGH:.0f}" rx="{HIGH / 2 if node.kind == "Concatenate" else 5:.0f}"'
            self.parts.append(f'<rect class="box {colour}-edge" {box}/>')
            if tint:
                self.parts.append(f'<rect class="{colour}-full" {box}/>')
            at = x - width / 2 + (9 if text else 6)
            at = self._pills(leading, at, y)
            wide = text_width(text, 11)
            self.parts.append(
                f'<text class="ink label" x="{at + wide / 2:.1f}" y="{y + 4:.1f}">'
                f"{escaped(text)}</text>"
            )
            self._pills(trailing, at + wide + (4 if text else 0), y)
        self.parts.append("</g>")

    def _pills(self, tags: list[tuple[str, str]], x: float, y: float) -> float:
        for tag in tags:
            wide = _pill_width(tag)
            self.parts.append(
                f'<rect class="pill {tag[1]}" x="{x:.1f}" y="{y - 7.5:.1f}" width="{wide:.1f}" '
                f'height="15" rx="7.5"/><text class="ink tag" x="{x + wide / 2:.1f}" '
                f'y="{y + 3:.1f}">{escaped(tag[0])}</text>'
            )
            x += wide + 4
        return x

    def _side(self, block: Block, name: str, y: float, colour: str) -> None:
        x = self.far + 22
        params, macs = (sum(row[key] for row in block.rows) for key in ("params", "macs"))
        shapes = [member.nodes[-1].rows[-1]["shape"] for member in block.members]
        same = len({tuple(shape) for shape in shapes}) == 1
        shape = dimensions(
            [*shapes[0][:-1], shapes[0][-1] if same else span([s[-1] for s in shapes])]
        )
        share = macs / self.macs
        y += 4
        self.parts.append(
            f'<text class="faint name" x="{x:.1f}" y="{y - 12:.1f}">{escaped(name)}</text>'
            f'<text class="ink figure" x="{x:.1f}" y="{y + 4:.1f}">{shape}</text>'
            f'<text class="ink figure" x="{x + PARAMS:.1f}" y="{y + 4:.1f}">'
            f"{scaled(params) if params else '–'}</text>"
        )
        if macs:
            self.parts.append(
                f"<g>{tooltip(self._share(macs))}"
                f'<rect class="track" x="{x + MACS:.1f}" y="{y + 8:.1f}" width="46" height="3" '
                f'rx="1.5"/><rect class="{colour}" x="{x + MACS:.1f}" y="{y + 8:.1f}" '
                f'width="{max(0.8, 46 * share):.1f}" height="3" rx="1.5"/>'
                f'<text class="ink figure" x="{x + MACS:.1f}" y="{y + 4:.1f}">'
                f"{escaped(_percent(share))}</text></g>"
            )

    def _skip(self, bottom: float, top: float, inside: _Inside, port: int, lane: int) -> None:
        """From the left side of a block, past others, into another."""
        x = self.edge - 12 - 11 * lane
        start, end = bottom - 14, top + BEND
        target = self.axis + inside.port_xs[port]
        self.parts.append(
            f'<path class="wire" d="M{self.edge:.1f} {start:.1f} Q{x:.1f} {start:.1f} {x:.1f} '
            f"{start + 12:.1f} V{end - 12:.1f} Q{x:.1f} {end:.1f} {self.edge:.1f} {end:.1f} "
            f'H{target - BEND:.1f} Q{target:.1f} {end:.1f} {target:.1f} {end + BEND:.1f}"/>'
        )

    def _legend(self, y: float) -> None:
        x = self.edge
        used = dict.fromkeys(self._colour(i) for i in range(len(self.blocks)))
        for colour in used:
            said = "vector" if colour == "s0" else f"stride {colour.removeprefix('s')}"
            self.parts.append(
                f'<rect class="{colour}" x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" '
                f'rx="2.5"/><text class="faint key" x="{x + 15:.1f}" y="{y:.1f}">{said}</text>'
            )
            x += 32 + text_width(said, 10)

    def _told(self, row: Mapping) -> str:
        told = f"{row['name']}: {row['kind']}, {dimensions(row['shape'])}"
        if row["params"]:
            told += f", {row['params']:,} parameters"
        return told + (f", {self._share(row['macs'])}" if row["macs"] else "")

    def _share(self, macs: int) -> str:
        return f"{macs:,} MACs ({100 * macs / self.macs:.2f} %)"


class _Inside:
    """A block's nodes laid out: places relative to its axis and its top."""

    def __init__(self, block: Block, home: Mapping[str, int]):
        self.block = block
        nodes = block.nodes
        outside = [given for node in nodes for given in node.inputs if isinstance(given, str)]
        # The nearest block comes first: it is the one right above.
        self.ports = sorted(dict.fromkeys(outside), key=lambda name: -home.get(name, -1))
        count = len(self.ports)
        widths = [1.0] * count + [_width(node) for node in nodes]
        edges, straight = [], [-1] * (count + len(nodes))
        for i, node in enumerate(nodes):
            for given in dict.fromkeys(node.inputs):
                start = self.ports.index(given) if isinstance(given, str) else count + given
                edges.append((start, count + i))
        last = count + len(nodes) - 1
        products = {count + i for i, node in enumerate(nodes) if node.kind == "Multiply"}
        for node, above in spine(edges, products).items():
            straight[node] = above
        # Rounded up, blocks that differ in a digit alone are laid out once.
        rounded = tuple(10.0 * math.ceil(width / 10) for width in widths)
        layout = lay_out(rounded, tuple(edges), tuple(straight))
        rows = self._rows(layout, edges, count)
        self.xs, self.ys = layout.x[count:], [rows[r] for r in layout.rank[count:]]
        self.port_xs = layout.x[:count]
        self.exit = layout.x[last]
        self.height = max(self.ys, default=0.0) + HIGH / 2 + PAD
        self.wires = [
            self._wire(layout.routes[edge], rows, edge[0] if edge[0] < count else None)
            for edge in edges
        ]
        self.wires.append([(self.exit, self.ys[-1]), (self.exit, self.height)])
        if block.name == "head":
            self.wires.pop()
        reach = [
            *((x - width / 2, x + width / 2) for x, width in zip(layout.x, widths, strict=True)),
            *((x - 4, x + 4) for route in layout.routes.values() for x, _ in route),
        ]
        low, high = min(low for low, _ in reach), max(high for _, high in reach)
        # What has one way in hangs from it; the cells of NASNet stand in the middle.
        shift = -(low + high) / 2 if count > 1 else 0.0
        self.left, self.right = -low - shift, high + shift
        self.exit += shift
        self.xs = [x + shift for x in self.xs]
        self.port_xs = [x + shift for x in self.port_xs]
        self.wires = [[(x + shift, y) for x, y in wire] for wire in self.wires]

    def _rows(self, layout: Layout, edges: list, count: int) -> list[float]:
        """The middle of every rank; wide jumps get more room to bend in."""
        ranks = max(layout.rank) + 1
        jumps = [0.0] * (ranks + 1)
        for edge in edges:
            for (a, _), (b, rank) in zip(
                layout.routes[edge], layout.routes[edge][1:], strict=False
            ):
                jumps[rank] = max(jumps[rank], abs(a - b))
        gaps = [GAP + min(26.0, 0.08 * jump) for jump in jumps]
        rows = [PAD + HIGH / 2] if not count else [0.0]
        for rank in range(1, ranks):
            if rank == 1 and count:
                rows.append(gaps[1] + 6 + HIGH / 2)
            else:
                rows.append(rows[-1] + HIGH + gaps[rank])
        return rows

    def _wire(self, route: list, rows: list[float], port: int | None) -> list[tuple[float, float]]:
        (x, rank), *others = route
        # Through the first port from above, through the others from the left, see _Drawing._skip.
        start = {None: rows[rank] + HIGH / 2, 0: 0.0}.get(port, 2 * BEND)
        points = [(x, start)]
        for right, r in others:
            points += [(right, rows[r] - HIGH / 2), (right, rows[r] + HIGH / 2)]
        return points[:-1]


def _percent(share: float) -> str:
    if share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.{0 if share > 0.0995 else 1}f} %"
