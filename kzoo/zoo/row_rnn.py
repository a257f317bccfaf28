"""A recurrent network that reads an image row by row, as Le, Jaitly, Hinton 2015 read its pixels.

A Simple Way to Initialize Recurrent Networks of Rectified Linear Units (arXiv:1504.00941),
section 4.2. LSTM: Hochreiter & Schmidhuber 1997; the plain cell: Elman 1990.
"""

from __future__ import annotations

from kzoo.errors import one_of
from kzoo.registry import model
from kzoo.zoo.blocks import layers

CELLS = ("SimpleRNN", "LSTM")

_DIGITS = {"size": 28, "min_size": 1, "channels": 1, "classes": 10, "units": 128}


@model("row_lstm", 81_674, 81_674, 2_237_696, **_DIGITS, cell="LSTM",
       paper="Hochreiter & Schmidhuber 1997, Neural Computation 9; rows as steps")  # fmt: skip
@model("row_rnn", 21_386, 21_386, 560_384, **_DIGITS, cell="SimpleRNN",
       paper="Elman 1990, Cognitive Science 14; rows as steps")  # fmt: skip
def row_rnn(x, classes, *, cell, units):
    one_of("cell", cell, CELLS)
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width * channels), name="stem_rows")(x)
    # Unrolled: int8 quantization does not reach into the loop that LiteRT makes of it otherwise.
    x = getattr(layers, cell)(units, unroll=True, name="stage1_1_rnn")(x)
    return x if classes is None else layers.Dense(classes, name="head")(x)
