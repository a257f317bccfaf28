"""A chain of compressions: each of the network before it, recorded, resumed, side by side."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kzoo
from kzoo.errors import BadInputError, MissingError, UsageError
from kzoo.files import read_json, sha256
from kzoo.lite.extract import litert_engine
from kzoo.network.model_file import load_model, read_notes, save_model
from kzoo.report.summary import run_tables

RECIPE = """\
name: tiny
compress:
  teacher: self
  train: {epochs: 1, checkpoint_seconds: 0}
  chain: [{prune: {sparsity: 0.5, exclude: [head]}}, {cluster: {clusters: 8}}]
steps: [build, compress, report]
quantize: {samples: 20}
"""
WHOLE, PRUNED, SHARED = "lenet5", "lenet5_1_prune", "lenet5_2_cluster"
ALL = ["dataset.data", f"{WHOLE}.build", f"{PRUNED}.compress", f"{SHARED}.compress", "run.report"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def done(recipe, trained, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    assert kzoo.recipe(recipe, trained, "digits", output=folder).ran == ALL
    return folder


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "run")


def record(folder: Path, name: str) -> dict:
    return read_json(folder / "ledger" / f"{name}.compress.json")


def test_the_first_link_is_that_of_the_function(done, trained, digits, tmp_path):
    kzoo.prune(
        trained, digits, sparsity=0.5, exclude=["head"], teacher=load_model(trained),
        phases=[{"epochs": 1, "learning_rate": 3e-4, "batch_norm": "recalibrate"}],
        engine=litert_engine(), output=tmp_path / "same.keras",
    )  # fmt: skip
    assert sha256(tmp_path / "same.keras") == sha256(done / "models" / f"{PRUNED}.keras")
    assert sha256(trained) == sha256(done / "models" / f"{WHOLE}.keras")


def test_a_link_keeps_what_the_one_before_made(done):
    zeros = [{row["name"]: row["zeros"] for row in record(done, name)["result"]["kernels"]}
             for name in (PRUNED, SHARED)]  # fmt: skip
    pruned = [name for name in zeros[0] if not name.startswith("head")]
    assert pruned
    for name in pruned:
        assert zeros[1][name] >= zeros[0][name] > 0
    assert all(row["values"] <= 8 for row in record(done, SHARED)["result"]["kernels"])
    assert read_notes(done / "models" / f"{SHARED}.keras")["split"] == {
        "seed": 0, "validation": 0.15, "test": 0.15,
    }  # fmt: skip


def test_every_stage_is_in_the_report(done):
    models, table = run_tables(done)
    assert [row[0] for row in models.cells] == [WHOLE, PRUNED, SHARED]
    assert [row[0] for row in table.cells] == [WHOLE, PRUNED, SHARED]
    assert table.cells[0][3] == "61,706"
    assert table.cells[1][3:5] == table.cells[0][3:5]  # zeros are parameters
    page = (done / "report.html").read_text()
    assert all(f"{name}</h2>" in page for name in (WHOLE, PRUNED, SHARED))
    assert "OUT OF DATE" not in page


def test_a_second_run_keeps_all(done, recipe, trained):
    run = kzoo.recipe(recipe, trained, "digits", output=done)
    assert (run.ran, run.kept) == ([], ALL)


def test_another_second_link_repeats_that_alone(copy, recipe, trained):
    options = ["compress.chain.1.cluster.clusters=4", "steps=[build, compress]"]
    assert kzoo.recipe(recipe, trained, "digits", output=copy, overrides=options).ran == [
        f"{SHARED}.compress"
    ]
    assert all(row["values"] <= 4 for row in record(copy, SHARED)["result"]["kernels"])


def test_killed_in_its_second_training_it_ends_with_the_same_weights(
    done, recipe, trained, tmp_path
):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "kzoo", "recipe", str(recipe), str(trained), "digits"]
    process = subprocess.Popen(
        [*command, "-o", str(folder)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 180
    moment = f"models/{SHARED}.keras.checkpoints/*/step-*"
    while process.poll() is None and not any(folder.glob(moment)):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was faster than the moment"
    assert not (folder / "models" / f"{SHARED}.keras").exists()
    run = kzoo.recipe(recipe, trained, "digits", output=folder)
    assert run.ran == ALL[3:]
    assert not list(folder.rglob("*checkpoint*"))
    one, other = (load_model(at / "models" / f"{SHARED}.keras") for at in (done, folder))
    assert [w.tolist() for w in one.get_weights()] == [w.tolist() for w in other.get_weights()]


@pytest.mark.slow
def test_every_link_becomes_files_and_is_measured(copy, recipe, trained):
    options = ["steps=[convert, quantize, check, profile, report]", "profile.min_seconds=0.1"]
    run = kzoo.recipe(recipe, trained, "digits", output=copy, overrides=options)
    names = (WHOLE, PRUNED, SHARED)
    assert [name for name in run.ran if "quantize" in name] == [f"{n}.quantize" for n in names]
    table = run_tables(copy)[1]
    assert not any("–" in cells for cells in table.cells)
    gzip = [float(row[6].split(" ")[0]) for row in table.cells]
    assert gzip[2] < gzip[1] < gzip[0]
    assert "takes 0." in (copy / "report.html").read_text()


@pytest.mark.slow
def test_a_network_that_the_run_trains_is_compressed(tmp_path):
    chain = "{train: {epochs: 1}, chain: [{slim: {macs: 0.5}}, {prune: {sparsity: 0.5}}, qat]}"
    options = ["models=[resnet8]", "data.size=16", "train.epochs=1", f"compress={chain}",
               "check={}", "profile.min_seconds=0.1"]  # fmt: skip
    run = kzoo.run("quickstart", options, output=tmp_path / "run")
    names = ["resnet8", "resnet8_1_slim", "resnet8_2_prune", "resnet8_3_qat"]
    assert [row["model"] for row in run.rows] == names
    assert run.rows[1]["macs"] <= run.rows[0]["macs"] / 2
    # The .tflite of what was trained with rounding computes what the network does.
    assert run.rows[3]["agreement"] > 0.98
    assert kzoo.run("quickstart", options, output=tmp_path / "run").ran == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("compress.chain.0.prune.exclude=[stem9]", "stem9"),
        ("compress.chain.0.prune.sparsity={stage1: 0.5, stage9: 0.9}", "stage9"),
        ("compress.train.optimizer=adma", "adam"),
        ("compress.train.augment=[random_filp]", "random_filp"),
        ("compress.train.schedule=cosin", "cosin"),
        ("seed=1", r"the model '.*' was trained on images that this run would test on"),
        ("data.channels=3", "takes 1 channels"),
        ("models=[lenet5.keras]", "does not exist"),
        ("compress.teacher=absent.keras", "does not exist"),
        ("compress.chain.0.prune.rewind=absent.keras", "does not exist"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(recipe, trained, tmp_path, override, said):
    with pytest.raises((UsageError, BadInputError, MissingError), match=said):
        kzoo.recipe(recipe, trained, "digits", output=tmp_path / "run", overrides=[override])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nmodels: [lenet5]\n", "no 'models'"),
        ("name: x\ncompres: {}\n", "'compres'; did you mean compress"),
        ("name: x\n", "a section compress"),
    ],
)
def test_what_is_no_recipe_is_told(text, said, trained, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=said):
        kzoo.recipe(tmp_path / "r.yaml", trained, "digits", output=tmp_path / "run")


def test_the_split_is_the_one_that_the_model_was_trained_on(recipe, tiny, tmp_path):
    notes = {"split": {"seed": 5, "validation": 0.2, "test": 0.1}}
    file = save_model(tiny(), tmp_path / "net.keras", notes=notes)
    run = kzoo.recipe(
        recipe, file, "digits", output=tmp_path / "run", overrides=["steps=[build, report]"]
    )
    found = kzoo.load_data("digits", size=16, channels=1, **notes["split"])
    data = read_json(tmp_path / "run" / "ledger" / "dataset.data.json")
    assert data["inputs"]["data"] == found.fingerprint
    assert run.rows[0]["params"] > 0


def test_an_unknown_recipe_is_told_with_those_that_ship(trained):
    with pytest.raises(MissingError, match="no recipe 'smal'; did you mean small"):
        kzoo.recipe("smal", trained, "digits")
