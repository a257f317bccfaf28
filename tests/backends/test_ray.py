"""A few-shot study on a Ray cluster gives the rows of the study without."""

from __future__ import annotations

import json
import posixpath

import pytest

from kzoo.errors import MissingError
from kzoo.learn.fan_out import on_ray
from kzoo.learn.fewshot import fewshot

STUDY = {
    "shots": (1, 4), "seeds": 3, "at": ("stage1", "head"), "head": ("ridge", "softmax", "logits-T"),
    "temperature": (1, 4),
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two workers with a core each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_rows_are_those_of_one_process_in_their_order(trained, digits, cluster):
    asked = []
    found, alone = (
        fewshot(trained, digits, **STUDY, ray=ray, progress=lambda *step: asked.append(step))
        for ray in (cluster, None)
    )
    assert timeless(found.rows) == timeless(alone.rows)
    assert (found.means, found.recipe) == (alone.means, alone.recipe)
    steps = [step for step in asked if step[0] == "train heads"]
    assert steps == 2 * [("train heads", i + 1, 12) for i in range(12)]


def timeless(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.slow
def test_the_command_starts_workers_on_this_machine(trained, kzoo_command, tmp_path):
    pytest.importorskip("ray")
    typed = ("fewshot", trained, "digits", "-o", tmp_path / "study", "--shots", 2, "--seeds", 2)
    done = kzoo_command(*typed, "--at", "head", "--json", "--ray")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rows"]) == 4


@pytest.mark.slow
def test_a_function_that_fails_fails_as_here(cluster):
    """Ray takes functions written in Python alone."""
    with pytest.raises(ValueError, match="mix absolute and relative"):
        list(on_ray(cluster, posixpath.commonpath, [(["/a", "/b"],), (["/a", "b"],)]))


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_told():
    pytest.importorskip("ray")
    with pytest.raises(MissingError, match=r"no Ray cluster answers at '127.0.0.1:1'"):
        list(on_ray("127.0.0.1:1", posixpath.join, [("a",)]))
