"""What every drawing of this room is made with: a document in both modes, texts, lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

# (light, dark); the strides' are near Okabe and Ito's, which any colour blindness tells apart.
COLOURS = {
    "ink": ("#1b2733", "#e6edf3"),
    "faint": ("#5d6b78", "#9aa7b4"),
    "line": ("#6b7885", "#8b98a5"),
    "paper": ("#ffffff", "#0d1117"),
    "box": ("#ffffff", "#161d26"),
    "pill": ("#e9edf1", "#2b3541"),
    "track": ("#e6eaee", "#252e39"),
    "s1": ("#8a96a3", "#8a96a3"),
    "s2": ("#56b4e9", "#56b4e9"),
    "s4": ("#0072b2", "#3d9be0"),
    "s8": ("#009e73", "#1fb58c"),
    "s16": ("#d98c00", "#e69f00"),
    "s32": ("#d55e00", "#ee7a2b"),
    "s64": ("#cc79a7", "#cc79a7"),
    "s0": ("#6d5fa8", "#9488d1"),
}
"""s0 is for what is no image any more."""

NARROW = dict.fromkeys("iljtf.,:;|!'I ()[]/", 0.25) | dict.fromkeys("mwMW@%", 0.85)
NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may have, however they are written."""


def text_width(text: str, size: float) -> float:
    """About that of Helvetica, on the wide side."""
    return size * sum(NARROW.get(c, 0.7 if c.isupper() else 0.58) for c in text)


def escaped(text: str) -> str:
    """A text, whatever it holds, as it may stand in a document."""
    return escape(NO_XML.sub("\ufffd", text))


def tooltip(text: str) -> str:
    """What is told of the group in which it stands first."""
    return f"<title>{escaped(text)}</title>"


def curve(points: Sequence[tuple[float, float]]) -> str:
    """The path of a line down from point to point: straight, or in an S where x changes."""
    (x, y), *others = points
    path = [f"M{x:.1f} {y:.1f}"]
    for right, down in others:
        if abs(right - x) < 0.5:
            path.append(f"V{down:.1f}")
        else:
            middle = (y + down) / 2
            path.append(f"C{x:.1f} {middle:.1f} {right:.1f} {middle:.1f} {right:.1f} {down:.1f}")
        x, y = right, down
    return " ".join(path)


def document(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    """An SVG document that follows the reader's light or dark mode and needs no other file.

    Args:
        title: what it shows.
        width, height: in pixels.
        parts: its elements, the lowest first; ``url(#tip)`` is the tip of an arrow.
    """
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" '
            f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            tooltip(title),
            f"<style>{_style()}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path class="tip" d="M0 .8 7 4 0 7.2z"/></marker>'
            "</defs>",
            f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _style() -> str:
    def rules(mode: int) -> str:
        css = []
        for name, colours in COLOURS.items():
            colour = colours[mode]
            if name in ("ink", "faint", "paper", "box", "pill", "track"):
                css.append(f".{name}{{fill:{colour}}}")
            elif name == "line":
                css.append(f".wire{{stroke:{colour}}} .tip{{fill:{colour}}}")
            else:
                css.append(
                    f".{name}{{fill:{colour}}} .{name}-edge{{stroke:{colour}}} "
                    f".{name}-tint{{fill:{colour};fill-opacity:{(0.07, 0.10)[mode]}}} "
                    f".{name}-full{{fill:{colour};fill-opacity:{(0.20, 0.30)[mode]}}}"
                )
        return "\n".join(css)

    return f"""
text{{font-family:"Helvetica Neue",Helvetica,Arial,"Liberation Sans",sans-serif}}
.title{{font-size:20px;font-weight:600}} .sub{{font-size:12px}}
.column,.name,.key{{font-size:10px}} .figure{{font-size:11px}}
.label{{font-size:11px;text-anchor:middle}} .tag{{font-size:8.5px;text-anchor:middle}}
.sign{{font-size:14px;text-anchor:middle}}
.small{{font-size:9.5px}} .peak{{font-weight:700}}
.band{{font-size:10.5px;font-weight:600;text-anchor:middle;fill:#fff}}
.badge{{font-size:11.5px;font-weight:600;text-anchor:middle;fill:#fff}}
.wire{{fill:none;stroke-width:1.3}} .stack{{stroke-opacity:.55}}
{rules(0)}
@media (prefers-color-scheme:dark){{{rules(1)}}}
"""
