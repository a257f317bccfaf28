"""A run does what is not done yet, and nothing else; killed, it goes on and ends the same."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.errors import BadInputError, UsageError
from kzoo.files import read_json, sha256
from kzoo.network.model_file import load_model
from kzoo.runs.config import load_config

OVERRIDES = [
    "models=[lenet5]", "train.epochs=1", "profile.min_seconds=0.1", "profile.threads=[1]",
    "check.max_drop=null", "check.min_agreement=null", "train.checkpoint_seconds=0.2",
]  # fmt: skip
MODELS = ("lenet5.init.keras", "lenet5.keras", "lenet5.tflite", "lenet5_int8.tflite")
STEPS = ["build", "finetune", "convert", "quantize", "check", "profile"]


def named(*steps: str) -> list[str]:
    return (
        ["dataset.data"] * ("data" in steps)
        + [f"lenet5.{s}" for s in STEPS if s in steps]
        + (["run.report"] * ("report" in steps))
    )


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file with its hash and its time."""
    return {
        str(path.relative_to(folder)): (sha256(path), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    run = kzoo.run("quickstart", OVERRIDES, output=folder)
    assert run.ran == named("data", *STEPS, "report")
    assert run.kept == []
    return folder


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """A copy of it, to damage."""
    return shutil.copytree(done, tmp_path / "run")


def test_a_run_leaves_config_records_models_figures_and_a_report(done):
    assert load_config(done / "config.yaml") == load_config("quickstart", OVERRIDES)
    files = set(state(done))
    assert {f"ledger/lenet5.{step}.json" for step in STEPS} <= files
    assert {"models/lenet5.keras", "models/lenet5.tflite", "models/lenet5_int8.tflite"} <= files
    assert {"report.html", "run.json", "samples/lenet5.png"} <= files
    assert any(name.startswith("plots/") for name in files)
    assert not [name for name in files if Path(name).name.startswith(".") or "checkpoint" in name]


def test_the_worst_mistakes_and_some_of_the_rest_are_kept_as_images(done):
    result = read_json(done / "ledger" / "lenet5.check.json")["result"]
    samples, lite = result["samples"], result["int8"]["lite"]
    worst = samples["predictions"][: samples["worst"]]
    assert [row["int8"]["probability"] for row in worst] == [
        round(row["probability"], 4) for row in lite["worst"]
    ]
    assert all(row["int8"]["class"] != row["label"] for row in worst)
    assert len({row["path"] for row in samples["predictions"]}) == 24
    with Image.open(done / samples["file"]) as strip:
        assert strip.size == (24 * 32, 32)


def test_every_record_has_hashes_recipe_environment_and_date(done):
    for path in (done / "ledger").iterdir():
        record = read_json(path)
        assert record["environment"]["packages"]["kzoo"]
        assert record["date"].endswith("+00:00")
        assert {"inputs", "settings", "result", "seconds"} <= set(record)
        for name, written in record["outputs"].items():
            assert sha256(done / name) == written


def test_a_second_run_does_nothing_and_says_the_same(done):
    before = state(done)
    run = kzoo.run("quickstart", OVERRIDES, output=done)
    assert run.ran == []
    assert run.kept == named("data", *STEPS, "report")
    assert state(done) == before
    assert run.rows[0]["accuracy_float"] > 0.5
    json.dumps(run.to_dict())


def test_the_order_of_the_steps_in_the_config_is_of_no_concern(copy):
    steps = f"steps=[{', '.join(reversed(STEPS))}]"
    assert kzoo.run("quickstart", [*OVERRIDES, steps], output=copy).ran == []


def test_a_changed_setting_reruns_its_step_and_those_that_read_its_output(copy):
    before = state(copy)
    run = kzoo.run("quickstart", [*OVERRIDES, "quantize.samples=20"], output=copy)
    assert run.ran == named("quantize", "check", "profile", "report")
    assert state(copy)["models/lenet5.keras"] == before["models/lenet5.keras"]
    assert state(copy)["models/lenet5.tflite"] == before["models/lenet5.tflite"]


def test_a_gate_that_is_not_met_is_told_every_time(copy):
    gate = [*OVERRIDES, "check.max_drop=-100", "steps=[build, finetune, convert, quantize, check]"]
    first = kzoo.run("quickstart", gate, output=copy)
    again = kzoo.run("quickstart", gate, output=copy)
    assert first.ran == named("check")
    assert again.ran == []
    assert first.failures == again.failures
    assert "lenet5: accuracy drops" in first.failures[0]


@pytest.mark.parametrize("damage", ["remove", "change", "cut the record", "other record"])
def test_a_step_whose_output_or_record_is_damaged_is_done_again(copy, damage):
    file, record = copy / "models" / "lenet5.tflite", copy / "ledger" / "lenet5.convert.json"
    known = sha256(file)
    if damage == "remove":
        file.unlink()
    elif damage == "change":
        file.write_bytes(b"damaged")
    elif damage == "cut the record":
        record.write_bytes(record.read_bytes()[:100])
    else:
        record.write_text("[]")
    # Without the report: a record's date is new, and so is the report.
    steps = f"steps=[{', '.join(STEPS)}]"
    run = kzoo.run("quickstart", [*OVERRIDES, steps], output=copy)
    assert run.ran == named("convert")  # the same bytes came out: nothing after it is done again
    assert sha256(file) == known


@pytest.mark.slow
def test_a_trained_model_that_was_lost_is_trained_again_to_the_same_files(copy):
    known = {name: sha256(copy / "models" / name) for name in MODELS}
    (copy / "models" / "lenet5.keras").unlink()
    run = kzoo.run("quickstart", OVERRIDES, output=copy)
    assert run.ran[0] == "lenet5.finetune"
    assert {"dataset.data", "lenet5.build", "lenet5.profile"} <= set(run.kept)
    assert {name: sha256(copy / "models" / name) for name in MODELS} == known


def test_a_report_that_was_removed_is_written_again(copy):
    known = (copy / "report.html").read_bytes()
    (copy / "report.html").unlink()
    run = kzoo.run("quickstart", OVERRIDES, output=copy)
    assert run.ran == ["run.report"]
    assert (copy / "report.html").read_bytes() == known


def test_a_step_that_is_left_out_must_be_done_and_whole(copy):
    only = [*OVERRIDES, "steps=[check]"]
    assert kzoo.run("quickstart", only, output=copy).ran == []
    (copy / "models" / "lenet5_int8.tflite").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"quantize.*missing or damaged"):
        kzoo.run("quickstart", only, output=copy)


def test_names_are_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("KZOO_HOME", str(tmp_path / "home"))
    for override, said in (
        ("models=[lenet5, lenet6]", "lenet6"),
        ("models=[lenet5, lenet5]", "twice"),
        ("profile.runtime=tflite", "tflite-runtime"),
        ("steps=[quantize]", "'finetune'"),
    ):
        with pytest.raises(UsageError, match=said):
            kzoo.run("quickstart", [*OVERRIDES, override], output=tmp_path / "run")
    with pytest.raises(UsageError, match="adam"):
        kzoo.run("quickstart", [*OVERRIDES, "train.optimizer=adma"], output=tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]  # the data's store alone


def test_a_folder_of_another_kind_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no run"):
        kzoo.run("quickstart", OVERRIDES, output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_runs_do_not_share_a_folder(copy):
    from kzoo.runs.ledger import Ledger

    first = Ledger(copy, ())
    with pytest.raises(UsageError, match="another kzoo run"):
        kzoo.run("quickstart", OVERRIDES, output=copy)
    first.close()
    assert kzoo.run("quickstart", OVERRIDES, output=copy).ran == []


def test_a_failing_step_keeps_what_was_done(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise BadInputError("the training diverged")

    monkeypatch.setattr("kzoo.runs.steps.finetune", fail)
    with pytest.raises(BadInputError, match="diverged"):
        kzoo.run("quickstart", OVERRIDES, output=tmp_path / "run")
    monkeypatch.undo()
    steps = [*OVERRIDES, "steps=[build]"]
    run = kzoo.run("quickstart", steps, output=tmp_path / "run")
    assert run.kept == named("data", "build")


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments",
    [
        ["models/.lenet5.init-*", "models/lenet5.keras.checkpoints/*/step-*", "models/.lenet5-*"],
        ["models/lenet5.init.keras", "models/lenet5.keras", "models/.lenet5_int8-*"],
        ["ledger/lenet5.convert.json", "ledger/lenet5.quantize.json", "ledger/lenet5.check.json"],
    ],
)
def test_a_killed_run_goes_on_and_ends_the_same(done, tmp_path, moments):
    folder, killed = tmp_path / "run", 0
    for moment in moments:
        command = [sys.executable, "-m", "kzoo", "run", "quickstart", *OVERRIDES, "-o", str(folder)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and not any(folder.glob(moment)):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed, "the run was faster than every moment"
    run = kzoo.run("quickstart", OVERRIDES, output=folder)
    assert {name for name in state(folder) if "checkpoint" not in name} == set(state(done))
    assert not list(folder.rglob("*checkpoint*"))
    for name in MODELS:
        assert sha256(folder / "models" / name) == sha256(done / "models" / name), name
    assert run.ran + run.kept
    assert kzoo.run("quickstart", OVERRIDES, output=folder).ran == []


@pytest.mark.slow
def test_killed_at_five_random_points_it_ends_with_the_same_weights(tmp_path):
    """Of networks whose training TensorFlow repeats bit for bit."""
    config = ["models=[lenet5, resnet8]", "train.epochs=6", "train.checkpoint_seconds=0.2"]
    config += ["steps=[build, finetune]", "train.augment=[random_flip, mix_up]"]
    started = time.monotonic()
    whole = Path(kzoo.run("quickstart", config, output=tmp_path / "whole").folder)
    longest = max(5.0, (time.monotonic() - started) / 3)
    seed = time.time_ns()
    moments = random.Random(seed)
    folder, killed = tmp_path / "killed", 0
    command = [sys.executable, "-m", "kzoo", "run", "quickstart", *config, "-o", str(folder)]
    for _ in range(5):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(1, 4 + longest))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 3, f"with seed {seed} the run was too fast"
    kzoo.run("quickstart", config, output=folder)
    for name in ("lenet5", "resnet8"):
        one, other = (load_model(at / "models" / f"{name}.keras") for at in (whole, folder))
        assert all(map(np.array_equal, one.get_weights(), other.get_weights())), seed


def test_a_model_is_built_as_its_section_says_and_the_record_holds_it(tmp_path):
    def run(model: str) -> tuple[kzoo.runs.run.Run, dict]:
        overrides = [f"models=[{model}]", "steps=[build]"]
        done = kzoo.run("quickstart", overrides, output=tmp_path / "run")
        return done, read_json(tmp_path / "run" / "ledger" / "mlp.build.json")

    done, record = run("{name: mlp, arguments: {depth: 1, width: 32}}")
    assert "mlp.build" in done.ran
    assert record["settings"]["arguments"] == {"depth": 1, "width": 32}
    assert record["settings"]["norm"] == "batch"
    assert record["result"]["params"] == (32 * 32 + 1) * 32 + (32 + 1) * 10
    assert done.rows[0]["model"] == "mlp"
    assert "mlp.build" in run("{name: mlp, arguments: {depth: 1, width: 32}}")[0].kept
    assert "mlp.build" in run("{name: mlp, arguments: {depth: 2, width: 32}}")[0].ran


def test_auxiliary_heads_weigh_what_the_card_says_or_the_config(tmp_path, monkeypatch):
    def tiny(name: str, *, size, channels, classes, **_):
        import keras

        image = keras.Input((*size, channels), name="image")
        x = keras.layers.Flatten(name="stem")(image)
        heads = [keras.layers.Dense(classes, name=head)(x) for head in ("head", "head_aux")]
        return keras.Model(image, heads, name=name)

    def run(*overrides: str) -> tuple[bool, float, list[float]]:
        models = "models=[{name: inception_v3, auxiliary: true}]"
        overrides = [*OVERRIDES, models, "steps=[build, finetune]", *overrides]
        done = kzoo.run("quickstart", overrides, output=tmp_path / "run")
        record = read_json(tmp_path / "run" / "ledger" / "inception_v3.finetune.json")
        return (
            "inception_v3.finetune" in done.ran,
            record["settings"]["auxiliary_weight"],
            record["result"]["recipe"]["head_weights"],
        )

    monkeypatch.setattr("kzoo.runs.steps.build", tiny)
    assert run() == (True, 0.4, [1.0, 0.4])
    assert run("train.auxiliary_weight=0.4")[0] is False
    assert run("train.auxiliary_weight=0") == (True, 0.0, [1.0, 0.0])
