"""kzoo's own processes leave out of Keras what they do not use; a user's process has all of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kzoo.child import call

HEAVY = "[name for name in ('matplotlib', 'sklearn') if name in sys.modules]"
LIGHT = "from kzoo.light_keras import light_keras; light_keras(); "


def printed(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_neither_matplotlib_nor_scikit_learn_is_imported_and_both_still_can_be():
    later = "import matplotlib.pyplot, sklearn.linear_model"
    assert printed(f"{LIGHT}import keras, sys; print({HEAVY}); {later}") == "[]"


@pytest.mark.slow
def test_a_library_leaves_keras_whole():
    code = "import keras, kzoo; kzoo.build('lenet5'); print(keras.wrappers.SKLearnClassifier)"
    assert "sklearn_wrapper.SKLearnClassifier" in printed(code)


def test_the_command_line_does_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = f"""
import sys
from kzoo.cli import main
sys.argv = ["kzoo", "build", "lenet5"]
try:
    main()
except SystemExit as end:
    assert not end.code
print({HEAVY})"""
    assert printed(code).endswith("[]")


def test_a_child_does_without(tmp_path, monkeypatch):
    source = f"import sys\n\ndef look():\n    import keras\n    return {HEAVY}\n"
    (tmp_path / "heavy.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert call("heavy:look") == []
