"""kzoo convert"""

from __future__ import annotations

import contextlib

import click

from kzoo.cli.terminal import (
    Size,
    bar,
    byte_size,
    force_option,
    json_option,
    keep_record,
    pairs,
    show,
    table,
)
from kzoo.errors import KzooError
from kzoo.report.table import kilobytes

io_option = click.option(
    "--io",
    type=click.Choice(["uint8", "float32"]),
    default="uint8",
    show_default=True,
    help="Dtype of the pixels that the file takes.",
)
head_option = click.option(
    "--head",
    type=click.Choice(["probabilities", "logits"]),
    default="probabilities",
    show_default=True,
    help="What the file gives.",
)


class Normalization(click.ParamType):
    """``127.5/127.5`` or ``123.7,116.3,103.5/58.4,57.1,57.4``: mean and standard deviation."""

    name = "MEAN/STD"

    def convert(self, value, param, ctx):
        del param, ctx
        try:
            mean, std = (tuple(map(float, part.split(","))) for part in value.split("/"))
        except ValueError:
            self.fail(
                f"{value!r} is not MEAN/STD, such as 127.5/127.5, one number or one per channel"
            )
        return mean, std


normalize_option = click.option(
    "--normalize",
    type=Normalization(),
    help="What a model from elsewhere takes is (pixel - MEAN) / STD: 127.5/127.5 for -1 to 1, "
    "0/255 for 0 to 1, 0/1 for pixels.",
)


frame_option = click.option(
    "--frame",
    type=Size(),
    metavar="HxW",
    help="Take a camera's images of this size, and cut out and scale the middle in the file.",
)


def with_share(record: dict, progress) -> dict:
    """A conversion's record with what preparing pixels costs on this machine, if there is any."""
    from kzoo.measure.cost import preprocessing_share

    if record["preprocessing"]:
        with contextlib.suppress(KzooError):  # the file is there, and is told of without
            share = preprocessing_share(record["output"], progress)
            record["preprocessing"]["latency_share"] = round(share, 4)
    return record


def conversion_text(record: dict) -> str:
    """A conversion's record in words."""
    if record["tried"]:
        return f"{trials_text(record['tried'])}\n\n{conversion_text(record | {'tried': []})}"
    contents = record["contents"]
    ports = [contents["input"], contents["output"]]
    islands = contents["float_islands"]
    return pairs(
        [
            ("written", f"{record['output']}, {record['output']}.json"),
            (
                "size",
                f"{kilobytes(contents['bytes'])} kB, {kilobytes(contents['gzip_bytes'])} kB gzip",
            ),
            ("input, output", ", ".join(f"{port['dtype']} {port['shape']}" for port in ports)),
            (
                "operators",
                ", ".join(f"{count} {name}" for name, count in contents["operators"].items()),
            ),
            ("prepared by", _prepared(record["prepared"])),
            ("calibrated", _calibrated(record["calibration"])),
            ("pixels by", _preprocessing(record["preprocessing"])),
            (
                "float operators",
                (", ".join(islands) or "none") if contents["integer_kernels"] else None,
            ),
            (
                "against the model",
                f"largest logit error {record['max_logit_error']:.2g} of their standard deviation, "
                f"same top-1 on {100 * record['agreement']:.1f} % of {record['compared']}",
            ),
        ]
    )


def _preprocessing(told: dict) -> str:
    """``MUL, ADD: 3.1 % of the latency on this machine``"""
    if not told:
        return ""
    names = ", ".join(told["operators"])
    if "latency_share" not in told:
        return names
    share = told["latency_share"]
    part = f"{100 * share:.1f} %" if share else "too little to measure"
    return f"{names}: {part} of the latency on this machine, one thread"


def trials_text(tried: list[dict]) -> str:
    """What was tried, a line each."""
    cells = [
        (
            row["name"],
            byte_size(row["bytes"]) if row["bytes"] else "",
            "" if row["agreement"] is None else f"{100 * row['agreement']:.1f} %",
            "" if row["divergence"] is None else f"{row['divergence']:.4f}",
            "" if row["drop"] is None else f"{row['drop']:+.2f}",
            "" if row["cost"] is None else f"{row['cost']:.2f}",
            "written" if row["written"] else row["refused"],
        )
        for row in tried
    ]
    head = ("tried", "size", "same top-1", "divergence", "points lost", "latency", "")
    used = [i for i, name in enumerate(head) if not name or any(row[i] for row in cells)]
    return table([head[i] for i in used], [[row[i] for i in used] for row in cells])


def _calibrated(told: dict) -> str:
    """``128 images, minmax; the ranges moved 1.2 % from half of them; biases corrected on 32``"""
    if told.get("ranges") == "learned":
        return "ranges of the training"
    parts = []
    if "ranges" in told:
        what = "ranges" if told["ranges"] in ("minmax", "average") else "extremes"
        moved = f"the {what} moved {100 * told['moved']:.1f} % from half of them"
        parts = [f"{told['images']} images, {told['ranges']}", moved]
    if "biases" in told:
        parts.append(f"biases corrected on {told['biases']}")
    return "; ".join(parts)


def _prepared(told: dict) -> str:
    """``equalize (channels are held by 33 relu6), adaround``"""
    held = told.get("equalize", {}).get("held by", {})
    why = ", ".join(f"{count} {kind}" for kind, count in held.items())
    return ", ".join(
        f"{name} (channels are held by {why})" if name == "equalize" and why else name
        for name in told
    )


@click.command("convert")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="The .tflite file to write.")
@io_option
@head_option
@normalize_option
@frame_option
@click.option(
    "--sparse",
    is_flag=True,
    help="Of kernels that are mostly zeros, keep the others alone: smaller, and no faster.",
)
@force_option
@json_option
def command(model, output, force, as_json, **options) -> None:
    """Write MODEL, a .keras file or a float .tflite, as a float32 .tflite that takes pixels.

    It is invoked, and compared with MODEL.

    \b
    Example:
      kzoo convert net.keras -o net.tflite
    """
    from kzoo.files import new_output
    from kzoo.lite.convert import convert

    for written in (output, f"{output}.json"):
        new_output(written, force=force)
    with bar() as progress:
        record = convert(model, output, force=force, progress=progress, **options).to_dict()
        record = with_share(record, progress)
    keep_record("convert", output, record)
    show(record, conversion_text(record), as_json)
