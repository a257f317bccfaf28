"""A run's folder as kzoo writes it, in miniature: two models, three classes, one hostile.

The records of alpha are of an older kzoo, those of zeta of this one.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

HOSTILE = "<script>alert(1)</script>"
SHOTS = (1, 4, 16)
CLASSES = ["cat & dog", HOSTILE, '"quoted" $x^{']
CONFUSION = {
    "keras": [[9, 1, 0], [0, 10, 0], [0, 0, 10]],
    "int8": [[8, 2, 0], [0, 10, 0], [1, 0, 9]],
}
ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"kzoo": "0.1.0", "keras": "3.15.1", "ai-edge-litert": "2.3.0"},
    "backend": "tensorflow",
    "machine": {
        "processor": "Example CPU",
        "cores": 2,
        "memory_bytes": 25_276_514_304,
        "architecture": "x86_64",
        "system": "Linux 6.18",
    },
}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def figures(confusion: list[list[int]]) -> dict:
    """What records have had since calibration and classes are judged."""
    taken = [sum(column) for column in zip(*confusion, strict=True)]
    rows = [
        {
            "count": sum(row),
            "precision": ratio(row[i], taken[i]),
            "recall": ratio(row[i], sum(row)),
            "f1": ratio(2 * row[i], sum(row) + taken[i]),
        }
        for i, row in enumerate(confusion)
    ]
    empty = {"count": 0, "confidence": None, "accuracy": None}
    return {
        "top5_accuracy": None,
        "ece": 0.0456,
        "reliability": [
            *[empty] * 12,
            {"count": 10, "confidence": 0.85, "accuracy": 0.7},
            {"count": 5, "confidence": 0.9, "accuracy": 1.0},
            {"count": 15, "confidence": 0.98, "accuracy": 1.0},
        ],
        "macro_f1": sum(row["f1"] for row in rows) / len(rows),
        "per_class": rows,
        "worst": [],
    }


def evaluation(
    confusion: list[list[int]], interval: tuple[float, float], old: bool = False
) -> dict:
    count = sum(map(sum, confusion))
    return ({} if old else figures(confusion)) | {
        "split": "test",
        "count": count,
        "accuracy": sum(confusion[i][i] for i in range(len(confusion))) / count,
        "interval": list(interval),
        "log_loss": 0.1436,
        "confusion": confusion,
    }


def contents(kind: str, size: int) -> dict:
    return {
        "file": f"m_{kind}.tflite",
        "sha256": sha(kind),
        "bytes": size,
        "gzip_bytes": size - 1234,
        "operators": {f"CONV_2D {kind}": 3, "CAST float32": 1},
        "float_islands": ["MUL in stage1_1"] if kind == "int8" else [],
        "bytes_by_kind": {f"weights {kind}": size - 2000, "structure": 2000},
    }


def check(kind: str, size: int, failures: list[str], old: bool) -> dict:
    return {
        "contents": contents(kind, size),
        "against": "m.keras",
        "compared": "logits",
        "max_logit_error": 0.41421 if kind == "int8" else 3.84e-6,
        "mean_logit_error": 0.0894 if kind == "int8" else 9.9e-7,
        "logit_std": 2.39,
        "agreement": 0.9333 if kind == "int8" else 1.0,
        "keras": evaluation(CONFUSION["keras"], (0.8333, 0.9941), old),
        "lite": evaluation(CONFUSION["int8" if kind == "int8" else "keras"], (0.7438, 0.9654), old),
        "failures": failures,
    }


def profile(kind: str, threads: tuple[int, ...], count: int) -> dict:
    draw = random.Random(kind)
    valid = count >= 64
    runs = []
    for number in threads:
        samples = [draw.lognormvariate(-1, 0.1) for _ in range(count)]
        ordered = sorted(samples)
        runs.append(
            {
                "threads": number,
                "init_ms": 1.801,
                "first_ms": 0.6127,
                "warmup_runs": 980,
                "steady": valid,
                "stopped_by": "minimum",
                "latency": {
                    "count": count,
                    "p50_ms": ordered[count // 2],
                    "p90_ms": ordered[-2] if valid else None,
                    "valid": valid,
                    "p99_ms": ordered[-1],
                    "min_ms": ordered[0],
                    "max_ms": ordered[-1],
                    "spread": 0.2185,
                },
                "samples_ms": samples,
                "state_before": {"governor": "performance", "load_1min": 0.5},
                "state_after": {"governor": "performance", "load_1min": 1.25},
            }
        )
    return {
        "target": "host",
        "method": "a fresh process per thread count",
        "kind": "measured",
        "runtime": "ai-edge-litert",
        "runtime_version": "2.3.0",
        "delegate": "XNNPACK",
        "delegated_share": 0.9444,
        "runs": runs,
        "memory": {
            "threads": threads[0],
            "peak_bytes": 52_105_216,
            "baseline_bytes": 45_068_288,
            "source": "VmHWM",
        },
        "notes": [] if valid else ["threads 2: p90 is INVALID: 40 runs, and it takes 64"],
    }


def write_record(folder: Path, model: str, step: str, **fields) -> None:
    record = {"step": step, "model": model, "key": sha(model + step), "inputs": {}, "settings": {}}
    record |= {"outputs": {}, "seconds": 1.28, "date": "2026-11-22T07:22:06+00:00"}
    record |= {"environment": ENVIRONMENT} | fields
    (folder / "ledger" / f"{model}.{step}.json").write_text(json.dumps(record))


def write_model(
    folder: Path,
    name: str,
    *,
    failures: list[str],
    samples: int,
    size: int,
    trainer: str = "finetune",
    old: bool = False,
) -> None:
    """Every record of a model; ``old`` as they were before calibration and classes were judged."""
    trained, float32, int8 = sha(f"{name}.keras"), sha(f"{name}.tflite"), sha(f"{name}_int8.tflite")
    write_record(
        folder,
        name,
        "build",
        settings={
            "classes": 3,
            "size": [8, 8],
            "channels": 1,
            "row": {"paper": "A & B 1998", "family": "f"},
        },
        outputs={f"models/{name}.init.keras": sha(f"{name}.init")},
        result={"params": 77_898, "total_params": 78_000, "macs": 12_206_720},
    )
    phase = {"optimizer": "adam", "learning_rate": 0.002, "schedule": "cosine"}
    history = [
        {
            "phase": 1 + epoch // 2,
            "epoch": epoch + 1,
            "loss": 1.5 / (epoch + 1),
            "accuracy": 0.9,
            "val_loss": 0.9 / (epoch + 1),
            "val_accuracy": 0.93,
            "learning_rate": 0.002,
            "seconds": 4.5,
        }
        for epoch in range(4)
    ]
    write_record(
        folder,
        name,
        trainer,
        inputs={"model": sha(f"{name}.init")},
        settings={
            "phases": [{"epochs": 2, "trainable": part, **phase} for part in (["head"], "all")],
            "batch_size": 32,
        },
        outputs={f"models/{name}.keras": trained},
        result={
            "classes": CLASSES,
            "evaluation": evaluation(CONFUSION["keras"], (0.8333, 0.9941), old),
            "stopped_early": False,
            "history": history,
        },
    )
    for step, kind, digest in (("convert", "float32", float32), ("quantize", "int8", int8)):
        file = f"models/{name}{'_int8' * (kind == 'int8')}.tflite"
        write_record(
            folder,
            name,
            step,
            inputs={"model": trained},
            outputs={file: digest},
            result={"contents": contents(kind, size if kind == "float32" else size // 3)},
        )
    strip = folder / "samples" / f"{name}.png"
    Image.new("RGB", (16, 8), "red").save(strip)
    write_record(
        folder,
        name,
        "check",
        inputs={"model": trained, "float32": float32, "int8": int8},
        settings={"limit": None, "min_agreement": 0.97, "max_drop": None, "max_float_ops": None},
        outputs={f"samples/{name}.png": hashlib.sha256(strip.read_bytes()).hexdigest()},
        result={
            "float32": check("float32", size, [], old),
            "int8": check("int8", size // 3, failures, old),
            "samples": ({} if old else {"worst": 1})
            | {
                "file": f"samples/{name}.png",
                "size": [8, 8],
                "split": "test",
                "predictions": [
                    {
                        "path": f"{HOSTILE}/1.png",
                        "label": HOSTILE,
                        "keras": {"class": HOSTILE, "probability": 0.5512},
                        "int8": {"class": CLASSES[0], "probability": 0.5703},
                    },
                    {
                        "path": "ok/2.png",
                        "label": CLASSES[0],
                        "keras": {"class": CLASSES[0], "probability": 0.99},
                        "int8": {"class": CLASSES[0], "probability": 0.98},
                    },
                ],
            },
        },
    )
    write_record(
        folder,
        name,
        "profile",
        inputs={"float32": float32, "int8": int8},
        result={kind: profile(kind, (2, 1), samples) for kind in ("float32", "int8")},
    )


def study_row(cut, head, temperature, shots, seed) -> dict:
    right = 0.1 + 0.02 * shots + 0.01 * seed + 0.1 * (cut == "head")
    curve = {
        f"{part}{key}": [1.0, 0.5, right][: 2 + seed]
        for part in ("", "train_")
        for key in ("loss", "accuracy")
    }
    return {
        "cut": cut, "head": head, "temperature": temperature, "shots": shots, "seed": seed,
        "train_accuracy": 1.0, "accuracy": right, "log_loss": 2 - right, "penalty": 0.1,
        "iterations": 3, "seconds": 0.01, "curve": None if head == "ridge" else curve,
    }  # fmt: skip


def made_up_study(heads=("softmax", "ridge", "logits-T"), cuts=("stage4", "head"), seeds=2) -> dict:
    """What `kzoo.fewshot` gives, as JSON values."""
    settings = [(cut, head, None) for cut in cuts for head in heads if head != "logits-T"]
    settings += [("logits", "logits-T", T) for T in (1, 2.5)] * ("logits-T" in heads)
    rows = [
        study_row(*each, shots, seed)
        for each in settings
        for shots in SHOTS
        for seed in range(seeds)
    ]
    means = []
    for cut, head, T in settings:
        for shots in SHOTS:
            right = study_row(cut, head, T, shots, 0)["accuracy"]
            interval = [right - 0.05, right + 0.05] if seeds > 1 else None
            loss = [2 - right - 0.1, 2 - right + 0.1] if seeds > 1 else None
            means.append(
                {
                    "cut": cut,
                    "head": head,
                    "temperature": T,
                    "shots": shots,
                    "seeds": seeds,
                    "accuracy": right,
                    "accuracy_interval": interval,
                    "log_loss": 2 - right,
                    "log_loss_interval": loss,
                }
            )
    return {
        "model": "net", "classes": ["a", "b"], "split": "validation", "count": 341, "rows": rows,
        "means": means, "seconds": {"features": 61.2, "heads": 3.25},
        "recipe": {
            "source": HOSTILE, "size": [96, 128], "seeds": seeds, "shots": list(SHOTS),
            "engine": "keras 3.15",
        },
    }  # fmt: skip


def write_run(folder: Path) -> Path:
    for part in ("ledger", "samples", "models"):
        (folder / part).mkdir(parents=True)
    (folder / "config.yaml").write_text(
        "name: mini\ndata: {path: '</pre><script>bad()</script>'}\n"
    )
    (folder / "run.json").write_text(json.dumps({"name": "mini", "models": ["zeta", "alpha"]}))
    write_record(
        folder,
        "dataset",
        "data",
        result={
            "source": "photos",
            "classes": {name: {"train": 40, "validation": 5, "test": 10} for name in CLASSES},
            "images": 165,
            "splits": {"train": 120, "validation": 15, "test": 30},
            "evaluation_split": "test",
            "size": [8, 8],
            "channels": 1,
            "fingerprint": sha("data"),
            "problems": [
                {
                    "path": f"{HOSTILE}/bad.jpg",
                    "outcome": "left out",
                    "reason": "cut off at byte 512",
                }
            ],
            "duplicates": [["a/1.png", "b/1.png"]],
        },
    )
    failure = "top-1 agreement 0.9333 is below 0.97"
    write_model(folder, "zeta", failures=[failure], samples=200, size=319_824)
    write_model(folder, "alpha", failures=[], samples=40, size=251_304, old=True)
    return folder


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """A run's folder without its report."""
    return write_run(tmp_path / "run")


