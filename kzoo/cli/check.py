"""kzoo check"""

from __future__ import annotations

import click

from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    json_option,
    pairs,
    percent,
    show,
)
from kzoo.report.table import kilobytes
from kzoo.zoo.build import MAX_SEED

split_option = click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="Which images.  [default: test, or validation where there is no test]",
)
split_seed_option = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    help="Of the split.  [default: as the model was trained, else 0]",
)


@click.command("check")
@click.argument("file", type=click.Path())
@click.option(
    "--against", required=True, type=click.Path(), help="The .keras file it was made from."
)
@click.option(
    "--data",
    required=True,
    shell_complete=complete_data,
    help="Labelled images (see `kzoo data`).",
)
@split_option
@click.option("--limit", type=click.IntRange(min=1), help="At most so many images.")
@click.option("--kernels", is_flag=True, help="Also with LiteRT's other kernels and more threads.")
@click.option("--min-agreement", type=float, help="Gate: share of equal top-1, such as 0.98.")
@click.option("--max-drop", type=float, help="Gate: accuracy lost, in percentage points.")
@click.option("--max-float-ops", type=int, help="Gate: float operators in an integer file.")
@data_options
@split_seed_option
@json_option
def command(file, data_options, seed, as_json, **options) -> int:
    """Compare the .tflite FILE with the Keras model it came from, on real images.

    Exit code 1 if a gate is not met.

    \b
    Example:
      kzoo check net.tflite --against net.keras --data photos/ --max-drop 1
    """
    from kzoo.lite.check import check

    with bar() as progress:
        if seed is not None:
            data_options["seed"] = seed
        record = check(file, data_options=data_options, progress=progress, **options).to_dict()
    contents = record["contents"]
    kinds = ", ".join(
        f"{kind} {kilobytes(size)}" for kind, size in contents["bytes_by_kind"].items()
    )
    text = pairs(
        [
            ("Keras", f"{percent(record['keras'])} {record['keras']['split']} images"),
            ("file", f"{percent(record['lite'])} {record['lite']['split']} images"),
            ("same top-1", f"{100 * record['agreement']:.2f} %"),
            (
                record["compared"],
                f"difference at most {record['max_logit_error']:.3g}, "
                f"mean {record['mean_logit_error']:.3g} "
                f"(their standard deviation is {record['logit_std']:.3g})",
            ),
            (
                "operators",
                ", ".join(f"{count} {name}" for name, count in contents["operators"].items()),
            ),
            (
                "float operators",
                ", ".join(contents["float_islands"]) or "none"
                if contents["integer_kernels"]
                else None,
            ),
            (
                "size",
                f"{kilobytes(contents['bytes'])} kB, {kilobytes(contents['gzip_bytes'])} kB gzip",
            ),
            ("kB by kind", kinds),
            *((name, _kernels(row)) for name, row in record["kernels"].items()),
            ("gates not met", "; ".join(record["failures"])),
        ]
    )
    show(record, text, as_json)
    return 1 if record["failures"] else 0


def _kernels(row: dict) -> str:
    steps = f", {row['max_steps']} steps" if row["max_steps"] is not None else ""
    return (
        f"same top-1 on {100 * row['agreement']:.1f} % of the first images as XNNPACK, "
        f"difference at most {row['max_difference']:.2g}{steps}"
    )
