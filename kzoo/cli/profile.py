"""kzoo profile"""

from __future__ import annotations

import click

from kzoo.cli.terminal import Several, bar, json_option, pairs, show, table
from kzoo.report.table import kilobytes


@click.command("profile")
@click.argument("model", type=click.Path())
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
    help="ai-edge-litert, tflite-runtime or tensorflow.  [default: the first installed]",
)
@click.option("--min-runs", default=100, show_default=True, help="Timed runs, at least.")
@click.option(
    "--min-seconds", default=1.0, show_default=True, help="Seconds of timed runs, at least."
)
@click.option("--target", default="host", show_default=True, help="Where to measure.")
@json_option
def command(model, as_json, **options) -> None:
    """Measure the latency and memory of the .tflite MODEL on this machine.

    \b
    Example:
      kzoo profile net.tflite --threads 1 2
    """
    from kzoo.measure.profile import profile

    with bar() as progress:
        record = profile(model, progress=progress, **options).to_dict()
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
    machine = record["environment"]["machine"]
    memory = record["memory"]
    below = pairs(
        [
            (
                "model",
                f"{model} ({kilobytes(record['model_bytes'])} kB, "
                f"sha256 {record['model_sha256'][:16]})",
            ),
            (
                "runtime",
                f"{record['runtime']} {record['runtime_version']}, delegate {record['delegate']}",
            ),
            (
                "machine",
                f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['simd'])} "
                f"({record['kind']}, {record['target']})",
            ),
            (
                "memory",
                f"{memory['peak_bytes'] / 1e6:.1f} MB at most, "
                f"{memory['baseline_bytes'] / 1e6:.1f} MB of it before the model",
            ),
            *(("note", note) for note in record["notes"]),
        ]
    )
    show(record, f"{table(header, rows)}\n\n{below}", as_json)
