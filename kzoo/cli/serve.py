"""kzoo serve"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from kzoo.cli.terminal import json_option, show, table


@click.command("serve")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path())
@click.option("--lan", is_flag=True, help="For other devices of the network, not this one alone.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="[default: a free one]")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Folder for the records.  [default: the ledger of the file's run]",
)
@click.option("--results", type=click.IntRange(0), help="End after so many.  [default: at Ctrl-C]")
@click.option(
    "--warm-up",
    default=10.0,
    show_default=True,
    help="Seconds of runs before, at most, until they are steady; 0: only the first inference.",
)
@click.option("--min-runs", default=100, show_default=True, help="Timed runs, at least.")
@click.option(
    "--min-seconds", default=1.0, show_default=True, help="Seconds of timed runs, at least."
)
@json_option
def command(models, as_json, **options) -> None:
    """Serve a page on which any phone's or laptop's browser measures .tflite files.

    The page also classifies photos and the camera, which stay in the browser. What is measured
    comes back here, a line each, and is kept in the folder of --output, or, of a file in a run's
    models/, in the ledger of that run, whose report shows it.

    \b
    Examples:
      kzoo serve runs/quickstart/models/lenet5_int8.tflite
      kzoo serve net.tflite net_int8.tflite --lan --output results/
    """
    from kzoo.measure.serve import qr_code, serve

    def opened(url: str) -> None:
        code = qr_code(url) if options["lan"] else ""
        click.echo("\n".join(each for each in (code, url, "Ctrl-C ends it") if each), err=True)

    def told(news) -> None:
        click.echo(news if isinstance(news, str) else _line(news.to_dict()), err=True)

    found = serve(models, opened=opened, told=told, **options).to_dict()
    rows = [_row(record) for record in found["records"]]
    header = ("model", "device", "cores", "runs on", "threads", "p50 ms", "p90 ms", "runs")
    notes = [f"note  {note}" for each in found["records"] for note in each["notes"]]
    parts = [table(header, rows), *dict.fromkeys(notes), *_kept(found)]
    shown = "\n".join(parts) if rows else "no results"
    show(found, shown, as_json)


def _kept(found: dict) -> list[str]:
    folders = Counter(Path(file).parent for file in found["files"])
    lines = [
        f"kept  {count} in {folder}"
        + (f"; kzoo report {folder.parent} shows them" if folder.name == "ledger" else "")
        for folder, count in folders.items()
    ]
    left = len(found["records"]) - len(found["files"])
    return lines + [f"not kept  {left}; --output FOLDER keeps them"] * bool(left)


def _line(record: dict) -> str:
    model, device, cores, runs_on, threads, p50, p90, runs = _row(record)
    return (
        f"{model}: p50 {p50} ms, p90 {p90} ms, {runs} runs on {runs_on}, threads {threads}; "
        f"{device}, cores {cores}"
    )


def _row(record: dict) -> tuple[str, ...]:
    run, device = record["runs"][0], record["device"]
    names = (device["model"], device["processor"], device["system"])
    latency = run["latency"]
    return (
        record["model"],
        ", ".join(name for name in names if name),
        str(device["cores"]),
        record["delegate"],
        str(run["threads"]),
        f"{latency['p50_ms']:.3f}",
        f"{latency['p90_ms']:.3f}" if latency["valid"] else "INVALID",
        str(latency["count"]),
    )
