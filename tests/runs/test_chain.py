"""What a chain of compressions in a config means, and what is told of a wrong one."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from kzoo.compress.qat import ROUNDED_PHASE
from kzoo.compress.tune import PHASE
from kzoo.errors import UsageError
from kzoo.runs import chain, schema
from kzoo.runs import config as configs
from kzoo.runs.config import load_config
from kzoo.runs.members import members, needs
from kzoo.runs.recipe import KEYS
from kzoo.runs.shipped import shipped_configs

SMALL = "name: small\nmodels: [lenet5]\ndata: {path: digits, channels: 1}\n"


def test_what_a_compression_is_trained_with_is_its_own_then_the_chains_then_the_verbs():
    config = chain.CompressConfig(
        train={"epochs": 3, "augment": "light"},
        chain=[{"prune": {"learning_rate": 1e-3, "augment": "strong"}}, "qat", {"qat": None}],
    )
    pruned, rounded, again = (config.training(link) for link in config.links())
    phase = dataclasses.replace(PHASE, epochs=3, learning_rate=1e-3)
    assert pruned == {"augment": "strong", "phases": (phase,)}
    assert rounded["phases"] == (dataclasses.replace(ROUNDED_PHASE, epochs=3),)
    assert rounded == again
    assert chain.TuneConfig.model_fields.keys() - chain.PruneConfig.model_fields.keys() == set()
    known = schema.TrainConfig.model_fields.keys() - {"phases", "auxiliary_weight"}
    assert chain.TuneConfig.model_fields.keys() == known


def test_a_resolved_chain_is_that_chain(write, tmp_path):
    text = "compress: {teacher: self, train: {epochs: 1}, chain: [{slim: {macs: 0.5}}, qat]}\n"
    config = load_config(write(SMALL + text), ["compress.chain.0.slim.macs=0.25"])
    assert config.compress.chain[0].slim.macs == 0.25
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(config.resolved()))
    assert load_config(resolved) == config


CHAIN = "compress: {chain: [{prune: {sparsity: 0.5}}, qat]}\n"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("compress.chain=[{prnue: {}}]", "'compress.chain.0.prnue'; did you mean prune"),
        ("compress.chain.0.prune={sparsty: 0.5}", "prune.sparsty'; did you mean sparsity"),
        ("compress.chain.0.prune={epohcs: 5}", "prune.epohcs'; did you mean epochs"),
        ("compress.train.epohcs=1", "'compress.train.epohcs'; did you mean epochs"),
        ("compress.train={phases: []}", "'compress.train.phases'"),
        ("compress.techer=self", "'compress.techer'; did you mean teacher"),
        ("compress.teacher=slef", "compress.teacher: a teacher is none, self"),
        ("compress.temperature=2", "temperature is of a teacher's lessons"),
        ("compress={teacher: self, losses: {hrad: 1}, chain: [qat]}", "did you mean hard"),
        ("compress.chain=[]", "compress.chain"),
        ("compress.chain.0={prune: {}, slim: {macs: 0.5}}", "compress.chain.0: an item of a chain"),
        ("compress.chain.0.prune.sparsity=1", "from 0 to below 1; 1.0 was given"),
        ("compress.chain.0.prune.pattern=3:2", "n of m such as 2:4"),
        ("compress.chain=[{cluster: {clusters: 1}}]", "a whole number from 2"),
        ("compress.chain=[{slim: {}}]", "how small the network becomes"),
        ("compress.chain=[{slim: {macs: 2}}]", "above 0 and below 1"),
        ("compress.chain=[{qat: {freeze: 2}}]", "qat.freeze"),
        ("compress.chain=[qat, {prune: {}}]", "prune stands behind qat: its ranges"),
        ("compress.chain=[{prune: {}}, {slim: {macs: 0.5}}]", "slim stands behind prune: its zer"),
        ("compress.chain=[{cluster: {}}, {prune: {}}]", "prune stands behind cluster: its shar"),
        ("compress=null", "step 'compress' needs a section"),
        ("quantize={adaround: true}", "quantize: adaround changes a network before"),
    ],
)
def test_a_mistake_in_a_chain_is_told(write, override, said):
    with pytest.raises(UsageError) as caught:
        load_config(write(SMALL + CHAIN), [override, "steps=[build, finetune, compress]"])
    assert said in str(caught.value)


def test_one_compression_may_come_several_times(write):
    twice = "compress.chain=[{prune: {sparsity: 0.5}}, {prune: {sparsity: 0.8}}, qat, qat]"
    assert len(load_config(write(SMALL + CHAIN), [twice]).compress.links()) == 4


def test_the_distilled_network_is_the_one_that_is_compressed(write):
    more = "distill: {teacher: resnet8}\n"
    found = members(load_config(write(SMALL + CHAIN + more)))
    assert [*found] == [
        "resnet8_teacher", "lenet5", "lenet5_distilled", "lenet5_1_prune", "lenet5_2_qat",
    ]  # fmt: skip
    assert needs(found, "lenet5_2_qat", "compress") == (
        ("lenet5_1_prune", "compress"),
        ("lenet5_distilled", "distill"),
    )


def test_a_trained_file_is_neither_trained_nor_built(write):
    config = load_config(write(SMALL + CHAIN), ["models=[a/net.keras]"])
    assert "finetune" not in config.steps
    assert [*members(config)] == ["net", "net_1_prune", "net_2_qat"]
    assert "finetune" in load_config(write(SMALL), ["models=[a/net.keras, lenet5]"]).steps


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["models=[{name: a.keras, norm: group}]"], "stands alone"),
        (["models=[a.keras]", "distill={teacher: resnet8}"], "'a.keras' is trained"),
        (["models=[a.keras]", "fewshot={}"], "'a.keras' is trained"),
    ],
)
def test_what_a_trained_file_cannot_be_is_told(write, overrides, said):
    with pytest.raises(UsageError, match=said):
        load_config(write(SMALL), overrides)


@pytest.mark.parametrize("name", shipped_configs("recipes"))
def test_a_shipped_recipe_says_how_it_is_run_and_names_what_is_known(name):
    file = shipped_configs("recipes")[name]
    header = file.read_text().partition("\nname:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"kzoo recipe {name} " in header
    values = yaml.safe_load(file.read_text())
    assert values["name"] == name
    assert set(values) <= set(KEYS)
    values |= {"models": ["net.keras"], "data": {"path": "photos"}}
    assert configs.checked(values, [], name).compress.links()
