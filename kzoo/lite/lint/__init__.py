"""What share of a .tflite a target is predicted to run, and what is in the way.

The rules are data: ``rules/<target>.yaml``, each with the page or measurement it is from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kzoo.child import blame, call
from kzoo.errors import UsageError, nearest
from kzoo.lite.tflite_file import tflite_file

TARGETS = ("edgetpu", "gpu", "nnapi", "micro", "litert-2.14", "webgpu")


@dataclass(frozen=True)
class Finding:
    """An operator that a target does not run.

    Attributes:
        index: which one, counted from 0 in the file's order, those of further subgraphs last.
        operator, layer: what it is, such as CONV_2D, and the Keras layer it came from.
        macs: the multiply-accumulates in it.
        reason, advice: why it is refused, and what to change.
        source: the page, or the measurement, that the rule is from.
    """

    index: int
    operator: str
    layer: str
    macs: int
    reason: str
    advice: str
    source: str


@dataclass(frozen=True)
class Prediction:
    """What `lint` foretells of one target.

    Attributes:
        target, title: its name, and which hardware and software that is.
        kind: "predicted", always: nothing ran on the target.
        operators, operators_run, operator_share: how many there are, how many the target runs.
        macs, macs_run, mac_share: the same of multiply-accumulates; the share is that of operators
            where a file has none.
        left: how many operators of each type the target does not run, those included that it could
            run, but for others before them.
        blocker: the first operator refused, or None.
        findings: all that are refused for what they are, in the file's order.
        notes: what else to know of this file on this target.
    """

    target: str
    title: str
    kind: str
    operators: int
    operators_run: int
    operator_share: float
    macs: int
    macs_run: int
    mac_share: float
    left: dict[str, int]
    blocker: Finding | None
    findings: list[Finding]
    notes: list[str]


@dataclass(frozen=True)
class Lint:
    """What `lint` found: one prediction for each target, in the order asked for."""

    file: str
    sha256: str
    predictions: list[Prediction]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def lint(file: str | os.PathLike, targets: Sequence[str] = TARGETS) -> Lint:
    """Predicts how much of a .tflite each target runs. The file is read in a child process.

    Args:
        file: a .tflite of any origin.
        targets: names from `TARGETS`.

    Raises:
        UsageError: there is no such target.
        MissingError: the file does not exist.
        BadInputError: it is no .tflite, or damaged.
    """
    for target in targets:
        if target not in TARGETS:
            raise UsageError(f"no target {target!r}{nearest(target, TARGETS)}")
    tflite_file(file)
    with blame(f"{file} cannot be read"):
        found = call("kzoo.lite.lint.predict:read", file=str(file), targets=list(targets))
    return Lint(
        found["file"], found["sha256"], [_prediction(each) for each in found["predictions"]]
    )


def _prediction(values: dict) -> Prediction:
    findings = [Finding(**each) for each in values["findings"]]
    blocker = findings[0] if findings else None
    return Prediction(**{**values, "findings": findings, "blocker": blocker})
