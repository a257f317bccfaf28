"""A latency as a share of another network's."""

from __future__ import annotations

import pytest

from kzoo.errors import UsageError
from kzoo.measure.cost import latency_share


def network(filters: int):
    import keras

    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(filters, 3, padding="same")(image)
    for _ in range(2):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10)(x))


@pytest.mark.slow
def test_a_quarter_of_the_width_is_much_faster_and_a_network_is_as_fast_as_itself():
    whole = network(96)
    share = latency_share(whole, kind="float32")
    assert share(network(16)) < 0.5
    assert 0.6 < share(whole) < 1.6


def test_int8_needs_images():
    with pytest.raises(UsageError, match="data to calibrate on"):
        latency_share(network(4))
    with pytest.raises(UsageError, match="did you mean int8"):
        latency_share(network(4), kind="int9")
