"""kzoo check"""

from __future__ import annotations

import click

from kzoo.cli.convert import normalize_option
from kzoo.cli.profile import Target
from kzoo.cli.terminal import (
    bar,
    complete_data,
    data_options,
    json_option,
    pairs,
    percent,
    show,
    table,
)
from kzoo.errors import UsageError
from kzoo.report.table import kilobytes
from kzoo.zoo.build import MAX_SEED

SHOWN = 5
"""Classes, and findings of a kind, that the terminal is told of."""
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
    "--against",
    required=True,
    type=click.Path(),
    help="The .keras file, or float .tflite, it was made from.",
)
@click.option(
    "--data",
    required=True,
    shell_complete=complete_data,
    help="Labelled images (see `kzoo data`).",
)
@split_option
@click.option("--limit", type=click.IntRange(min=1), help="At most so many images.")
@click.option(
    "--kernels",
    is_flag=True,
    help="Also with LiteRT's other kernels, more threads and in batches.",
)
@click.option(
    "--gate", is_flag=True, help="Hold it to all gates, at their usual values if not given."
)
@click.option("--min-agreement", type=float, help="Gate: share of equal top-1, such as 0.98.")
@click.option("--max-drop", type=float, help="Gate: accuracy lost, in percentage points.")
@click.option("--max-float-ops", type=int, help="Gate: float operators in an integer file.")
@click.option(
    "--on",
    type=Target(),
    help="Also on a device, beside this machine: adb[:SERIAL], ssh:USER@HOST, micro, ...",
)
@click.option("--runtime", help="On the device, as for kzoo profile.")
@click.option("--delegate", help="On the device, as for kzoo profile.")
@normalize_option
@data_options
@split_seed_option
@json_option
def command(file, data, on, runtime, delegate, data_options, seed, as_json, **options) -> int:
    """Compare the .tflite FILE with the Keras model it came from, on real images.

    Exit code 1 if a gate is not met. The usual gates: the same top-1 on 97 % of the images, or
    99.9 % where weights are float; a drop of at most 1 point; no float operator where it computes
    in integers; and the same answers by other kernels, more threads and in batches. A device has
    to give the same top-1 as this machine on as many images.

    \b
    Examples:
      kzoo check net_int8.tflite --against net.keras --data photos/ --gate
      kzoo check net.tflite --against net.keras --data photos/ --max-drop 1
      kzoo check net.tflite --against net.keras --data photos/ --on adb --delegate gpu --gate
    """
    from kzoo.lite.check import RANGES, check, check_gates
    from kzoo.measure.on_device import on_device
    from kzoo.measure.target import Setting, open_target

    if not on and (runtime or delegate):
        raise UsageError("--runtime and --delegate are of a device; give one with --on")
    check_gates({name: options[name] for name in RANGES})
    if on:  # that it is not there is told before the check, which takes minutes
        with open_target(on) as target:
            target.check(Setting(runtime=runtime, delegate=delegate))
    with bar() as progress:
        if seed is not None:
            data_options["seed"] = seed
        common = {"data_options": data_options, "progress": progress}
        record = check(file, data=data, **common, **options).to_dict()
        if on:
            record["device"] = on_device(
                file,
                data,
                on=on,
                runtime=runtime,
                delegate=delegate,
                split=options["split"],
                limit=options["limit"],
                min_agreement=record["gates"].get("min_agreement"),
                **common,
            ).to_dict()
            record["failures"] += record["device"]["failures"]
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
            *_on_device(record.get("device")),
            ("for nothing", "" if record["findings"] else "no operator, no constants"),
            ("gates", ", ".join(f"{name} {value:g}" for name, value in record["gates"].items())),
            ("gates not met", "; ".join(record["failures"])),
        ]
    )
    parts = [_classes(record), _found(record["findings"]), _kernels(record["kernels"]), text]
    show(record, "\n\n".join(filter(None, parts)), as_json)
    return 1 if record["failures"] else 0


def _on_device(found: dict | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    equal = f"{found['bit_equal']} of {found['images']} images are bit-equal"
    if found["bit_equal"] < found["images"]:
        steps = "" if found["max_steps"] is None else f"{found['max_steps']} steps, "
        equal += f", the largest difference is {steps}{found['max_difference']:.3g}"
    by = f"{found['runner']} {found['runtime_version']}"
    if found["delegate"]:
        by += f", delegate {found['delegate']}"
    return [
        (
            f"on {found['target']}",
            f"{percent(found['accuracy'])} {found['split']} images ({found['kind']}, {by})",
        ),
        ("on this machine", f"{percent(found['host_accuracy'])} by LiteRT"),
        (
            "same top-1 there",
            f"{100 * found['agreement']:.2f} %; {equal}",
        ),
    ]


def _classes(record: dict) -> str:
    changed = [row for row in record["per_class"] if row["lost"] or row["gained"]]
    rows = [
        (
            row["class"],
            f"{row['count']:,}",
            f"{100 * row['keras']:.1f} %",
            f"{100 * row['lite']:.1f} %",
            f"{row['change']:+.1f}",
            row["lost"],
            row["gained"],
        )
        for row in changed[:SHOWN]
    ]
    head = ("class", "images", "Keras", "file", "points", "lost", "gained")
    return table(head, rows, spare=["gained", "lost"]) if rows else ""


def _found(findings: list[dict]) -> str:
    """A line for each kind, with its first operators."""
    lines = []
    for kind, advice in dict.fromkeys((each["kind"], each["advice"]) for each in findings):
        of_kind = [each for each in findings if each["kind"] == kind]
        places = [
            f"{each['operator']} in {each['layer']} ({each['reason']})" for each in of_kind[:SHOWN]
        ]
        more = [f"{len(of_kind) - SHOWN} more"] if len(of_kind) > SHOWN else []
        lines += [(f"{len(of_kind)} {kind}", "; ".join(places + more)), ("", f"-> {advice}")]
    return pairs(lines) if lines else ""


def _kernels(rows: dict[str, dict]) -> str:
    from kzoo.lite.interpret import RUNS

    told, refused = [], []
    for name, row in rows.items():
        if "refused" in row:
            refused.append((RUNS[name], row["refused"]))
            continue
        steps = "" if row["max_steps"] is None else f", {row['max_steps']} steps"
        difference = f"{row['max_difference']:.2g}{steps}"
        told.append((RUNS[name], f"{100 * row['agreement']:.1f} %", difference))
    head = ("against XNNPACK, one thread", "same top-1", "largest difference")
    parts = [table(head, told) if told else "", pairs(refused) if refused else ""]
    return "\n\n".join(filter(None, parts))
