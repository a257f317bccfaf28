"""Where the boxes of a small graph stand: layers from top to bottom, branches side by side.

After Sugiyama, Tagawa, Toda 1981, with one difference: what has to be straight (a branch, the main
path of a residual block) is one lane from the start, and only lanes are ordered and moved.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

GAP = 16.0
"""Between two boxes side by side."""
LINE = 10.0
"""Room that a line beside a box takes."""
REACH = 5
"""A lane is tried so many places further to either side: cells of NASNet have 25 lanes."""


@dataclass
class Layout:
    """Where everything stands; x is 0 for the first node.

    Attributes:
        x: centre of every node.
        rank: row of every node, 0 at the top.
        routes: (x, rank) of every point of an edge, the nodes at its ends included, by edge.
    """

    x: list[float]
    rank: list[int]
    routes: dict[tuple[int, int], list[tuple[float, int]]]


@dataclass
class _Lane:
    """What stands straight below each other: rank -> width."""

    widths: dict[int, float] = field(default_factory=dict)
    x: float = 0.0


@functools.lru_cache(maxsize=64)
def lay_out(
    widths: tuple[float, ...],
    edges: tuple[tuple[int, int], ...],
    straight: tuple[int, ...],
    *,
    in_order: bool = False,
) -> Layout:
    """Places a graph without cycles, whose nodes are numbered in an order of computation.

    Args:
        widths: of the nodes.
        edges: (from, to), each pair once; those into a node from left to right.
        straight: for every node, which of those before it stands straight above it, or -1.
        in_order: whether every node has a row of its own, by its number; else a row holds all that
            are as far from the first.
    """
    before = [[] for _ in widths]
    after = [[] for _ in widths]
    for start, end in edges:
        before[end].append(start)
        after[start].append(end)
    rank = [0] * len(widths)
    for node in range(len(widths)):
        far = 1 + max((rank[other] for other in before[node]), default=-1)
        rank[node] = node if in_order else far
    # What waits for nothing else ends at the bottom, beside the others that do.
    for node in range(len(widths)):
        if before[node] and not after[node] and not in_order:
            rank[node] = max(rank)

    lanes: list[_Lane] = []
    lane_of: list[int] = []
    for node, width in enumerate(widths):
        above = straight[node]
        if above < 0 and len(before[node]) == 1 and len(after[before[node][0]]) == 1:
            above = before[node][0]
        lane = lane_of[above] if above >= 0 else -1
        if lane < 0 or any(r in lanes[lane].widths for r in range(rank[above] + 1, rank[node] + 1)):
            lane = len(lanes)
            lanes.append(_Lane())
        lane_of.append(lane)
        lanes[lane].widths[rank[node]] = width

    hops: list[tuple[int, int, int]] = []  # lane, lane, the lower rank
    through: dict[tuple[int, int], int] = {}
    for start, end in edges:
        through[start, end] = lane = _passage(start, end, rank, lane_of, lanes, before, after)
        if lane != lane_of[start]:
            hops.append((lane_of[start], lane, rank[start] + 1))
        if lane != lane_of[end]:
            hops.append((lane, lane_of[end], rank[end]))
    # From left to right as the inputs of what joins them; what stands straight comes first.
    seen: dict[int, None] = dict.fromkeys(lane_of[:1])
    visited: set[int] = set()

    def visit(node: int) -> None:
        visited.add(node)
        for other in before[node]:
            if other not in visited:
                visit(other)
            seen.setdefault(through[other, node])
        seen.setdefault(lane_of[node])

    for node in range(len(widths)):
        if not after[node]:
            visit(node)
    _order([*seen], lanes, hops)
    shift = lanes[lane_of[0]].x
    x = [lanes[lane].x - shift for lane in lane_of]
    routes = {}
    for (start, end), lane in through.items():
        inner = [(lanes[lane].x - shift, r) for r in range(rank[start] + 1, rank[end])]
        routes[start, end] = [(x[start], rank[start]), *inner, (x[end], rank[end])]
    return Layout(x, rank, routes)


def spine(edges: Sequence[tuple[int, int]], scaled: Collection[int]) -> dict[int, int]:
    """Of the nodes on the main path to the last one, which one stands straight above each.

    At a sum it follows the longer branch, at a product the one that is scaled. Where three or more
    branches are joined none of them is the main one, and the join stands below the split.

    Args:
        edges: (from, to), as of `lay_out`.
        scaled: the nodes that multiply their first input.
    """
    before: dict[int, list[int]] = {}
    for start, end in edges:
        before.setdefault(end, []).append(start)
    last = max(before, default=-1)
    length: dict[int, int] = {}
    for node in range(last + 1):
        length[node] = 1 + max((length[other] for other in before.get(node, [])), default=0)
    found = {}
    node = last
    while above := before.get(node):
        if len(above) > 2:
            found[node] = _split(node, before)
        else:
            found[node] = above[0] if node in scaled else max(above, key=length.__getitem__)
        node = found[node]
    return found


def _split(join: int, before: Mapping[int, list[int]]) -> int:
    """The last node through which every way to ``join`` leads; the first one of all otherwise."""
    ways: dict[int, set[int]] = {}
    for node in range(join + 1):
        above = [ways[other] for other in before.get(node, [])]
        ways[node] = {node} | (set.intersection(*above) if above else set())
    return max(ways[join] - {join}, default=0)


def _passage(start, end, rank, lane_of, lanes, before, after) -> int:
    """The lane in which an edge passes the ranks between its ends."""
    between = range(rank[start] + 1, rank[end])
    if not between:
        return lane_of[end]
    same = lane_of[start] == lane_of[end]
    for lane, alone in ((lane_of[start], len(after[start])), (lane_of[end], len(before[end]))):
        # A branch that ends early goes straight down beside the others.
        if (same or alone == 1) and not any(r in lanes[lane].widths for r in between):
            lanes[lane].widths |= dict.fromkeys(between, LINE)
            return lane
    lanes.append(_Lane(dict.fromkeys(between, LINE)))
    return len(lanes) - 1


def _order(order: list[int], lanes: list[_Lane], hops: list[tuple[int, int, int]]) -> None:
    """Orders the lanes with few crossings and short ways, and gives each its x."""
    pairs = [
        (*first[:2], *second[:2])
        for first, second in itertools.combinations(hops, 2)
        if first[2] == second[2]
    ]
    # Lanes that go straight on at the rank where an edge changes over.
    passed = [
        [i for i, lane in enumerate(lanes) if r in lane.widths and r - 1 in lane.widths]
        for *_, r in hops
    ]

    def crossings(order: list[int]) -> int:
        at = {lane: i for i, lane in enumerate(order)}
        found = sum([(at[a] - at[c]) * (at[b] - at[d]) < 0 for a, b, c, d in pairs])
        for (a, b, _), others in zip(hops, passed, strict=True):
            low, high = sorted((at[a], at[b]))
            found += sum([low < at[other] < high for other in others])
        return found

    def length(order: list[int]) -> float:
        _place(order, lanes, hops, rounds=3)
        return sum(abs(lanes[a].x - lanes[b].x) for a, b, _ in hops)

    best = crossings(order), length(order)
    improved = len(order) > 1
    while improved:
        improved = False
        for lane in range(len(lanes)):
            start = order.index(lane)
            for place in range(max(0, start - REACH), min(len(order), start + REACH + 1)):
                tried = [other for other in order if other != lane]
                tried.insert(place, lane)
                if (crossed := crossings(tried)) > best[0]:
                    continue
                now = crossed, length(tried)
                if crossed < best[0] or now[1] < best[1] - 1:
                    order, best, improved = tried, now, True
    _place(order, lanes, hops, rounds=60)


def _place(order, lanes, hops, rounds: int) -> None:
    """Gives the lanes, in this order, their x: near to what they are joined with, and apart."""
    ranks: dict[int, list[int]] = {}
    for lane in order:
        for rank in lanes[lane].widths:
            ranks.setdefault(rank, []).append(lane)
    left: dict[int, dict[int, float]] = {lane: {} for lane in order}
    right: dict[int, dict[int, float]] = {lane: {} for lane in order}
    middle: dict[int, list[float]] = {lane: [] for lane in order}
    for rank, there in ranks.items():
        x = 0.0
        for i, lane in enumerate(there):
            width = lanes[lane].widths[rank]
            if i:
                other = there[i - 1]
                need = (lanes[other].widths[rank] + width) / 2 + GAP
                left[lane][other] = right[other][lane] = max(left[lane].get(other, 0.0), need)
                x += need
            middle[lane].append(x)
        for lane in there:
            middle[lane][-1] -= x / 2
    # Every rank in the middle, then apart: pushed to the right, pushed to the left, and between.
    start = {lane: sum(middle[lane]) / len(middle[lane]) for lane in order}
    far, near = dict(start), dict(start)
    for lane in order:
        for other, need in left[lane].items():
            far[lane] = max(far[lane], far[other] + need)
    for lane in reversed(order):
        for other, need in right[lane].items():
            near[lane] = min(near[lane], near[other] - need)
    at = {lane: (far[lane] + near[lane]) / 2 for lane in order}
    joined: dict[int, list[int]] = {lane: [] for lane in order}
    for a, b, _ in hops:
        joined[a].append(b)
        joined[b].append(a)
    for turn in range(rounds):
        for lane in order if turn % 2 else reversed(order):
            if not joined[lane]:
                continue
            xs = [at[other] for other in joined[lane]]
            x = (min(xs) + max(xs)) / 2
            for other, need in right[lane].items():
                if at[other] - need < x:
                    x = at[other] - need
            for other, need in left[lane].items():
                if at[other] + need > x:
                    x = at[other] + need
            at[lane] = x
    for lane in order:
        lanes[lane].x = at[lane]
