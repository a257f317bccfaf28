"""The table of what exists: found by pattern, told in JSON, without Keras."""

from __future__ import annotations

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
    assert card["input"] == [row.size, row.size, row.channels]
    assert row.min_size <= row.size
    assert card["paper"]
    assert (card["top1"] is None) == (not card["top1_source"]) == (not card["top1_data"])


@pytest.mark.parametrize("typed", ["resnet-8", "Resnet8", "resnet9"])
def test_a_misspelt_name_brings_the_nearest(typed):
    with pytest.raises(UsageError, match="resnet8"):
        registry.entry(typed)


def test_a_name_is_registered_once():
    taken = registry.list_models()[0]
    with pytest.raises(ValueError, match=taken):
        registry.model(taken, size=1)(print)


def test_listing_imports_no_framework():
    code = (
        "import sys, kzoo.registry as r; [r.entry(n).card() for n in r.list_models()];"
        "print([m for m in ('keras', 'tensorflow', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
