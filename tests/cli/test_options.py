"""The options of a command are the parameters of its function: one way in."""

from __future__ import annotations

import inspect

import click
import pytest
from click.testing import CliRunner

import kzoo
from kzoo.cli import cli
from kzoo.compress.qat import ROUNDED_PHASE
from kzoo.compress.tune import PHASE
from kzoo.learn.phase import Phase
from kzoo.measure.profile import profile_all

HERE_ALONE = {"as_json"}
"""Options that are about printing."""
CALLBACKS = {"progress"}
OF_DATA = {"validation", "test", "bad", "max_bad", "seed"}
"""The parameters of `load_data` that a command takes for ``data_options``."""
OF_A_PHASE = set(Phase.__dataclass_fields__)
OF_FINETUNE_ALONE = {"auxiliary_weight", "distributed", "projection"}
DIFFERENCES = {
    # command: (options that the function does not have, parameters that have no option)
    # The file is the command's; build gives a model, and asks KZOO_OFFLINE.
    "build": ({"output", "force", "arguments", "offline"}, {"variant"}),
    "data": ({"path"}, {"source"}),
    "finetune": (OF_DATA | OF_A_PHASE | {"find_lr"}, {"data_options", "engine", "projection"}),
    "distill": (OF_DATA | OF_A_PHASE, {"data_options", "engine", "projection"}),
    # What names a network is the command's, as is what is written.
    "fewshot": (OF_DATA | {"output", "force", "weights", "offline", "size"}, {"data_options"}),
    "explain": ({"output", "force", "weights", "offline"}, {"classes", "crop"}),
    "prune": (OF_DATA | OF_A_PHASE, {"data_options", *OF_FINETUNE_ALONE}),
    "cluster": (OF_DATA | OF_A_PHASE, {"data_options", *OF_FINETUNE_ALONE}),
    "qat": (OF_DATA | OF_A_PHASE, {"data_options", *OF_FINETUNE_ALONE}),
    # The command measures the cost.
    "slim": (
        OF_DATA | OF_A_PHASE | {"latency_of"},
        {"data_options", "engine", "cost", *OF_FINETUNE_ALONE},
    ),
    "quantize": (OF_DATA, {"data_options", "cost"}),  # as in slim
    "sensitivity": (OF_DATA | {"output", "force"}, {"data_options"}),
    "evaluate": (OF_DATA | {"output", "force"}, {"data_options"}),
    # What runs on a device is kzoo.measure.on_device's.
    "check": (OF_DATA | {"on", "runtime", "delegate"}, {"data_options"}),
    "localize": ({*OF_DATA, "fix", "html", "force"}, {"data_options"}),
    "lint": ({"gate"}, set()),
    # A person can wait for all sizes.
    "inspect": ({"graph", "force"}, {"packed"}),
    "diff": (set(), set()),
    "profile": ({"html", "force", "fleet"}, set()),
    "devices": (set(), set()),
    "serve": (set(), {"opened", "told"}),  # callbacks
    "convert": (set(), set()),
    "run": (set(), set()),
    "recipe": (set(), set()),
    "list": (set(), set()),
}
FUNCTIONS = {"data": kzoo.load_data, "list": kzoo.list_models, "profile": profile_all}


def function(name: str):
    return FUNCTIONS.get(name) or getattr(kzoo, name)


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """Those that ``**training`` stands for, too: of `finetune`, and the teacher of `distill`."""
    own = dict(inspect.signature(function(name)).parameters)
    if own.pop("training", None):
        own = parameters("finetune") | {"teacher": parameters("distill")["teacher"]} | own
    return own


@pytest.mark.parametrize("name", DIFFERENCES)
def test_options_are_the_functions_parameters(name):
    more, fewer = DIFFERENCES[name]
    options = {option.name for option in cli.get_command(None, name).params} - HERE_ALONE
    expected = set(parameters(name)) - CALLBACKS
    assert options - expected <= more
    assert expected - options <= fewer


@pytest.mark.parametrize("name", DIFFERENCES)
def test_defaults_are_the_functions_defaults(name):
    context = click.Context(cli.get_command(None, name))
    known = parameters(name)
    if "data_options" in known:
        known |= {key: value for key, value in parameters("data").items() if key in OF_DATA}
    compressing = name in ("prune", "cluster", "slim", "qat")
    if name in ("finetune", "distill") or compressing:
        usual = PHASE if compressing else Phase()
        usual = ROUNDED_PHASE if name == "qat" else usual
        known |= {
            key: parameter.replace(default=getattr(usual, key))
            for key, parameter in inspect.signature(Phase).parameters.items()
        }
    for option in context.command.params:
        parameter = known.get(option.name)
        if not isinstance(option, click.Option) or parameter is None or option.required:
            continue
        plain = isinstance(option.default, (str, int, float, list, tuple))
        given = option.type_cast_value(context, option.default) if plain else None
        given = option.default is True if option.is_flag else given
        wanted = parameter.default
        if option.name in (
            "phases",
            "trainable",
            "augment",
            "losses",
            *(["sparsity"] if name == "prune" else []),
            "ratio",
        ):  # () stands for the function's own
            assert not given
        elif option.name == "engine" and compressing:  # None: the one that features come from
            assert (given, wanted) == ("kzoo", None)
        elif option.name == "targets":  # the command's own choice, of which none is all
            assert given is None
            assert list(wanted) == list(option.type.choices)
        elif option.name in OF_A_PHASE:  # pretrained weights have other ones, as is told
            assert given is None
            assert f"[{wanted}" in option.help
        elif option.name in ("validation", "test"):  # the model's notes may know better
            assert given is None
            assert f"[default: {wanted};" in option.help
        elif name in ("check", "evaluate") and option.name == "seed":  # the same
            assert given is None
            assert f"else {wanted}]" in option.help
        elif option.name == "channels" and name == "data":
            assert int(given) == wanted
        elif option.name == "head" or wanted is not None or name != "build":
            assert given == wanted or (name, option.name) == ("build", "seed"), option.name


