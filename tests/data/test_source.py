"""What can be called a dataset, and what is said of everything else."""

from __future__ import annotations

import os

import numpy as np
import pytest

from kzoo.data.load import load_data
from kzoo.errors import BadInputError, MissingError, UsageError


def load(source, **options):
    return load_data(source, size=8, **options)


def counts(dataset, split):
    return {name: each[split] for name, each in dataset.summary()["classes"].items()}


def test_a_folder_of_class_folders(photos):
    folder = photos({"dog": 4, "cat": 5})
    dataset = load(folder)
    assert dataset.classes == ("cat", "dog")
    assert [dataset.classes[label] for label in dataset.labels] == ["cat"] * 5 + ["dog"] * 4
    assert dataset.paths == (
        *[f"cat/{i}.png" for i in range(5)],
        *[f"dog/{i}.png" for i in range(4)],
    )
    assert dataset.evaluation_split == "test"
    assert dataset.problems == ()


def test_images_in_folders_of_a_class_folder_belong_to_the_class(photos):
    dataset = load(photos({"cat": 3, "cat/more": 2, "dog": 3}))
    assert sum(dataset.labels == 0) == 5


def test_what_systems_leave_behind_is_ignored(photos):
    folder = photos({"cat": 3, "dog": 3, ".git": 1, "__MACOSX": 1})
    for name in ("README.md", "cat/.DS_Store", "cat/Thumbs.db", "dog/desktop.ini"):
        (folder / name).write_text("not an image")
    dataset = load(folder)
    assert len(dataset.images) == 6
    assert dataset.problems == ()
    assert dataset.classes == ("cat", "dog")


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_given_train_and_validation_are_kept_and_test_stays_empty(photos, name):
    folder = photos({"train/cat": 4, "train/dog": 4, f"{name}/cat": 2, f"{name}/dog": 1})
    dataset = load(folder)
    assert counts(dataset, "train") == {"cat": 4, "dog": 4}
    assert counts(dataset, "validation") == {"cat": 2, "dog": 1}
    assert len(dataset.splits["test"]) == 0
    assert dataset.evaluation_split == "validation"
    assert all(dataset.paths[i].startswith(name + "/") for i in dataset.splits["validation"])


def test_all_three_given(photos):
    folder = photos({f"{split}/{c}": 2 for split in ("train", "val", "test") for c in ("a", "b")})
    dataset = load(folder)
    assert {name: len(indices) for name, indices in dataset.splits.items()} == {
        "train": 4,
        "validation": 4,
        "test": 4,
    }


def test_a_missing_validation_is_carved_out_of_train(photos):
    folder = photos({"train/cat": 10, "train/dog": 10, "test/cat": 3, "test/dog": 3})
    dataset = load(folder, validation=0.2, test=0.5)
    assert counts(dataset, "train") == {"cat": 8, "dog": 8}
    assert counts(dataset, "validation") == {"cat": 2, "dog": 2}
    assert counts(dataset, "test") == {"cat": 3, "dog": 3}
    assert all(dataset.paths[i].startswith("test/") for i in dataset.splits["test"])


def test_train_alone_is_divided_as_a_plain_folder(photos):
    dataset = load(photos({"train/cat": 10, "train/dog": 10}), validation=0.2, test=0.3)
    assert [len(dataset.splits[name]) for name in ("train", "validation", "test")] == [10, 4, 6]


def test_a_class_may_be_called_train(photos):
    assert load(photos({"bus": 3, "train": 3, "tram": 3})).classes == ("bus", "train", "tram")


def test_splits_beside_other_folders_are_refused(photos):
    folder = photos({"train/cat": 3, "test/cat": 3, "drafts": 3})
    with pytest.raises(BadInputError, match="drafts"):
        load(folder)


def test_two_names_of_one_split_are_refused(photos):
    folder = photos({f"{split}/{c}": 1 for split in ("train", "val", "valid") for c in ("a", "b")})
    with pytest.raises(BadInputError, match="val/ and valid/ for validation"):
        load(folder)


def test_a_class_missing_from_a_given_validation_is_noted(photos):
    dataset = load(photos({"train/cat": 3, "train/dog": 3, "validation/cat": 2}))
    assert [(p.path, p.outcome) for p in dataset.problems] == [("dog", "note")]
    assert "validation" in dataset.problems[0].reason


def test_a_class_missing_from_train_is_refused(photos):
    folder = photos({"train/cat": 3, "train/dog": 3, "test/cat": 2, "test/emu": 2})
    with pytest.raises(BadInputError, match="'emu' has 0 different images for train"):
        load(folder)


def test_missing_source(tmp_path):
    with pytest.raises(MissingError, match=r"nowhere.*does not exist"):
        load(tmp_path / "nowhere")


def test_a_name_close_to_digits_is_hinted():
    with pytest.raises(MissingError, match="did you mean digits"):
        load("digit")


