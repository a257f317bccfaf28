"""The table of what exists: found by pattern, told in JSON, without Keras."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from kzoo import registry
from kzoo.errors import UsageError


def test_names_are_sorted_and_found_by_pattern():
    names = registry.list_models()
    assert names == sorted(names)
    assert {"lenet5", "mobilenet_v2", "resnet8", "resnet20"} <= set(names)
    assert registry.list_models("resnet*") == [n for n in names if n.startswith("resnet")]
    assert registry.list_models("no-such-*") == []


@pytest.mark.parametrize("name", registry.list_models())
def test_the_card_is_json_and_holds_the_row(name):
    row, card = registry.entry(name), registry.entry(name).card()
    assert json.loads(json.dumps(card)) == card
    assert card["params"] == row.params <= card["total_params"]
    assert card["input"] == [*registry.pair(row.size), row.channels]
    assert all(map(int.__le__, registry.pair(row.min_size), registry.pair(row.size)))
    assert row.year is None or 1950 < row.year < 2030
    assert card["paper"]
    assert (card["top1"] is None) == (not card["top1_source"]) == (not card["top1_data"])


LAWS = {
    "task": ({"task": "image classification"}, lambda row: row.task == "image classification"),
    "family": ({"family": "resnet_cifar"}, lambda row: row.family == "resnet_cifar"),
    "max_params": ({"max_params": 3e6}, lambda row: row.params <= 3e6),
    "max_gmacs": ({"max_gmacs": 0.1}, lambda row: row.macs <= 100_000_000),
    "min_top1": (
        {"min_top1": 70},
        lambda row: row.top1_data == "ImageNet-1k" and row.top1 >= 70,
    ),
    "two": (
        {"pattern": "mobilenet*", "max_params": 3e6},
        lambda row: row.name.startswith("mobilenet") and row.params <= 3e6,
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_a_filter_leaves_exactly_those_for_which_it_holds(law):
    asked, holds = LAWS[law]
    every = registry.list_models()
    found = registry.list_models(**asked)
    assert found == [name for name in every if holds(registry.entry(name))]
    assert found
    assert registry.why_none(**asked) == ""


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("params", lambda row: row.params),
        ("gmacs", lambda row: row.macs),
        ("size", lambda row: row.input[0] * row.input[1]),
        ("top1", lambda row: -row.top1 if row.top1_data == "ImageNet-1k" else 0),
    ],
)
def test_sorts_keep_all_and_order_them(sort, key):
    found = registry.list_models(sort=sort)
    assert sorted(found) == registry.list_models()
    assert found == sorted(found, key=lambda name: (key(registry.entry(name)), name))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"pattern": "resnet_8"}, "no architecture matches 'resnet_8'; did you mean resnet8"),
        ({"max_params": 1}, "no architecture has at most 1 parameters; the smallest, "),
        ({"max_gmacs": 1e-9}, "has at most 1e-09 GMACs; the one with the fewest, "),
        ({"min_top1": 99}, "has a top-1 of at least 99 % on ImageNet-1k; the best, "),
        ({"family": "lenet", "min_top1": 50}, "is of the family lenet has a top-1"),
        (
            {"pattern": "lenet5", "family": "lenet", "max_params": 1e4},
            "no architecture that matches 'lenet5' and is of the family lenet has at most 10,000 "
            "parameters; the smallest, lenet5, has 61,706",
        ),
    ],
)
def test_where_nothing_is_left_the_filter_that_left_nothing_is_told(asked, said):
    assert registry.list_models(**asked) == []
    assert said in registry.why_none(**asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"task": "image clasification"}, "did you mean image classification"),
        ({"family": "resnet-cifar"}, "did you mean resnet_cifar"),
        ({"sort": "param"}, "did you mean params"),
        ({"min_top1": 0.7}, "in percent, such as 70"),
        ({"max_params": float("nan")}, "a finite number of at least 0; nan was given"),
        ({"max_gmacs": -1}, "max_gmacs is .* -1 was given"),
        ({"min_top1": float("inf")}, "min_top1 is .* inf was given"),
    ],
)
def test_a_filter_that_cannot_hold_is_refused(asked, said):
    with pytest.raises(UsageError, match=said):
        registry.list_models(**asked)


def test_the_filter_of_weights_keeps_those_that_have_some():
    rows = [registry.entry(name) for name in registry.list_models()]
    found = registry.list_models(weights=True)
    assert found == [row.name for row in rows if row.weights]
    assert 0 < len(found) < len(rows)
    assert registry.why_none(pattern="mlp", weights=True).endswith("has pretrained weights")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mobilenet_v2", {"alpha": 0.5}),
        ("mobilenet_v2", {"alpha": 1}),
        ("mlp", {"depth": 3}),
        ("mlp", {"depth": 0}),  # the perceptron's
        ("efficientnet_b0", {"dropout": 0}),
        ("alexnet", {"pad": 0}),  # the other row's
    ],
)
def test_arguments_of_the_rows_kind_are_taken(name, given):
    assert registry.entry(name).typed_arguments(given) == given


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("mobilenet_v2", {"alfa": 0.5}, "it takes alpha; did you mean alpha"),
        ("mobilenet_v2", {"alpha": "wide"}, "is a number, such as 1.0; 'wide' was given"),
        ("mobilenet_v2", {"alpha": True}, "is a number"),
        ("mlp", {"depth": 2.5}, "is a whole number, such as 2"),
        ("resnet20", {"bias": 3}, "is true or false, such as false"),
        ("resnet8", {"shortcut": "option_a"}, "the function option_b, which cannot be typed"),
        ("lenet5", {"alpha": 1.0}, "argument alpha; it takes pool .in Python also filters"),
        ("resnet50v2", {"alpha": 1.0}, "it takes depths, in Python alone"),
        ("lenet_300_100", {"alpha": 1.0}, "it takes none"),
        ("mobilenet_v2", {"alpha": 0}, "alpha of mobilenet_v2 is above 0; 0 was given"),
        ("mobilenet_v2", {"alpha": float("nan")}, "is above 0; nan was given"),
        ("mlp", {"depth": -3}, "depth of mlp is at least 0; -3 was given"),
        ("efficientnet_b0", {"dropout": 1}, "is at least 0 and below 1; 1 was given"),
    ],
)
def test_other_arguments_are_refused(name, given, said):
    with pytest.raises(UsageError, match=said):
        registry.entry(name).typed_arguments(given)


@pytest.mark.parametrize("name", registry.list_models())
def test_what_the_row_has_is_taken(name):
    row = registry.entry(name)
    row.check_arguments(row.variant)
    typed = {key: row.variant[key] for key in row.typable()}
    assert row.typed_arguments(typed) == typed


def test_the_year_is_the_papers_and_no_part_of_its_number():
    def year(paper: str) -> int | None:
        return dataclasses.replace(registry.entry("lenet5"), paper=paper).year

    assert year("Howard et al. 2019 (arXiv:1905.02244), table 1") == 2019
    assert year("arXiv:1905.02244") is None
    assert year("LeCun et al. 1998, section II.B") == 1998


@pytest.mark.parametrize("typed", ["resnet-8", "Resnet8", "resnet9"])
def test_a_misspelt_name_brings_the_nearest(typed):
    with pytest.raises(UsageError, match="resnet8"):
        registry.entry(typed)


def test_a_name_is_registered_once():
    taken = registry.list_models()[0]
    with pytest.raises(ValueError, match=taken):
        registry.model(taken, 1, 1, 1)(print)


def test_listing_imports_no_framework():
    code = (
        "import sys, kzoo.registry as r; [r.entry(n).card() for n in r.list_models()];"
        "print([m for m in ('keras', 'tensorflow', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
