"""kzoo evaluate"""

from __future__ import annotations

import click

from kzoo.cli.check import split_option, split_seed_option
from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    json_option,
    pairs,
    percent,
    show,
    table,
)
from kzoo.report.table import percent as share


@click.command("evaluate")
@click.argument("model", type=click.Path())
@click.argument("data", shell_complete=complete_data)
@split_option
@data_options
@split_seed_option
@json_option
def command(model, data, data_options, seed, as_json, **options) -> None:
    """How good the .keras or .tflite file MODEL is on the images of DATA (see `kzoo data`).

    Shows each class, the most confident mistakes, and the figures of all: accuracy with its 95 %
    interval, log-loss in nats, expected calibration error (ECE) and the mean of the classes' F1.

    \b
    Example:
      kzoo evaluate net_int8.tflite photos/
    """
    from kzoo.lite.evaluate import evaluate

    if seed is not None:
        data_options["seed"] = seed
    with bar() as progress:
        assessment = evaluate(model, data, data_options=data_options, progress=progress, **options)
    record = assessment.to_dict()
    show(record, "\n\n".join(_parts(record)), as_json)


def _parts(record: dict) -> list[str]:
    found = record["evaluation"]
    classes = [
        (name, f"{row['count']:,}", *(share(row[key]) for key in ("precision", "recall", "f1")))
        for name, row in zip(record["classes"], found["per_class"], strict=True)
    ]
    mistakes = [
        (row["path"], row["label"], row["predicted"], share(row["probability"]))
        for row in record["mistakes"]
    ]
    top5 = found["top5_accuracy"]
    figures = [
        ("accuracy", f"{percent(found)} {found['split']} images"),
        ("top-5", None if top5 is None else share(top5)),
        ("log-loss", f"{found['log_loss']:.4f}"),
        ("ECE", share(found["ece"])),
        ("macro-F1", share(found["macro_f1"])),
    ]
    parts = [table(("class", "images", "precision", "recall", "F1"), classes)]
    if mistakes:
        parts.append(table(("most confident mistakes", "is", "taken for", "probability"), mistakes))
    return [*parts, pairs(figures)]
