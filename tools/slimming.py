"""Which channels to remove: importances compared at equal MACs on a trained network and its photos.

Every importance, ranked over all layers and within each, makes a network of the same share of the
multiply-accumulates, which is trained for the same few epochs from several seeds. An interrupted
study goes on where it was.

    python tools/slimming.py TRAINED.keras PHOTOS --json build/slimming.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from pathlib import Path

MACS, EPOCHS, RATE = 0.5, 4, 5e-4


def main() -> None:
    from kzoo.compress.importance import IMPORTANCES
    from kzoo.compress.slimming import SCOPES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("photos")
    parser.add_argument("--importances", nargs="+", default=[*IMPORTANCES], choices=IMPORTANCES)
    parser.add_argument("--scopes", nargs="+", default=[*SCOPES], choices=SCOPES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    from kzoo.environment import environment
    from kzoo.files import sha256, write_json

    options.json.parent.mkdir(parents=True, exist_ok=True)
    model = sha256(options.model)
    found = json.loads(options.json.read_text())["slimmed"] if options.json.exists() else []
    found = [row for row in found if row["model"] == model]
    for seed in range(options.seeds):
        for scope in options.scopes:
            for importance in options.importances:
                job = {"model": model, "importance": importance, "scope": scope, "seed": seed}
                if any(job.items() <= row.items() for row in found):
                    continue
                found.append(job | slimmed(importance, scope, seed, options))
                record = {
                    "title": f"importances of channels, {Path(options.model).stem}",
                    **tables(found, Path(options.model).stem),
                    "slimmed": found,
                    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "environment": environment(),
                }
                write_json(options.json, record)


def slimmed(importance: str, scope: str, seed: int, options: argparse.Namespace) -> dict:
    import kzoo

    started = time.monotonic()
    output = options.json.with_name(f"{options.json.stem}_{importance}_{scope}_{seed}.keras")
    found = kzoo.slim(
        options.model,
        options.photos,
        macs=MACS,
        importance=importance,
        scope=scope,
        phases=[{"epochs": EPOCHS, "learning_rate": RATE, "batch_norm": "auto"}],
        output=output,
        force=True,
        seed=seed,
        data_options={"bad": "skip"},
    )
    (counts,) = found.rounds
    row = {
        "params": counts["params"],
        "macs": counts["macs"],
        "whole": figures(found.before.to_dict()),
        "untrained": figures(counts["before"]),
        "trained": figures(counts["evaluation"]),
        "minutes": (time.monotonic() - started) / 60,
    }
    print(json.dumps({"importance": importance, "scope": scope, **row}), file=sys.stderr)
    return row


def figures(evaluation: dict) -> dict:
    return {name: evaluation[name] for name in ("accuracy", "log_loss", "count", "split")}


def tables(rows: list[dict], name: str) -> dict:
    """A row per importance and scope: means over the seeds, and how far they are apart."""
    header = ["importance", "scope", "parameters", "untrained", "trained", "of the seeds",
              "log-loss"]  # fmt: skip
    cells = []
    for key in dict.fromkeys((row["importance"], row["scope"]) for row in rows):
        mine = [row for row in rows if (row["importance"], row["scope"]) == key]
        accuracies = [row["trained"]["accuracy"] for row in mine]
        loss = statistics.mean(row["trained"]["log_loss"] for row in mine)
        params = statistics.mean(row["params"] for row in mine)
        mean = f"{100 * statistics.mean(accuracies):.1f} %"
        each = ", ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies)
        at_once = statistics.mean(row["untrained"]["accuracy"] for row in mine)
        shown = [f"{params:,.0f}", f"{100 * at_once:.1f} %", mean, each, f"{loss:.3f}"]
        cells.append([*key, *shown])
    whole = rows[0]["whole"]
    note = (
        f"{name} with {MACS:.0%} of its MACs; on {whole['count']} {whole['split']} photos, "
        f"of which the whole network has {100 * whole['accuracy']:.1f} %; untrained, and after "
        f"{EPOCHS} epochs of Adam, cosine from {RATE:g}, on the labels."
    )
    return {"header": header, "cells": cells, "note": note}


if __name__ == "__main__":
    main()
