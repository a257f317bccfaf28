"""kzoo evaluate"""

from __future__ import annotations

import click

from kzoo.cli.check import split_option, split_seed_option
from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    force_option,
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
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="The page to write, .html: also its worst mistakes as images.",
)
@split_option
@data_options
@split_seed_option
@force_option
@json_option
def command(model, data, output, data_options, seed, force, as_json, **options) -> None:
    """How good the .keras or .tflite file MODEL is on the images of DATA (see `kzoo data`).

    Shows each class, the most confident mistakes, and the figures of all: accuracy with its 95 %
    interval, top-5 where there are more classes, log-loss in nats, expected calibration error (ECE)
    and the mean of the classes' F1. The page has the confusion matrix, the reliability diagram and
    the mistakes as images, too.

    \b
    Examples:
      kzoo evaluate net_int8.tflite photos/
      kzoo evaluate net.keras photos/ -o report.html
    """
    import datetime

    from kzoo.environment import environment
    from kzoo.files import new_output
    from kzoo.lite.evaluate import evaluate
    from kzoo.report.evaluation import write_evaluation
    from kzoo.report.page import ending_of

    if output is not None:
        ending_of(output, "an evaluation")
        new_output(output, force=force)
    if seed is not None:
        data_options["seed"] = seed
    with bar() as progress:
        assessment = evaluate(model, data, data_options=data_options, progress=progress, **options)
    if output is not None:
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_evaluation(assessment, output, {"date": date, "environment": environment()})
    record = assessment.to_dict() | {"output": output}
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
    parts = [table(("class", "images", "precision", "recall", "F1"), classes)]
    if mistakes:
        parts.append(table(("most confident mistakes", "is", "taken for", "probability"), mistakes))
    return [*parts, pairs([*figures(found), ("written", record["output"])])]


def figures(evaluation: dict) -> list[tuple[str, str | None]]:
    """The figures of all images as `kzoo.cli.terminal.pairs` takes them."""
    top5 = evaluation["top5_accuracy"]
    return [
        ("accuracy", f"{percent(evaluation)} {evaluation['split']} images"),
        ("top-5", None if top5 is None else share(top5)),
        ("log-loss", f"{evaluation['log_loss']:.4f}"),
        ("ECE", share(evaluation["ece"])),
        ("macro-F1", share(evaluation["macro_f1"])),
    ]
