"""The laws of weight sharing: few values, those that k-means finds, trained, kept in the file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kzoo
from kzoo.compress.clusters import INITS, Clustering, Clusters, kmeans, labels
from kzoo.errors import UsageError
from kzoo.network.model_file import load_model

PHASES = [{"epochs": 2, "learning_rate": 1e-3}]


@settings(max_examples=40, deadline=None)
@given(
    clusters=st.integers(2, 20), seed=st.integers(0, 100), init=st.sampled_from(INITS),
    size=st.integers(1, 400),
)  # fmt: skip
def test_k_means_ends_where_every_centroid_is_the_mean_of_its_nearest(clusters, seed, init, size):
    values = np.random.default_rng(seed).normal(size=size).round(2)
    centroids = kmeans(values, clusters, init, seed)
    assert len(centroids) <= clusters
    assert (np.diff(centroids) > 0).all()
    nearest = np.abs(values[:, None] - centroids).argmin(axis=1)
    for i, centroid in enumerate(centroids):
        ties = np.abs(np.abs(values - centroid) - np.abs(values[:, None] - centroids).min(1)) < 1e-9
        mine = values[nearest == i]
        if (ties == (nearest == i)).all():
            assert centroid == pytest.approx(mine.mean())


def test_k_means_of_groups_far_apart_finds_them():
    values = np.concatenate([np.full(7, -3.0), np.full(2, 0.5), np.full(90, 10.0)])
    for init in INITS:
        assert set(kmeans(values, 3, init, 0)) == {-3.0, 0.5, 10.0}


@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("keep_zeros", [True, False])
def test_labels_are_as_few_as_asked_and_zeros_are_apart(per, keep_zeros):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 6)).astype(np.float32)
    kernel[np.abs(kernel) < 0.5] = 0
    found = labels(kernel, 6, Clustering(5, per=per, keep_zeros=keep_zeros), 0)
    assert found.shape == kernel.shape
    assert ((found == -1) == (kernel == 0)).all() or not keep_zeros
    if per == "tensor":
        assert len(np.unique(found)) == 5
        return
    columns = [set(found[..., i].ravel()) for i in range(6)]
    assert all(len(column) == 5 for column in columns)
    own = [column - {-1} for column in columns]
    assert len(set.union(*own)) == sum(map(len, own))


def test_a_step_is_the_mean_of_each_cluster_s_updates(tiny):
    """Of plain gradient descent: a centroid moves by the rate times its gradients' mean."""
    import keras

    model = tiny()
    held = Clusters(model, Clustering(4), 0)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[np.arange(8)]
    free = keras.models.clone_model(model)
    free.set_weights(model.get_weights())
    for each in (free, model):
        each.compile(keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(True))
        each.optimizer.build(each.trainable_variables)
    start = model.get_layer("stage2_1_conv").kernel.numpy()
    with held.attached(model.optimizer):
        model.train_on_batch(images, targets)
    free.train_on_batch(images, targets)
    update = free.get_layer("stage2_1_conv").kernel.numpy() - start
    moved = model.get_layer("stage2_1_conv").kernel.numpy() - start
    own = held.labels[1]
    assert np.abs(update).max() > 1e-3
    for label in np.unique(own):
        np.testing.assert_allclose(moved[own == label], update[own == label].mean(), atol=1e-6)


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_the_values_are_few_in_the_file_and_in_its_lite_file(per, tiny, few_digits, tmp_path):
    pytest.importorskip("tensorflow")
    from kzoo.lite import flatbuffer

    output, lite = tmp_path / "shared.keras", tmp_path / "shared.tflite"
    found = kzoo.cluster(tiny(), few_digits, clusters=6, per=per, phases=PHASES, output=output)
    most = {row["name"]: 6 * (row["shape"][-1] if per == "channel" else 1) for row in found.kernels}
    assert all(row["values"] <= most[row["name"]] for row in found.kernels)
    kernels = [each.kernel.numpy() for each in load_model(output).layers if hasattr(each, "kernel")]
    assert [len(np.unique(kernel)) for kernel in kernels] == [r["values"] for r in found.kernels]
    kzoo.convert(output, lite)
    model = flatbuffer.parse(lite.read_bytes(), str(lite))
    graph, counts = model.subgraphs[0], []
    for operator in graph.operators:
        if flatbuffer.operator(model, operator) in ("CONV_2D", "FULLY_CONNECTED"):
            raw = bytes(model.buffers[graph.tensors[operator.inputs[1]].buffer].data)
            counts.append(len(np.unique(np.frombuffer(raw, np.float32))))
    assert counts == [row["values"] for row in found.kernels]


def test_what_was_pruned_stays_pruned(tiny, few_digits, tmp_path):
    sparse = tmp_path / "sparse.keras"
    pruned = kzoo.prune(tiny(), few_digits, sparsity=0.7, phases=PHASES, output=sparse)
    found = kzoo.cluster(sparse, few_digits, clusters=8, phases=PHASES)
    for before, after in zip(pruned.kernels, found.kernels, strict=True):
        assert after["zeros"] == before["zeros"]
        assert after["values"] <= 8
    assert found.coded_bytes < pruned.coded_bytes


def test_a_stopped_clustering_resumes_with_its_centroids(tiny, few_digits, tmp_path):
    start = tmp_path / "start.keras"
    kzoo.prune(tiny(), few_digits, sparsity=0.5, phases=PHASES, output=start)
    options = {"clusters": 5, "phases": PHASES, "checkpoint_seconds": 0.0}
    whole = kzoo.cluster(start, few_digits, **options, output=tmp_path / "whole.keras")

    def stop(task, done, _):
        if task.startswith("train") and done == 4:
            raise KeyboardInterrupt

    stopped = tmp_path / "stopped.keras"
    with pytest.raises(KeyboardInterrupt):
        kzoo.cluster(start, few_digits, **options, output=stopped, progress=stop)
    again = kzoo.cluster(start, few_digits, **options, output=stopped)
    for a, b in zip(
        whole.training.model.get_weights(), again.training.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wrong", [{"clusters": 1}, {"clusters": 2.5}, {"init": "random"}], ids=str)
def test_a_wrong_argument_is_the_user_s_error(wrong, tiny, few_digits):
    with pytest.raises(UsageError):
        kzoo.cluster(tiny(), few_digits, **wrong)
