"""kzoo prune"""

from __future__ import annotations

import click

from kzoo.cli.gain import ZEROS, compressing, engine_of, engine_option, gained
from kzoo.cli.terminal import Several, bar


class Share(click.ParamType):
    """``0.8``, or ``stage4=0.9`` for the layers whose names begin so; gives (prefix, share)."""

    name = "share"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        prefix, given, share = value.rpartition("=")
        try:
            return prefix if given else None, float(share)
        except ValueError:
            self.fail(f"{value!r} is no share; type 0.8, or stage4=0.9", param, ctx)


@click.command("prune")
@click.option(
    "--sparsity",
    cls=Several,
    type=Share(),
    default=(),
    help="Share of zeros, or PREFIX=SHARE for layers; several may follow.  [default: 0.8]",
)
@click.option(
    "--threshold",
    type=float,
    help="In place of a share: zero what is below so many standard deviations of its kernel.",
)
@click.option(
    "--scope",
    type=click.Choice(["layer", "global"]),
    default="layer",
    show_default=True,
    help="The share in every kernel, or in all of them together.",
)
@click.option(
    "--pattern",
    default="element",
    show_default=True,
    help="element, filter, n of m such as 2:4, or blocks such as 4x1.",
)
@click.option(
    "--pruning-schedule",
    type=click.Choice(["polynomial", "constant", "one_shot"]),
    default="polynomial",
    show_default=True,
    help="How the zeros come.",
)
@click.option("--begin", default=0.0, show_default=True, help="Of the zeros, in shares of steps.")
@click.option("--end", default=0.75, show_default=True, help="All zeros are there then.")
@click.option(
    "--frequency", default=20, show_default=True, help="Steps between two choices of zeros."
)
@click.option(
    "--rewind",
    type=click.Path(),
    help="The same network earlier in its training: what is left goes back to its weights.",
)
@engine_option
@compressing
def command(model, data, output, sparsity, engine, force, as_json, **options) -> None:
    """Set most weights of the trained .keras file MODEL to zero, while the others are trained.

    The zeros are in every tensor of the file and of its .tflite. They shrink what is downloaded,
    not the latency. Writes the model, its record (.json) and its curves (.png). After a kill, the
    same command goes on where it was.

    \b
    Examples:
      kzoo prune trained.keras photos/ -o sparse.keras --sparsity 0.8
      kzoo prune trained.keras photos/ -o sparse.keras --scope global --exclude stem
      kzoo prune trained.keras photos/ -o sparse.keras --sparsity 0.6 stage4=0.9 --teacher big.keras
    """
    from kzoo.compress.prune import prune
    from kzoo.files import new_output

    for written in (output, f"{output}.json", f"{output}.png"):
        new_output(written, force=force)
    with bar() as progress:
        found = prune(
            model,
            data,
            sparsity=shares(sparsity) if sparsity else 0.8,
            output=output,
            force=force,
            engine=engine_of(engine),
            progress=progress,
            **options,
        )
        told = [("zeros", f"{100 * found.sparsity:.1f} % of the kernels' weights")]
        gained("prune", model, data, found, told, options["data_options"], progress, as_json, ZEROS)


def shares(typed: tuple) -> float | dict[str, float]:
    """What was typed as `Share`: a share, or one by prefix of layers."""
    if len(typed) == 1 and typed[0][0] is None:
        return typed[0][1]
    return {prefix or "": share for prefix, share in typed}
