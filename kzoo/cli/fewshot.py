"""kzoo fewshot"""

from __future__ import annotations

import re
from collections import defaultdict

import click

from kzoo.cli.build import offline_option, size_option, weights_option
from kzoo.cli.terminal import (
    Several,
    bar,
    complete_data,
    complete_model,
    data_options,
    force_option,
    json_option,
    keep_record,
    pairs,
    seed_option,
    show,
    table,
)

WRITTEN = ("report.html", "fewshot.csv", "means.csv", "curves.csv", "fewshot.json")


class Address(click.ParamType):
    """``HOST:PORT``, ``ray://HOST:PORT``, ``auto`` or ``local``."""

    name = "address"

    def convert(self, value, param, ctx):
        if not re.fullmatch(r"auto|local|(ray://)?[^/]+:\d+", value):
            self.fail(
                f"{value!r} is no address of a Ray cluster; type --ray=HOST:PORT, or --ray as the "
                "last word for workers on this machine",
                param,
                ctx,
            )
        return value


class Cut(click.ParamType):
    """``stage3``, ``head`` or ``logits``."""

    name = "cut"

    def convert(self, value, param, ctx):
        if not re.fullmatch(r"stage\d+|head|logits", value):
            self.fail(f"{value!r} is no cut; type stage1, stage2, ..., head or logits", param, ctx)
        return value


@click.command("fewshot")
@click.argument("model", shell_complete=complete_model)
@click.argument("data", shell_complete=complete_data)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="The folder to write: tables, plots, page.",
)
@click.option(
    "--shots",
    cls=Several,
    type=int,
    default=[1, 2, 4, 8, 16],
    show_default="1 2 4 8 16",
    help="Training images per class.",
)
@click.option("--seeds", default=5, show_default=True, help="How many draws of these images.")
@click.option(
    "--at",
    cls=Several,
    type=Cut(),
    default=(),
    help="Whose features: stage1, stage2, ..., head (what enters the classifier), logits."
    "  [default: the last three stages and head]",
)
@click.option(
    "--head",
    cls=Several,
    type=click.Choice(["softmax", "ridge", "logits-T"]),
    default=["softmax", "ridge"],
    show_default="softmax ridge",
    help="Classifiers; logits-T is a softmax head on the network's own probabilities at T.",
)
@click.option(
    "--temperature",
    cls=Several,
    type=float,
    default=[1, 2, 4, 8, 16],
    show_default="1 2 4 8 16",
    help="T of logits-T.",
)
@click.option(
    "--engine",
    type=click.Choice(["keras", "litert"]),
    help="What extracts the features; litert is faster from about a thousand images on."
    "  [default: litert where it is installed]",
)
@click.option(
    "--ray",
    type=Address(),
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Train on a Ray cluster, HOST:PORT or auto; without an address on this machine's cores.",
)
@weights_option
@offline_option
@size_option
@data_options
@seed_option
@force_option
@json_option
def command(
    model, data, output, engine, weights, offline, size, force, as_json, **options
) -> None:  # fmt: skip
    """Train classifiers on few images per class of DATA, on the features of MODEL.

    MODEL is a .keras file, or an architecture's name: it stands for its best weights trained on
    ImageNet, which are downloaded once. It is run over the images once; its features are cached.

    Writes the page (report.html) with its plots, and as CSV every head (fewshot), the means over
    the draws with their 95 % intervals (means) and every iteration (curves).

    \b
    Examples:
      kzoo fewshot efficientnet_lite0 photos/ -o study --size 128
      kzoo fewshot net.keras photos/ -o study --shots 1 5 25 --at stage3 stage4 head
      kzoo fewshot net.keras photos/ -o study --head logits-T --temperature 1 2 4 8 16
      kzoo fewshot net.keras photos/ -o study --seeds 100 --ray 10.0.0.1:6379
    """
    from pathlib import Path

    from kzoo.files import disk_errors, new_output
    from kzoo.learn.fewshot import fewshot
    from kzoo.report.fewshot import verdict, write_fewshot

    folder = Path(output)
    for written in [folder / name for name in WRITTEN] if folder.is_dir() else [folder]:
        new_output(written, force=force and folder.is_dir())
    with bar() as progress:
        network, origin = _network(model, weights, size, offline, progress)
        study = fewshot(
            network,
            data,
            engine=_engine(engine),
            progress=progress,
            **options,
        )
    record = study.to_dict() | ({"weights": origin} if origin else {})
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    keep_record("fewshot", folder / "fewshot", record)
    write_fewshot(folder)
    cells = defaultdict(list)
    for row in study.means:
        T = row["temperature"]
        place = (row["head"], row["cut"]) if T is None else ("logits-T", f"T = {T:g}")
        cells[place].append(f"{100 * row['accuracy']:.1f} %")
    header = ("head", "on", *(f"{count} per class" for count in study.recipe["shots"]))
    rows = [(*place, *cells[place]) for place in sorted(cells, key=lambda place: place[0])]
    below = pairs(
        [
            (
                "tested on",
                f"{study.count:,} {study.split} images, {record['recipe']['seeds']} draws",
            ),
            ("written", ", ".join(str(folder / name) for name in WRITTEN)),
        ]
    )
    show(record, f"{table(header, rows)}\n\n{verdict(study.means)}\n{below}", as_json)


def _network(model, weights, size, offline, progress):
    """A file as it is named; an architecture with pretrained weights, and where these are from."""
    from kzoo.errors import UsageError

    if model.endswith((".keras", ".h5")):
        if weights or size:
            raise UsageError(f"{model} has weights and a size; --weights and --size go with a name")
        return model, None
    from kzoo.zoo.weights.load import pretrained

    options = {} if size is None else {"size": size}
    found = pretrained(model, weights or "imagenet", offline=offline, progress=progress, **options)
    return found.model, found.record()


def _engine(name):
    from kzoo.lite.extract import fast_engine, litert_engine

    return {"keras": lambda: None, "litert": litert_engine}.get(name, fast_engine)()
