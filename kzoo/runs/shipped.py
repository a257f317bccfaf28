"""The configs and recipes that ship with kzoo: in a checkout, an editable install, a wheel."""

from __future__ import annotations

from pathlib import Path


def shipped_configs(kind: str = "") -> dict[str, Path]:
    """Name → file, sorted; of the configs, or of a ``kind`` of them that has a folder: "recipes".

    A wheel carries them in ``kzoo/_configs``; a checkout has ``configs`` beside ``kzoo``. Only one
    is looked into: a ``configs`` beside an installed ``kzoo`` is another project's.
    """
    package = Path(__file__).resolve().parents[1]
    carried = package / "_configs"
    folder = carried if carried.is_dir() else package.parent / "configs"
    return {file.stem: file for file in sorted((folder / kind).glob("*.yaml"))}
