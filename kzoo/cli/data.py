"""kzoo data"""

from __future__ import annotations

import click

from kzoo.cli.terminal import (
    Size,
    bar,
    complete_data,
    data_options,
    json_option,
    seed_option,
    show,
    table,
)


@click.command("data")
@click.argument("path", shell_complete=complete_data)
@click.option("--size", type=Size(), help="Of the decoded images.  [default: 224; digits: 32]")
@click.option(
    "--channels",
    type=click.Choice(["1", "3"]),
    default="3",
    show_default=True,
    help="Of the decoded images: 1 for gray, 3 for RGB.",
)
@data_options
@seed_option
@json_option
def command(path, size, channels, seed, data_options, as_json) -> None:
    """Validate, count and split the images of PATH, and build their store.

    PATH is a folder with one folder per class, a folder with train/, validation/ and test/ of such
    folders, a .csv file with the columns path, label and perhaps split, or the word digits.

    \b
    Examples:
      kzoo data digits
      kzoo data photos/ --size 96 --bad skip
    """
    from kzoo.data.load import load_data

    with bar() as progress:
        data = load_data(
            path,
            size=size,
            channels=int(channels),
            seed=seed,
            progress=progress,
            **data_options,
        )
    record = data.summary()
    splits = ("train", "validation", "test")
    rows = [
        (name, *(counts[split] for split in splits), sum(counts.values()))
        for name, counts in record["classes"].items()
    ]
    rows.append(("all", *(len(data.splits[split]) for split in splits), len(data.labels)))
    lines = [table(("class", *splits, "images"), rows), ""]
    for problem in data.problems[:30]:
        lines.append(f"{problem.outcome}: {problem.path}: {problem.reason}")
    if len(data.problems) > 30:
        lines.append(f"... and {len(data.problems) - 30} more (--json has all)")
    height, width, depth = data.images.shape[1:]
    lines.append(f"store: {data.images_file.parent} ({height} x {width} x {depth}, uint8)")
    show(record, "\n".join(lines), as_json)
