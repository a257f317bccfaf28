"""kzoo distill"""

from __future__ import annotations

import click

from kzoo.cli.fewshot import Cut
from kzoo.cli.terminal import (
    Several,
    bar,
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
from kzoo.cli.training import recipe, training_options
from kzoo.report.table import milliseconds


class Loss(click.ParamType):
    """``soft=0.9``, or ``soft`` with its usual weight; gives (name, weight)."""

    name = "loss[=weight]"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        from kzoo.errors import nearest
        from kzoo.learn.lessons import LOSSES

        name, given, weight = value.partition("=")
        if name not in LOSSES:
            known = f"known: {', '.join(LOSSES)}"
            self.fail(f"no loss is called {name!r}{nearest(name, LOSSES)} ({known})", param, ctx)
        try:
            return name, float(weight) if given else LOSSES[name]
        except ValueError:
            self.fail(f"{value!r} has no weight; type {name}={LOSSES[name]:g}", param, ctx)


@click.command("distill")
@click.argument("student", type=click.Path())
@click.argument("data", shell_complete=complete_data)
@click.option("--teacher", type=click.Path(), help="The .keras file that it learns from.")
@click.option("-o", "--output", required=True, type=click.Path(), help="The .keras file to write.")
@click.option(
    "--loss",
    "losses",
    cls=Several,
    type=Loss(),
    default=(),
    help="soft, hard, hint, attention, fsp, mimic, self, each with =WEIGHT if wanted; several may "
    "follow.  [default: soft=0.9 hard=0.1]",
)
@click.option("--temperature", default=4.0, show_default=True, help="T of soft and self.")
@click.option(
    "--at",
    cls=Several,
    type=Cut(),
    default=(),
    help="The stages for hint, attention and fsp.  [default: the last two of both]",
)
@click.option(
    "--alone/--no-alone",
    default=True,
    show_default=True,
    help="Train the student on the labels alone, too, to compare.",
)
@training_options(recipe, argument="student")
@click.option(
    "--augment-seeds",
    default=4,
    show_default=True,
    help="Variants of every image; each epoch takes one.",
)
@data_options
@seed_option
@force_option
@json_option
def command(student, data, output, losses, phases, augment, force, as_json, **options) -> None:
    """Train the .keras file STUDENT on the images of DATA and on what a teacher makes of them.

    The teacher's outputs are computed once and cached. In the end the teacher and the student,
    alone and distilled, are set side by side, and int8 copies of them measured here. Writes the
    distilled student, the record (.json) and its curves (.png). After a kill, the same command goes
    on where it was.

    \b
    Examples:
      kzoo distill small.keras photos/ --teacher large.keras -o taught.keras --augment light
      kzoo distill small.keras photos/ --teacher large.keras -o taught.keras \\
        --loss soft hard attention=2 --at stage3 stage4
    """
    from kzoo.files import new_output
    from kzoo.learn.distill import distill
    from kzoo.lite.extract import fast_engine
    from kzoo.report.plots import curves

    for written in (output, f"{output}.json", f"{output}.png"):
        new_output(written, force=force)
    with bar() as progress:
        found = distill(
            student,
            data,
            losses=dict(losses) or None,
            phases=phases,
            augment=augment,
            output=output,
            force=force,
            engine=fast_engine(),
            progress=progress,
            **options,
        )
        record = found.to_dict() | {"table": _rows(found, options["teacher"])}
        keep_record("distill", output, record)
        curves(found.history, f"{output}.png", output)
        # The hours of training are on disk by now, whatever comes of their int8 copies.
        unmeasured = _measure(
            record["table"], found, options["teacher"], data, options["data_options"], progress
        )
    keep_record("distill", output, record)
    header = ("", "accuracy", "log-loss", "parameters", "MACs", "int8", "p50", "trained")
    cells = [
        (
            row["name"],
            percent(row),
            f"{row['log_loss']:.4f}",
            f"{row['params']:,}",
            f"{row['macs']:,}",
            byte_size(row["int8_bytes"]) if row["int8_bytes"] else "",
            f"{milliseconds(row['p50_ms'])} ms" if row["p50_ms"] else "",
            "" if row["seconds"] is None else f"{row['seconds']:.0f} s",
        )
        for row in record["table"]
    ]
    below = pairs(
        [
            ("judged on", f"{record['evaluation']['split']} images, before int8"),
            ("p50", unmeasured or "int8, one thread, on this machine"),
            ("written", f"{output}, {output}.json, {output}.png"),
        ]
    )
    show(record, f"{table(header, cells)}\n\n{below}", as_json)


def _networks(found, teacher) -> list[tuple]:
    """(name, model, evaluation, seconds) of the teacher, the student alone and distilled."""
    from kzoo.network.model_file import opened

    networks = [("teacher", opened(teacher), found.teacher, None)] if teacher else []
    for name, training in (("alone", found.alone), ("distilled", found)):
        if training:
            seconds = sum(row["seconds"] for row in training.history)
            networks.append((f"student, {name}", training.model, training.evaluation, seconds))
    return networks


def _rows(found, teacher) -> list[dict]:
    """What the networks are worth, and what they cost."""
    from kzoo.network.count import macs, parameters

    return [
        {
            "name": name,
            "accuracy": evaluation.accuracy,
            "interval": list(evaluation.interval),
            "count": evaluation.count,
            "log_loss": evaluation.log_loss,
            "params": parameters(model)[1],
            "macs": macs(model),
            "int8_bytes": None,
            "p50_ms": None,
            "seconds": seconds,
        }
        for name, model, evaluation, seconds in _networks(found, teacher)
    ]


def _measure(rows, found, teacher, data, data_options, progress) -> str:
    """Adds size and latency of int8 copies; returns why they are missing, or ""."""
    import tempfile
    from pathlib import Path

    from kzoo.errors import KzooError
    from kzoo.network.model_file import read_notes, save_model

    notes = read_notes(found.output)
    try:
        from kzoo.measure.cost import cost

        with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
            for row, (_, model, *_) in zip(rows, _networks(found, teacher), strict=True):
                path = save_model(model, Path(folder, "model.keras"), notes=notes, force=True)
                options = {"data_options": data_options, "progress": progress}
                int8 = cost(path, data, kinds=["int8"], **options)["int8"]
                row |= {"int8_bytes": int8["bytes"], "p50_ms": int8["p50_ms"]}
    except (KzooError, ModuleNotFoundError) as error:
        return f"not measured: {str(error).splitlines()[0]}"
    return ""
