"""kzoo diff"""

from __future__ import annotations

from pathlib import Path

import click

from kzoo.cli.inspect import quantized, times
from kzoo.cli.terminal import byte_size, json_option, show, table


@click.command("diff")
@click.argument("file", type=click.Path())
@click.argument("other", type=click.Path())
@json_option
def command(file, other, as_json) -> None:
    """Compare the .tflite FILE with an OTHER one: operators, dtypes, scales, weights.

    Neither is run. Operators are matched by name and Keras layer. Exit code 0 whether they differ
    or not.

    \b
    Example:
      kzoo diff net_float.tflite net_int8.tflite
    """
    from kzoo.lite.diff import diff

    record = diff(file, other).to_dict()
    show(record, "\n\n".join(filter(None, _parts(record))), as_json)


def _parts(record: dict) -> list[str]:
    if record["same"]:
        return ["the same to the byte"]
    names = [Path(file).name for file in record["files"]]
    names = names if names[0] != names[1] else record["files"]
    alone = [
        ["-" if name == "removed" else "+", row["operator"], row["layer"], times(row["shape"])]
        for name in ("removed", "added")
        for row in record[name]
    ]
    ports = [
        [name, *(f"{times(each['shape'])} {quantized(each)}" for each in pair)]
        for name, pair in record["ports"].items()
    ]
    told = {**record["notes"], **record["metadata"]}
    return [
        table(
            ["size", *names],
            [[name, *map(byte_size, pair)] for name, pair in record["sizes"].items()],
        ),
        _rows(["", "operator", "layer", "shape"], alone),
        _rows(["operator", "layer", "changed", "to"], [_changed(row) for row in record["changed"]]),
        _rows(
            ["operator", "layer", "dtype", "to"],
            [[row["operator"], row["layer"], *row["dtype"]] for row in record["dtypes"]],
        ),
        _rows(
            ["operator", "layer", "scale", "to", "zero point", "to"],
            [
                [row["operator"], row["layer"], *map(_number, row["scale"] + row["zero_point"])]
                for row in record["scales"]
            ],
        ),
        _rows(
            ["operator", "layer", "weights", "to", "equal bytes"],
            [
                [row["operator"], row["layer"], *row["dtype"], _share(row["equal"])]
                for row in record["weights"]
            ],
        ),
        _rows(["", *names], ports),
        _rows(
            ["notes", *names],
            [[name, *map(_short, pair)] for name, pair in told.items()],
        ),
    ]


def _rows(header: list[str], rows: list[list]) -> str:
    return table(header, rows) if rows else ""


def _changed(row: dict) -> list[str]:
    if "shape" in row:
        return [row["operator"], row["layer"], *map(times, row["shape"])]
    return [row["operator"][0], row["layer"], *row["operator"]]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(equal: float | None) -> str:
    return "another size or dtype" if equal is None else f"{100 * equal:.1f} %"


def _short(value: object) -> str:
    """A note in 40 characters."""
    text = "" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
