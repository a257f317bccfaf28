"""Variants of images: the same for both networks, made once, every image in each."""

from __future__ import annotations

import numpy as np
import pytest

from kzoo.learn.variants import decoded_at, variants


@pytest.mark.parametrize("mixed", [False, True])
def test_both_networks_see_the_same_variants_at_their_own_size(few_digits, mixed, empty_cache):
    photos = {(16, 16): few_digits, (32, 32): decoded_at(few_digits, (32, 32))}
    layers = ["random_flip", {"name": "random_translation", "height_factor": 0.2,
              "width_factor": 0.2}, *["mix_up"] * mixed]  # fmt: skip
    found = variants(photos, layers, 3)
    small, large = (found.images[size].astype(float) for size in ((16, 16), (32, 32)))
    train = few_digits.splits["train"]
    assert (len(small), len(large), len(found.labels)) == (3 * len(train),) * 3
    halved = large.reshape(-1, 16, 2, 16, 2, 1).mean(axis=(2, 4))
    for one, other in zip(small, halved, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
    np.testing.assert_allclose(found.labels.sum(axis=1), 1, rtol=1e-5)
    own = few_digits.labels[train]
    for epoch in range(4):
        rows = found.rows(train, epoch)
        assert np.array_equal(rows, epoch % 3 * len(train) + np.arange(len(train)))
        by_image = found.labels[found.places[epoch % 3][train]]
        if not mixed:
            assert np.array_equal(by_image.argmax(axis=1), own)
    assert (found.labels.max(axis=1) < 0.999).any() == mixed
    assert not np.array_equal(*small[found.places[:2, train[0]]])
    before = sorted(empty_cache.rglob("*.npy"))
    again = variants(photos, layers, 3)
    assert sorted(empty_cache.rglob("*.npy")) == before
    assert again.identities == found.identities
    assert variants(photos, layers, 2).identities != found.identities
