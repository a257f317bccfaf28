"""kzoo report"""

from __future__ import annotations

import click

from kzoo.cli.terminal import json_option, show


@click.command("report")
@click.argument("folder", type=click.Path())
@json_option
def command(folder, as_json) -> None:
    """Write the HTML report of the run in FOLDER again, from its records.

    \b
    Example:
      kzoo report runs/quickstart
    """
    from kzoo.report.html import write_report

    path = write_report(folder)
    show({"report": str(path)}, f"report: {path}", as_json)
