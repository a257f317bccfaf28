"""Distillation: against training alone, its teacher run once, refused where it makes no sense."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

from kzoo.data.load import load_data
from kzoo.errors import BadInputError, UsageError
from kzoo.learn.distill import Distilled, distill
from kzoo.learn.evaluate import outputs
from kzoo.learn.features import Engine, keras_engine
from kzoo.learn.finetune import finetune
from kzoo.learn.knowledge import pooled_to
from kzoo.learn.lessons import LOSSES
from kzoo.learn.variants import decoded_at
from kzoo.network.model_file import load_model, read_notes, save_model

pytestmark = pytest.mark.usefixtures("empty_cache")
FAST = {"epochs": 2, "learning_rate": 0.01}
STILL = {"epochs": 1, "optimizer": "sgd", "schedule": "constant", "learning_rate": 0.01}
ONCE = {"epochs": 1}
EVERYTHING = dict(LOSSES)


def copy_of(model: keras.Model) -> keras.Model:
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


@pytest.fixture
def counting():
    """An engine that is Keras' and lists (outputs, images) of every run."""
    real, runs = keras_engine(), []

    def run(model, images):
        runs.append((len(model.outputs), len(images)))
        return real.run(model, images)

    return Engine("counting", "1", run), runs


def test_with_labels_alone_it_is_finetune(few_digits, tiny):
    options = {
        "phases": [{"epochs": 1, "trainable": "classifier"}, FAST],
        "label_smoothing": 0.1,
        "class_weights": {"3": 2.0},
        "seed": 5,
    }
    start = tiny(dropout=0.5)
    tuned = finetune(copy_of(start), few_digits, **options)
    found = distill(start, few_digits, losses={"hard": 1.0}, **options)
    for one, other in zip(tuned.model.get_weights(), found.model.get_weights(), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(tuned.history, found.history, strict=True):
        assert all(other[name] == value for name, value in one.items() if name != "seconds")
    assert found.alone is None
    assert found.teacher is None


def test_a_student_that_is_its_teacher_has_nothing_to_learn(few_digits, plain):
    teacher = plain()
    student = copy_of(teacher)
    found = distill(
        student,
        few_digits,
        teacher=teacher,
        losses={"soft": 1.0, "attention": 1000.0, "fsp": 1.0},
        phases=[STILL],
        batch_size=180,
        alone=False,
    )
    row = found.history[0]
    assert max(row["soft"], row["attention"], row["fsp"]) < 1e-8
    for one, other in zip(teacher.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert found.teacher.accuracy == found.evaluation.accuracy
    assert found.teacher.log_loss == pytest.approx(found.evaluation.log_loss, rel=1e-6)


@pytest.mark.parametrize("size", [(7, 4), (5, 13), (1, 1)])
def test_a_map_is_averaged_to_any_smaller_size(size):
    image = keras.Input((15, 13, 2))
    network = keras.Model(image, pooled_to(image, size))
    pixels = np.random.default_rng(0).random((2, 15, 13, 2), np.float32)
    found = np.array(network(pixels))

    def window(i: int, length: int, cells: int) -> slice:
        return slice(i * length // cells, -(-(i + 1) * length // cells))

    for i, j in np.ndindex(*size):
        part = pixels[:, window(i, 15, size[0]), window(j, 13, size[1])]
        np.testing.assert_allclose(found[:, i, j], part.mean((1, 2)), atol=1e-6)


def test_every_loss_stands_in_the_history_and_their_sum_falls(few_digits, tiny, plain):
    found = distill(
        tiny(),
        few_digits,
        teacher=plain(),
        losses=EVERYTHING,
        phases=[{"epochs": 3, "learning_rate": 0.01}],
        alone=False,
    )
    first, last = found.history[0], found.history[-1]
    assert last["objective"] < first["objective"]
    assert all(first[name] > 0 for name in EVERYTHING)
    total = sum(EVERYTHING[name] * last[name] for name in EVERYTHING)
    assert last["objective"] == pytest.approx(total, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["soft", "hint", "attention", "mimic"])
def test_a_loss_alone_falls(name, few_digits, tiny, plain):
    found = distill(
        tiny(),
        few_digits,
        teacher=plain(),
        losses={name: 1.0},
        phases=[{"epochs": 3, "learning_rate": 0.01}],
        alone=False,
    )
    assert found.history[-1][name] < found.history[0][name]


def test_networks_that_give_probabilities_learn_as_those_of_logits(few_digits, tiny, plain):
    rows = [
        distill(
            tiny(head), few_digits, teacher=plain(head=head), phases=[ONCE], alone=False
        ).history[0]
        for head in ("logits", "softmax")
    ]
    for name in ("soft", "hard", "val_loss"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3), name


def test_a_teacher_is_run_once_whatever_is_asked_of_it_later(few_digits, tiny, counting, plain):
    engine, runs = counting
    options = {"teacher": plain(), "engine": engine, "alone": False, "phases": [ONCE]}
    augmented = {"augment": "light", "augment_seeds": 2}
    distill(tiny(), few_digits, **options, **augmented)
    rows, tested = 2 * len(few_digits.splits["train"]), len(few_digits.splits["test"])
    assert runs == [(1, tested), (1, rows)]
    others = {"temperature": 9.0, "losses": {"soft": 3.0}, "seed": 7, "label_smoothing": 0.1}
    distill(plain((6, 6)), few_digits, **options, **augmented, **others)
    assert len(runs) == 2
    losses = {"soft": 1.0, "mimic": 1.0, "attention": 1.0}
    distill(tiny(), few_digits, losses=losses, **options, **augmented)
    assert runs[2:] == [(3, rows)]  # of the four, those that are new


def test_a_larger_teacher_gets_the_photos_at_its_size_and_the_student_is_trained_alone_too(
    few_digits, digits_folder, tiny, tmp_path, plain
):
    notes = {"classes": list(few_digits.classes), "split": {"seed": 9, "validation": 0.1}}
    teacher = save_model(plain(size=32), tmp_path / "teacher.keras", notes=notes)
    student = save_model(tiny(), tmp_path / "student.keras")
    output = tmp_path / "out.keras"
    found = distill(student, digits_folder, teacher=teacher, output=output, phases=[FAST])
    assert isinstance(found, Distilled)
    assert read_notes(output)["classes"] == list(few_digits.classes)
    # The teacher's split: it has not seen these images.
    assert read_notes(output)["split"] == {"seed": 9, "validation": 0.1, "test": 0.15}
    assert not output.with_name("out.keras.checkpoints").exists()
    data = load_data(digits_folder, channels=1, size=16, seed=9, validation=0.1)
    large = decoded_at(data, (32, 32))
    chosen = data.splits["test"]
    assert found.teacher.accuracy == pytest.approx(
        np.mean(outputs(load_model(teacher), large.images, chosen).argmax(1) == data.labels[chosen])
    )
    written = load_model(output)
    for one, other in zip(written.get_weights(), found.model.get_weights(), strict=True):
        assert np.array_equal(one, other)
    assert {layer.__class__.__name__ for layer in written.layers} == {
        layer.__class__.__name__ for layer in tiny().layers
    }
    tuned = finetune(student, data, phases=[FAST])
    assert found.alone.evaluation == tuned.evaluation
    for one, other in zip(tuned.model.get_weights(), found.alone.model.get_weights(), strict=True):
        assert np.array_equal(one, other)
    record = json.loads(json.dumps(found.to_dict()))
    assert record["alone"]["recipe"]["losses"] == {"hard": 1.0}
    assert record["alone"]["history"][0].keys() < record["history"][0].keys()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"losses": {"sotf": 1}}, "did you mean soft"),
        ({"losses": {"soft": -1}}, "soft=-1"),
        ({"losses": {"soft": 0, "hard": 0}}, "every weight is 0"),
        ({"losses": {}}, "no loss is left"),
        ({"losses": {"hard": 1}}, "the teacher has no part in hard"),
        ({"losses": {"self": 1}}, "the teacher has no part in self"),
        ({"teacher": None}, "the loss soft needs a teacher"),
        ({"temperature": 0}, "temperature is a number above 0"),
        ({"augment_seeds": 0}, "augment_seeds is at least 1"),
        ({"at": ["stage1"]}, "stages are for the losses hint, attention, fsp"),
        ({"losses": {"hint": 1}, "at": ["stage3"]}, "the student has no 'stage3'"),
        ({"losses": {"hint": 1}, "at": ["head"]}, "mimic compares at the head"),
        ({"losses": {"fsp": 1}, "at": ["stage1"]}, "two stages of both"),
        ({"phases": []}, "at least one phase"),
        ({"augment": "lihgt"}, "did you mean"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options, told, few_digits, tiny, plain):
    with pytest.raises(UsageError, match=told):
        distill(tiny(), few_digits, **{"teacher": plain(), **options})


def test_networks_that_do_not_fit_are_refused(few_digits, tiny, tmp_path, plain):
    student, other = tiny(), few_digits.classes[::-1]
    same = save_model(student, tmp_path / "same.keras")
    with pytest.raises(UsageError, match="the teacher is the student itself"):
        distill(same, few_digits, teacher=tmp_path / "." / "same.keras")
    with pytest.raises(UsageError, match="the teacher is the student itself"):
        distill(student, few_digits, teacher=student)
    fewer = keras.Model(student.inputs[0], keras.layers.Dense(3)(student.outputs[0]))
    with pytest.raises(BadInputError, match="teacher does not fit: the model has 3 classes"):
        distill(student, few_digits, teacher=fewer)
    named = save_model(plain(), tmp_path / "named.keras", notes={"classes": list(other)})
    with pytest.raises(BadInputError, match=r"teacher does not fit: .* other classes"):
        distill(student, few_digits, teacher=named)
    wide = keras.Sequential(
        [keras.Input((16, 32, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    with pytest.raises(BadInputError, match="the teacher takes 16 x 32 x 1 images"):
        distill(student, few_digits, teacher=wide)
    changed = dataclasses.replace(few_digits, paths=few_digits.paths[::-1])
    with pytest.raises(BadInputError, match="does not hold the images"):
        distill(student, changed, teacher=plain(size=32))
    flat = keras.Input((16, 16, 1))
    x = keras.layers.Dense(8, name="stage1_1")(keras.layers.Flatten()(flat))
    with pytest.raises(UsageError, match="stage1 of flat is no map"):
        distill(
            keras.Model(flat, keras.layers.Dense(10)(x), name="flat"),
            few_digits,
            teacher=plain(),
            losses={"hint": 1.0},
        )
    existing = tmp_path / "there.keras"
    existing.write_text("kept")
    with pytest.raises(UsageError, match="exists"):
        distill(student, few_digits, teacher=plain(), output=existing)
