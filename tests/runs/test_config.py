"""A config is the public functions' arguments, checked; overrides; nothing that YAML could hide."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import kzoo
from kzoo.errors import KzooError, MissingError, UsageError
from kzoo.learn.phase import SCRATCH, TRANSFER, Phase
from kzoo.measure.profile import profile_all
from kzoo.runs import chain, schema
from kzoo.runs import config as configs
from kzoo.runs.config import load_config
from kzoo.runs.shipped import shipped_configs
from kzoo.zoo.weights.table import find

SMALL = "name: small\nmodels: [lenet5]\ndata: {path: digits, channels: 1}\n"


OF_TUNING = {"model", "data", "phases", "seed", "output", "training"}
"""The parameters of a compression that stand elsewhere in a config."""


@pytest.mark.parametrize(
    ("section", "function", "elsewhere"),
    [
        # elsewhere: parameters that a run itself gives, or that stand in another section.
        (schema.DataConfig, kzoo.load_data, {"source", "seed"}),
        # The size and what is of the images comes from the data, the head is the steps'.
        (schema.ModelConfig, kzoo.build, {"classes", "size", "channels", "head", "seed"}),
        (schema.PhaseConfig, Phase, set()),
        (
            schema.TrainConfig,
            kzoo.finetune,
            {"model", "data", "seed", "output", "phases", "engine", "logs", "distributed"}
            | {"projection"},
        ),
        (schema.FewshotConfig, kzoo.fewshot, {"model", "data", "seed", "engine", "ray"}),
        (
            schema.DistillConfig,
            kzoo.distill,
            # "alone" is a step of its own, by kzoo.finetune.
            {"student", "data", "seed", "output", "engine", "logs", "alone", "phases", "projection"}
            | schema.TrainConfig.model_fields.keys(),
        ),
        (chain.SlimConfig, kzoo.slim, OF_TUNING | {"cost"}),
        (chain.PruneConfig, kzoo.prune, OF_TUNING),
        (chain.ClusterConfig, kzoo.cluster, OF_TUNING),
        (chain.QatConfig, kzoo.qat, OF_TUNING),
        # A run makes int8 files of Keras networks, at the size that its images have.
        (
            schema.QuantizeConfig,
            kzoo.quantize,
            {"model", "output", "calibrate", "head", "seed", "recipe"}
            | {"budget_drop", "cost", "frame", "normalize"},
        ),
        # A config names its gates one by one, and its networks are Keras'.
        (
            schema.CheckConfig,
            kzoo.check,
            {"file", "against", "data", "split", "kernels", "gate", "normalize"},
        ),
        (
            schema.ProfileConfig,
            profile_all,
            {"models", "on", "cpus", "delegate", "rounds", "cool_down", "ops"},
        ),
    ],
)
def test_fields_and_defaults_are_those_of_the_function(section, function, elsewhere):
    parameters = dict(inspect.signature(function).parameters)
    for name in elsewhere | {"progress", "force", "data_options"}:
        parameters.pop(name, None)
    fields = {name: field.default for name, field in section.model_fields.items()}
    if section is schema.ModelConfig:
        fields.pop("name"), fields.pop("arguments")
        parameters.pop("name"), parameters.pop("variant")
    if section is schema.DataConfig:
        fields.pop("path")
    if section is schema.DistillConfig:
        fields.pop("teacher_train"), fields.pop("teacher"), parameters.pop("teacher")
    if issubclass(section, chain.Link):
        fields = {
            name: fields[name] for name in fields if name not in chain.TuneConfig.model_fields
        }
        # The run measures the cost, of the file that it is said for.
        fields.pop("latency_of", None)
    if section is schema.TrainConfig:
        fields = {
            name: default
            for name, default in fields.items()
            if name != "phases" and name not in schema.PhaseConfig.model_fields
        }
        assert fields["auxiliary_weight"] is None  # stands for the card's
        fields["auxiliary_weight"] = parameters["auxiliary_weight"].default
    assert set(fields) == set(parameters)
    for name, default in fields.items():
        wanted = parameters[name].default
        assert default == (list(wanted) if isinstance(wanted, tuple) else wanted), name


def test_without_phases_the_weights_decide_the_recipe():
    assert schema.TrainConfig().all_phases(False) == [*SCRATCH]
    assert schema.TrainConfig().all_phases(True) == [*TRANSFER]
    assert schema.PhaseConfig().model_dump() == vars(Phase())


def test_a_field_of_the_section_changes_the_last_phase():
    first, last = schema.TrainConfig(epochs=3).all_phases(True)
    assert first == TRANSFER[0]
    assert last == dataclasses.replace(TRANSFER[1], epochs=3)
    (only,) = schema.TrainConfig(trainable=["head"]).all_phases(True)
    assert only == dataclasses.replace(TRANSFER[1], trainable="head")


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configs_are_valid_and_found_by_name(name):
    config = load_config(name)
    assert config == load_config(shipped_configs()[name])
    assert config.name == name
    for model in config.all_models().values():
        if model.weights:
            find(model.name, model.weights)


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_config_says_how_it_is_run_and_what_to_expect(name):
    header = shipped_configs()[name].read_text().partition("\nname:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "kzoo run" in header or name == "quickstart"
    assert "docs/results.md" in header or re.search(r"Published.*?\d (%|errors)", header, re.DOTALL)


PIPELINE = ["build", "finetune", "convert", "quantize", "check", "profile", "report"]


@pytest.mark.parametrize(
    ("sections", "steps"),
    [
        ("", PIPELINE),
        ("train: {epochs: 1}\n", PIPELINE),
        ("fewshot: {}\n", ["build", "fewshot", "report"]),
        ("fewshot: {shots: [1]}\nquantize: {samples: 9}\n", ["build", "fewshot", *PIPELINE[1:]]),
        ("fewshot: {}\nsteps: [build]\n", ["build"]),
        ("distill: {teacher: resnet8}\n", [*PIPELINE[:2], "distill", *PIPELINE[2:]]),
        ("compress: {chain: [qat]}\n", [*PIPELINE[:2], "compress", *PIPELINE[2:]]),
        (
            "compress: {chain: [qat]}\nfewshot: {}\n",
            ["build", "fewshot", "finetune", "compress", *PIPELINE[2:]],
        ),
    ],
)
def test_the_sections_decide_the_steps(write, sections, steps):
    assert load_config(write(SMALL + sections)).steps == steps


def test_a_resolved_few_shot_config_is_that_config_and_no_more(write, tmp_path):
    config = load_config(write(SMALL), ["fewshot.shots=[1, 3]", "fewshot.head=[logits-T]"])
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(config.resolved()))
    assert load_config(resolved) == config
    assert not config.resolved().keys() & {"train", "quantize", "check", "profile"}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fewshot.shotz=[1]", "'fewshot.shotz'; did you mean shots"),
        ("fewshoot.shots=[1]", "'fewshoot'; did you mean fewshot"),
        ("fewshot.shots=[]", "fewshot.shots"),
        ("fewshot.shots=[0]", "fewshot.shots.0"),
        ("fewshot.head=[ridge, lda]", "fewshot.head.1: Input should be 'softmax', 'ridge' or"),
        ("fewshot.temperature=[0]", "fewshot.temperature.0"),
        ("fewshot.at=[stage]", "fewshot.at.0"),
        ("steps=[fewshot]", "needs a section of that name"),
    ],
)
def test_a_mistake_in_a_few_shot_section_is_told(write, override, said):
    with pytest.raises(UsageError) as caught:
        load_config(write(SMALL), [override])
    assert said in str(caught.value)


def test_the_classes_that_logits_stand_on_are_not_trained_away(write):
    wanted = ["fewshot.head=[logits-T]"]
    assert not load_config(write(SMALL), wanted).trains
    with pytest.raises(UsageError, match="logits-T"):
        load_config(write(SMALL), [*wanted, "train.epochs=1"])
    assert load_config(write(SMALL), ["fewshot.head=[ridge]", "train.epochs=1"]).trains


def test_a_model_is_a_name_or_a_section(write):
    text = "name: small\nmodels: [lenet5, {name: resnet8, norm: group}]\ndata: {path: digits}\n"
    models = load_config(write(text)).all_models()
    assert list(models) == ["lenet5", "resnet8"]
    assert models["lenet5"] == schema.ModelConfig(name="lenet5")
    assert models["resnet8"].norm == "group"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("3", "models.0: Input should be a valid string; 3 was given"),
        ("{norm: group}", "models.0.name is missing"),
        ("{name: mlp, norm: grup}", "models.0.norm: Input should be 'batch', 'group'"),
        ("{name: mlp, nrm: group}", "unknown key 'models.0.nrm'; did you mean norm"),
    ],
)
def test_a_mistake_in_a_model_is_told_once(write, model, said):
    with pytest.raises(UsageError) as caught:
        load_config(write(SMALL), [f"models=[{model}]"])
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ((), {}),
        (("depth=3", "act=relu"), {"depth": 3, "act": "relu"}),
        (("a=1e-3", "b=true", "c=null", "d=x=y"), {"a": 1e-3, "b": True, "c": None, "d": "x=y"}),
    ],
)
def test_arguments_are_read_as_yaml(typed, read):
    assert configs.read_arguments(typed) == read


@pytest.mark.parametrize("typed", [("depth",), ("=3",), ("a=1", "a=2"), ("a=[",)])
def test_what_is_no_argument_is_refused(typed):
    with pytest.raises(UsageError):
        configs.read_arguments(typed)


def test_a_resolved_config_is_that_config(write, tmp_path):
    text = SMALL + "train: {phases: [{epochs: 1, trainable: head}, {epochs: 2, optimizer: sgd}]}\n"
    models = "models=[lenet5, {name: mlp, arguments: {depth: 3}}]"
    config = load_config(write(text), ["seed=3", models])
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(config.resolved()))
    assert load_config(resolved) == config


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.epochs=3", lambda config: config.train.epochs == 3),
        ("train.learning_rate=1e-4", lambda config: config.train.learning_rate == 1e-4),
        ("train.optimizer={name: sgd, momentum: 0.9}",
         lambda config: config.train.optimizer == {"name": "sgd", "momentum": 0.9}),
        ("profile.threads=[1, 2, 4]", lambda config: config.profile.threads == [1, 2, 4]),
        ("models.0=resnet8", lambda config: config.models == ["resnet8"]),
        ("data.path=3:4:5", lambda config: config.data.path == "3:4:5"),
        ("data.path=a=b/c", lambda config: config.data.path == "a=b/c"),
        ("check.max_drop=null", lambda config: config.check.max_drop is None),
        ("steps=[build]", lambda config: config.steps == ["build"]),
        ("models=[{name: mlp, norm: group, arguments: {depth: 3}}]",
         lambda config: config.all_models()["mlp"].arguments == {"depth": 3}),
    ],
)  # fmt: skip
def test_an_override_changes_one_value(write, override, value):
    changed = load_config(write(SMALL), [override])
    assert value(changed)
    section = override.split(".")[0].split("=")[0]
    before = load_config(write(SMALL)).model_dump()
    assert {key for key, now in changed.model_dump().items() if now != before[key]} <= {section}


def test_the_last_override_wins(write):
    assert load_config(write(SMALL), ["seed=1", "seed=2"]).seed == 2


def test_an_override_reaches_into_a_list_of_phases(write):
    text = SMALL + "train: {phases: [{epochs: 1}, {epochs: 2}]}\n"
    config = load_config(write(text), ["train.phases.1.epochs=7"])
    assert [phase.epochs for phase in config.train.phases] == [1, 7]


def test_every_mistake_is_told_at_once(write):
    text = SMALL + "trian: {}\ntrain: {epochs: -1, lr: 3}\nquantize: {samples: few}\n"
    with pytest.raises(UsageError) as caught:
        load_config(write(text))
    for said in ("'trian'; did you mean train", "train.epochs", "'train.lr'", "quantize.samples"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["a: &a [1]\nb: *a\n", "&a [*a]", "a: &a {<<: *a}", "name: !!python/name:os.system"],
)
def test_aliases_and_code_are_refused(write, text):
    with pytest.raises(UsageError, match="not YAML"):
        load_config(write(text))


def test_a_config_is_small(write):
    with pytest.raises(UsageError, match="larger than"):
        load_config(write("#" * 2_000_000))


def test_a_missing_file_names_what_ships():
    with pytest.raises(MissingError, match="quickstart"):
        load_config("absent.yaml")


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=60) | st.text(alphabet="[]{}:&*!-? \n'\"|>%@0a.", max_size=40),
    key=st.text(alphabet="abc.=0[]{}: ", max_size=12),
)
def test_whatever_is_typed_is_a_config_or_a_message(tmp_path_factory, text, key):
    file = tmp_path_factory.mktemp("config") / "any.yaml"
    file.write_text(text)
    for source, overrides in ((file, []), ("quickstart", [key]), ("quickstart", [f"{key}={text}"])):
        # Any other error would fail this test.
        with contextlib.suppress(KzooError):
            load_config(source, overrides)
