"""Multiply-accumulates of layers whose count can be done on paper."""

from __future__ import annotations

import keras
import pytest

from kzoo.network.count import layer_table, macs, parameters, peak_memory

L = keras.layers

PAPER = {
    "convolution": (L.Conv2D(8, 3, padding="same"), 6 * 6 * 8 * 3 * 3 * 4),
    "strided, valid": (L.Conv2D(8, 3, 2), 2 * 2 * 8 * 3 * 3 * 4),
    "grouped": (L.Conv2D(8, 3, padding="same", groups=2), 6 * 6 * 8 * 3 * 3 * 2),
    "depthwise": (L.DepthwiseConv2D(3, padding="same"), 6 * 6 * 4 * 3 * 3),
    "depthwise, two per channel": (
        L.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        6 * 6 * 8 * 3 * 3,
    ),
    "separable": (L.SeparableConv2D(8, 3, padding="same"), 6 * 6 * (4 * 3 * 3 + 4 * 8)),
    "dense on every pixel": (L.Dense(5), 6 * 6 * 4 * 5),
    "not counted": (L.BatchNormalization(), 0),
}


def functional(*layers) -> keras.Model:
    image = keras.Input((6, 6, 4))
    x = image
    for layer in layers:
        x = layer(x)
    return keras.Model(image, x)


@pytest.mark.parametrize(("layer", "expected"), PAPER.values(), ids=PAPER)
def test_a_layer_counts_what_it_does_on_paper(layer, expected):
    assert macs(functional(layer)) == expected


def test_a_network_counts_the_sum_of_its_layers_in_sequence_or_nested():
    def layers():
        return L.Conv2D(4, 3, padding="same"), L.ReLU(), L.Flatten(), L.Dense(3)

    expected = 6 * 6 * 4 * 3 * 3 * 4 + 6 * 6 * 4 * 3
    sequential = keras.Sequential([keras.Input((6, 6, 4)), *layers()])
    assert macs(functional(*layers())) == expected
    assert macs(sequential) == expected
    assert macs(functional(sequential)) == expected


def test_a_layer_called_twice_counts_twice_and_has_its_weights_once():
    shared = L.Conv2D(4, 1)
    assert macs(functional(shared, shared)) == 2 * 6 * 6 * 4 * 4
    assert parameters(functional(shared, shared)) == (4 * 4 + 4, 4 * 4 + 4)


def test_calls_in_another_model_do_not_count():
    shared = L.Conv2D(4, 1)
    model = functional(shared)
    functional(L.ReLU(), shared)
    assert macs(model) == 6 * 6 * 4 * 4
    assert [row["name"] for row in layer_table(model)][1:] == [shared.name]


def residual(act) -> keras.Model:
    image = keras.Input((6, 6, 4), name="image")
    x = L.Conv2D(8, 1, name="conv")(image)
    return keras.Model(image, L.Add(name="add")([x, act(x)]))


def test_peak_memory_is_that_of_the_values_alive_together():
    values = 6 * 6 * 4
    plain = functional(L.Conv2D(8, 1), L.ReLU(), L.Conv2D(2, 1))
    # The first convolution's input and output; the activation is computed in place.
    assert peak_memory(layer_table(plain)) == 4 * (values + 2 * values)
    assert peak_memory(layer_table(plain), 1) == values + 2 * values
    # Here it is not: the sum reads what it would overwrite, and is a third value.
    assert peak_memory(layer_table(residual(L.ReLU()))) == 4 * 3 * 2 * values


def test_the_table_has_a_row_per_call_with_its_inputs():
    rows = {row["name"]: row for row in layer_table(residual(L.ReLU(name="act")))}
    assert list(rows) == ["image", "conv", "act", "add"]
    assert rows["add"]["inputs"] == ["conv", "act"]
    assert rows["conv"]["shape"] == [6, 6, 8]
    assert rows["conv"]["params"] == 4 * 8 + 8
    assert rows["conv"]["macs"] == 6 * 6 * 4 * 8


def test_the_total_has_moving_statistics_and_no_seed_states():
    model = functional(L.BatchNormalization(), L.Dropout(0.5, seed=1))
    assert parameters(model) == (8, 16)


def test_freezing_moves_parameters_out_of_the_trainable():
    model = functional(L.Dense(5), L.Dense(2))
    model.layers[1].trainable = False
    assert parameters(model) == (5 * 2 + 2, 4 * 5 + 5 + 5 * 2 + 2)
