"""What a student is asked to match: names, widths, units, weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kzoo.learn.lessons import make_lessons
from kzoo.learn.variants import variants

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_an_output_of_zeros_costs_one(few_digits, tiny, plain):
    seen = variants({(16, 16): few_digits}, [], 1)
    lessons = make_lessons(
        tiny(),
        plain(),
        seen,
        losses=dict.fromkeys(("hint", "fsp", "mimic"), 1.0),
        cuts=["stage1", "stage2"],
    )
    train = few_digits.splits["train"]
    assert lessons.terms["hint"] == ["hint_stage1", "hint_stage2"]
    assert lessons.weights["hint_stage1"] == 0.5
    for name, loss in lessons.losses.items():
        target = np.asarray(lessons.targets[name][train])
        assert float(np.mean(loss(target, np.zeros_like(target)))) == pytest.approx(1), name


def test_every_pair_of_stages_flows(few_digits, plain):
    three = (4, 6, 8)
    lessons = make_lessons(
        plain(three, size=16),
        plain((8, 6, 4), size=16),
        variants({(16, 16): few_digits}, [], 1),
        losses={"fsp": 1.0},
        cuts=["stage1", "stage2", "stage3"],
    )
    assert [*lessons.losses] == ["fsp_stage1_stage2", "fsp_stage2_stage3"]
    names = [layer.name for layer in lessons.model.layers if "adapter" in layer.name]
    assert sorted(names) == ["fsp_stage1_adapter", "fsp_stage3_adapter"]  # widths of 6 are equal
    shapes = {name: array.shape[1:] for name, array in lessons.targets.items()}
    assert shapes == {"fsp_stage1_stage2": (8, 6), "fsp_stage2_stage3": (6, 4)}
    assert all(lessons.model.output[name].shape[1:] == shape for name, shape in shapes.items())
    assert set(itertools.chain(*lessons.terms.values())) == set(lessons.losses)
