"""A page for the browsers of other devices, and the records of what they measure."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kzoo.errors import KzooError, UsageError
from kzoo.files import output_folder, write_json
from kzoo.measure.record import Measured, Profile
from kzoo.measure.target import Setting
from kzoo.measure.targets.device import STATE
from kzoo.measure.web_page import (
    MAX_ANSWER,
    Problem,
    Shown,
    Timed,
    browser_name,
    checked,
    device,
    record,
    shown,
    site,
    summary,
)
from kzoo.measure.web_server import Post, Refused, serving

MOST_RESULTS = 10_000
"""Of one call: who has the address can send results until the disk is full."""


@dataclass(frozen=True)
class Served:
    """What `serve` did.

    Attributes:
        url: where the page was, its token included.
        models: the files, as given.
        records: what browsers measured, a `kzoo.measure.profile.Profile` each.
        files: where they were written, of those that were.
    """

    url: str
    models: list[str]
    records: list[Profile]
    files: list[str]

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return {
            "url": self.url,
            "models": self.models,
            "records": [each.to_dict() for each in self.records],
            "files": self.files,
        }


def serve(
    models: Sequence[str | os.PathLike] | str | os.PathLike,
    *,
    lan: bool = False,
    port: int = 0,
    output: str | os.PathLike | None = None,
    results: int | None = None,
    warm_up: float = 10.0,
    min_runs: int = 100,
    min_seconds: float = 1.0,
    opened: Callable[[str], None] = lambda _: None,
    told: Callable[[Profile | str], None] = lambda _: None,
) -> Served:
    """Serves a page on which any browser measures .tflite files and classifies photos with them.

    Returns at Ctrl-C, or after ``results`` measurements. The page is at an address with a token,
    without which nothing is answered; photos stay in the browser.

    The records of a file in a run's folder, ``RUN/models/FILE``, are kept in the run's ledger, and
    `kzoo report` shows them; those of other files are kept where ``output`` is given.

    Args:
        models: one or several .tflite files, of float32 or uint8 inputs and outputs.
        lan: for other devices of the network; otherwise for this machine alone. As that is plain
            http, browsers there give one thread, no WebGPU and no live camera.
        port: 0 takes a free one.
        output: a folder for the records, one JSON file each; made if it is not there. None: a run's
            ledger, see above.
        results: how many measurements to wait for; None: until Ctrl-C.
        warm_up: seconds of runs before the timed ones, at most; 0: none but the first inference.
        min_runs: timed runs, at least.
        min_seconds: of timed runs, at least.
        opened: told the address.
        told: told each record as it comes, then in a line where it is kept; or in a line what went
            wrong in a browser.

    Raises:
        UsageError: no model, a number out of range, the port is taken, or the output is a file.
        MissingError: a file, LiteRT.js or the network is missing, or the output cannot be written.
        BadInputError: a file is no .tflite, or has an input or output that LiteRT.js does not take.
    """
    given = [models] if isinstance(models, (str, os.PathLike)) else [*models]
    if not given:
        raise UsageError("serve takes at least one .tflite file")
    if min_runs < 1 or not all(math.isfinite(s) and s >= 0 for s in (warm_up, min_seconds)):
        raise UsageError(
            "min_runs is at least 1, warm_up and min_seconds 0; "
            f"not {min_runs}, {warm_up} and {min_seconds}"
        )
    if results is not None and results < 0:
        raise UsageError(f"results is 0 or more, not {results}")
    pages = [shown(model) for model in given]
    folders = [_ledger_of(model) if output is None else Path(output) for model in given]
    for folder in filter(None, folders):
        output_folder(folder)
    most = MOST_RESULTS if results is None else results
    setting = Setting(warm_up=warm_up, min_runs=min_runs, min_seconds=min_seconds)
    came, records, files = threading.Condition(), [], []

    def result(body: bytes) -> bytes:
        found = checked(Timed, body, pages)
        with came:
            if len(records) >= most:
                raise Refused(429, "there were enough results")
            folder = folders[found.model]
            try:
                made = _profile(str(given[found.model]), pages[found.model], found, setting)
                if folder:
                    in_ledger = setting if output is None else None
                    files.append(str(_write(output_folder(folder), made, in_ledger)))
            except KzooError as error:
                told(str(error))
                raise Refused(500, "see the terminal") from error
            records.append(made)
            told(made)
            if folder:
                told(f"kept as {files[-1]}")
            came.notify()
        return summary(found)

    def problem(body: bytes) -> bytes:
        found = checked(Problem, body, pages)
        told(f"{given[found.model]} failed in {browser_name(found.user_agent)}: {found.text}")
        return b"{}"

    posts = {"result": Post(result, MAX_ANSWER), "problem": Post(problem, MAX_ANSWER)}
    with serving(site(pages, setting, posts), lan=lan, port=port) as url:
        opened(url)
        try:
            with came:
                while results is None or len(records) < results:
                    came.wait(1.0)
        except KeyboardInterrupt:
            pass
    return Served(url, [str(model) for model in given], records, files)


@dataclass(frozen=True)
class _Answered:
    """A `kzoo.measure.target.Target` that was measured already, in a browser somewhere."""

    answer: dict
    told: dict
    name: str = "browser"
    kind: str = "measured"

    def machine(self) -> dict:
        return self.told

    def state(self) -> dict:
        return dict.fromkeys(STATE)

    def time_runs(self, model: Path, setting: Setting) -> dict:  # noqa: ARG002
        return self.answer


def _profile(name: str, page: Shown, found: Timed, setting: Setting) -> Profile:
    """The record, as `kzoo.measure.profile.profile` makes one of any target."""
    target = _Answered(record(page, found), device(found.device))
    measured = Measured(name, page.path, page.about["sha256"])
    measured.run(target, dataclasses.replace(setting, threads=found.threads), 0)
    return measured.record(target, setting)


def _ledger_of(model: str | os.PathLike) -> Path | None:
    """The ledger of the run in whose ``models/`` a file lies; None of other files."""
    models = Path(model).absolute().parent
    run = models.parent
    if models.name != "models" or not (run / "run.json").is_file():
        return None
    ledger = run / "ledger"
    return Path(os.path.relpath(ledger)) if ledger.is_dir() else None


def _write(folder: Path, made: Profile, in_ledger: Setting | None) -> Path:
    """A name of the model and the device, with the first number that is free.

    In a ledger, the record has the fields of every step's, with the profile as its result.
    """
    told, model = made.device, Path(made.model).stem
    words = f"{told['model'] or told['system']} {told['processor']}"
    stem = _plain(words if in_ledger else f"{model} {words}")
    if in_ledger:  # no step's name has a "-", so that a step's record is never of this name
        stem = f"{model}.served-{stem}"
    number = 1
    while (path := folder / f"{stem}-{number}.json").exists():
        number += 1
    record = made.to_dict()
    if in_ledger:
        rules = ("warm_up", "min_runs", "min_seconds")
        record = {
            "step": "serve",
            "model": model,
            "inputs": {"model": made.model_sha256},
            "settings": {name: getattr(in_ledger, name) for name in rules},
            "outputs": {},
            "result": record,
            "date": made.date,
            "environment": made.environment,
        }
    write_json(path, record)
    return path


def _plain(words: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", words.lower()).strip("-")[:100]


def qr_code(text: str) -> str:
    """A QR code in blocks of text; empty where segno, of ``kzoo[devices]``, is not installed."""
    try:
        import segno
    except ImportError:
        return ""
    import io

    drawn = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(drawn, compact=True)
    return drawn.getvalue().rstrip("\n")
