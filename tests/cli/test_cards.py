"""`list`, `info` and `compare` for people: what stands where, in the room there is."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import click
import pytest
from click.testing import CliRunner

from kzoo.cli import cli, terminal
from kzoo.errors import UsageError
from kzoo.registry import entry, list_models
from kzoo.report.table import scaled


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("5e6", 5e6), ("5M", 5e6), ("5_000_000", 5e6), ("5,000,000", 5e6), ("1.5k", 1500),
        ("2G", 2e9), ("7850", 7850),
    ],
)  # fmt: skip
def test_counts_are_read_as_people_write_them(typed, count):
    assert terminal.Count().convert(typed, None, None) == count


@pytest.mark.parametrize("typed", ["", "many", "5x", "M", "1e"])
def test_what_is_no_count_is_refused(typed):
    with pytest.raises(click.BadParameter):
        terminal.Count().convert(typed, None, None)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1.00 k"), (61_706, "61.7 k"), (416_520, "417 k"),
        (999_499, "999 k"), (999_500, "1.00 M"), (9_994_000, "9.99 M"), (9_995_000, "10.0 M"),
        (99_960_000, "100 M"), (15_470_000_000, "15.5 G"),
    ],
)  # fmt: skip
def test_three_figures_and_a_unit(count, text):
    assert scaled(count) == text


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_fits_the_terminal(width, monkeypatch):
    monkeypatch.setattr("kzoo.cli.terminal.width_of_terminal", lambda: width)
    lines = printed("list").splitlines()
    assert max(map(len, lines)) <= width
    assert ("family" in lines[0]) == (width == 120)
    assert [line.split()[0] for line in lines[2:-2]] == list_models()
    assert lines[-1] == f"{len(list_models())} of {len(list_models())} architectures"


def test_a_figure_on_other_data_says_so():
    line = next(line for line in printed("list").splitlines() if line.startswith("resnet20 "))
    assert "91.25 CIFAR-10" in line
    assert "ImageNet" not in printed("list")


def test_the_card_tells_the_memory_of_the_weights_at_once_and_how_to_count_the_rest():
    card = printed("info", "mobilenet_v2")
    assert "weights 14.0 MB in float32, 3.50 MB in int8" in card
    assert "kzoo info mobilenet_v2 --memory" in card


def test_the_default_network_counted_is_the_row():
    row = json.loads(printed("info", "resnet8", "--json"))
    counted = json.loads(printed("info", "resnet8", "--memory", "--json"))
    assert counted.pop("activation_bytes") == {"float32": 196_608, "int8": 49_152}
    assert counted == row


def test_a_network_that_is_not_the_rows_is_counted_and_has_no_published_figure():
    asked = ["mobilenet_v2", "alpha=0.35", "--classes", "10", "--size", "96", "--channels", "1"]
    card = json.loads(printed("info", *asked, "--norm", "group", "--json"))
    assert card["input"] == [96, 96, 1]
    assert card["classes"] == 10
    assert card["params"] < entry("mobilenet_v2_035").params
    assert card["variant"] == {"alpha": 0.35}
    assert card["norm"] == "group"
    assert card["top1"] is None


def test_what_the_row_has_may_be_typed_and_changes_nothing():
    row = json.loads(printed("info", "resnet50", "--json"))
    asked = ["resnet50", "groups=1", "--size", "224x224", "--classes", "1000", "--channels", "3"]
    options = ["--norm", "batch", "--flavour", entry("resnet50").flavour, "--json"]
    assert json.loads(printed("info", *asked, *options)) == row
    assert row["top1"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mobilenet_v2", "alpha=1.0"),
        ("resnet50", "groups=1, width=64 (in Python also block, depths)"),
        ("squeezenet1_0", None),
        ("lenet_300_100", None),
    ],
)
def test_the_arguments_of_a_card_are_those_that_can_be_typed(name, line):
    lines = [text for text in printed("info", name).splitlines() if text.startswith("arguments")]
    if line:
        assert lines[0].split(maxsplit=1)[1] == line
    for text in lines:
        typed, _, others = text.split(maxsplit=1)[1].partition(" (")
        given = dict(pair.split("=") for pair in typed.split(", "))
        assert list(given) == entry(name).typable()
        assert set(entry(name).variant) - set(given) == set(
            others.removeprefix("in Python also ").removesuffix(")").split(", ")
        ) - {""}


def test_a_built_network_tells_its_head_its_seed_and_its_auxiliary_classifiers(tmp_path):
    file = str(tmp_path / "net.keras")
    asked = ["build", "googlenet", "--auxiliary", "--seed", "7", "--size", "96", "-o", file]
    record = json.loads(printed(*asked, "--json"))
    assert (record["auxiliary"], record["head"], record["seed"]) == (True, "logits", 7)
    text = printed(*asked, "--force")
    weight = entry("googlenet").auxiliary
    train = f"kzoo finetune {file} ... --auxiliary-weight {weight}"
    assert f"2 classifiers; train with: {train}" in text
    assert "1000 (logits)" in text
    plain = printed("build", "lenet5", "--head", "softmax", "-o", str(tmp_path / "plain.keras"))
    assert "10 (probabilities)" in plain
    assert "auxiliary" not in plain


def test_the_layers_are_all_of_the_network_with_stages_set_apart():
    card = json.loads(printed("info", "resnet8", "--layers", "--json"))
    assert sum(layer["params"] for layer in card["layers"]) == card["total_params"]
    assert sum(layer["macs"] for layer in card["layers"]) == card["macs"]
    table = printed("info", "resnet8", "--layers").split("\nlayer ")[1]
    stages = [block.strip().split("_")[0].split()[0] for block in table.split("\n\n")[1:]]
    assert stages == ["stem", "stage1", "stage2", "stage3", "head"]
    assert sum(float(line.split()[-2]) for line in table.splitlines() if line.endswith("%")) > 99


def test_the_drawing_is_written_and_kept(tmp_path):
    file = tmp_path / "net.svg"
    card = json.loads(printed("info", "resnet8", "--graph", str(file), "--json"))
    assert card["graph"] == str(file)
    assert ElementTree.fromstring(file.read_text()).tag.endswith("svg")
    again = CliRunner().invoke(cli, ["info", "resnet8", "--graph", str(file)])
    assert "--force" in str(again.exception)


def test_a_comparison_marks_the_best_where_there_is_one():
    record = json.loads(printed("compare", "mobilenet_v2", "resnet50", "--json"))
    assert [card["name"] for card in record["cards"]] == ["mobilenet_v2", "resnet50"]
    assert record["best"] == {
        "params": ["mobilenet_v2"], "macs": ["mobilenet_v2"], "top1": ["resnet50"],
    }  # fmt: skip
    text = printed("compare", "mobilenet_v2", "resnet50")
    assert text.splitlines()[0].split() == ["mobilenet_v2", "resnet50"]
    for row in ("3,504,872 *", "300,774,272 *", "14.0 MB *", "76.13 % *"):
        assert row in text


def test_accuracies_on_different_data_are_not_compared():
    assert json.loads(printed("compare", "resnet20", "resnet50", "--json"))["best"]["top1"] == []


def test_columns_that_do_not_fit_come_below(monkeypatch):
    monkeypatch.setattr("kzoo.cli.compare.width_of_terminal", lambda: 80)
    names = ["lenet5", "resnet8", "resnet20", "resnet50", "mobilenet_v2", "densenet121"]
    text = printed("compare", *names)
    assert max(map(len, text.splitlines())) <= 80
    heads = [block.splitlines()[0].split() for block in text.split("\n\n")[:-1]]
    assert [name for head in heads for name in head] == names


def test_what_a_builder_makes_of_a_wrong_word_is_one_message():
    done = CliRunner().invoke(cli, ["info", "mobilenet_v4_conv_small", "layout=wide"])
    assert isinstance(done.exception, UsageError)
    assert "cannot be built with layout=wide" in str(done.exception)
