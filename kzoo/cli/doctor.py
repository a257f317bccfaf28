"""kzoo doctor"""

from __future__ import annotations

import click

from kzoo.cli.terminal import json_option, show


@click.command("doctor")
@json_option
def command(as_json) -> int:
    """What this machine can do, and what to install for the rest.

    Exit code 3 if a needed package is missing.
    """
    from kzoo.doctor import doctor

    record = doctor()
    marks = {"ok": "✓", "missing": "✗", "absent": "–", "note": "!"}
    width = max(len(item["what"]) for item in record["items"])
    lines = [
        f"{marks[item['state']]} {item['what']:<{width}}  {item['found']}"
        + (f"  → {item['advice']}" if item["advice"] else "")
        for item in record["items"]
    ]
    show(record, "\n".join(lines), as_json)
    return 0 if record["ready"] else 3