@pytest.fixture(scope="session")
def reported(tmp_path_factory) -> Path:
    """A run's folder with its report; not to be changed."""
    from kzoo.report.html import write_report

    folder = write_run(tmp_path_factory.mktemp("reported") / "run")
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="session")
def study_result():
    """Makes what `kzoo.fewshot` gives, as JSON values."""
    return made_up_study


@pytest.fixture
def study_run(tmp_path) -> Path:
    """The folder of a run that studies one network's features, without its report."""
    folder = tmp_path / "study"
    (folder / "ledger").mkdir(parents=True)
    run = {"name": "study", "models": ["net"], "steps": {"net": ["build", "fewshot"]}}
    (folder / "run.json").write_text(json.dumps(run))
    shutil.copy(write_run(tmp_path / "other") / "ledger" / "dataset.data.json", folder / "ledger")
    write_record(
        folder,
        "net",
        "build",
        settings={"classes": None, "size": [8, 8], "channels": 1},
        outputs={"models/net.init.keras": sha("net.init")},
        result={"params": 1234, "total_params": 1234, "macs": 5678, "classes": 1000},
    )
    inputs = {"model": sha("net.init")}
    write_record(folder, "net", "fewshot", inputs=inputs, result=made_up_study())
    return folder


@pytest.fixture
def distilled_run(tmp_path) -> Path:
    """The folder of a run with a teacher and two ways of training a student, without a report."""
    folder = write_run(tmp_path / "distilled")
    for name, trainer in (("big_teacher", "finetune"), ("small_distilled", "distill")):
        write_model(folder, name, failures=[], samples=100, size=99_000, trainer=trainer)
    write_model(folder, "small", failures=[], samples=100, size=99_000)
    (folder / "ledger" / "small_distilled.build.json").unlink()
    # As the step writes it: of the files that were there.
    path = folder / "ledger" / "small_distilled.distill.json"
    record = json.loads(path.read_text())
    record["inputs"] = {"model": sha("small.init"), "teacher": sha("big_teacher.keras")}
    path.write_text(json.dumps(record))
    pipeline = ["convert", "quantize", "check", "profile"]
    steps = {name: ["build", "finetune", *pipeline] for name in ("big_teacher", "small")}
    run = {
        "name": "distilled",
        "models": ["big_teacher", "small", "small_distilled"],
        "steps": {**steps, "small_distilled": ["distill", *pipeline]},
        "distilled": {"small_distilled": {"teacher": "big_teacher", "alone": "small"}},
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


@pytest.fixture
def chain_run(tmp_path) -> Path:
    """The folder of a run that compresses a network twice, without its report."""
    folder = write_run(tmp_path / "chain")
    write_model(folder, "net", failures=[], samples=100, size=99_000)
    pipeline = ["convert", "quantize", "check", "profile"]
    made = ["net_1_slim", "net_2_qat"]
    for name, before, left in zip(made, ("net", made[0]), (2, 3), strict=True):
        write_model(folder, name, failures=[], samples=100, size=99_000 // left, trainer="compress")
        (folder / "ledger" / f"{name}.build.json").unlink()
        path = folder / "ledger" / f"{name}.compress.json"
        record = json.loads(path.read_text())
        record["inputs"] = {"model": sha(f"{before}.keras"), "teacher": sha("net.keras")}
        # As one writes it that trains with its defaults.
        del record["settings"]["batch_size"]
        record["result"] |= {
            "recipe": {"batch_size": 32},
            "sparsity": 0.25,
            "coded_bytes": 12_345,
            "network": {
                "params": 77_898 // left, "total_params": 78_000 // left, "macs": 6_000_000,
                "classes": 3, "size": [8, 8], "channels": 1,
            },
        }  # fmt: skip
        path.write_text(json.dumps(record))
    steps = {"net": ["build", "finetune", *pipeline]}
    run = {
        "name": "chain",
        "models": ["net", *made],
        "steps": steps | {name: ["compress", *pipeline] for name in made},
        "chains": {"net": made},
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder
