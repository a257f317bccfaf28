"""kzoo info"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kzoo.cli.build import (
    arguments_argument,
    channels_option,
    classes_option,
    flavour_option,
    norm_option,
    size_option,
)
from kzoo.cli.terminal import (
    bar,
    byte_size,
    complete_model,
    force_option,
    json_option,
    pairs,
    show,
    table,
)
from kzoo.zoo.weights.table import Weights, weights_of

if TYPE_CHECKING:
    from kzoo.registry import Entry


@click.command("info")
@click.argument("name", shell_complete=complete_model)
@arguments_argument
@click.option("--memory", is_flag=True, help="What its activations need at inference.")
@click.option("--layers", is_flag=True, help="A table of its layers.")
@click.option("--graph", type=click.Path(), help="Draw the network into this .svg file.")
@size_option
@channels_option
@classes_option
@norm_option
@flavour_option
@force_option
@json_option
def command(name, arguments, memory, layers, graph, force, as_json, **options) -> None:
    """The card of the architecture NAME: input, parameters, MACs, accuracy, source.

    With --memory, --layers or --graph, or at another size and the like, the network is laid out
    without its weights, which takes some seconds. ARGUMENTS are those of the builder, such as
    alpha=0.5.

    \b
    Examples:
      kzoo info mobilenet_v2
      kzoo info mobilenet_v2 alpha=0.5 --size 96 --layers
      kzoo info resnet50 --graph resnet50.svg
    """
    from kzoo.registry import entry

    row = entry(name)
    card = row.card()
    if graph:
        graph = _drawing(graph, force=force)
    variant = {}
    if arguments:
        from kzoo.runs.config import read_arguments

        variant = row.typed_arguments(read_arguments(arguments))
    given = _unlike(row, options, variant)
    if memory or layers or graph or given:
        with bar() as progress:
            progress(f"laying out {name}", 0, 1)
            rows = _lay_out(card, given)
    if layers:
        card["layers"] = rows
    if graph:
        from kzoo.files import write_bytes
        from kzoo.report.network import network_svg

        write_bytes(graph, network_svg(rows, name).encode())
        card["graph"] = str(graph)
    text = _text(card, row)
    if layers:
        text += f"\n\n{_layers(rows)}"
    show(card, text, as_json)


def _drawing(path: str, *, force: bool) -> Path:
    from kzoo.errors import UsageError
    from kzoo.files import new_output

    if Path(path).suffix != ".svg":
        raise UsageError(f"a drawing's file name ends in .svg; {path!r} was given")
    return new_output(path, force=force)


def _unlike(row: Entry, options: dict, variant: dict) -> dict:
    """What was given and is not as the row has it: its published figure is of the latter."""
    from kzoo.registry import pair

    given = {key: value for key, value in options.items() if value is not None}
    given |= {"size": pair(given["size"])} if "size" in given else {}
    own = {
        "size": pair(row.size), "channels": row.channels, "classes": row.classes,
        "norm": "batch", "flavour": row.flavour,
    }  # fmt: skip
    found = {key: value for key, value in given.items() if value != own[key]}
    changed = {key: value for key, value in variant.items() if value != row.variant[key]}
    return found | ({"variant": changed} if changed else {})


def _lay_out(card: dict, given: dict) -> list[dict]:
    """Builds the network without weights; puts what was counted into the card."""
    from kzoo.network.count import layer_table, macs, parameters, peak_memory
    from kzoo.zoo.build import skeleton

    variant = given.pop("variant", {})
    model = skeleton(card["name"], **given, **variant)
    rows = layer_table(model)
    trainable, total = parameters(model)
    card |= {
        "input": list(model.inputs[0].shape[1:]),
        "classes": model.outputs[0].shape[-1],
        "params": trainable,
        "total_params": total,
        "macs": macs(model),
        "weight_bytes": {"float32": 4 * trainable, "int8": trainable},
        "activation_bytes": {
            kind: peak_memory(rows, width) for kind, width in (("float32", 4), ("int8", 1))
        },
        "flavour": given.get("flavour", card["flavour"]),
        "variant": card["variant"] | variant,
    }
    if "norm" in given:
        card["norm"] = given["norm"]
    if given or variant:
        # The published figure is that of the row.
        card |= {"top1": None, "top1_data": "", "top1_source": ""}
    return rows


def _text(card: dict, row: Entry) -> str:
    normalization, (height, width) = card["preprocess"], card["smallest_input"]
    return pairs(
        [
            ("name", card["name"]),
            ("paper", card["paper"]),
            ("task", card["task"]),
            ("file", f"kzoo/zoo/{card['family']}.py"),
            (
                "input",
                " x ".join(map(str, card["input"]))
                + " pixels in [0, 255] (height x width x channels)",
            ),
            ("smallest input", f"{height} x {width}"),
            (
                "normalization",
                f"(pixel - {normalization['mean']}) / {normalization['std']}, in the model",
            ),
            ("flavour", card["flavour"]),
            ("norm", card.get("norm")),
            ("classes", card["classes"]),
            ("parameters", f"{card['params']:,} trainable, {card['total_params']:,} in all"),
            ("MACs", f"{card['macs']:,}"),
            (
                "top-1",
                f"{card['top1']} % on {card['top1_data']} ({card['top1_source']})"
                if card["top1"]
                else "",
            ),
            ("pretrained", ", ".join(_weights(each) for each in weights_of(card["name"]))),
            (
                "auxiliary",
                f"classifiers in training, their loss weighted {card['auxiliary_weight']}"
                if card["auxiliary_weight"]
                else "",
            ),
            ("float in int8", card["float_islands"]),
            ("arguments", row.takes(card["variant"]) if row.variant else ""),
            ("memory", f"weights {_sizes(card['weight_bytes'])}"),
            ("", _activations(card)),
            ("drawing", card.get("graph")),
        ]
    )


def _weights(row: Weights) -> str:
    return f"{row.tag} {row.top1:.1f} %" if row.top1 else row.tag


def _sizes(counts: dict[str, int]) -> str:
    return ", ".join(f"{byte_size(count)} in {kind}" for kind, count in counts.items())


def _activations(card: dict) -> str:
    if "activation_bytes" not in card:
        return f"activations: `kzoo info {card['name']} --memory` counts them"
    return f"activations {_sizes(card['activation_bytes'])} at most, for one image"


def _layers(rows: list[dict]) -> str:
    """One line per layer, a blank one between stages."""
    macs = max(1, sum(row["macs"] for row in rows))
    cells, stage = [], ""
    for row in rows:
        now = re.match(r"stem|stage\d+|head", row["name"])
        if now and now[0] != stage:
            stage = now[0]
            cells.append(("", "", "", "", "", ""))
        cells.append(
            (
                row["name"],
                row["kind"],
                "x".join(map(str, row["shape"])),
                f"{row['params']:,}" if row["params"] else "",
                f"{row['macs']:,}" if row["macs"] else "",
                f"{100 * row['macs'] / macs:.1f} %" if row["macs"] else "",
            )
        )
    return table(("layer", "kind", "output", "parameters", "MACs", "share"), cells)