def test_a_file_that_is_no_csv(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"not a \.csv manifest"):
        load(tmp_path / "photos.zip")


def test_a_folder_that_may_not_be_read(photos, monkeypatch):
    folder = photos({"cat": 3, "dog": 3})
    real = os.scandir

    def scandir(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(MissingError, match=r"no permission to read .*dog"):
        load(folder)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({}, "no sub-folders"),
        ({"cat": 3, "dog": 0}, "'.*dog' holds no images"),
        ({"cat": 3}, "only one class, 'cat'"),
        ({"cat": 3, "dog": 1}, "'dog' has 1 different image for train, validation, test"),
        ({"cat": 0, "dog": 0}, "holds no images"),
        ({"train": 0, "test/a": 1}, "no class folders"),
    ],
)
def test_folders_that_are_no_dataset(photos, tmp_path, made, said):
    (tmp_path / "photos").mkdir()
    with pytest.raises(BadInputError, match=said):
        load(photos(made))


def test_a_flat_folder_says_how_many_files_it_has(photos):
    with pytest.raises(BadInputError, match=r"no sub-folders \(3 files\)"):
        load(photos({"": 3}))


def test_one_image_is_enough_where_nothing_else_is_asked(photos):
    folder = photos({"cat": 3, "dog": 1})
    with pytest.raises(BadInputError, match="validation=0"):
        load(folder, test=0)
    dataset = load(folder, validation=0, test=0)
    assert len(dataset.splits["train"]) == 4


@pytest.fixture
def manifest(photos, tmp_path):
    def write(text: str):
        photos({"a": 3, "b": 3})
        (tmp_path / "photos" / "list.csv").write_text(text)
        return tmp_path / "photos" / "list.csv"

    return write


ROWS = "".join(f"{c}/{i}.png,{c.upper()}{{}}\n" for c in "ab" for i in range(3))


def test_a_manifest_with_paths_relative_to_it(manifest, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    dataset = load(manifest("\ufeffpath,label\n" + ROWS.replace("{}", "") + "\n"))
    assert dataset.classes == ("A", "B")
    assert dataset.paths[0] == "a/0.png"
    assert len(dataset.images) == 6


def test_a_manifest_with_splits(manifest):
    splits = iter(["train", "val", "TEST"] * 2)
    rows = "".join(f"{line[:-2]},{next(splits)}\n" for line in ROWS.splitlines())
    dataset = load(manifest("path,label,split\n" + rows))
    for name in ("train", "validation", "test"):
        assert counts(dataset, name) == {"A": 1, "B": 1}
    assert [dataset.paths[i] for i in dataset.splits["test"]] == ["a/2.png", "b/2.png"]


def test_a_row_whose_file_is_missing_is_a_bad_file(manifest):
    file = manifest("path,label\n" + ROWS.replace("{}", "") + "a/gone.png,A\n")
    with pytest.raises(BadInputError, match=r"a/gone\.png: does not exist"):
        load(file)
    assert len(load(file, bad="skip", max_bad=0.5).images) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,class\na/0.png,A\n", "no column path and no column label; .*has: file, class"),
        ("path,class\na/0.png,A\n", "no column label; its first line has: path, class"),
        ("", "is empty"),
        ("path,label\n", "no rows"),
        ("path,label\na/0.png\n", "line 2: no label"),
        (
            "path,label,split\na/0.png,A,trian\n",
            "line 2: unknown split 'trian'.*did you mean train",
        ),
        ("path,label,split\na/0.png,A,train\nb/0.png,B,\n", "1 of 2 images have no split"),
        ("path,label,split\na/0.png,A,test\nb/0.png,B,test\n", "none is for training"),
    ],
)
def test_manifests_that_are_no_dataset(manifest, text, said):
    with pytest.raises(BadInputError, match=said):
        load(manifest(text))


def test_a_manifest_that_is_no_text(manifest):
    file = manifest("")
    file.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(BadInputError, match="UTF-8"):
        load(file)


def test_digits():
    dataset = load_data("digits", channels=1)
    assert dataset.images.shape == (1797, 32, 32, 1)
    assert dataset.classes == tuple("0123456789")
    from sklearn.datasets import load_digits

    assert np.array_equal(dataset.labels, load_digits().target)
    native = load_data("digits", size=8, channels=1).images[:, :, :, 0]
    assert np.array_equal(native, np.rint(load_digits().images * 255 / 16))


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": (8, 0)},
        {"size": (8, 8, 3)},
        {"size": 8.5},
        {"size": True},
        {"channels": 2},
        {"validation": 0.5, "test": 0.5},
        {"validation": -0.1},
        {"test": 1},
        {"seed": -1},
        {"seed": 1.5},
        {"bad": "skp"},
        {"max_bad": 1.5},
    ],
)
def test_arguments_out_of_range(options):
    with pytest.raises(UsageError):
        load_data("digits", **options)
