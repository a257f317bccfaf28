"""The laws of pruning: exact zeros, kept by training, in the file and its .tflite; exact resume."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kzoo
from kzoo.compress.masks import Masks
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.finetune import finetune
from kzoo.network.model_file import load_model

PHASES = [{"epochs": 2, "learning_rate": 3e-3, "batch_norm": "recalibrate"}]


def zeros(model) -> dict[str, int]:
    return {
        layer.name: int((np.array(layer.kernel) == 0).sum())
        for layer in model.layers
        if hasattr(layer, "kernel")
    }


@pytest.mark.parametrize(
    "optimizer",
    ["adam", {"name": "sgd", "momentum": 0.9}, {"name": "adam", "use_ema": True}],
    ids=str,
)
def test_zeros_are_exact_to_the_weight_whatever_the_optimizer(optimizer, tiny, few_digits):
    phases = [{**PHASES[0], "optimizer": optimizer}]
    found = kzoo.prune(tiny(), few_digits, sparsity=0.7, phases=phases, frequency=3)
    for row in found.kernels:
        assert row["zeros"] == round(0.7 * row["count"])
    assert zeros(found.training.model) == {row["name"]: row["zeros"] for row in found.kernels}
    assert found.sparsity == pytest.approx(0.7, abs=0.01)


def test_layers_at_different_rates_hold_their_zeros_too(tiny, few_digits):
    phases = [{**PHASES[0], "decay": 0.5}]
    found = kzoo.prune(tiny(), few_digits, sparsity=0.6, scope="global", phases=phases)
    gone, count = (sum(row[key] for row in found.kernels) for key in ("zeros", "count"))
    assert gone == round(0.6 * count)


def test_the_zeros_come_by_the_schedule(tiny, few_digits, monkeypatch):
    seen = []
    update = Masks.update

    def watched(self, step, total):
        update(self, step, total)
        seen.append(sum(int((k.values == 0).sum()) for k in self.kernels))

    monkeypatch.setattr(Masks, "update", watched)
    model = tiny()
    phases = [{"epochs": 4, "learning_rate": 1e-3}]
    kzoo.prune(model, few_digits, sparsity=0.8, phases=phases, frequency=1, begin=0.25, end=0.75)
    assert seen == sorted(seen)
    total, steps = sum(np.size(k.kernel) for k in model.layers if hasattr(k, "kernel")), len(seen)
    assert seen[: steps // 4] == [0] * (steps // 4)
    assert 0.6 < seen[steps // 2] / (0.8 * total) < 0.95  # 1 - 0.5**3 and rounding
    assert seen[3 * steps // 4 + 1 :] == [seen[-1]] * (steps - 3 * steps // 4 - 1)


def test_the_file_and_its_lite_file_have_the_zeros(small, few_digits, tmp_path):
    pytest.importorskip("tensorflow")
    output = tmp_path / "sparse.keras"
    found = kzoo.prune(small, few_digits, sparsity=0.75, phases=PHASES, output=output)
    assert zeros(load_model(output)) == {row["name"]: row["zeros"] for row in found.kernels}
    lite = tmp_path / "sparse.tflite"
    int8 = tmp_path / "sparse_int8.tflite"
    kzoo.convert(output, lite)
    kzoo.quantize(output, int8, calibrate=few_digits)
    wanted = sorted(row["zeros"] for row in found.kernels)
    assert sorted(_kernel_zeros(lite)) == wanted
    # Symmetric weights: a zero stays one, and what rounds to zero joins it.
    assert all(a >= b for a, b in zip(sorted(_kernel_zeros(int8)), wanted, strict=True))


def _kernel_zeros(path) -> list[int]:
    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(path.read_bytes(), str(path))
    graph, found = model.subgraphs[0], []
    for operator in graph.operators:
        if flatbuffer.operator(model, operator) in ("CONV_2D", "FULLY_CONNECTED"):
            tensor = graph.tensors[operator.inputs[1]]
            kind = {0: np.float32, 9: np.int8}[tensor.type]
            raw = bytes(model.buffers[tensor.buffer].data)
            found.append(int((np.frombuffer(raw, kind) == 0).sum()))
    return found


def test_a_stopped_pruning_resumes_with_its_masks_and_schedule(small, few_digits, tmp_path):
    options = {"sparsity": 0.8, "frequency": 2, "phases": [{"epochs": 3, "learning_rate": 3e-3}]}
    whole = kzoo.prune(small, few_digits, **options, output=tmp_path / "whole.keras")
    for step in (1, 4, 11):  # before, in and after the schedule; the second run resumes the first

        def stop(task, done, _, step=step):
            if task.startswith("train") and done == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            kzoo.prune(
                small, few_digits, **options, output=tmp_path / "stopped.keras",
                checkpoint_seconds=0.0, progress=stop,
            )  # fmt: skip
    again = kzoo.prune(
        small, few_digits, **options, output=tmp_path / "stopped.keras", checkpoint_seconds=0.0
    )
    for a, b in zip(
        whole.training.model.get_weights(), again.training.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.glob("*.checkpoints"))


def test_a_file_teaches_its_own_pruned_self(small, few_digits):
    found = kzoo.prune(small, few_digits, sparsity=0.5, teacher=small, phases=PHASES)
    assert found.training.teacher.log_loss == pytest.approx(found.before.log_loss, rel=1e-4)
    assert found.sparsity == pytest.approx(0.5, abs=0.01)


def test_kept_zeros_stay_while_the_rest_is_trained(small, few_digits):
    model = kzoo.prune(small, few_digits, sparsity=0.6, phases=PHASES).training.model
    before = {layer.name: np.array(layer.kernel) for layer in model.layers if layer.weights}
    found = finetune(model, few_digits, phases=PHASES, projection=lambda m: Masks(m, None))
    for layer in found.model.layers:
        if layer.weights:
            np.testing.assert_array_equal(np.array(layer.kernel) == 0, before[layer.name] == 0)
            assert (np.array(layer.kernel) != before[layer.name]).any()
            assert layer.kernel.constraint is None
    free = finetune(model, few_digits, phases=PHASES)
    # A weight behind a dead unit has no gradient and does not move.
    assert sum(zeros(free.model).values()) < 0.7 * sum(
        (each == 0).sum() for each in before.values()
    )


def test_a_ticket_is_the_trained_network_s_choice_with_early_weights(small, few_digits, tiny):
    early = load_model(small)
    for layer in early.layers:
        if layer.weights:
            layer.kernel.assign(np.array(layer.kernel) + 1.0)
    trained = load_model(small)
    found = kzoo.prune(
        trained, few_digits, sparsity=0.5, rewind=early,
        phases=[{"epochs": 1, "learning_rate": 1e-9, "schedule": "constant"}],
    )  # fmt: skip
    for layer in load_model(small).layers:
        if layer.weights:
            own = np.array(layer.kernel)
            now = np.array(found.training.model.get_layer(layer.name).kernel)
            gone = np.abs(own) <= np.sort(np.abs(own).ravel())[round(0.5 * own.size) - 1]
            np.testing.assert_array_equal(now == 0, gone)
            np.testing.assert_allclose(now[~gone], own[~gone] + 1.0, atol=1e-5)
    with pytest.raises(BadInputError, match="other shapes"):
        kzoo.prune(small, few_digits, rewind=tiny())
    with pytest.raises(UsageError, match="earlier state"):
        kzoo.prune(small, few_digits, rewind=small)


def test_a_teacher_teaches_what_is_pruned(small, few_digits):
    student = load_model(small)
    found = kzoo.prune(student, few_digits, sparsity=0.5, teacher=small, phases=PHASES)
    assert {"hard", "soft"} <= set(found.training.history[-1])
    assert all(row["zeros"] == round(0.5 * row["count"]) for row in found.kernels)


def test_the_record_is_json_with_both_evaluations(small, few_digits):
    found = kzoo.prune(small, few_digits, phases=PHASES)
    record = json.loads(json.dumps(found.to_dict()))
    assert record["before"]["count"] == record["evaluation"]["count"]
    assert record["recipe"]["projection"]["masks"]["sparsity"] == 0.8
    assert 0 < record["sparsity"] < 0.81
