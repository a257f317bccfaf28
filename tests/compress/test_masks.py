"""Which weights become zero: exactly as many as asked, the smallest, in the shape asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.compress.masks import Masks, Pruning, masks
from kzoo.errors import BadInputError, UsageError

SHAPES = ((3, 3, 4, 8), (1, 1, 8, 12), (20, 10))


def drawn(seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.normal(0, 0.1 * (i + 1), shape) for i, shape in enumerate(SHAPES)]


def masked(kernels, pruning: Pruning, share: float | None = None) -> list[np.ndarray]:
    shapes = [(kernel.size // kernel.shape[-1], kernel.shape[-1]) for kernel in kernels]
    shares = [pruning.sparsity if share is None else share] * len(kernels)
    return masks(kernels, shapes, shares, pruning)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 0.999), seed=st.integers(0, 5))
def test_each_kernel_loses_its_share_to_the_weight_and_no_larger_one(share, seed):
    kernels = drawn(seed)
    for kernel, mask in zip(kernels, masked(kernels, Pruning(sparsity=share)), strict=True):
        assert (~mask).sum() == min(round(share * kernel.size), kernel.size - 1)
        gone, left = np.abs(kernel[~mask]), np.abs(kernel[mask])
        assert not len(gone) or gone.max() <= left.min()


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.99), seed=st.integers(0, 5))
def test_a_global_share_is_that_of_all_kernels_together(share, seed):
    kernels = drawn(seed)
    found = masked(kernels, Pruning(sparsity=share, scope="global"))
    values, mask = (np.concatenate([np.ravel(x) for x in each]) for each in (kernels, found))
    assert (~mask).sum() == round(share * values.size)
    assert not (~mask).any() or np.abs(values[~mask]).max() <= np.abs(values[mask]).min()
    # The first kernel's values are the smallest: it loses more than the last.
    if 0.2 < share < 0.8:
        assert (~found[0]).mean() > (~found[2]).mean()


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (1, 2), (3, 4)])
def test_n_of_m_leaves_the_n_largest_of_m_input_channels(kept, group):
    kernels = drawn(1)
    found = masked(kernels, Pruning(pattern=f"{kept}:{group}"))
    for kernel, mask in zip(kernels, found, strict=True):
        inputs_last = (np.moveaxis(x, -2, -1).reshape(-1, group) for x in (np.abs(kernel), mask))
        for values, left in zip(*inputs_last, strict=True):
            assert left.sum() == kept
            assert values[left].min() >= values[~left].max()


def test_n_of_m_spares_a_kernel_whose_input_channels_do_not_divide():
    (mask,) = masked([np.ones((3, 3, 3, 8))], Pruning(pattern="2:4"))
    assert mask.all()


@pytest.mark.parametrize("block", [(4, 1), (1, 4), (2, 2), (5, 3), (1000, 1000)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_block_is_whole_or_gone_and_as_many_go_as_fit_the_share(block, share):
    kernels = drawn(2)
    found = masked(kernels, Pruning(sparsity=share, pattern=f"{block[0]}x{block[1]}"))
    for kernel, mask in zip(kernels, found, strict=True):
        flat = mask.reshape(-1, kernel.shape[-1])
        parts = [
            flat[i : i + block[0], j : j + block[1]]
            for i in range(0, flat.shape[0], block[0])
            for j in range(0, flat.shape[1], block[1])
        ]
        assert all(part.all() or not part.any() for part in parts)
        gone = (~mask).sum()
        largest = max(part.size for part in parts)
        assert gone <= round(share * kernel.size) < gone + largest + 1


def test_filters_go_whole_the_weakest_first():
    kernels = drawn(3)
    for kernel, mask in zip(kernels, masked(kernels, Pruning(0.5, pattern="filter")), strict=True):
        channels = mask.reshape(-1, kernel.shape[-1])
        assert (channels.all(0) | ~channels.any(0)).all()
        strength = np.abs(kernel).reshape(-1, kernel.shape[-1]).mean(0)
        assert strength[~channels.any(0)].max() < strength[channels.all(0)].min()
        assert (~channels.any(0)).sum() == kernel.shape[-1] // 2


def test_the_schedule_is_cubic_between_its_ends():
    pruning = Pruning(begin=0.2, end=0.7)
    assert [pruning.progress(step, 100) for step in (0, 19)] == [0, 0]
    assert pruning.progress(45, 100) == pytest.approx(1 - 0.5**3)
    assert [pruning.progress(step, 100) for step in (70, 99)] == [1, 1]
    constant = Pruning(schedule="constant", begin=0.2)
    assert [constant.progress(step, 100) for step in (0, 19, 20, 99)] == [0, 0, 1, 1]
    assert Pruning(schedule="one_shot", begin=0.9, end=0.9).progress(0, 100) == 1


def test_a_threshold_is_in_standard_deviations_of_each_kernel(tiny):
    found = Masks(tiny(), Pruning(threshold=1.0))
    for kernel, share in zip(found.kernels, found.shares, strict=True):
        values = kernel.values
        assert share == (np.abs(values) < values.std()).mean()
        assert 0.2 < share < 0.9


def test_shares_by_prefix_take_the_longest_that_fits(tiny):
    found = Masks(tiny(), Pruning({"stage": 0.5, "stage2_1": 0.9}))
    assert dict(zip([k.name for k in found.kernels], found.shares, strict=True)) == {
        "stage1_1_conv": 0.5, "stage2_1_conv": 0.9, "head": 0.0,
    }  # fmt: skip


def test_depthwise_kernels_are_spared_unless_they_are_named():
    import keras

    image = keras.Input((8, 8, 4))
    x = keras.layers.DepthwiseConv2D(3, name="stage1_1_dw")(image)
    x = keras.layers.SeparableConv2D(4, 3, name="stage1_2_sep")(x)
    model = keras.Model(image, x)
    names = [kernel.name for kernel in Masks(model, Pruning()).kernels]
    assert names == ["stage1_2_sep/pointwise_kernel"]
    chosen = Masks(model, Pruning(include=["stage1_1"])).kernels
    assert [kernel.matrix_shape for kernel in chosen] == [(9, 4)]


def test_zeros_that_a_model_comes_with_stay(tiny):
    model = tiny()
    layer = model.get_layer("stage2_1_conv")
    kernel = np.array(layer.kernel)
    kernel[..., ::2] = 0
    layer.kernel.assign(kernel)
    found = Masks(model, Pruning(0.3))
    found.choose()
    after = np.array(layer.kernel)
    assert (after[..., ::2] == 0).all()
    assert (after == 0).mean() == 0.5
    assert (np.array(model.get_layer("head").kernel) == 0).mean() == pytest.approx(0.3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sparsity": 1.0}, {"sparsity": -0.1}, {"sparsity": "half"}, {"sparsity": {"head": 2}},
        {"threshold": 0}, {"scope": "network"}, {"pattern": "4:2"}, {"pattern": "0x4"},
        {"schedule": "cubic"}, {"begin": 0.8, "end": 0.5}, {"frequency": 0},
        {"scope": "global", "pattern": "2:4"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_argument_is_the_user_s_error(wrong):
    with pytest.raises(UsageError):
        Pruning(**wrong)


def test_a_prefix_that_fits_nothing_and_weights_that_are_no_numbers_are_refused(tiny):
    with pytest.raises(UsageError, match="did you mean head"):
        Masks(tiny(), Pruning(include=["haed"]))
    with pytest.raises(UsageError, match="stag7"):
        Masks(tiny(), Pruning({"stag7": 0.5}))
    with pytest.raises(UsageError, match="no kernel"):
        Masks(tiny(), Pruning(exclude=["stage", "head"]))
    model = tiny()
    model.get_layer("head").kernel.assign(np.full((16, 10), np.nan))
    with pytest.raises(BadInputError, match="not finite, in head"):
        Masks(model, Pruning())
