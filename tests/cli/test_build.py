"""What a built file knows of its classes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from kzoo.cli import cli
from kzoo.network.model_file import read_notes


@pytest.mark.parametrize("asked", [(), ("--classes", "10")], ids=["its own", "the user's"])
def test_classes_that_are_asked_for_have_no_names_of_others(asked, shared, tmp_path):
    """As many classes as the weights have are the user's own still: they can be trained on."""
    weights = shared / "cifar-resnet" / "resnet20-12fca82f.th"
    output = tmp_path / "net.keras"
    command = ["build", "resnet20", "--weights", str(weights), *asked, "-o", str(output)]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert ("are your own" in done.output) == bool(asked)
    names = read_notes(output).get("classes", [])
    assert len(names) == (0 if asked else 10)
