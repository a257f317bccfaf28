"""A wheel holds every package, the device's files and the configs, and works away from here."""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from kzoo.doctor import NEEDED

ROOT = Path(__file__).parents[1]


def listed() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return set(setup["options"]["packages"].split())


def folders(top: str, suffix: str = ".py") -> set[Path]:
    return {
        path.parent.relative_to(ROOT)
        for path in (ROOT / top).rglob(f"*{suffix}")
        if "__pycache__" not in path.parts
    }


def test_every_folder_of_code_is_a_listed_package():
    found = {".".join(folder.parts) for folder in folders("kzoo")}
    found |= {".".join(("kzoo", "_deploy", *folder.parts[1:])) for folder in folders("deploy")}
    configs = folders("configs", ".yaml")
    found |= {".".join(("kzoo", "_configs", *folder.parts[1:])) for folder in configs}
    assert found <= listed()


def test_every_listed_package_is_a_folder():
    for package in listed():
        parts = package.replace("kzoo._deploy", "deploy").replace("kzoo._configs", "configs")
        assert (ROOT / Path(*parts.split("."))).is_dir(), package


def test_every_file_that_is_no_code_is_package_data():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for path in (ROOT / "kzoo").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = ".".join(path.relative_to(ROOT).parent.parts)
            patterns = setup["options.package_data"].get(package, "").split()
            assert f"*{path.suffix}" in [each.rstrip(",") for each in patterns], path


def test_the_doctor_looks_for_what_pip_installs():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = setup["options"]["install_requires"].split()
    assert {requirement.split(">=")[0] for requirement in asked} == NEEDED.keys()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The ``bin`` of a fresh environment with the wheel, beside this environment's packages."""
    if not importlib.util.find_spec("setuptools"):
        pytest.skip("needs setuptools to build a wheel without a download")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "-w", folder, tree], check=True, capture_output=True)
    (wheel,) = folder.glob("kzoo-*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    command = [*pip, "--python", python, "install", *offline, wheel]
    subprocess.run(command, check=True, capture_output=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # A path file gives it the packages here; an editable kzoo among them stands behind the wheel.
    (packages / "here.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python.parent


@pytest.fixture
def run(installed, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [installed / command[0], *command[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )

    return run


@pytest.mark.slow
def test_the_wheel_is_what_is_imported(run):
    done = run("python", "-c", "import kzoo; print(kzoo.__file__)")
    assert "site-packages" in done.stdout
    assert str(ROOT) not in done.stdout


@pytest.mark.slow
def test_the_wheel_lists_its_models(run):
    done = run("kzoo", "list")
    assert done.returncode == 0, done.stderr
    assert "lenet5" in done.stdout


@pytest.mark.slow
def test_the_wheel_carries_the_configs(run):
    done = run("kzoo", "run", "quickstart", "train.epoch=3")
    assert done.returncode == 2
    assert "quickstart is not a valid config" in done.stderr
    assert "did you mean epochs" in done.stderr


@pytest.mark.slow
def test_the_wheel_carries_the_recipes(run):
    done = run("kzoo", "recipe", "small", "absent.keras", "digits")
    assert done.returncode == 3
    assert "absent.keras" in done.stderr


@pytest.mark.slow
def test_the_wheel_carries_the_runner_and_the_template(run):
    program = (
        "from kzoo.measure.deploy import deploy_file; from pathlib import Path; import kzoo;"
        "print(deploy_file('linux/benchmark.py'));"
        "print(*Path(kzoo.__file__).parent.glob('report/*.html'))"
    )
    done = run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    benchmark, template = done.stdout.splitlines()
    assert benchmark.endswith("kzoo/_deploy/linux/benchmark.py")
    assert "site-packages" in benchmark
    assert template.endswith(".html")
