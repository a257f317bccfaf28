"""What every command shares: the bar on stderr, the record on stdout, options of datasets."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import click

from kzoo.progress import Progress
from kzoo.report.table import byte_size as byte_size
from kzoo.zoo.build import MAX_SEED

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the record as JSON, and nothing else to stdout."
)
force_option = click.option("--force", is_flag=True, help="Overwrite the output.")
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Of everything random.",
)


def data_options(command: Callable) -> Callable:
    """Adds the options that decide how images are read and split.

    The command gets them as one dict, ``data_options``, as the public functions do.
    """

    @functools.wraps(command)
    def gathered(*, validation, test, bad, max_bad, **others):
        chosen = {"validation": validation, "test": test, "bad": bad, "max_bad": max_bad}
        given = {name: value for name, value in chosen.items() if value is not None}
        return command(data_options=given, **others)

    options = (
        click.option(
            "--validation",
            type=float,
            help="Share for validation.  "
            "[default: 0.15; check, evaluate, quantize: as in training]",
        ),
        click.option(
            "--test",
            type=float,
            help="Share for the test.  [default: 0.15; check, evaluate, quantize: as in training]",
        ),
        click.option(
            "--bad",
            type=click.Choice(["fail", "skip"]),
            default="fail",
            show_default=True,
            help="What to do with files that are no whole image.",
        ),
        click.option(
            "--max-bad", default=0.05, show_default=True, help="Share of files that may be skipped."
        ),
    )
    for option in reversed(options):
        gathered = option(gathered)
    return gathered


class Several(click.Option):
    """``--threads 1 2 4``: as many values as follow, up to the first that is none of its type."""

    def __init__(self, *names, **settings):
        super().__init__(*names, multiple=True, **settings)

    def add_to_parser(self, parser, ctx):
        super().add_to_parser(parser, ctx)
        known = parser._long_opt[self.opts[0]]
        process = known.process

        def greedy(value, state):
            process(value, state)
            while state.rargs and self._fits(state.rargs[0], ctx):
                process(state.rargs.pop(0), state)

        known.process = greedy

    def _fits(self, value: str, ctx: click.Context) -> bool:
        try:
            self.type.convert(value, self, ctx)
        except click.BadParameter:
            return False
        return True


class Size(click.ParamType):
    """``96`` or ``96x128`` (height x width)."""

    name = "pixels"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        parts = value.lower().split("x")
        if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a size; type 96, or 96x128 for height x width", param, ctx)
        return tuple(int(part) for part in parts) if len(parts) == 2 else int(parts[0])


class Count(click.ParamType):
    """``5e6``, ``5M`` or ``5_000_000``."""

    name = "count"
    units: ClassVar = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        number, unit = value.strip().replace(",", ""), 1.0
        if number[-1:].lower() in self.units:
            number, unit = number[:-1], self.units[number[-1].lower()]
        try:
            return float(number) * unit
        except ValueError:
            self.fail(f"{value!r} is not a count; type 5M, 5e6 or 5_000_000", param, ctx)


def complete_model(ctx, param, incomplete: str) -> list[str]:  # noqa: ARG001
    """Shell completion of architectures' names."""
    from kzoo.registry import list_models

    return list_models(f"{incomplete}*")


def complete_data(ctx, param, incomplete: str) -> list:  # noqa: ARG001
    """Shell completion of datasets: the word digits, and paths."""
    return _with_paths(["digits"], incomplete)


def complete_config(ctx, param, incomplete: str) -> list:  # noqa: ARG001
    """Shell completion of configs: the names that ship with kzoo, and paths."""
    from kzoo.runs.shipped import shipped_configs

    return _with_paths(shipped_configs(), incomplete)


def complete_recipe(ctx, param, incomplete: str) -> list:  # noqa: ARG001
    """Shell completion of recipes: the names that ship with kzoo, and paths."""
    from kzoo.runs.shipped import shipped_configs

    return _with_paths(shipped_configs("recipes"), incomplete)


def _with_paths(names: Sequence[str], incomplete: str) -> list:
    from click.shell_completion import CompletionItem

    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [*found, CompletionItem(incomplete, type="file")]


def width_of_terminal() -> int | None:
    """Columns of the terminal; None where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, spare: Sequence[str] = ()
) -> str:
    """Aligned columns; those of numbers to the right.

    On a terminal that is too narrow, the columns in ``spare`` are left out, the first first.
    """
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    room = width_of_terminal() or math.inf
    for name in spare:
        if sum(max(map(len, column)) + 2 for column in zip(*cells, strict=True)) - 2 > room:
            at = cells[0].index(name)
            cells = [row[:at] + row[at + 1 :] for row in cells]
    return _aligned(cells)


def _aligned(cells: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    right = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    """A number, with a unit perhaps, or nothing."""
    return not cell or re.fullmatch(r"[-–+]?[\d.,x]*( [%\w]{1,2})?", cell) is not None


def pairs(values: Sequence[tuple[str, object]]) -> str:
    """``name  value`` lines, aligned; those without a value are left out."""
    shown = [(name, str(value)) for name, value in values if value not in (None, "", [])]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown)


def percent(evaluation: dict) -> str:
    """An accuracy with its 95 % interval."""
    low, high = evaluation["interval"]
    interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * evaluation['accuracy']:.2f} % {interval} of {evaluation['count']}"


def show(record: dict, text: str, as_json: bool) -> None:
    """Prints the record or the text."""
    click.echo(json.dumps(record, indent=1) if as_json else text)


def keep_record(verb: str, output: str | Path, record: dict) -> None:
    """Writes the record of an artifact beside it, ``<output>.json``."""
    from kzoo.environment import environment
    from kzoo.files import write_json

    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(
        f"{output}.json",
        {"step": verb, "date": date, "environment": environment(), "result": record},
    )


@contextlib.contextmanager
def bar() -> Iterator[Progress]:
    """A progress callback that draws a bar with rate and time left on stderr.

    Not on a terminal, it writes a line when the task changes and every ten seconds.
    """
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True), markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]}", justify="right"),
        TextColumn("{task.fields[rate]}", justify="right"),
        TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, expand=True) as bars:
        # One task for all: removing it and adding another leaves an empty frame between them.
        shown = bars.add_task("starting", total=None, count="", rate="")
        last = {"name": "", "done": 0}

        def progress(task: str, done: int, total: int) -> None:
            name = task.split(":")[0]
            count = f"{done:,}/{total:,}"
            if name != last["name"] or done < last["done"]:
                bars.reset(
                    shown, description=task, completed=done, total=total, count=count, rate=""
                )
            speed = bars.tasks[0].speed
            rate = f"{speed:,.1f}/s" if speed else ""
            # A task's end is drawn at once: the next one takes its place.
            bars.update(
                shown,
                description=task,
                completed=done,
                total=total,
                count=count,
                rate=rate,
                refresh=done >= total,
            )
            last.update(name=name, done=done)

        yield progress


def _lines() -> Progress:
    last = {"name": "", "time": 0.0}

    def progress(task: str, done: int, total: int) -> None:
        name, now = task.split(":")[0], time.monotonic()
        if name != last["name"] or now - last["time"] > 10:
            click.echo(f"{task} ({done}/{total})", err=True)
            last.update(name=name, time=now)

    return progress
