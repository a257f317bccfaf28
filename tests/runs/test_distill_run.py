"""A config with a teacher: three networks through the same steps, side by side in the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import kzoo
from kzoo.errors import UsageError
from kzoo.files import read_json, sha256
from kzoo.lite.extract import litert_engine
from kzoo.report.summary import run_tables

CONFIG = """\
name: pair
models: [{name: mlp, arguments: {depth: 1, width: 16}}]
data: {path: digits, size: 16, channels: 1}
train: {epochs: 2}
distill: {teacher: {name: lenet5, size: 32}, teacher_train: {epochs: 3}, temperature: 2}
check: {max_drop: -100}
steps: [build, finetune, distill, report]
"""
TEACHER, ALONE, DISTILLED = "lenet5_teacher", "mlp", "mlp_distilled"
ALL = [
    "dataset.data",
    *(f"{name}.{step}" for name in (TEACHER, ALONE) for step in ("build", "finetune")),
    f"{DISTILLED}.distill",
    "run.report",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("config") / "pair.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture(scope="module")
def done(config, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    run = kzoo.run(config, output=folder)
    assert run.ran == ALL
    return folder


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "run")


def record(folder: Path, name: str, step: str) -> dict:
    return read_json(folder / "ledger" / f"{name}.{step}.json")


def test_the_distilled_network_is_that_of_the_function(done, tmp_path):
    kzoo.distill(
        done / "models" / f"{ALONE}.init.keras",
        kzoo.load_data("digits", size=16, channels=1),
        teacher=done / "models" / f"{TEACHER}.keras",
        temperature=2,
        phases=[{"epochs": 2}],
        alone=False,
        engine=litert_engine(),
        output=tmp_path / "same.keras",
    )
    assert sha256(tmp_path / "same.keras") == sha256(done / "models" / f"{DISTILLED}.keras")


def test_teacher_and_student_have_their_own_images(done):
    sizes = [record(done, name, "build")["settings"]["size"] for name in (TEACHER, ALONE)]
    assert sizes == [[32, 32], [16, 16]]
    data = [record(done, *each)["inputs"]["data"] for each in
            ((TEACHER, "finetune"), (ALONE, "finetune"), (DISTILLED, "distill"))]  # fmt: skip
    assert data[0] != data[1] == data[2]


def test_the_three_stand_side_by_side(done):
    models, table = run_tables(done)
    assert [row[0] for row in models.cells] == [TEACHER, ALONE, DISTILLED]
    assert [row[:2] for row in table.cells] == [
        [TEACHER, "teacher"],
        [ALONE, "alone"],
        [DISTILLED, "distilled"],
    ]
    assert table.cells[1][4:6] == table.cells[2][4:6]  # parameters, MACs
    page = (done / "report.html").read_text()
    assert "mlp gets " in page
    assert "OUT OF DATE" not in page
    told = [f"{name}: not done: convert" for name in (TEACHER, ALONE, DISTILLED)]
    assert all(each in page for each in told)


def test_a_second_run_keeps_all(done, config):
    run = kzoo.run(config, output=done)
    assert (run.ran, run.kept) == ([], ALL)


def test_another_temperature_repeats_the_distillation_alone(copy, config):
    steps = "steps=[build, finetune, distill]"
    run = kzoo.run(config, ["distill.temperature=8", steps], output=copy)
    assert run.ran == [f"{DISTILLED}.distill"]


@pytest.mark.slow
def test_all_three_become_files_and_the_teacher_has_no_gate(copy, config):
    steps = "steps=[convert, quantize, check, profile, report]"
    run = kzoo.run(config, [steps, "profile.min_seconds=0.1"], output=copy)
    names = (TEACHER, ALONE, DISTILLED)
    files = [f"{name}.{step}" for name in names for step in ("convert", "quantize", "check")]
    assert run.ran == [*files, *(f"{name}.profile" for name in names), "run.report"]
    assert [failure.split(":")[0] for failure in run.failures] == [ALONE, DISTILLED]
    for name, size in ((TEACHER, 32), (DISTILLED, 16)):
        inside = record(copy, name, "quantize")["result"]["contents"]
        assert inside["input"]["shape"] == [1, size, size, 1]
    assert not any("–" in cells for cells in run_tables(copy)[1].cells)
    assert "not done" not in (copy / "report.html").read_text()


def test_a_teacher_may_be_a_file(trained, config, tmp_path):
    options = ["data.size=32", "steps=[build, distill]", f"distill.teacher={trained}"]
    run = kzoo.run(config, options, output=tmp_path / "run")
    assert run.ran == ["dataset.data", "lenet5_teacher.build", "mlp.build", "mlp_distilled.distill"]
    assert sha256(tmp_path / "run" / "models" / "lenet5_teacher.keras") == sha256(trained)
    row = run.rows[0]
    assert (row["model"], row["params"]) == ("lenet5_teacher", 61_706)
    with pytest.raises(UsageError, match=r"would test on.*seed=0"):
        kzoo.run(config, [*options, "seed=1"], output=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("distill.losses={soft: 1, hrad: 1}", "'hrad'; did you mean hard"),
        ("distill.losses={hard: 1}", "no part in hard"),
        ("distill.teacher={nmae: lenet5}", "'distill.teacher.nmae'; did you mean name"),
        ("distill.teacher=lenet6", "lenet6"),
        (
            "distill.teacher_train={epohcs: 1}",
            "'distill.teacher_train.epohcs'; did you mean epochs",
        ),
        ("distill.temprature=1", "'distill.temprature'; did you mean temperature"),
        ("distill.losses={fsp: 1}", "needs two stages of both"),
        ("distill.losses={hint: 1}", "stage1 of mlp is no map"),
        ("distill=null", "needs a section of that name"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(config, tmp_path, override, said):
    with pytest.raises(UsageError) as caught:
        kzoo.run(config, [override], output=tmp_path / "run")
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
