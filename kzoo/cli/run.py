"""kzoo run"""

from __future__ import annotations

import click

from kzoo.cli.terminal import bar, complete_config, json_option, show, table


@click.command("run")
@click.argument("config", shell_complete=complete_config)
@click.argument("overrides", nargs=-1)
@click.option("-o", "--output", type=click.Path(), help="The run's folder.  [default: runs/<name>]")
@json_option
def command(config, overrides, output, as_json) -> int:
    """Run the pipeline of CONFIG; OVERRIDES such as train.epochs=3 change single values.

    CONFIG is a YAML file, or the name of one that ships with kzoo, such as quickstart. What is done
    already is not done again. Exit code 1 if a gate of the config is not met.

    \b
    Examples:
      kzoo run quickstart
      kzoo run quickstart train.epochs=20 quantize.samples=500 -o runs/longer
      kzoo run photos data.path=photos/
      kzoo run caltech256_vgg16_fewshot data.path=256_ObjectCategories/
    """
    from kzoo.runs.run import run

    with bar() as progress:
        done = run(config, overrides, output=output, progress=progress)
    return shown(done, as_json)


def shown(done, as_json: bool) -> int:
    """Prints what a `kzoo.runs.run.Run` did; returns the exit code."""
    from kzoo.report.summary import run_tables

    lines = []
    for each in run_tables(done.folder):
        lines += [table(each.header, each.cells), ""]
    if done.kept:
        lines.append(f"steps run: {len(done.ran)}; unchanged and kept: {len(done.kept)}")
    lines += [f"gate not met: {failure}" for failure in done.failures]
    lines.append(f"report: {done.report}" if done.report else f"folder: {done.folder}")
    show(done.to_dict(), "\n".join(lines), as_json)
    return 1 if done.failures else 0
