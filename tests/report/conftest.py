"""A run's folder as kzoo writes it, in miniature: two models, three classes, one hostile."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from PIL import Image

HOSTILE = "<script>alert(1)</script>"
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


def evaluation(confusion: list[list[int]], interval: tuple[float, float]) -> dict:
    count = sum(map(sum, confusion))
    return {
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


def check(kind: str, size: int, failures: list[str]) -> dict:
    return {
        "contents": contents(kind, size),
        "against": "m.keras",
        "compared": "logits",
        "max_logit_error": 0.41421 if kind == "int8" else 3.84e-6,
        "mean_logit_error": 0.0894 if kind == "int8" else 9.9e-7,
        "logit_std": 2.39,
        "agreement": 0.9333 if kind == "int8" else 1.0,
        "keras": evaluation(CONFUSION["keras"], (0.8333, 0.9941)),
        "lite": evaluation(CONFUSION["int8" if kind == "int8" else "keras"], (0.7438, 0.9654)),
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


def write_model(folder: Path, name: str, *, failures: list[str], samples: int, size: int) -> None:
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
        "finetune",
        inputs={"model": sha(f"{name}.init")},
        settings={
            "phases": [{"epochs": 2, "trainable": part, **phase} for part in (["head"], "all")],
            "batch_size": 32,
        },
        outputs={f"models/{name}.keras": trained},
        result={
            "classes": CLASSES,
            "evaluation": evaluation(CONFUSION["keras"], (0.8333, 0.9941)),
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
            "float32": check("float32", size, []),
            "int8": check("int8", size // 3, failures),
            "samples": {
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
    write_model(folder, "alpha", failures=[], samples=40, size=251_304)
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
