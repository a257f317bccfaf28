"""kzoo profile"""

from __future__ import annotations

import click

from kzoo.cli.terminal import Several, bar, json_option, pairs, show, table
from kzoo.measure.target import TARGETS
from kzoo.report.table import kilobytes


class Target(click.ParamType):
    """``adb:SERIAL``: one of the known schemes, and where."""

    name = "target"

    def convert(self, value, param, ctx):
        if value.partition(":")[0].partition("+")[0] not in TARGETS:
            self.fail(f"{value!r} is no target; known: {', '.join(TARGETS)}", param, ctx)
        return value


@click.command("profile")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--on",
    cls=Several,
    type=Target(),
    default=["host"],
    show_default="host",
    help="Where: host, adb[:SERIAL], ssh:USER@HOST, coral, browser, micro, emulated:arm64; "
    "one or several.",
)
@click.option(
    "--threads",
    cls=Several,
    type=int,
    default=[1],
    show_default="1",
    help="One or several counts, as in --threads 1 2 4.",
)
@click.option(
    "--runtime",
    help="ai-edge-litert, tflite-runtime, tensorflow, or litert-c, the runner without Python.  "
    "[default: what the target has]",
)
@click.option("--cpus", help="Keep it on these cores: 4-7, or 0,2; or big, or little.")
@click.option(
    "--delegate",
    type=click.Choice(["xnnpack", "none", "gpu", "nnapi", "edgetpu"]),
    help="What computes.  [default: the runtime's]",
)
@click.option("--min-runs", default=100, show_default=True, help="Timed runs, at least.")
@click.option(
    "--min-seconds", default=1.0, show_default=True, help="Seconds of timed runs, at least."
)
@click.option(
    "--rounds", type=int, help="Repeat all of it.  [default: 2 of several models, in turns]"
)
@click.option(
    "--cool-down",
    default=0.0,
    show_default=True,
    help="Seconds of rest before a run, at most; fewer where the device tells that it is cool.",
)
@json_option
def command(models, on, as_json, **options) -> None:
    """Measure the latency and memory of .tflite files, here or on devices.

    \b
    Examples:
      kzoo profile net.tflite --threads 1 2
      kzoo profile net.tflite net_int8.tflite --on host adb ssh:pi@raspberrypi
    """
    from kzoo.measure.profile import profile_all

    with bar() as progress:
        found = profile_all(models, on=on, progress=progress, **options)
    records = [each.to_dict() for each in found]
    if len(records) == 1:
        show(records[0], _one(records[0]), as_json)
    else:
        show({"records": records}, _several(records), as_json)


def _one(record: dict) -> str:
    rows = [
        (
            run["threads"],
            f"{run['init_ms']:.1f}",
            f"{run['first_ms']:.2f}",
            f"{run['latency']['p50_ms']:.3f}",
            f"{run['latency']['p90_ms']:.3f}" if run["latency"]["valid"] else "INVALID",
            f"{run['latency']['p99_ms']:.3f}",
            f"{100 * run['latency']['spread']:.0f} %",
            run["latency"]["count"],
        )
        for run in record["runs"]
    ]
    header = ("threads", "init ms", "first ms", "p50 ms", "p90 ms", "p99 ms", "spread", "runs")
    device, memory = record["device"], record["memory"]
    size = f"{kilobytes(record['model_bytes'])} kB, sha256 {record['model_sha256'][:16]}"
    below = [
        ("model", f"{record['model']} ({size})"),
        ("runtime", f"{_runtime(record)}, delegate {record['delegate']}"),
        ("device", f"{_device(device)} ({record['kind']}, {record['target']})"),
    ]
    if memory:
        below.append(
            (
                "memory",
                f"{memory['peak_bytes'] / 1e6:.1f} MB at most, "
                f"{memory['baseline_bytes'] / 1e6:.1f} MB of it before the model",
            )
        )
    below += [("note", note) for note in record["notes"]]
    return f"{table(header, rows)}\n\n{pairs(below)}"


def _several(records: list[dict]) -> str:
    rows, below = [], []
    for record in records:
        for count in dict.fromkeys(run["threads"] for run in record["runs"]):
            runs = [run["latency"] for run in record["runs"] if run["threads"] == count]
            rows.append(
                (
                    record["target"],
                    record["model"],
                    kilobytes(record["model_bytes"]),
                    count,
                    " ".join(f"{each['p50_ms']:.3f}" for each in runs),
                    f"{record['memory']['peak_bytes'] / 1e6:.1f}" if record["memory"] else "",
                    record["kind"],
                )
            )
        below.append((record["target"], f"{_device(record['device'])}; {_runtime(record)}"))
        name = f"{record['target']}, {record['model']}"
        below += [("note", f"{name}: {note}") for note in record["notes"]]
    header = ("target", "model", "kB", "threads", "p50 ms of each round", "peak MB", "")
    return f"{table(header, rows)}\n\n{pairs(list(dict.fromkeys(below)))}"


def _runtime(record: dict) -> str:
    name = f"{record['runtime']} {record['runtime_version']}"
    return name if record["runner"] == record["runtime"] else f"{name} ({record['runner']})"


def _device(device: dict) -> str:
    names = [device["model"], device["processor"]] if device.get("model") else [device["processor"]]
    return f"{', '.join(names)}, {device['cores']} cores, {' '.join(device['simd'])}".rstrip(", ")
