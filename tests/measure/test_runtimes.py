import importlib.util
import runpy

import pytest

from kzoo.errors import MissingError, UsageError
from kzoo.measure.deploy import deploy_file
from kzoo.measure.runtimes import RUNTIMES, choose_runtime


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def test_the_first_installed_one_is_taken():
    assert choose_runtime() == "ai-edge-litert"


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean ai-edge-litert"):
        choose_runtime("ai-edge-lite")


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("name", [*RUNTIMES, None])
def test_a_missing_one_says_what_to_install(name):
    with pytest.raises(MissingError, match="pip install"):
        choose_runtime(name)


def test_the_script_knows_the_same_runtimes():
    script = runpy.run_path(str(deploy_file("linux/benchmark.py")))
    assert list(script["RUNTIMES"]) == list(RUNTIMES)
