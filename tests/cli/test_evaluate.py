"""`kzoo evaluate` and the end of `kzoo finetune` on a terminal, and the page with the mistakes."""

from __future__ import annotations

import base64
import inspect
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.cli import cli
from kzoo.errors import UsageError
from kzoo.learn.finetune import finetune
from kzoo.learn.rate_finder import RateTest
from kzoo.network.model_file import save_model


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """A trained network, photos of one colour each, and what is to be kept."""
    folder = tmp_path_factory.mktemp("evaluate")
    shutil.copy(trained, folder / "good.keras")
    save_model(kzoo.build("lenet5", classes=2, seed=0), folder / "two.keras")
    (folder / "kept.html").write_text("of great worth")
    for name, first in (("dark", 0), ("light", 128)):
        (folder / "colours" / name).mkdir(parents=True)
        for i in range(20):
            colour = (first + 6 * i, first + 3 * i, first)
            Image.new("RGB", (40, 30), colour).save(folder / "colours" / name / f"{i:02}.png")
    return folder


@pytest.fixture
def command(place, monkeypatch, capfd):
    """command(*arguments) -> what is printed to stdout."""
    monkeypatch.chdir(place)

    def run(*arguments: str) -> str:
        capfd.readouterr()
        cli(list(arguments), standalone_mode=False)
        return capfd.readouterr().out

    return run


def figures(printed: str) -> dict[str, str]:
    names = ("accuracy", "top-5", "log-loss", "ECE", "macro-F1")
    lines = (line.split(maxsplit=1) for line in printed.splitlines() if line)
    return {name: value for name, *(value,) in lines if name in names}


def test_the_page_shows_the_images_of_the_mistakes_that_are_printed(command, place, digits):
    record = json.loads(command("evaluate", "good.keras", "digits", "-o", "page.html", "--json"))
    assert record["output"] == "page.html"
    page = (place / "page.html").read_text()
    assert f"of {record['evaluation']['count']} test images are right" in page
    found = re.findall(r'<img src="data:image/png;base64,([^"]*)"', page)
    _, _, *tiles = (np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found)
    assert len(tiles) == len(record["mistakes"]) > 0
    for tile, row in zip(tiles, record["mistakes"], strict=True):
        assert np.array_equal(tile, digits.images[digits.paths.index(row["path"]), ..., 0])
        assert row["path"] in page


def test_a_page_that_is_there_is_kept_unless_forced(command, place):
    with pytest.raises(UsageError, match=r"kept\.html.*--force"):
        command("evaluate", "good.keras", "digits", "-o", "kept.html")
    assert (place / "kept.html").read_text() == "of great worth"
    printed = command("evaluate", "good.keras", "digits", "-o", "kept.html", "--force")
    assert printed.splitlines()[-1].split() == ["written", "kept.html"]
    assert "good.keras on digits" in (place / "kept.html").read_text()
    with pytest.raises(UsageError, match=r"written as \.html; 'good\.keras'"):
        command("evaluate", "good.keras", "digits", "-o", "good.keras", "--force")


def test_what_a_training_prints_in_the_end_is_what_evaluate_prints_of_its_file(command):
    trained = command("finetune", "good.keras", "digits", "-o", "more.keras", "--epochs", "1")
    judged = command("evaluate", "more.keras", "digits")
    assert len(figures(trained)) == 5
    assert figures(trained) == figures(judged)


def test_a_rate_to_train_with_is_drawn_and_told(command, place):
    arguments = ["finetune", "good.keras", "digits", "-o", "rate.keras", "--find-lr"]
    printed = command(*arguments, "--label-smoothing", "0.1")
    rate = float(re.search(r"^steepest +(\S+) ", printed, re.MULTILINE)[1])
    assert 1e-6 < rate < 1
    assert f"the same command with --lr {rate:.1g} in place of --find-lr" in printed
    with Image.open(place / "rate.keras.lr.png") as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1 << 20)) > 20
    assert not (place / "rate.keras").exists()


def test_a_rate_is_found_with_the_options_of_the_training(command, monkeypatch):
    asked = {}

    def find_learning_rate(model, data, **options):
        asked.update(options, model=model, data=data)
        return RateTest([1e-3, 3e-3, 1e-2], [2.0, 1.0, 1.5], [2.0, 1.5, 1.5], 1e-3, 3e-3)

    monkeypatch.setattr("kzoo.learn.rate_finder.find_learning_rate", find_learning_rate)
    given = {
        "batch_size": 16,
        "class_weights": "balanced",
        "label_smoothing": 0.5,
        "auxiliary_weight": 0.4,
        "precision": "mixed_bfloat16",
        "seed": 3,
    }
    typed = [text for name, value in given.items()
             for text in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
    typed += ["--augment", "light", "--phase", "epochs: 3", "--phase", "optimizer: sgd"]
    arguments = ["finetune", "two.keras", "colours", "-o", "asked.keras", "--find-lr"]
    printed = command(*arguments, *typed)
    assert "with learning_rate: 0.001 in the last phase in place of --find-lr" in printed
    assert {name: asked[name] for name in given} == given
    assert asked["phase"].optimizer == "sgd"
    # All of them but those that are about epochs.
    known = set(inspect.signature(finetune).parameters) & set(asked)
    left = {"monitor", "early_stopping", "checkpoint_seconds", "logs", "distributed", "engine"}
    assert set(inspect.signature(finetune).parameters) - known == left | {
        "phases", "output", "force", "projection",
    }  # fmt: skip


def test_photos_of_one_colour_are_noted_and_give_finite_figures(command, place):
    told = command("data", "colours", "--size", "32", "--channels", "1")
    note = "all its pixels are of one colour, and those of 39 more images"
    assert f"note: dark/00.png: {note}" in told
    command("finetune", "two.keras", "colours", "-o", "seen.keras", "--epochs", "1")
    printed = command("evaluate", "seen.keras", "colours", "-o", "seen.html", "--json")
    found = json.loads(printed)["evaluation"]
    values = [found[name] for name in ("accuracy", "log_loss", "ece", "macro_f1")]
    assert all(map(math.isfinite, [*values, *found["interval"]]))
    assert "NaN" not in printed
    assert "of 6 test images are right" in (place / "seen.html").read_text()
