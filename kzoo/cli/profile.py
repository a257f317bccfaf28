"""kzoo profile"""

from __future__ import annotations

from pathlib import Path

import click

from kzoo.cli.terminal import Several, bar, force_option, json_option, pairs, show, table
from kzoo.errors import MissingError, UsageError
from kzoo.measure.target import place_of
from kzoo.report.table import kilobytes, percent, scaled

SLOWEST = 15
"""Layers that the terminal is told of."""
BAR = 24
"""Letters of the longest bar."""


class Target(click.ParamType):
    """``adb:SERIAL``: one of the known schemes, and where."""

    name = "target"

    def convert(self, value, param, ctx):
        try:
            place_of(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return value


@click.command("profile")
@click.argument("models", metavar="MODEL...", nargs=-1, type=click.Path())
@click.option(
    "--fleet", type=click.Path(), help="A file of devices and models, in place of all else here."
)
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
    help="ai-edge-litert, tflite-runtime, tensorflow, litert-c, the runner without Python, or "
    "benchmark_model.  [default: what the target has]",
)
@click.option("--cpus", help="Keep it on these cores: 4-7, or 0,2; or big, or little.")
@click.option(
    "--delegate",
    type=click.Choice(["xnnpack", "none", "gpu", "nnapi", "edgetpu"]),
    help="What computes.  [default: the runtime's]",
)
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
@click.option(
    "--rounds",
    type=int,
    help="Repeat all of it.  [default: 2 of several models, in turns; 3 with --ops]",
)
@click.option(
    "--cool-down",
    default=0.0,
    show_default=True,
    help="Seconds of rest before a run, at most; fewer where the device tells that it is cool.",
)
@click.option(
    "--ops",
    type=click.Choice(["delegate", "node"]),
    help="Time by operator too: as they are run, or the file's own by slower kernels.",
)
@click.option("--html", type=click.Path(), help="The page to write, with all of it drawn.")
@force_option
@json_option
def command(models, on, fleet, html, force, as_json, **options) -> int:
    """Measure the latency and memory of .tflite files, here or on devices.

    \b
    Examples:
      kzoo profile net.tflite --threads 1 2
      kzoo profile net.tflite net_int8.tflite --on host adb ssh:pi@raspberrypi
      kzoo profile --fleet fleet.yaml
      kzoo profile net.tflite net_int8.tflite --ops node --html page.html
    """
    if fleet:
        return _fleet(fleet, as_json)
    if not models:
        raise click.UsageError("give a .tflite file, or several; or --fleet")
    from kzoo.files import new_output
    from kzoo.measure.profile import profile_all
    from kzoo.report.page import ending_of
    from kzoo.report.profile import write_profile

    if html:
        ending_of(html, "a profile")
        new_output(html, force=force)
    with bar() as progress:
        record = profile_all(models, on=on, progress=progress, **options).to_dict()
    records, failures = record["records"], record["failures"]
    if len(models) == len(on) == 1:
        record = records[0]
        text = _one(record)
    else:
        text = _several(records, failures)
    if options["ops"]:
        text = "\n\n".join([*_operators(records), text])
    if html and records:
        write_profile(records, html, failures)
        record["html"] = html
        text = f"{text}\npage  {html}"
    show(record, text, as_json)
    return failures[0]["exit_code"] if failures else 0


def _operators(records: list[dict]) -> list[str]:
    """Of two measured records their layers side by side; of others the slowest of each."""
    from kzoo.report.operators import by_kind, by_layer, pair_of, side_by_side
    from kzoo.report.profile import pair_names

    parts = []
    pair = pair_of(records)
    if pair:
        layers = [by_layer(record["operators"]["operators"]) for record in pair]
        rows = sorted(side_by_side(*layers), key=lambda row: -max(us or 0 for us in row["us"]))
        names = pair_names(pair)
        parts.append(table(("layer", "operator", *_us(names), "ratio"), [
            (row["layer"], ", ".join(row["kinds"]), *map(_time, row["us"]), _ratio(row["us"]))
            for row in rows[:SLOWEST]
        ]) + _left_out(len(rows)))  # fmt: skip
    for record in records:
        found = record["operators"]
        layers = by_layer(found["operators"])
        longest = max(row["us"] for row in layers)
        if record not in pair:
            parts.append(table(("layer", "operator", "us", "share", "", "MACs", "a second"), [
                (row["layer"], ", ".join(row["kinds"]), _time(row["us"]), percent(row['share']),
                 _bar(row["us"] / longest), scaled(row["macs"]) if row["macs"] else "",
                 scaled(1e6 * row["macs"] / row["us"]) if row["macs"] and row["us"] else "")
                for row in sorted(layers, key=lambda row: -row["us"])[:SLOWEST]
            ]) + _left_out(len(layers)))  # fmt: skip
        parts.append(table(("kind", "count", "us", "of the time", "", "of the MACs"), [
            (row["kind"], row["count"], _time(row["us"]), percent(row['share']),
             _bar(row["share"]), percent(row['mac_share']) if row["macs"] else "")
            for row in by_kind(found["operators"])
        ]))  # fmt: skip
        usual = f"; {found['usual_ms']:.3f} ms by the kernels that are used"
        parts.append(pairs([
            ("operators", f"{Path(record['model']).name} on {record['target']}, {record['kind']}, "
             f"mode {found['mode']}, threads {found['threads']}, {found['runs']} profiled runs"),
            ("whole run", f"{found['profiled_ms']:.3f} ms profiled, {found['unprofiled_ms']:.3f} "
             f"ms without (p50){usual if found['mode'] == 'node' else ''}"),
            ("overhead", f"{100 * found['overhead']:+.1f} % of the profiler"),
            ("coverage", f"{100 * found['coverage']:.1f} % of a run is inside operators"),
            *(("note", note) for note in found["notes"]),
        ]))  # fmt: skip
    return parts


