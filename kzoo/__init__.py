"""kzoo: from an architecture's name, or a folder of photos, to an int8 model measured on a device.

The public functions are imported at first use: ``import kzoo`` loads neither Keras nor TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kzoo.compress.cluster import cluster
    from kzoo.compress.prune import prune
    from kzoo.compress.qat import qat
    from kzoo.compress.reparameterize import reparameterize
    from kzoo.compress.sensitivity import sensitivity
    from kzoo.compress.slim import slim
    from kzoo.data.load import load_data
    from kzoo.learn.distill import distill
    from kzoo.learn.explain import explain
    from kzoo.learn.fewshot import fewshot
    from kzoo.learn.finetune import finetune
    from kzoo.lite.check import check
    from kzoo.lite.compile import compile
    from kzoo.lite.convert import convert
    from kzoo.lite.diff import diff
    from kzoo.lite.evaluate import evaluate
    from kzoo.lite.inspect import inspect
    from kzoo.lite.predict import predict
    from kzoo.lite.quantize import quantize
    from kzoo.lite.snippet import snippet
    from kzoo.measure.devices import devices
    from kzoo.measure.profile import profile
    from kzoo.measure.serve import serve
    from kzoo.network.features import stage_features
    from kzoo.registry import list_models
    from kzoo.runs.recipe import recipe
    from kzoo.runs.run import run
    from kzoo.zoo.build import build

__version__ = "0.1.0"

_API = {
    "build": "kzoo.zoo.build",
    "list_models": "kzoo.registry",
    "load_data": "kzoo.data.load",
    "finetune": "kzoo.learn.finetune",
    "fewshot": "kzoo.learn.fewshot",
    "distill": "kzoo.learn.distill",
    "prune": "kzoo.compress.prune",
    "cluster": "kzoo.compress.cluster",
    "slim": "kzoo.compress.slim",
    "qat": "kzoo.compress.qat",
    "reparameterize": "kzoo.compress.reparameterize",
    "sensitivity": "kzoo.compress.sensitivity",
    "convert": "kzoo.lite.convert",
    "quantize": "kzoo.lite.quantize",
    "check": "kzoo.lite.check",
    "localize": "kzoo.lite.localize",
    "lint": "kzoo.lite.lint",
    "compile": "kzoo.lite.compile",
    "inspect": "kzoo.lite.inspect",
    "diff": "kzoo.lite.diff",
    "snippet": "kzoo.lite.snippet",
    "evaluate": "kzoo.lite.evaluate",
    "predict": "kzoo.lite.predict",
    "explain": "kzoo.learn.explain",
    "profile": "kzoo.measure.profile",
    "devices": "kzoo.measure.devices",
    "serve": "kzoo.measure.serve",
    "run": "kzoo.runs.run",
    "recipe": "kzoo.runs.recipe",
    "stage_features": "kzoo.network.features",
}

__all__ = [
    "build",
    "check",
    "cluster",
    "compile",
    "convert",
    "devices",
    "diff",
    "distill",
    "evaluate",
    "explain",
    "fewshot",
    "finetune",
    "inspect",
    "lint",
    "list_models",
    "load_data",
    "localize",
    "predict",
    "profile",
    "prune",
    "qat",
    "quantize",
    "recipe",
    "reparameterize",
    "run",
    "sensitivity",
    "serve",
    "slim",
    "snippet",
    "stage_features",
]


def __getattr__(name: str) -> object:
    if name not in _API:
        raise AttributeError(f"module 'kzoo' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_API[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})
