"""In the child process: the rules of a target applied to the operators of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

from kzoo.files import sha256
from kzoo.lite.edgetpu import CUSTOM
from kzoo.lite.lint.checks import CHECKS
from kzoo.lite.lint.operators import Operator, operators

ABOUT = ("advice", "source", "runtime")
"""What a rule says beside its constraints."""


@cache
def rules(target: str) -> dict:
    """A target's file, see docs/lint.md."""
    return yaml.safe_load((Path(__file__).parent / "rules" / f"{target}.yaml").read_text())


def read(file: str, targets: list[str]) -> dict:
    """The fields of a `kzoo.lite.lint.Lint`."""
    found = operators(file)
    return {
        "file": file,
        "sha256": sha256(file),
        "predictions": [predict(found, target) for target in targets],
    }


def predict(found: list[Operator], target: str) -> dict:
    """The fields of a `kzoo.lite.lint.Prediction`, but ``blocker``."""
    table = rules(target)
    refused = {op.index: finding for op in found if (finding := _finding(op, table))}
    runs = _running(found, refused, table)
    macs, macs_run = sum(op.macs for op in found), sum(op.macs for op in found if op.index in runs)
    share = len(runs) / len(found)
    return {
        "target": target,
        "title": table["title"],
        "kind": "predicted",
        "operators": len(found),
        "operators_run": len(runs),
        "operator_share": share,
        "macs": macs,
        "macs_run": macs_run,
        "mac_share": macs_run / macs if macs else share,
        "left": _counted(op for op in found if op.index not in runs),
        "findings": [*refused.values()],
        "notes": _notes(found, refused, runs, table),
    }


def _counted(found: Iterable[Operator]) -> dict[str, int]:
    return dict(sorted(Counter(op.name for op in found).items()))


def _finding(op: Operator, table: dict) -> dict | None:
    """Why the target refuses an operator, as the fields of a Finding; None if it does not."""
    kinds = table.get("custom", {}) if op.custom else table["operators"]
    if op.name not in kinds:
        known = table.get("refused", {}).get(op.name, {})
        said = known.get("reason", "the target has no such operator")
        return _told(op, said, table, known, "unsupported")
    rule = kinds[op.name] or {}
    for name, setting in {**table.get("all", {}), **rule}.items():
        if name in ABOUT or setting is None:
            continue
        if reason := CHECKS[name](op, setting):
            # What a rule advises is about its own constraints, not those of all operators.
            return _told(op, reason, table, rule if name in rule else {}, name)
    return None


def _told(op: Operator, reason: str, table: dict, rule: dict, check: str) -> dict:
    source = rule.get("source", table.get("check_sources", {}).get(check, table["source"]))
    return {
        "index": op.index,
        "operator": op.name,
        "layer": op.layer,
        "macs": op.macs,
        "reason": reason,
        "advice": rule.get("advice") or table["advice"].get(check, table["advice"]["unsupported"]),
        "source": table["sources"][source],
    }


def _running(found: list[Operator], refused: dict, table: dict) -> set[int]:
    """Which operators the target runs: those not refused, as far as it takes the graph apart."""
    if compiled := {op.index for op in found if op.name == CUSTOM} - refused.keys():
        return compiled
    if table["runs"] == "whole":
        return set() if refused else {op.index for op in found}
    parts = _parts(found, refused)
    if table["runs"] == "largest":  # sorted is stable: of equal ones, the first
        parts = sorted(parts, key=len, reverse=True)
    most = table.get("parts")
    return {index for part in parts[:most] for index in part}


def _parts(found: list[Operator], refused: dict) -> list[list[int]]:
    """The parts of a graph that run one after another on the target, between others on the CPU.

    In turns, all operators whose inputs are ready are taken: refused ones, then supported ones. A
    refused operator that needs nothing of the target, at the entry, thus ends no part.
    """
    made = {(op.subgraph, tensor.index) for op in found for tensor in op.outputs}
    waiting, parts, on_target = list(found), [], False
    while waiting:
        part, advanced = [], True
        while advanced:
            advanced, still = False, []
            for op in waiting:
                needs = {(op.subgraph, each.index) for each in op.inputs if each is not None}
                if (op.index not in refused) == on_target and not needs & made:
                    made -= {(op.subgraph, each.index) for each in op.outputs}
                    part.append(op.index)
                    advanced = True
                else:
                    still.append(op)
            waiting = still
        if on_target and part:
            parts.append(part)
        elif on_target and not part:
            break  # a cycle in a damaged graph: nothing is ever ready
        on_target = not on_target
    return parts


def _notes(found: list[Operator], refused: dict, runs: set[int], table: dict) -> list[str]:
    notes = []
    dragged = len(found) - len(runs) - len(refused)
    if refused and dragged > 0:
        notes.append(table["dragged"].format(count=dragged))
    rules_used = [table["operators"].get(op.name) or {} for op in found if op.index in runs]
    newest = max((rule.get("runtime", 0) for rule in rules_used), default=0)
    if newest:
        notes.append(f"needs Edge TPU runtime {newest} or newer")
    if table.get("note"):
        notes.append(table["note"])
    return notes
