import ast
import sys

import pytest

from kzoo.errors import MissingError
from kzoo.measure import deploy
from kzoo.measure.deploy import deploy_file


def test_finds_the_script_in_this_checkout():
    assert deploy_file("linux/benchmark.py").read_text().startswith('"""Times one .tflite model')


def test_a_wheel_s_own_folder_wins_over_a_stranger_s(tmp_path, monkeypatch):
    for place in ("kzoo/_deploy", "deploy"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "script.py").touch()
    monkeypatch.setattr(deploy.kzoo, "__file__", str(tmp_path / "kzoo" / "__init__.py"))
    assert deploy_file("script.py") == tmp_path / "kzoo" / "_deploy" / "script.py"


def test_a_missing_file_names_both_places():
    with pytest.raises(MissingError, match=r"_deploy and .*reinstall"):
        deploy_file("linux/nothing.py")


def test_the_script_is_python_39_with_numpy_alone():
    source = deploy_file("linux/benchmark.py").read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    # the runtime is imported by its name, not by a statement
    assert imported <= {"numpy", *sys.stdlib_module_names}
