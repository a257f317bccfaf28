from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path):
    """write(text): a config file with that text."""

    def write(text: str) -> Path:
        (tmp_path / "small.yaml").write_text(text)
        return tmp_path / "small.yaml"

    return write
