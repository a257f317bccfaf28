"""The page of a few-shot study says what its record says, and stands alone."""

from __future__ import annotations

import csv
import json
import re

import pytest
from PIL import Image

from kzoo.errors import BadInputError, MissingError
from kzoo.report.fewshot import verdict, write_fewshot

HOSTILE = "<script>alert(1)</script>"


def write_study(folder, result):
    """A study's record without its page; returns its folder."""
    environment = {"python": "3.11.7", "packages": {"kzoo": "0.1.0"}, "machine": {"cores": 2}}
    record = {"step": "fewshot", "date": "2026-11-22T07:22:06+00:00", "environment": environment}
    folder.mkdir()
    (folder / "fewshot.json").write_text(json.dumps(record | {"result": result}))
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory, study_result):
    folder = write_study(tmp_path_factory.mktemp("fewshot") / "study", study_result())
    assert write_fewshot(folder) == folder / "report.html"
    return folder


def test_the_page_stands_alone_and_trusts_no_text(study):
    page = (study / "report.html").read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', page)
    assert page.count("data:image/png;base64,") == 5


def test_the_page_says_what_the_record_says(study):
    page = (study / "report.html").read_text()
    assert "With 16 images per class, softmax on head does best: 52.0 ± 5.0 % right." in page
    for said in (
        "96 × 128", "341 validation images", "T = 2.5", "42.0 ± 5.0 %", "1.580", "1 min 1 s",
        "the mean of 2 draws", "kzoo 0.1.0",
    ):  # fmt: skip
        assert said in page, said


def lines_of(file) -> list[dict]:
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def test_the_table_has_a_line_for_every_head_that_was_trained(study):
    lines = lines_of(study / "fewshot.csv")
    rows = json.loads((study / "fewshot.json").read_text())["result"]["rows"]
    assert len(lines) == len(rows) == (2 * 2 + 2) * 3 * 2
    for line, row in zip(lines, rows, strict=True):
        for key, value in line.items():
            assert value == ("" if row[key] is None else str(row[key]))
    assert "curve" not in lines[0]


def written(*values) -> tuple[str, ...]:
    return tuple("" if value is None else str(value) for value in values)


SETTING = ("cut", "head", "temperature", "shots")


def test_the_means_and_their_intervals_are_those_of_the_record(study):
    lines = lines_of(study / "means.csv")
    means = json.loads((study / "fewshot.json").read_text())["result"]["means"]
    assert [tuple(line.values()) for line in lines] == [
        written(
            *(row[key] for key in (*SETTING, "seeds")),
            *(row["accuracy"], *row["accuracy_interval"]),
            *(row["log_loss"], *row["log_loss_interval"]),
        )
        for row in means
    ]
    assert [*lines[0]][5:8] == ["accuracy", "accuracy_low", "accuracy_high"]


def test_the_curves_are_those_of_the_record_from_the_first_iteration_on(study):
    rows = json.loads((study / "fewshot.json").read_text())["result"]["rows"]
    expected = [
        {
            **{key: "" if row[key] is None else str(row[key]) for key in (*SETTING, "seed")},
            "iteration": str(i + 1),
            **{name: str(values[i]) for name, values in row["curve"].items()},
        }
        for row in rows
        if row["curve"]
        for i in range(len(row["curve"]["loss"]))
    ]
    lines = lines_of(study / "curves.csv")
    assert lines == expected
    assert {line["head"] for line in lines} == {"softmax", "logits-T"}


def test_every_figure_is_drawn(study):
    names = ("shots", "depth", "temperature", "iterations", "iterations_temperature")
    for name in names:
        with Image.open(study / "plots" / f"{name}.png") as image:
            assert min(image.size) > 400
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_the_same_record_gives_the_same_bytes(study, tmp_path, study_result):
    other = write_study(tmp_path / "again", study_result())
    write_fewshot(other)
    for name in ("report.html", "fewshot.csv", "means.csv", "curves.csv"):
        assert (other / name).read_bytes() == (study / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        ({"heads": ("ridge",), "seeds": 1}, ["depth", "shots"]),
        ({"heads": ("ridge",), "cuts": ("head",)}, ["shots"]),
        ({"heads": ("logits-T",)}, ["iterations_temperature", "shots", "temperature"]),
        ({"heads": ("softmax",), "cuts": ("head",)}, ["iterations", "shots"]),
    ],
    ids=str,
)
def test_only_what_was_asked_is_drawn(options, figures, tmp_path, study_result):
    folder = write_study(tmp_path / "study", study_result(**options))
    page = write_fewshot(folder).read_text()
    assert sorted(path.stem for path in (folder / "plots").iterdir()) == figures
    assert page.count("data:image/png") == len(figures)
    assert ("±" in page) == (options.get("seeds") != 1)
    low = {line["accuracy_low"] for line in lines_of(folder / "means.csv")}
    assert (low == {""}) == (options.get("seeds") == 1)
    assert bool(lines_of(folder / "curves.csv")) == ("ridge" not in options["heads"])


def test_a_single_draw_has_no_interval():
    mean = {"cut": "head", "head": "ridge", "shots": 1, "accuracy": 0.5, "accuracy_interval": None}
    assert verdict([mean]) == "With 1 image per class, ridge on head does best: 50.0 % right."


def test_a_missing_and_a_damaged_record_are_told(tmp_path, study_result):
    with pytest.raises(MissingError, match=r"fewshot\.json"):
        write_fewshot(tmp_path)
    folder = write_study(tmp_path / "study", study_result())
    record = json.loads((folder / "fewshot.json").read_text())
    del record["result"]["means"]
    (folder / "fewshot.json").write_text(json.dumps(record))
    with pytest.raises(BadInputError, match=r"fewshot\.json.*means.*kzoo fewshot"):
        write_fewshot(folder)
    assert not (folder / "report.html").exists()
