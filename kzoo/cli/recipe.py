"""kzoo recipe"""

from __future__ import annotations

import click

from kzoo.cli.run import shown
from kzoo.cli.terminal import bar, complete_data, complete_recipe, json_option


@click.command("recipe")
@click.argument("recipe", shell_complete=complete_recipe)
@click.argument("model", type=click.Path())
@click.argument("data", shell_complete=complete_data)
@click.argument("overrides", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="The run's folder.  [default: runs/<model>_<recipe>]",
)
@json_option
def command(recipe, model, data, overrides, output, as_json) -> int:
    """Compress the trained .keras file MODEL in the steps of RECIPE, each trained and measured.

    RECIPE is a YAML file, or the name of one that ships with kzoo: small, download,
    deep_compression. OVERRIDES such as compress.train.epochs=3 change single values. What is done
    already is not done again. Exit code 1 if a gate is not met.

    \b
    Examples:
      kzoo recipe small trained.keras photos/
      kzoo recipe download trained.keras photos/ compress.teacher=self -o runs/taught
    """
    from kzoo.runs.recipe import recipe as compress

    with bar() as progress:
        done = compress(recipe, model, data, output=output, overrides=overrides, progress=progress)
    return shown(done, as_json)
