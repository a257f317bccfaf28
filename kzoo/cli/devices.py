"""kzoo devices"""

from __future__ import annotations

from collections import Counter

import click

from kzoo.cli.terminal import bar, json_option, pairs, show, table


@click.command("devices")
@json_option
def command(as_json) -> None:
    """What can be measured on: this machine, phones behind adb, a Coral Edge TPU.

    Machines behind ssh are not listed: name them, kzoo profile net.tflite --on ssh:USER@HOST.
    """
    from kzoo.measure.devices import devices

    with bar() as progress:
        record = devices(progress=progress).to_dict()
    show(record, _listed(record), as_json)


def _listed(record: dict) -> str:
    rows, below = [], []
    for each in record["devices"]:
        machine, state = each["machine"] or {}, each["state"] or {}
        names = [machine.get("model"), machine.get("processor")]
        rows.append(
            (
                each["target"],
                ", ".join(filter(None, names)),
                machine.get("architecture", ""),
                _cores(machine),
                state.get("governor") or "",
                _number(state.get("temperature_c"), "°C"),
                _number(state.get("battery_percent"), "%"),
                " ".join(each["runtimes"]),
                (each["kind"] or "") if each["usable"] else "not usable",
            )
        )
        below.append((each["target"], each["trouble"]))
    below += [("note", note) for note in record["notes"]]
    header = ("target", "what", "ABI", "cores", "governor", "warm", "battery", "runtimes", "")
    text = table(header, rows, spare=("governor", "battery", "ABI"))
    return f"{text}\n\n{pairs(below)}" if any(value for _, value in below) else text


def _cores(machine: dict) -> str:
    """ "4 x 1800, 4 x 2800 MHz", or their number where their clocks are hidden."""
    speeds = Counter(machine.get("core_mhz", {}).values())
    if not speeds:
        return str(machine.get("cores", ""))
    return ", ".join(f"{count} x {speed:.0f}" for speed, count in sorted(speeds.items())) + " MHz"


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.0f} {unit}"
