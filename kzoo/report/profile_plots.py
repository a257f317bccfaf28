"""The drawings of a profile's page: SVG inside it, in its colours, which the style sheet gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kzoo.report.svg import escaped, text_width, tooltip
from kzoo.report.table import scaled

WIDTH, HEIGHT = 720.0, 430.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 16.0, 14.0, 46.0
NAMED = 6
"""Dots of a roofline that are numbered."""
BINS = 72
STEPS = (
    (1,),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
)
"""Ticks of a decade, from few to many."""


class Log:
    """A logarithmic axis: values between two ends, as places between two others; 0 at its start."""

    def __init__(self, values: Sequence[float], start: float, end: float, room: float = 0.06):
        above = [value for value in values if value > 0] or [1.0]
        low, high = math.log(min(above)), math.log(max(above))
        spare = max(room * (high - low), (0.5 - (high - low)) / 2)
        self.low, self.high, self.start, self.end = low - spare, high + spare, start, end

    def __call__(self, value: float) -> float:
        share = (math.log(value) - self.low) / (self.high - self.low) if value > 0 else 0.0
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Two at least; 1, 2, 5, 10, ... where that is enough, of many decades whole ones alone."""
        decades = range(math.floor(self.low / math.log(10)), math.ceil(self.high / math.log(10)))
        many = self.high - self.low > 5 * math.log(10)
        for steps in STEPS[not many :]:
            every = [step * 10.0**decade for decade in decades for step in steps]
            found = [each for each in every if self.low <= math.log(each) <= self.high]
            if len(found) >= 3:
                break
        return found


def roofline(operators: Sequence[Mapping], peak: Mapping) -> str:
    """MACs a second over MACs per byte, a dot for each layer, its area its time.

    Args:
        operators: ``layer``, ``kind``, ``colour`` (a class), ``us``, ``macs`` and ``bytes``,
            ``number`` or None, and ``brief``: the roofs are without it, so it is drawn hollow.
        peak: of `kzoo.report.operators.peaks`.
    """
    dots = [each for each in operators if each["macs"] and each["bytes"] and each["us"]]
    if not dots or not peak["macs"]:
        return ""
    ridge = peak["macs"] / peak["bytes"]
    x = Log([ridge, *(each["macs"] / each["bytes"] for each in dots)], LEFT, WIDTH - RIGHT)
    rates = [1e6 * each["macs"] / each["us"] for each in dots]
    y = Log([peak["macs"], *rates], HEIGHT - BOTTOM, TOP, 0.1)
    parts = _frame(x, y, "MACs per byte moved", "MACs a second", "")
    # The roofs, as far as they are the lower one.
    left = math.exp(x.low)
    top, start = y(peak["macs"]), max(left * peak["bytes"], math.exp(y.low))
    from_x = start / peak["bytes"]
    parts.append(
        f'<path class="roof" d="M{x(from_x):.1f} {y(start):.1f} L{x(ridge):.1f} {top:.1f} '
        f'H{WIDTH - RIGHT}"/>'
    )
    slope = math.degrees(math.atan2(top - y(start), x(ridge) - x(from_x)))
    parts += [
        f'<text class="note" text-anchor="{"end" if x(ridge) > WIDTH - 150 else "start"}" '
        f'x="{x(ridge):.1f}" y="{top - 7:.1f}">'
        f"{scaled(peak['macs'])}MACs/s reached</text>",
        f'<text class="note" transform="translate({x(from_x):.1f} {y(start) - 6:.1f}) '
        f'rotate({slope:.1f}) translate(8 0)">{scaled(peak["bytes"])}B/s reached</text>',
    ]
    longest = max(each["us"] for each in dots)
    numbers = []
    for each in sorted(dots, key=lambda each: -each["us"]):
        place = x(each["macs"] / each["bytes"]), y(1e6 * each["macs"] / each["us"])
        radius = 2.5 + 15 * math.sqrt(each["us"] / longest)
        told = (
            f"{each['layer']}: {each['kind']}\n{each['us']:.1f} us, {scaled(each['macs'])} MACs, "
            f"{scaled(each['bytes'])}B\n{scaled(1e6 * each['macs'] / each['us'])}MACs/s"
        )
        hollow, opacity = (f" {each['colour']}-line", 0) if each["brief"] else ("", 0.62)
        parts.append(
            f'<g>{tooltip(told)}<circle class="{each["colour"]}{hollow}" fill-opacity="{opacity}" '
            f'cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{radius:.1f}"/></g>'
        )
        if each["number"]:
            numbers.append(
                f'<text class="number" text-anchor="middle" x="{place[0]:.1f}" '
                f'y="{place[1] + 4:.1f}">{each["number"]}</text>'
            )
    return _svg("MACs a second of each layer over its MACs per byte", [*parts, *numbers])


