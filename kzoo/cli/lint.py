"""kzoo lint"""

from __future__ import annotations

import click

from kzoo.cli.terminal import Several, json_option, pairs, show, table
from kzoo.lite.lint import TARGETS


@click.command("lint")
@click.argument("file", type=click.Path())
@click.option(
    "--target",
    "targets",
    cls=Several,
    type=click.Choice(TARGETS),
    help="Where it is to run; several may follow.  [default: all]",
)
@click.option(
    "--gate",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Gate: share of multiply-accumulates that each target runs, such as 0.95.",
)
@json_option
def command(file, targets, gate, as_json) -> int:
    """Predict what share of the .tflite FILE a target runs, and what is in the way.

    Nothing is run: documented and measured rules are applied to the file (docs/lint.md).
    Exit code 1 if the gate is not met by one of the targets.

    \b
    Example:
      kzoo lint net_int8.tflite --target edgetpu micro
    """
    from kzoo.lite.lint import lint

    record = lint(file, targets or TARGETS).to_dict()
    rows = [
        [
            each["target"],
            f"{each['operators_run']} of {each['operators']}",
            f"{100 * each['mac_share']:.1f} %",
            _place(each["blocker"]) if each["blocker"] else "",
        ]
        for each in record["predictions"]
    ]
    summary = table(["target", "operators", "MACs", "first blocker"], rows, spare=["first blocker"])
    blocked = [_details(each) for each in record["predictions"] if each["findings"]]
    low = [
        each["target"]
        for each in record["predictions"]
        if gate is not None and each["mac_share"] < gate
    ]
    ends = [f"gates not met  {', '.join(low)}: less than {100 * gate:g} % of MACs"] if low else []
    show(record, "\n\n".join(["predicted, not measured", summary, *blocked, *ends]), as_json)
    return 1 if low else 0


def _place(finding: dict) -> str:
    return f"{finding['operator']} in {finding['layer']}"


def _details(prediction: dict) -> str:
    first = prediction["blocker"]
    left = ", ".join(f"{count} {name}" for name, count in prediction["left"].items())
    return pairs(
        [
            (prediction["target"], prediction["title"]),
            ("first blocker", f"{_place(first)} (operator {first['index']})"),
            ("why", first["reason"]),
            ("change", first["advice"]),
            ("rule", first["source"]),
            ("does not run", left),
            ("note", "; ".join(prediction["notes"])),
        ]
    )
