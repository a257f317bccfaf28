"""Whatever is wrong: one message that says what to do, the right exit code, nothing written."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

USAGE, MISSING, BAD = 2, 3, 4
BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nname: [*b, *b, *b]\n"


def photos(folder: Path, **counts: int) -> None:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def place(trained, lite_float, tmp_path_factory) -> Path:
    """A folder with all that a user may hold in the wrong way."""
    import keras

    folder = tmp_path_factory.mktemp("place")
    shutil.copy(trained, folder / "good.keras")
    shutil.copy(lite_float, folder / "good.tflite")
    for name in ("kept.keras", "kept.tflite", "half.tflite.json", "half.keras.png", "kept.svg"):
        (folder / name).write_text("of great worth")
    photos(folder / "two", cat=4, dog=4)
    photos(folder / "one", cat=4)
    photos(folder / "lonely", cat=4, dog=1)
    photos(folder / "broken", cat=4, dog=4)
    (folder / "broken" / "dog" / "4.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    photos(folder / "untaught" / "train", cat=4, dog=4)
    photos(folder / "untaught" / "test", cat=2, emu=2)
    (folder / "unlabelled.csv").write_text("path\ntwo/cat/0.png\n")
    (folder / "empty").mkdir()
    (folder / "loose").mkdir()
    shutil.copy(folder / "two" / "cat" / "0.png", folder / "loose")
    pixels = keras.Input((32, 32, 1))
    x = keras.layers.Lambda(lambda x: x / 255)(pixels)
    x = keras.layers.Dense(10)(keras.layers.Flatten()(x))
    keras.Model(pixels, x).save(folder / "lambda.keras")
    data = lite_float.read_bytes()
    (folder / "cut.tflite").write_bytes(data[: len(data) // 2])
    (folder / "page.tflite").write_text("<html>404</html>")
    (folder / "cut.keras").write_bytes(trained.read_bytes()[:2000])
    with zipfile.ZipFile(folder / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    (folder / "bomb.yaml").write_text(BOMB)
    (folder / "deep.yaml").write_text("[" * 20_000)
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "list.yaml").write_text("- name\n- models\n")
    (folder / "unsafe.yaml").write_text("name: !!python/object/apply:os.system ['touch pwned']\n")
    (folder / "no_name.yaml").write_text("models: [lenet5]\ndata: {path: digits}\n")
    (folder / "studied").mkdir()
    (folder / "studied" / "fewshot.csv").write_text("of great worth")
    (folder / "no_run").mkdir()
    (folder / "no_run" / "thesis.txt").write_text("years of work")
    return folder


CASES = {
    # What is typed wrong.
    "unknown command": (USAGE, "did you mean list", "lst"),
    "unknown option": (USAGE, "--epochs", "finetune", "good.keras", "digits", "--epoch", 3),
    "missing argument": (USAGE, "Missing argument 'NAME'", "build"),
    "missing option": (USAGE, "--output", "convert", "good.keras"),
    "wrong number": (USAGE, "not a valid integer", "build", "lenet5", "--classes", "ten"),
    "wrong size": (USAGE, "96x128", "build", "lenet5", "--size", "big"),
    "too small": (USAGE, "at least 16 x 16", "build", "lenet5", "--size", 8),
    "no classes": (USAGE, "at least 1", "build", "lenet5", "--classes", 0),
    "unknown model": (USAGE, "did you mean lenet5", "build", "lenet-5"),
    "unknown card": (USAGE, "resnet20", "info", "resnet21"),
    "unknown pattern": (USAGE, "no architecture matches", "list", "vggg*"),
    "unknown family": (USAGE, "did you mean lenet", "list", "--family", "lenets"),
    "unknown task": (USAGE, "image classification", "list", "--task", "classification"),
    "unknown sort": (USAGE, "did you mean gmacs", "list", "--sort", "macs"),
    "no count": (USAGE, "5_000_000", "list", "--max-params", "5x"),
    "too few parameters": (USAGE, "the smallest, ", "list", "--max-params", "1"),
    "a share for a percentage": (USAGE, "such as 75", "list", "--min-top1", "0.75"),
    "no weights": (USAGE, "has pretrained weights", "list", "mlp", "--weights"),
    "another tag": (USAGE, "there are tv_in1k", "build", "alexnet", "--weights", "keras_in1k"),
    "no weights file": (MISSING, "the weights 'no/such.pth' does not exist", "build", "alexnet",
                        "--weights", "no/such.pth"),
    "no network": (MISSING, "elsewhere and put it at", "build", "alexnet", "--weights", "imagenet",
                   "--offline"),
    "weights of a file": (USAGE, "has weights of its own", "predict", "x.png", "--model", "x.keras",
                          "--weights", "imagenet"),
    "one to compare": (USAGE, "two different names", "compare", "lenet5"),
    "none to compare": (USAGE, "two different names", "compare"),
    "one twice": (USAGE, "two different names", "compare", "lenet5", "lenet5"),
    "unknown to compare": (USAGE, "did you mean lenet5", "compare", "resnet8", "lenet-5"),
    "unknown argument": (USAGE, "did you mean depth", "build", "mlp", "dept=3"),
    "no argument": (USAGE, "NAME=VALUE", "build", "mlp", "depth"),
    "an argument twice": (USAGE, "twice", "build", "mlp", "depth=3", "depth=4"),
    "an argument of another kind": (USAGE, "a whole number", "build", "mlp", "depth=deep"),
    "a function as an argument": (
        USAGE, "cannot be typed", "build", "resnet8", "shortcut=option_a",
    ),
    "a table as an argument": (USAGE, "cannot be typed", "info", "resnet50", "depths=[3, 4]"),
    "a negative depth": (USAGE, "depth of mlp is at least 0; -3", "build", "mlp", "depth=-3"),
    "a negative width": (USAGE, "at least 0; -1", "build", "mlp", "depth=0", "width=-1"),
    "no depth": (USAGE, "depth of resnet20 is above 0", "build", "resnet20", "depth=0"),
    "no alpha": (USAGE, "alpha of mobilenet_v2 is above 0", "info", "mobilenet_v2", "alpha=0"),
    "a negative argument in a config": (
        USAGE, "above 0", "run", "quickstart", "models=[{name: resnet8, arguments: {depth: -1}}]",
    ),
    "another depth": (USAGE, "such as 40 or 43; 41", "build", "densenet40_k12", "depth=41"),
    "another pool": (USAGE, "MaxPooling2D", "build", "lenet5", "pool=Dense"),
    "another cell": (USAGE, "did you mean LSTM", "build", "row_rnn", "cell=LTSM"),
    "another layout": (
        USAGE, "its siblings large, medium", "info", "mobilenet_v4_conv_small", "layout=wide",
    ),
    "a negative seed": (USAGE, "'--seed'", "build", "lenet5", "--seed", -1),
    "a large seed": (USAGE, "4294967295", "build", "lenet5", "--seed", 99999999999),
    "a large seed to check": (
        USAGE, "4294967295", "check", "good.tflite", "--against", "good.keras", "--data", "digits",
        "--seed", 2**32,
    ),
    "a large seed in a config": (USAGE, "4294967295", "run", "quickstart", "seed=4294967296"),
    "a giant": (USAGE, "it has 819,235,597,100 weights", "build", "vgg16", "--size", 20000),
    "endless classes": (USAGE, "more memory", "build", "lenet5", "--classes", 10**19),
    "a limit that is no number": (USAGE, "nan was given", "list", "--max-params", "nan"),
    "a negative limit": (USAGE, "at least 0; -1 was", "list", "--max-gmacs", -1),
    "an infinite limit": (USAGE, "inf was given", "list", "--min-top1", "inf"),
    "wrong suffix of a drawing": (USAGE, ".svg", "info", "lenet5", "--graph", "lenet5.png"),
    "no norm to replace": (USAGE, "no BatchNorm", "build", "lenet5", "--norm", "group"),
    "no auxiliary": (USAGE, "has none", "build", "lenet5", "--auxiliary"),
    "existing drawing": (USAGE, "--force", "info", "lenet5", "--graph", "kept.svg"),
    "no folder for the drawing": (
        MISSING, "make it first", "info", "lenet5", "--graph", "no/lenet5.svg",
    ),
    "unknown target": (USAGE, "known: host", "profile", "good.tflite", "--on", "hsot"),
    "unknown target to lint": (USAGE, "edgetpu", "lint", "good.tflite", "--target", "edgtpu"),
    "no share of a gate": (USAGE, "0<=x<=1", "lint", "good.tflite", "--gate", 95),
    "no share of a check's gate": (
        USAGE, "min_agreement is from 0 to 1; 2 was given", "check", "good.tflite", "--against",
        "good.keras", "--data", "absent", "--min-agreement", 2, "--on", "adb:none",
    ),
    "no points of a gate": (
        USAGE, "max_drop is from -100 to 100", "check", "good.tflite", "--against", "good.keras",
        "--data", "absent", "--max-drop", "nan",
    ),
    "no count of a gate": (
        USAGE, "max_float_ops is 0 or more; -1 was", "check", "good.tflite", "--against",
        "good.keras", "--data", "absent", "--max-float-ops", -1,
    ),
    "no warm-up": (USAGE, "0 or more", "profile", "good.tflite", "--warm-up", -1),
    "unknown runtime": (USAGE, "tensorflow", "profile", "good.tflite", "--runtime", "tensorflw"),
    "no threads": (USAGE, "from 1", "profile", "good.tflite", "--threads", 0),
    "no runs": (USAGE, "at least 1", "profile", "good.tflite", "--min-runs", 0),
    "all for the test": (USAGE, "train on", "data", "two", "--validation", 0.5, "--test", 0.5),
    "no share": (USAGE, "0.15", "data", "two", "--validation", 15),
    "no samples": (
        USAGE, "x>=1", "quantize", "good.keras", "--calibrate", "digits", "-o", "x.tflite",
        "--samples", 0,
    ),
    "unknown optimizer": (
        USAGE, "did you mean adam", "finetune", "good.keras", "digits", "-o", "x.keras",
        "--optimizer", "adma",
    ),
    "no epochs": (
        USAGE, "epoch", "finetune", "good.keras", "digits", "-o", "x.keras", "--epochs", 0,
    ),
    "unknown word in a phase": (
        USAGE, "did you mean epochs", "finetune", "good.keras", "digits", "-o", "x.keras",
        "--phase", "epoch: 3",
    ),
    "no number in a phase": (
        USAGE, "epochs", "finetune", "good.keras", "digits", "-o", "x.keras",
        "--phase", "epochs: many",
    ),
    "shots of no number": (
        USAGE, "valid integer", "fewshot", "good.keras", "digits", "-o", "x", "--shots", "few",
    ),
    "weights of a file to study": (
        USAGE, "go with a name", "fewshot", "good.keras", "digits", "-o", "x", "--size", 32,
    ),
    "more shots than images": (
        USAGE, "'0' has 12", "fewshot", "good.keras", "digits", "-o", "x",
        "--shots", 500,
    ),
    "no such stage": (
        USAGE, "its cuts are stage1, stage2", "fewshot", "good.keras", "digits", "-o", "x",
        "--at", "stage7",
    ),
    # Outputs.
    "existing study": (USAGE, "--force", "fewshot", "good.keras", "digits", "-o", "studied"),
    "a file for a study": (
        USAGE, "exists and is kept", "fewshot", "good.keras", "digits", "-o", "good.keras",
    ),
    "no folder for a study": (
        MISSING, "make it first", "fewshot", "good.keras", "digits", "-o", "no/x",
    ),
    "existing .keras": (USAGE, "--force", "build", "lenet5", "-o", "kept.keras"),
    "existing .tflite": (USAGE, "--force", "convert", "good.keras", "-o", "kept.tflite"),
    "existing int8 .tflite": (
        USAGE, "--force", "quantize", "good.keras", "--calibrate", "digits", "-o", "kept.tflite",
    ),
    "existing trained model": (
        USAGE, "--force", "finetune", "good.keras", "digits", "-o", "kept.keras",
    ),
    "existing record": (USAGE, "--force", "convert", "good.keras", "-o", "half.tflite"),
    "existing curves": (USAGE, "--force", "finetune", "good.keras", "digits", "-o", "half.keras"),
    "a folder as output": (USAGE, "is a folder", "convert", "good.keras", "-o", "two"),
    "wrong suffix of a model": (USAGE, ".keras", "build", "lenet5", "-o", "lenet5.tflite"),
    "wrong suffix of a file": (USAGE, ".tflite", "convert", "good.keras", "-o", "x.lite"),
    "wrong suffix after training": (
        USAGE, ".keras", "finetune", "good.keras", "digits", "-o", "x.h5",
    ),
    "no folder for the output": (MISSING, "make it first", "build", "lenet5", "-o", "no/x.keras"),
    "no folder for the file": (
        MISSING, "make it first", "convert", "good.keras", "-o", "no/x.tflite",
    ),
    # What is not there.
    "missing model": (MISSING, "does not exist", "convert", "absent.keras", "-o", "x.tflite"),
    "missing model to train": (
        MISSING, "does not exist", "finetune", "absent.keras", "digits", "-o", "x.keras",
    ),
    "missing model to study": (
        MISSING, "does not exist", "fewshot", "absent.keras", "digits", "-o", "x",
    ),
    "missing model to quantize": (
        MISSING, "does not exist", "quantize", "absent.keras", "--calibrate", "digits", "-o",
        "x.tflite",
    ),
    "missing file": (MISSING, "does not exist", "profile", "absent.tflite"),
    "missing file to check": (
        MISSING, "does not exist", "check", "absent.tflite", "--against", "good.keras", "--data",
        "digits",
    ),
    "missing model to evaluate": (
        MISSING, "does not exist", "evaluate", "absent.tflite", "digits",
    ),
    "missing data to evaluate on": (
        MISSING, "does not exist", "evaluate", "good.tflite", "absent",
    ),
    "missing data": (MISSING, "does not exist", "data", "absent"),
    "missing word": (MISSING, "did you mean digits", "data", "digit"),
    "missing data to train on": (
        MISSING, "does not exist", "finetune", "good.keras", "absent", "-o", "x.keras",
    ),
    "missing run": (MISSING, "kzoo run", "report", "absent"),
    "no run": (MISSING, "run.json", "report", "two"),
    "a name too long": (MISSING, "name too long", "profile", "x" * 300 + ".tflite"),
    # Data.
    "empty folder": (BAD, "no sub-folders", "data", "empty"),
    "loose images": (BAD, "put the images of each class", "data", "loose"),
    "one class": (BAD, "only one class", "data", "one"),
    "one image": (BAD, "'dog' has 1", "data", "lonely"),
    "a class absent from training": (
        BAD, "'emu' has 0 different images for train", "data", "untaught",
    ),
    "no labels": (BAD, "no column label", "data", "unlabelled.csv"),
    "a broken image": (BAD, "--bad skip", "data", "broken"),
    "no dataset": (USAGE, "sub-folder per class", "data", "good.keras"),
    "wrong class count": (
        BAD, "--classes 2", "finetune", "good.keras", "two", "-o", "x.keras",
    ),
    "wrong class count to quantize": (
        BAD, "--classes 2", "quantize", "good.keras", "--calibrate", "two", "-o", "x.tflite",
    ),
    "wrong class count to evaluate": (BAD, "--classes 2", "evaluate", "good.tflite", "two"),
    "no image to evaluate on": (
        USAGE, "no split 'validation' with images", "evaluate", "good.tflite", "digits", "--split",
        "validation", "--validation", 0,
    ),
    # Models.
    "a Lambda": (BAD, "Lambda", "convert", "lambda.keras", "-o", "x.tflite"),
    "a Lambda to train": (BAD, "Lambda", "finetune", "lambda.keras", "digits", "-o", "x.keras"),
    "a cut .keras": (BAD, "damaged", "convert", "cut.keras", "-o", "x.tflite"),
    "another archive": (BAD, "not a Keras model", "convert", "other.keras", "-o", "x.tflite"),
    "a .tflite as Keras": (USAGE, ".keras", "convert", "good.tflite", "-o", "x.tflite"),
    "a .keras as .tflite": (BAD, "kzoo convert", "profile", "good.keras"),
    "a cut .tflite": (BAD, "cut.tflite", "profile", "cut.tflite"),
    "a cut .tflite to lint": (BAD, "damaged", "lint", "cut.tflite"),
    "a .keras to lint": (BAD, "kzoo convert", "lint", "good.keras"),
    "a cut .tflite to inspect": (BAD, "damaged", "inspect", "cut.tflite"),
    "a .keras to inspect": (BAD, "kzoo convert", "inspect", "good.keras"),
    "a cut .tflite to diff": (BAD, "damaged", "diff", "good.tflite", "cut.tflite"),
    "a .keras to diff": (BAD, "kzoo convert", "diff", "good.keras", "good.tflite"),
    "missing file to diff": (MISSING, "absent.tflite", "diff", "good.tflite", "absent.tflite"),
    "a cut .tflite for a program": (
        BAD, "damaged", "snippet", "cut.tflite", "--language", "python", "-o", "x.py",
    ),
    "missing file for a program": (
        MISSING, "does not exist", "snippet", "absent.tflite", "--language", "c", "-o", "x.h",
    ),
    "an existing program": (
        USAGE, "--force", "snippet", "good.tflite", "--language", "c", "-o", "kept.tflite",
    ),
    "a web page to compile": (BAD, "web page", "compile", "page.tflite", "-o", "x.tflite"),
    "missing file to compile": (MISSING, "does not exist", "compile", "absent.tflite"),
    "a web page to inspect": (BAD, "web page", "inspect", "page.tflite"),
    "missing file to inspect": (MISSING, "does not exist", "inspect", "absent.tflite"),
    "a cut .tflite to check": (
        BAD, "damaged", "check", "cut.tflite", "--against", "good.keras", "--data", "digits",
    ),
    "a cut .tflite to evaluate": (BAD, "damaged", "evaluate", "cut.tflite", "digits"),
    "another format to evaluate": (
        USAGE, ".keras, .h5 or .tflite", "evaluate", "two/cat/0.png", "digits",
    ),
    "a Lambda to evaluate": (BAD, "Lambda", "evaluate", "lambda.keras", "digits"),
    "a web page": (BAD, "web page", "profile", "page.tflite"),
    # Configs.
    "missing config": (MISSING, "did you mean quickstart", "run", "quikstart"),
    "unknown key": (USAGE, "did you mean epochs", "run", "quickstart", "train.epoch=3"),
    "unknown section": (USAGE, "did you mean train", "run", "quickstart", "trian.epochs=3"),
    "wrong value": (USAGE, "train.epochs", "run", "quickstart", "train.epochs=many"),
    "value out of range": (USAGE, "train.epochs", "run", "quickstart", "train.epochs=0"),
    "wrong choice": (USAGE, "uint8", "run", "quickstart", "quantize.io=int9"),
    "no threads in a config": (
        USAGE, "profile.threads", "run", "quickstart", "profile.threads=[0]",
    ),
    "no value": (USAGE, "key=value", "run", "quickstart", "train.epochs"),
    "no YAML in an override": (USAGE, "not YAML", "run", "quickstart", "name=[a"),
    "no such item": (USAGE, "0 to 1", "run", "quickstart", "models.7=lenet5"),
    "phases and epochs": (
        USAGE, "stands in each of them", "run", "quickstart", "train.phases=[{epochs: 3}]",
    ),
    "unknown argument in a config": (
        USAGE, "did you mean depth", "run", "quickstart",
        "models=[{name: mlp, arguments: {dept: 3}}]",
    ),
    "unknown key of a model": (
        USAGE, "did you mean norm", "run", "quickstart", "models=[{name: mlp, nrm: group}]",
    ),
    "unknown model in a config": (USAGE, "lenet5", "run", "quickstart", "models=[lenet5, lenet6]"),
    "a model twice": (USAGE, "twice", "run", "quickstart", "models=[lenet5, lenet5]"),
    "unknown optimizer in a config": (
        USAGE, "did you mean adam", "run", "quickstart", "train.optimizer=adma",
    ),
    "unknown runtime in a config": (USAGE, "known", "run", "quickstart", "profile.runtime=tflow"),
    "a step without its input": (USAGE, "'finetune'", "run", "quickstart", "steps=[convert]"),
    "a name that is a path": (USAGE, "names a folder", "run", "quickstart", "name=../x"),
    "missing data in a config": (MISSING, "does not exist", "run", "photos", "data.path=absent"),
    "bad data in a config": (BAD, "only one class", "run", "photos", "data.path=one"),
    "alias bomb": (USAGE, "aliases are not allowed", "run", "bomb.yaml"),
    "deep YAML": (USAGE, "not YAML", "run", "deep.yaml"),
    "binary": (USAGE, "binary.yaml", "run", "binary.yaml"),
    "a list": (USAGE, "no mapping", "run", "list.yaml"),
    "code in YAML": (USAGE, "not YAML", "run", "unsafe.yaml"),
    "no name": (USAGE, "name is missing", "run", "no_name.yaml"),
    "another's folder": (USAGE, "no run", "run", "quickstart", "-o", "no_run"),
    "a file for a run": (USAGE, "is a file", "run", "quickstart", "-o", "good.keras"),
}  # fmt: skip


SLOW = {
    "a giant",
    "endless classes",
    "no classes",
    "no auxiliary",
    "no norm to replace",
    "no such stage",
    "unknown optimizer",
    "another cell",
    "another depth",
    "another layout",
    "more shots than images",
    "another pool",
    "a Lambda to evaluate",
    "a Lambda to train",
    "a .tflite as Keras",
    "a cut .keras",
    "another archive",
    "missing data to train on",
    "unknown optimizer in a config",
    "wrong class count to quantize",
}
"""They import Keras to find what a faster case beside them finds too."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]
)
def test_a_mistake_is_told_and_leaves_no_trace(case, place, refused):
    code, said, *arguments = CASES[case]
    refused(code, said, *arguments, cwd=place)


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "lenet5", "-o", "{disk}/x.keras"],
        ["convert", "{place}/good.keras", "-o", "{disk}/x.tflite"],
        ["finetune", "{place}/good.keras", "digits", "-o", "{disk}/x.keras"],
        ["run", "quickstart", "models=[lenet5]", "-o", "{disk}/run"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_folder_that_may_not_be_written_is_named(arguments, place, disk, refused):
    folder = disk(options="ro")
    given = [text.format(disk=folder, place=place) for text in arguments]
    refused(MISSING, str(folder), *given, cwd=place)
