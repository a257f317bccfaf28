"""Help, names and completion cost no import of Keras, and tell of everything."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kzoo.cli import COMMANDS, cli

HEAVY = {"keras", "tensorflow", "numpy", "matplotlib", "PIL", "sklearn", "pydantic", "rich", "yaml"}


def loaded(arguments: list[str]) -> set[str]:
    """The top-level packages that a command imports."""
    program = (
        "import sys, kzoo.cli; sys.argv = ['kzoo', *sys.argv[1:]]\n"
        "try: kzoo.cli.main()\n"
        "finally: print('\\n', *sys.modules)"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.splitlines()[-1].split() if "." not in name}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "res*", "--json"],
        ["list", "--max-params", "1M", "--sort", "gmacs"],
        ["info", "resnet8"],
        ["compare", "resnet8", "lenet5"],
    ]
    + [[name, "--help"] for name in COMMANDS],
    ids=" ".join,
)
def test_what_needs_no_model_imports_nothing_heavy(arguments):
    found = loaded(arguments)
    assert "click" in found
    assert not found & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_of_every_option(name):
    command = cli.get_command(None, name)
    assert command.name == name
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
    assert "--json" in {opt for parameter in command.params for opt in parameter.opts}


@pytest.mark.parametrize("width", [60, 80, 100])
def test_help_fits_the_terminal(width):
    for name in COMMANDS:
        shown = CliRunner().invoke(cli, [name, "--help"], terminal_width=width).output
        prose = [
            line for line in shown.splitlines() if "kzoo " not in line and "--phase" not in line
        ]
        assert max(map(len, prose)) <= width


def test_the_commands_are_listed_in_the_order_of_the_work():
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert "Commands:" in shown
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("  ")]
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS)


def complete(words: str) -> list[str]:
    """What bash offers for the last word, as click's script asks for it."""
    script = os.path.join(os.path.dirname(sys.executable), "kzoo")
    if not os.path.exists(script):
        pytest.skip(f"needs the installed command {script}")
    environment = {
        **os.environ,
        "_KZOO_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run([script], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    return [line.split(",")[1] for line in done.stdout.splitlines() if line]


def test_commands_are_completed():
    assert complete("kzoo ") == list(COMMANDS)
    assert complete("kzoo q") == ["qat", "quantize"]
    assert complete("kzoo zzz") == []


def test_names_of_models_are_completed():
    assert "lenet5" in complete("kzoo build lene")
    assert {"resnet8", "resnet20"} <= set(complete("kzoo info res"))
    assert "lenet5" in complete("kzoo compare resnet8 lene")
    assert complete("kzoo list --family lene") == ["lenet"]


def test_options_data_and_configs_are_completed():
    assert complete("kzoo build lenet5 --cl") == ["--classes"]
    assert complete("kzoo build lenet5 --head s") == ["softmax"]
    assert "digits" in complete("kzoo data di")
    assert "quickstart" in complete("kzoo run qu")
    assert "download" in complete("kzoo recipe do")
