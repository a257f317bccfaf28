"""kzoo list"""

from __future__ import annotations

import click

from kzoo.cli.terminal import Count, complete_model, json_option, show, table
from kzoo.report.table import scaled


def complete_family(ctx, param, incomplete: str) -> list[str]:  # noqa: ARG001
    from kzoo.registry import entry, list_models

    families = {entry(name).family for name in list_models()}
    return sorted(name for name in families if name.startswith(incomplete))


@click.command("list")
@click.argument("pattern", default="*", shell_complete=complete_model)
@click.option("--task", help="What the outputs mean, such as 'image classification'.")
@click.option("--family", shell_complete=complete_family, help="Of one file, such as resnet.")
@click.option("--max-params", type=Count(), help="Trainable parameters, such as 5M or 5e6.")
@click.option("--max-gmacs", type=float, help="Billions of multiply-accumulates for one image.")
@click.option("--min-top1", type=float, help="Published top-1 on ImageNet-1k in percent.")
@click.option("--weights", is_flag=True, help="Those with pretrained weights only.")
@click.option(
    "--sort",
    default="name",
    show_default=True,
    help="name, params, gmacs, top1, or size (of the input).",
)
@json_option
def command(pattern: str, as_json: bool, **filters) -> None:
    """What architectures exist; PATTERN is a shell pattern.

    \b
    Examples:
      kzoo list 'resnet*'
      kzoo list --max-params 5M --min-top1 70 --sort gmacs
    """
    from kzoo.errors import UsageError
    from kzoo.registry import entry, list_models, why_none

    names = list_models(pattern, **filters)
    if not names:
        filters.pop("sort")
        raise UsageError(why_none(pattern=pattern, **filters))
    cards = [entry(name).card() for name in names]
    rows = [
        (
            card["name"],
            f"{card['params']:,}",
            scaled(card["macs"]),
            "x".join(map(str, card["input"])),
            _accuracy(card),
            card["family"],
        )
        for card in cards
    ]
    header = ("name", "parameters", "MACs", "input", "top-1 %", "family")
    text = table(header, rows, spare=("family",))
    count = f"{len(names)} of {len(list_models())} architectures"
    show(cards, f"{text}\n\n{count}", as_json)


def _accuracy(card: dict) -> str:
    if card["top1"] is None:
        return ""
    data = "" if card["top1_data"] == "ImageNet-1k" else card["top1_data"]
    return f"{card['top1']:5.2f} {data}".rstrip()
