"""kzoo list"""

from __future__ import annotations

import click

from kzoo.cli.terminal import complete_model, json_option, show, table


@click.command("list")
@click.argument("pattern", default="*", shell_complete=complete_model)
@json_option
def command(pattern: str, as_json: bool) -> None:
    """What architectures exist; PATTERN is a shell pattern.

    \b
    Example:
      kzoo list 'resnet*'
    """
    from kzoo.errors import UsageError, nearest
    from kzoo.registry import entry, list_models

    cards = [entry(name).card() for name in list_models(pattern)]
    if not cards:
        raise UsageError(
            f"no architecture matches {pattern!r}{nearest(pattern.strip('*'), list_models())}"
        )
    rows = [
        (
            card["name"],
            f"{card['params']:,}",
            f"{card['macs'] / 1e6:,.1f}",
            f"{card['input'][0]}x{card['input'][1]}x{card['input'][2]}",
            f"{card['top1']:.2f} {card['top1_data']}" if card["top1"] else "",
        )
        for card in cards
    ]
    text = table(("name", "parameters", "MMACs", "input", "published top-1 %"), rows)
    show(cards, text, as_json)
