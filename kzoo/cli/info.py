"""kzoo info"""

from __future__ import annotations

import click

from kzoo.cli.terminal import complete_model, json_option, pairs, show


@click.command("info")
@click.argument("name", shell_complete=complete_model)
@json_option
def command(name: str, as_json: bool) -> None:
    """The card of the architecture NAME: input, parameters, MACs, accuracy, source."""
    from kzoo.registry import entry

    card = entry(name).card()
    normalization = card["preprocess"]
    text = pairs(
        [
            ("name", card["name"]),
            ("paper", card["paper"]),
            ("file", f"kzoo/zoo/{card['family']}.py"),
            (
                "input",
                " x ".join(map(str, card["input"]))
                + " pixels in [0, 255] (height x width x channels)",
            ),
            ("smallest input", f"{card['smallest_input']} x {card['smallest_input']}"),
            (
                "normalization",
                f"(pixel - {normalization['mean']}) / {normalization['std']}, in the model",
            ),
            ("classes", card["classes"]),
            ("parameters", f"{card['params']:,} trainable, {card['total_params']:,} in all"),
            ("MACs", f"{card['macs']:,}"),
            (
                "top-1",
                f"{card['top1']} % on {card['top1_data']} ({card['top1_source']})"
                if card["top1"]
                else "",
            ),
            ("arguments", ", ".join(f"{key}={value}" for key, value in card["variant"].items())),
        ]
    )
    show(card, text, as_json)
