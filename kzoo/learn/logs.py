"""Figures per epoch as files: CSV and TensorBoard."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path

from kzoo.files import atomic, disk_errors

CSV = "history.csv"


def epoch_logs(folder: str | os.PathLike | None) -> Callable[[list[dict]], None]:
    """What writes a training's rows so far into a folder, after every epoch.

    ``history.csv`` is written anew each time. Where tensorboardX is installed, every row that was
    not seen before is added to a file of events, so that a training that was killed goes on in the
    same curves.

    Raises:
        MissingError: the folder cannot be made.
    """
    if folder is None:
        return lambda _: None
    folder = Path(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    events = _events(folder)
    seen = 0

    def write(history: list[dict]) -> None:
        nonlocal seen
        with disk_errors(folder):
            with atomic(folder / CSV) as temporary, open(temporary, "w", newline="") as file:
                rows = csv.DictWriter(file, history[0])
                rows.writeheader()
                rows.writerows(history)
            for row in history[seen:] if events else ():
                events(row)
        seen = len(history)

    return write


def _events(folder: Path) -> Callable[[dict], None] | None:
    try:
        # Not its SummaryWriter, whose thread loses the last rows of a training that is killed.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
    except ImportError:
        return None
    writer = EventsWriter(str(folder / "events"))

    def write(row: dict) -> None:
        event = Event(wall_time=time.time(), step=row["epoch"])
        for name, value in row.items():
            if name not in ("epoch", "phase") and value is not None:
                event.summary.value.add(tag=name, simple_value=value)
        writer.write_event(event)
        writer.flush()

    return write