@pytest.mark.parametrize(
    ("typed", "threads"),
    [
        ("m.tflite", (1,)),
        ("m.tflite --threads 1 2", (1, 2)),
        ("m.tflite --threads 4 2 1 --min-runs 70", (4, 2, 1)),
        ("m.tflite --threads 1 --threads 2", (1, 2)),
        ("--threads 2 m.tflite", (2,)),
        ("--threads 1 2 m.tflite", (1, 2)),
        ("--threads=1 m.tflite", (1,)),
        ("m.tflite --threads=1 --threads=2", (1, 2)),
    ],
)
def test_threads_are_as_many_numbers_as_follow(typed, threads, monkeypatch):
    asked = {}

    def profile_all(models, **options):
        asked.update(options, models=models)
        raise click.ClickException("enough")

    monkeypatch.setattr("kzoo.measure.profile.profile_all", profile_all)
    CliRunner().invoke(cli, ["profile", *typed.split()])
    assert asked["models"] == ("m.tflite",)
    assert tuple(asked["threads"]) == threads


@pytest.mark.parametrize("typed", ["--threads", "--threads two", "--threads 1 -x"])
def test_threads_that_are_no_numbers_are_refused(typed):
    done = CliRunner().invoke(cli, ["profile", "m.tflite", *typed.split()])
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("", {"shots": (1, 2, 4, 8, 16), "at": (), "head": ("softmax", "ridge")}),
        ("--shots 1 5 --at stage3 head", {"shots": (1, 5), "at": ("stage3", "head")}),
        ("--at logits --head ridge logits-T", {"at": ("logits",), "head": ("ridge", "logits-T")}),
        ("--temperature 0.5 2 1e2 --seeds 3", {"temperature": (0.5, 2, 100), "seeds": 3}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_fewshot_takes_as_many_values_as_follow(typed, asked, first, monkeypatch, tmp_path):
    found = {}

    def fewshot(model, data, **options):
        found.update(options, model=model, data=data)
        raise click.ClickException("enough")

    monkeypatch.setattr("kzoo.learn.fewshot.fewshot", fewshot)
    places = ["m.keras", "photos", "-o", str(tmp_path / "study")]
    options = typed.split()
    CliRunner().invoke(cli, ["fewshot", *(options + places if first else places + options)])
    assert (found["model"], found["data"]) == ("m.keras", "photos")
    assert {key: found[key] for key in asked} == asked


@pytest.mark.parametrize(
    "typed", ["--at stage", "--at head stag3", "--head softmax rigde", "--shots"]
)
def test_what_is_no_cut_or_head_is_refused(typed):
    arguments = ["fewshot", "m.keras", "photos", "-o", "study", *typed.split()]
    assert CliRunner().invoke(cli, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("", {"losses": None, "at": (), "alone": True}),
        ("--loss soft=0.5 hard", {"losses": {"soft": 0.5, "hard": 0.1}}),
        ("--loss attention --loss self=2", {"losses": {"attention": 5, "self": 2}}),
        ("--at stage2 stage3 --no-alone", {"at": ("stage2", "stage3"), "alone": False}),
        ("--augment-seeds 8 --temperature 6", {"augment_seeds": 8, "temperature": 6}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_distill_takes_losses_with_and_without_weights(typed, asked, first, monkeypatch, tmp_path):
    found = {}

    def distill(student, data, **options):
        found.update(options, student=student, data=data)
        raise click.ClickException("enough")

    monkeypatch.setattr("kzoo.learn.distill.distill", distill)
    places = ["s.keras", "photos", "-o", str(tmp_path / "out.keras")]
    options = typed.split()
    CliRunner().invoke(cli, ["distill", *(options + places if first else places + options)])
    assert (found["student"], found["data"]) == ("s.keras", "photos")
    assert {name: found[name] for name in asked} == asked


@pytest.mark.parametrize(
    ("typed", "told"), [("sotf", "did you mean soft"), ("soft=much", "type soft=0.9")]
)
def test_a_loss_that_is_none_is_refused(typed, told):
    done = CliRunner().invoke(cli, ["distill", "s.keras", "d", "-o", "o.keras", "--loss", typed])
    assert done.exit_code == 2
    assert told in done.output
