"""Where deploy/ is, the files that run on a device: in a checkout, an editable install, a wheel."""

from __future__ import annotations

from pathlib import Path

import kzoo
from kzoo.errors import MissingError


def deploy_file(relative: str) -> Path:
    """Returns the path of a file of deploy/, such as ``"linux/benchmark.py"``.

    A wheel carries the folder as ``kzoo/_deploy``; a checkout has it beside ``kzoo``. The wheel's
    is looked at first: the folder beside an installed ``kzoo`` is site-packages, and a ``deploy``
    there is another project's.

    Raises:
        MissingError: neither place has the file.
    """
    package = Path(kzoo.__file__).resolve().parent
    places = [package / "_deploy", package.parent / "deploy"]
    for place in places:
        if (place / relative).is_file():
            return place / relative
    looked = " and ".join(str(place) for place in places)
    raise MissingError(
        f"kzoo's own file deploy/{relative} is missing (looked in {looked}); reinstall kzoo"
    )