def scatter(points: Sequence[Mapping], what: str) -> str:
    """Accuracy, or size, over latency; a dot for each model and target.

    Args:
        points: ``name``, ``target``, ``colour`` (a class), ``ms``, ``low`` and ``high`` (its runs'
            quartiles), ``bytes``, and with accuracies ``accuracy`` and ``interval`` in per cent.
        what: "accuracy" or "bytes".
    """
    x = Log([each[key] for each in points for key in ("low", "high")], LEFT, WIDTH - RIGHT, 0.1)
    if what == "accuracy":
        ends = [end for each in points for end in each["interval"]]
        y = _Linear(max(0.0, min(ends) - 1), min(100.0, max(ends) + 1), HEIGHT - BOTTOM, TOP)
        label, unit = "accuracy (%)", ""
    else:
        y = Log([each["bytes"] for each in points], HEIGHT - BOTTOM, TOP, 0.12)
        label, unit = "size", "B"
    parts = _frame(x, y, "p50 of an inference (ms)", label, unit)
    heaviest = max(each["bytes"] for each in points)
    taken: list[tuple[float, float, float, float]] = []
    models: dict[str, list[tuple[float, float, float]]] = {}
    for each in sorted(points, key=lambda each: -each["bytes"]):
        left, top = x(each["ms"]), y(each[what])
        radius = 4 + 7 * math.sqrt(each["bytes"] / heaviest)
        models.setdefault(each["name"], []).append((left, top, radius))
        ends = x(each["low"]), x(each["high"])
        path = f"M{ends[0]:.1f} {top:.1f}H{ends[1]:.1f}"
        taken += [(left - radius, top - radius, left + radius, top + radius),
                  (ends[0], top - 2, ends[1], top + 2)]  # fmt: skip
        if what == "accuracy":
            low, high = (y(end) for end in each["interval"])
            path += f"M{left:.1f} {low:.1f}V{high:.1f}"
            taken.append((left - 2, high, left + 2, low))
        parts.append(
            f'<g>{tooltip(each["told"])}<path class="whisker {each["colour"]}-line" d="{path}"/>'
            f'<circle class="{each["colour"]}" fill-opacity=".75" cx="{left:.1f}" cy="{top:.1f}" '
            f'r="{radius:.1f}"/></g>'
        )
    for name, dots in models.items():
        (left, top, radius), right = min(dots), max(dots)[0]
        if right > left:
            parts.insert(0, f'<path class="grid" stroke-dasharray="2 4" '
                            f'd="M{left:.1f} {top:.1f}H{right:.1f}"/>')  # fmt: skip
        parts.append(_label(name, left, top, radius, taken))
    return _svg(f"{label} over latency", parts)


def _label(name: str, x: float, y: float, radius: float, taken: list) -> str:
    """A name beside a dot, where no other is."""
    wide, size = text_width(name, 12), 12
    places = [
        (x - radius - 4 - wide, y + 4), (x + radius + 4, y + 4), (x - wide / 2, y - radius - 5),
        (x - wide / 2, y + radius + 14), (x + radius + 4, y - 9), (x + radius + 4, y + 17),
        (x - radius - 4 - wide, y - 9), (x - radius - 4 - wide, y + 17),
    ]  # fmt: skip

    def overlap(place: tuple[float, float]) -> float:
        left, base = place
        box = (left, base - size, left + wide, base + 2)
        outside = (
            1e4 if left < LEFT or box[2] > WIDTH - 2 or box[1] < 0 or box[3] > HEIGHT - 30 else 0
        )
        return outside + sum(
            max(0.0, min(box[2], b[2]) - max(box[0], b[0]))
            * max(0.0, min(box[3], b[3]) - max(box[1], b[1]))
            for b in taken
        )

    left, base = min(places, key=overlap)
    taken.append((left, base - size, left + wide, base + 2))
    return f'<text x="{left:.1f}" y="{base:.1f}">{escaped(name)}</text>'


class _Linear:
    """As `Log`, even."""

    def __init__(self, low: float, high: float, start: float, end: float):
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        rough = (self.high - self.low) / 5
        size = 10 ** math.floor(math.log10(rough))
        step = next(size * by for by in (1, 2, 5, 10) if size * by >= rough)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, math.floor(self.high / step) + 1)]


def _frame(x, y, below: str, beside: str, unit: str) -> list[str]:
    """Axes, their ticks and what they are of."""
    bottom, parts = HEIGHT - BOTTOM, []

    def told(value: float, unit: str = "") -> str:
        text = scaled(value) if value >= 1000 else f"{value:g}"
        number, _, letter = text.partition(" ")
        return f"{float(number):g} {letter}{unit}".strip()

    for tick in x.ticks():
        parts.append(
            f'<path class="grid" d="M{x(tick):.1f} {TOP}V{bottom}"/><text class="note" '
            f'text-anchor="middle" x="{x(tick):.1f}" y="{bottom + 17}">{told(tick)}</text>'
        )
    for tick in y.ticks():
        parts.append(
            f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/><text class="note" '
            f'text-anchor="end" x="{LEFT - 7}" y="{y(tick) + 4:.1f}">{told(tick, unit)}</text>'
        )
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text class="note" text-anchor="middle" x="{(LEFT + WIDTH - RIGHT) / 2}" '
        f'y="{HEIGHT - 8}">{below}</text><text class="note" text-anchor="middle" '
        f'transform="translate(13 {middle}) rotate(-90)">{beside}</text>'
    )
    return parts


def histogram(samples: Sequence[float], x: Log) -> str:
    """The runs' times as the path of a skyline, 100 high; ``x`` gives places from 0 to 1000."""
    counts = [0] * BINS
    for sample in samples:
        place = int(x(sample) / 1000 * BINS)
        if 0 <= place < BINS:
            counts[place] += 1
    most, width = max([*counts, 1]), 1000 / BINS
    path = ["M0 100"]
    for i, count in enumerate(counts):
        path.append(f"V{100 - 100 * count / most:.1f}H{width * (i + 1):.1f}")
    return " ".join([*path, "V100Z"])


def _svg(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img">{tooltip(title)}'
        f"{''.join(parts)}</svg>"
    )
