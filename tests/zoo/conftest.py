"""Which networks the laws are asked of: see `pytest_generate_tests`."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kzoo.registry import entry, list_models, pair

THIN = {
    "convnext": {"depths": (1, 1, 1, 1)},
    "densenet": {"depths": (1, 2, 1, 1)},
    "densenet_cifar": {"depth": 10},
    "efficientnet": {"depth": 0.1},
    "efficientnet_lite": {"depth": 0.1},
    "efficientnet_v2": {"depth": 0.1},
    "mobileone": {"blocks": (1, 1, 2, 1), "k": 2},
    "repvgg": {"blocks": (1, 1, 2, 1)},
    "resnet": {"depths": (1, 1, 2, 1)},
    "resnet_v2": {"depths": (1, 1, 2, 1)},
}
"""Builder → arguments that give a shallow network of the same parts."""

DEEP = {
    "bn_inception", "inception_resnet_v2", "inception_v3", "nasnet_mobile", "regnet_y_400mf",
}  # fmt: skip
"""Names with hundreds of layers that no argument makes fewer: slow."""


@dataclass(frozen=True)
class Case:
    """A name, arguments of its builder, and a size that is no multiple of 32 or of any stride."""

    name: str
    variant: dict = field(default_factory=dict)

    @property
    def odd_size(self) -> tuple[int, int]:
        height, width = pair(entry(self.name).min_size)
        return height + 3, width + 9


def cases(fast: set[str] | None) -> list:
    smallest = {entry(n).builder: n for n in sorted(list_models(), key=lambda n: -entry(n).macs)}
    fast = set(smallest.values()) - DEEP if fast is None else fast
    found = []
    for name in list_models():
        builder = entry(name).builder
        thin = THIN.get(builder.__name__, {})
        marks = [] if name in fast else [pytest.mark.slow]
        if thin and name == smallest[builder]:
            found.append(pytest.param(Case(name, thin), id=f"{name}-shallow", marks=marks))
            marks = [pytest.mark.slow]
        found.append(pytest.param(Case(name), id=name, marks=marks))
    return found


def pytest_generate_tests(metafunc):
    """A test that takes ``case`` is run for the smallest name of every builder, shallow where its
    arguments allow, and under the ``slow`` mark for every name as it is, and for `DEEP` ones. A
    module that costs more names in ``FAST`` those that are not slow."""
    if "case" in metafunc.fixturenames:
        fast = getattr(metafunc.module, "FAST", None)
        metafunc.parametrize("case", cases(fast), scope="module")
