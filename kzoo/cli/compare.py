"""kzoo compare"""

from __future__ import annotations

import textwrap

import click

from kzoo.cli.terminal import byte_size, complete_model, json_option, show, width_of_terminal

# What a row shows of a card, and which value is its best, where one is.
ROWS = {
    "family": (lambda card: card["family"], None),
    "task": (lambda card: card["task"], None),
    "year": (lambda card: card["year"], None),
    "input": (lambda card: " x ".join(map(str, card["input"])), None),
    "parameters": (lambda card: f"{card['params']:,}", ("params", min)),
    "MACs": (lambda card: f"{card['macs']:,}", ("macs", min)),
    "weights float32": (lambda card: byte_size(card["weight_bytes"]["float32"]), ("params", min)),
    "weights int8": (lambda card: byte_size(card["weight_bytes"]["int8"]), ("params", min)),
    "top-1": (lambda card: card["top1"] and f"{card['top1']:.2f} %", ("top1", max)),
    "top-1 on": (lambda card: card["top1_data"], None),
    "top-1 from": (lambda card: card["top1_source"], None),
    "float in int8": (lambda card: card["float_islands"], None),
    "paper": (lambda card: card["paper"], None),
}


@click.command("compare")
@click.argument("names", nargs=-1, shell_complete=complete_model)
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """The cards of two architectures or more side by side, the best of each row marked.

    \b
    Example:
      kzoo compare mobilenet_v2_035 resnet8 lenet5
    """
    from kzoo.errors import UsageError
    from kzoo.registry import entry

    cards = [entry(name).card() for name in names]
    if len(set(names)) < max(2, len(names)):
        raise UsageError(
            f"two different names or more are compared; {' '.join(names) or 'none'} was given "
            "(`kzoo list` shows all, `kzoo info` one)"
        )
    best = {key: _best(cards, key, better) for _, ranked in ROWS.values() if ranked
            for key, better in [ranked]}  # fmt: skip
    show({"cards": cards, "best": best}, _text(cards, best), as_json)


def _best(cards: list[dict], key: str, better) -> list[str]:
    """The names with the best value; none where all are equal or no two can be compared."""
    known = [card for card in cards if card[key] is not None]
    values = {card[key] for card in known}
    if len(values) < 2 or (key == "top1" and len({card["top1_data"] for card in known}) > 1):
        return []
    return [card["name"] for card in known if card[key] == better(values)]


def _text(cards: list[dict], best: dict[str, list[str]]) -> str:
    columns = [_column(card, best) for card in cards]
    shown = [i for i, title in enumerate(ROWS) if any(column[i + 1] for column in columns)]
    titles = ["", *(list(ROWS)[i] for i in shown)]
    columns = [[column[0], *(column[i + 1] or "–" for i in shown)] for column in columns]
    first = max(map(len, titles))
    numbers = [title in ROWS and ROWS[title][1] is not None for title in titles]
    least = max(len(c[i]) for c in columns for i in range(len(titles)) if not i or numbers[i])
    # As many side by side as there is room for, the others below.
    room = (width_of_terminal() or 100) - first
    abreast = max(1, min(len(columns), room // (least + 2)))
    width = max(least, min(30, room // abreast - 2))
    blocks = [
        _block(titles, columns[start : start + abreast], first, width)
        for start in range(0, len(columns), abreast)
    ]
    return "\n\n".join([*blocks, "* the best of its row"] if any(best.values()) else blocks)


def _column(card: dict, best: dict[str, list[str]]) -> list[str]:
    """The card's cells: its name, then what `ROWS` shows of it."""
    cells = [card["name"]]
    for text, ranked in ROWS.values():
        mark = " *" if ranked and card["name"] in best[ranked[0]] else ""
        cells.append(f"{text(card) or ''}{mark}")
    return cells


def _block(titles: list[str], columns: list[list[str]], first: int, width: int) -> str:
    lines = []
    for title, *cells in zip(titles, *columns, strict=True):
        wrapped = [textwrap.wrap(cell, width) for cell in cells]
        for i in range(max(map(len, wrapped))):
            parts = [("" if i else title).ljust(first)]
            parts += [(cell[i] if i < len(cell) else "").ljust(width) for cell in wrapped]
            lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("─" * n for n in (first, *[width] * len(columns))))
    return "\n".join(lines)
