"""LiteRT.js, the runtime that browsers load: two packages, fetched once by the user's own npm.

Which, of what licence and with which digest, stands in deploy/web/litert.json; the files that a
page needs, and no others, are kept in the cache.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tarfile
from pathlib import Path

from kzoo.errors import BadInputError, MissingError
from kzoo.files import cache_folder, filled_once, read_json
from kzoo.measure.c_runner import tool
from kzoo.measure.deploy import deploy_file

RUNTIME = "@litertjs/core"
FOLDER_VARIABLE = "KZOO_LITERTJS"
"""Names a folder that has the packages: the ``node_modules/@litertjs`` of a project, say."""


def litert_js() -> tuple[str, dict[str, Path]]:
    """The version, and the files by their names: "core/dist/index.js".

    They are taken from ``$KZOO_LITERTJS`` as they stand there, or from the cache; npm fetches them
    at the first use, and they are held to the digest of the package that was published.

    Raises:
        MissingError: they are not there and npm is not, or has no network.
        BadInputError: npm gave another package than was published.
    """
    about = read_json(deploy_file("web/litert.json"))
    given = os.environ.get(FOLDER_VARIABLE)
    kept = cache_folder() / "litertjs" / about["version"]
    folder = Path(given) if given else filled_once(kept, lambda new: _fetch(about, new, kept))
    files = {name: folder / name for name in about["files"]}
    for name, file in files.items():
        if not file.is_file():
            where = f"{FOLDER_VARIABLE}={given}" if given else str(folder)
            raise MissingError(
                f"{where} has no {name}; it must hold core/ and wasm-utils/, as npm unpacks them"
            )
    return read_json(files["core/package.json"])["version"], files


def _fetch(about: dict, folder: Path, kept: Path) -> None:
    wanted = [f"{each['name']}@{about['version']}" for each in about["packages"].values()]
    by_hand = (
        f"install Node.js, or unpack {' and '.join(wanted)} to {kept}/core and {kept}/wasm-utils, "
        f"or set {FOLDER_VARIABLE} to a folder that has them"
    )
    if os.environ.get("KZOO_OFFLINE", "0") not in ("", "0"):
        raise MissingError(f"LiteRT.js is not in the cache and kzoo is offline; {by_hand}")
    if not shutil.which("npm"):
        raise MissingError(f"LiteRT.js is fetched by npm, which is not installed; {by_hand}")
    for (place, package), name in zip(about["packages"].items(), wanted, strict=True):
        (work := folder / "package").mkdir()
        options = ["--silent", "--prefer-offline", "--ignore-scripts", "--fetch-retries=1"]
        tool(["npm", "pack", *options, name], f"{name} (npm pack)", work)
        (archive,) = work.glob("*.tgz")
        _verify(archive, package["integrity"], name)
        with tarfile.open(archive) as packed:
            for each in about["files"]:
                if each.startswith(f"{place}/"):
                    (folder / each).parent.mkdir(parents=True, exist_ok=True)
                    file = packed.extractfile(each.replace(place, "package", 1))
                    (folder / each).write_bytes(file.read())
        shutil.rmtree(work)


def _verify(archive: Path, integrity: str, name: str) -> None:
    kind, _, wanted = integrity.partition("-")
    found = base64.b64encode(hashlib.new(kind, archive.read_bytes()).digest()).decode()
    if found != wanted:
        raise BadInputError(
            f"npm's {name} was discarded: its {kind} is {found}, expected was {wanted}"
        )
