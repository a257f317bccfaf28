"""How the commands that compress begin and end: their options, and what the step bought."""

from __future__ import annotations

from collections.abc import Callable

import click

from kzoo.cli.terminal import (
    byte_size,
    complete_data,
    data_options,
    force_option,
    json_option,
    keep_record,
    pairs,
    percent,
    seed_option,
    show,
    table,
)
from kzoo.cli.training import TUNING, training_options, tuning
from kzoo.report.table import milliseconds


def compressing(command: Callable, works_on: str = "all but depthwise") -> Callable:
    """Adds the arguments MODEL and DATA and the options of every command that compresses.

    ``works_on`` stands in brackets for the layers without ``--include``.
    """
    for option in (
        click.option(
            "--exclude",
            multiple=True,
            default=(),
            help="Prefix of layers to spare; may be repeated.",
        ),
        click.option(
            "--include",
            multiple=True,
            default=(),
            help=f"Prefix of the layers to work on; may be repeated.  [{works_on}]",
        ),
    ):
        command = option(command)
    return trained(command)


def trained(command: Callable, missing: Callable = tuning, rate: str = "") -> Callable:
    """As `compressing`, without a choice of layers.

    ``missing`` and ``rate`` are of `training_options`, where they are others.
    """
    for option in (
        json_option,
        force_option,
        seed_option,
        data_options,
        training_options(missing, TUNING | ({"rate": rate} if rate else {})),
        click.option("--teacher", type=click.Path(), help="A .keras file to learn from meanwhile."),
        click.option(
            "-o", "--output", required=True, type=click.Path(), help="The .keras file to write."
        ),
        click.argument("data", shell_complete=complete_data),
        click.argument("model", type=click.Path()),
    ):
        command = option(command)
    return command


engine_option = click.option(
    "--engine",
    type=click.Choice(["kzoo", "tfmot"]),
    default="kzoo",
    show_default=True,
    help="tfmot: TensorFlow Model Optimization trains it, in a process of its own, where it can.",
)


def engine_of(chosen: str) -> object:
    """What the public functions call ``engine``, of what was typed."""
    from kzoo.lite.extract import fast_engine

    return chosen if chosen == "tfmot" else fast_engine()


ZEROS = "zeros and shared values shrink the download, not the latency"


def gained(
    verb, model, data, found, told, data_options, progress, as_json, note="", more=""
) -> None:
    """Keeps the record and the curves of a compression, measures both networks, prints the table.

    Args:
        verb: the step's name.
        model: the file before.
        data: the images.
        found: with ``before``, ``training`` and ``to_dict``.
        told: (name, value) lines to print below.
        data_options, progress, as_json: of the command.
        note: what is to be known of such a compression.
        more: text between the table and the lines.
    """
    from kzoo.network.model_file import opened
    from kzoo.report.plots import curves

    training, output = found.training, found.training.output
    networks = {"before": (model, opened(model)), "after": (output, training.model)}
    record = found.to_dict() | {"gain": {name: _counts(net) for name, (_, net) in networks.items()}}
    keep_record(verb, output, record)
    curves(training.history, f"{output}.png", output)
    # The training is on disk by now, whatever comes of the exports.
    missing = ""
    for name, (file, _) in networks.items():
        record["gain"][name]["files"], missing = _files(file, data, data_options, progress)
    keep_record(verb, output, record)
    header = ("", "accuracy", "log-loss", "parameters", "MACs", "float", "gzip", "int8", "gzip",
              "p50 float", "p50 int8")  # fmt: skip
    rounded = "" if verb == "qat" else ", before int8"
    judged = {"before": record["before"], "after": record["evaluation"]}
    rows = [_row(name, judged[name], record["gain"][name]) for name in networks]
    coded, plain = record["coded_bytes"], 4 * record["gain"]["after"]["params"]
    below = pairs(
        [
            *told,
            ("Huffman", f"{byte_size(coded)}, {plain / coded:.1f} times less than float32"),
            ("note", note),
            ("judged on", f"{record['evaluation']['split']} images{rounded}"),
            ("p50", missing or "one thread, on this machine"),
            ("written", f"{output}, {output}.json, {output}.png"),
        ]
    )
    show(record, "\n\n".join(filter(None, (table(header, rows), more, below))), as_json)


def _counts(network) -> dict:
    from kzoo.network.count import macs, parameters

    return {"params": parameters(network)[1], "macs": macs(network)}


def _files(file, data, data_options, progress) -> tuple[dict, str]:
    """What the exports cost, and why that is missing, or ""."""
    from kzoo.errors import KzooError

    try:
        from kzoo.measure.cost import cost

        return cost(file, data, data_options=data_options, progress=progress), ""
    except (KzooError, ModuleNotFoundError) as error:
        return {}, f"not measured: {str(error).splitlines()[0]}"


def _row(name: str, judged: dict, cost: dict) -> tuple:
    files = [cost["files"].get(kind) for kind in ("float32", "int8")]
    sizes = [
        byte_size(each[key]) if each else "" for each in files for key in ("bytes", "gzip_bytes")
    ]
    times = [f"{milliseconds(each['p50_ms'])} ms" if each else "" for each in files]
    counts = [f"{cost['params']:,}", f"{cost['macs']:,}"]
    return (name, percent(judged), f"{judged['log_loss']:.4f}", *counts, *sizes, *times)
