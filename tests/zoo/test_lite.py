"""Every registered architecture becomes a .tflite that computes what the model does, in int8 too.

At its smallest size; see conftest.py for which of them are ``slow``.
"""

from __future__ import annotations

import numpy as np

from kzoo.lite.convert import convert, write_lite
from kzoo.network.model_file import save_model
from kzoo.progress import silent
from kzoo.registry import entry, pair
from kzoo.zoo.build import build
from tools.zoo import tame

FAST = {
    "ds_cnn", "lenet5", "mlp", "resnet8", "row_rnn", "squeezenet1_1",
}  # fmt: skip
"""Small networks of different operators; local response normalization is left to the slow."""


def test_it_converts_to_float_and_to_int8(case, tmp_path):
    row = entry(case.name)
    size = pair(row.min_size)
    images = np.random.default_rng(0).integers(0, 256, (8, *size, row.channels), np.uint8)
    net = build(case.name, classes=10, size=size, seed=0, **case.variant)
    tame(net, images)
    model = save_model(net, tmp_path / "model.keras")
    made = convert(model, tmp_path / "float32.tflite")
    assert made.max_logit_error <= 1e-4
    assert made.contents.integer_kernels == 0
    made = write_lite(
        model, tmp_path / "int8.tflite", "int8", "uint8", "probabilities", images, silent
    )
    assert made.contents.integer_kernels > 0
    assert bool(made.contents.float_islands) == bool(row.islands), made.contents.float_islands
