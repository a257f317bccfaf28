"""The formulas of distillation, each against NumPy, Keras' own or a fact from its paper."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kzoo.learn.evaluate import softmax
from kzoo.learn.knowledge import MOMENTUM, attention, average_logits, flow, softened


def moved(loss, student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """The gradient of a loss by the logits (classes,): a step of rate 1, of a model of a bias."""
    image = keras.Input((1,))
    layer = keras.layers.Dense(len(student), kernel_initializer="zeros")
    model = keras.Model(image, layer(image))
    layer.bias.assign(student)
    model.compile(keras.optimizers.SGD(1.0), loss)
    model.train_on_batch(np.zeros((1, 1), np.float32), np.float32(teacher)[None])
    return student - np.asarray(layer.bias)


LOGITS = np.random.default_rng(0).normal(0, 3, (2, 6, 10))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_the_soft_loss_is_hintons_formula_and_keras_own(temperature):
    student, teacher = LOGITS
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1)
    found = np.asarray(softened(temperature)(np.float32(teacher), np.float32(student)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    # As a string, which is its default, Keras 3.15 takes the divergence of the logits themselves.
    divergence = keras.losses.KLDivergence()
    keras_own = keras.distillation.LogitsDistillation(temperature=temperature, loss=divergence)
    kerass = keras_own.compute_loss(
        *(keras.ops.convert_to_tensor(z, "float32") for z in (teacher, student))
    )
    assert float(kerass) == pytest.approx(found.mean(), rel=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 5.0, 100.0])
def test_the_gradient_keeps_its_size_at_any_temperature(temperature):
    student, teacher = LOGITS[0, 0], LOGITS[1, 0]
    p, q = softmax(np.stack([teacher, student]) / temperature)
    found = moved(softened(temperature), student, teacher)
    np.testing.assert_allclose(found, temperature * (q - p), atol=2e-4)
    if temperature == 100.0:  # Hinton et al. 2015, equation 4: the logits, centred, are matched
        wanted = (student - student.mean() - teacher + teacher.mean()) / len(student)
        np.testing.assert_allclose(found, wanted, atol=0.05 * np.abs(wanted).max())


MAPS = np.random.default_rng(1).normal(size=(3, 8, 8, 5)).astype(np.float32)


def test_attention_has_a_mean_square_of_one_and_knows_no_scale():
    found = np.asarray(attention(keras.ops.convert_to_tensor(MAPS), (8, 8)))
    scaled = np.asarray(attention(keras.ops.convert_to_tensor(-7 * MAPS), (8, 8)))
    np.testing.assert_allclose(found, scaled, rtol=1e-4)
    np.testing.assert_allclose((found**2).mean(axis=1), 1, rtol=1e-5)
    energy = (MAPS**2).sum(axis=-1).reshape(3, -1)
    np.testing.assert_allclose(
        found, 8 * energy / np.linalg.norm(energy, axis=1, keepdims=True), rtol=1e-4
    )
    assert np.asarray(attention(keras.ops.convert_to_tensor(MAPS), (4, 4))).shape == (3, 16)


def test_flow_is_the_mean_product_of_channels():
    x, y = (keras.ops.convert_to_tensor(each) for each in (MAPS, MAPS[..., :3] + 1))
    found = np.asarray(flow(x, y))
    wanted = np.einsum("nhwa,nhwb->nab", MAPS, MAPS[..., :3] + 1) / 64
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(flow(y, x)), found.transpose(0, 2, 1), atol=1e-5)
    own = np.asarray(flow(x, x))
    np.testing.assert_allclose(own, own.transpose(0, 2, 1), atol=1e-5)
    assert np.linalg.eigvalsh(own).min() > 0
    pooled = MAPS.reshape(3, 4, 2, 4, 2, 5).mean(axis=(2, 4))
    small = keras.ops.convert_to_tensor(pooled)
    np.testing.assert_allclose(
        np.asarray(flow(x, small)), np.asarray(flow(small, small)), atol=1e-5
    )


def test_the_average_is_the_mean_of_the_weights_so_far(tiny):
    student = tiny()
    model = keras.Model(student.inputs[0], average_logits(student))
    assert len(model.trainable_variables) == len(student.trainable_variables)
    average = model.get_layer("average")
    model.compile(keras.optimizers.SGD(0.5), lambda _, both: (both[:, 0] - 1) ** 2)
    kernel, seen = student.get_layer("head").kernel, []
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 1)).astype(np.float32)
    for _ in range(5):
        seen.append(np.array(kernel))
        model.train_on_batch(images, np.zeros((8, 10), np.float32))
    (mean,) = [v for v in average.network.weights if v.path.endswith("head/kernel")]
    np.testing.assert_allclose(np.asarray(mean), np.mean(seen, axis=0), rtol=1e-4, atol=1e-6)
    average.steps.assign(1e6)
    before, now = np.array(mean), np.array(kernel)
    model.train_on_batch(images, np.zeros((8, 10), np.float32))
    np.testing.assert_allclose(mean, MOMENTUM * before + (1 - MOMENTUM) * now, rtol=1e-4, atol=1e-6)
    assert not np.allclose(now, before)