def _left_out(rows: int) -> str:
    return f"\n{rows - SLOWEST} more, see --json or --html" if rows > SLOWEST else ""


def _us(names: list[str]) -> list[str]:
    return [f"us {name}" for name in names]


def _time(us: float | None) -> str:
    return "" if us is None else f"{us:.1f}"


def _ratio(us: list[float | None]) -> str:
    return "" if None in us or not us[0] else f"{us[1] / us[0]:.2f}"


def _bar(share: float) -> str:
    """A bar of eighths of a letter."""
    whole, eighths = divmod(round(8 * BAR * min(max(share, 0.0), 1.0)), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def _fleet(file: str, as_json: bool) -> int:
    from kzoo.runs.fleet import fleet

    asked = click.get_current_context()
    for name in asked.params.keys() - {"fleet", "as_json"}:
        if asked.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--fleet tells all in its file; leave out {name}")
    with bar() as progress:
        found = fleet(file, progress=progress).to_dict()
    named = [record | {"target": record["name"]} for record in found["records"]]
    failed = [each | {"target": each["name"]} for each in found["failures"]]
    counts = f"{len(named)} in {found['output']}/, {found['kept']} of them from before"
    show(found, f"{_several(named, failed)}\n\n{pairs([('records', counts)])}", as_json)
    return MissingError.exit_code if failed else 0


def _one(record: dict) -> str:
    rows = [
        (
            run["threads"],
            f"{run['init_ms']:.1f}",
            f"{run['first_ms']:.2f}",
            f"{run['latency']['p50_ms']:.3f}",
            *_tail(run["latency"]),
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
    if memory and memory["source"] == "arena":
        below.append(("memory", f"{memory['peak_bytes']:,} bytes of arena"))
    elif memory:
        below.append(
            (
                "memory",
                f"{memory['peak_bytes'] / 1e6:.1f} MB at most, "
                f"{memory['baseline_bytes'] / 1e6:.1f} MB of it before the model",
            )
        )
    energy = [run for run in record["runs"] if run["energy_mj"] is not None]
    below += [
        ("energy", f"{run['energy_mj']:.3g} mJ an inference by {run['threads']} threads, at "
         f"{run['power_w']:.2f} W of the whole device")
        for run in energy
    ] or [("energy", "not measured: no battery that tells, or it is charged")]  # fmt: skip
    below += [("note", note) for note in record["notes"]]
    return f"{table(header, rows)}\n\n{pairs(below)}"


def _tail(latency: dict) -> tuple[str, str, str]:
    """p90, p99 and spread; blank where a runner does not tell the single runs."""
    if latency["p99_ms"] is None:
        return "", "", ""
    p90 = f"{latency['p90_ms']:.3f}" if latency["valid"] else "INVALID"
    return p90, f"{latency['p99_ms']:.3f}", f"{100 * latency['spread']:.0f} %"


def _several(records: list[dict], failures: list[dict]) -> str:
    from kzoo.report.profile import notes_of

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
                    _megabytes(record["memory"]),
                    record["kind"],
                )
            )
        below.append((record["target"], f"{_device(record['device'])}; {_runtime(record)}"))
    notes = notes_of(records, [record["model"] for record in records])
    below += [("note", f"{where}: {note}") for where, note in notes]
    for each in failures:
        model = each["model"] or "all models"
        rows.append((each["target"], model, "", "", "", "", "failed"))
        below.append(("failed", f"{each['target']}, {model}: {each['error']}"))
    header = ("target", "model", "kB", "threads", "p50 ms of each round", "peak MB", "")
    return f"{table(header, rows)}\n\n{pairs(list(dict.fromkeys(below)))}"


def _megabytes(memory: dict | None) -> str:
    """To three decimals of an arena, which is small."""
    if memory is None:
        return ""
    return f"{memory['peak_bytes'] / 1e6:.{3 if memory['source'] == 'arena' else 1}f}"


def _runtime(record: dict) -> str:
    name = f"{record['runtime']} {record['runtime_version']}"
    return name if record["runner"] == record["runtime"] else f"{name} ({record['runner']})"


def _device(device: dict) -> str:
    names = [device["model"], device["processor"]] if device.get("model") else [device["processor"]]
    return f"{', '.join(names)}, {device['cores']} cores, {' '.join(device['simd'])}".rstrip(", ")
