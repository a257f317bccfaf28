"""kzoo snippet"""

from __future__ import annotations

import click

from kzoo.cli.terminal import force_option, json_option, show
from kzoo.lite.snippet import LANGUAGES


@click.command("snippet")
@click.argument("file", type=click.Path())
@click.option(
    "--language", required=True, type=click.Choice(LANGUAGES), help="What the program is in."
)
@click.option(
    "-o", "--output", type=click.Path(), help="Where to write it.  [default: standard output]"
)
@force_option
@json_option
def command(file, language, output, force, as_json) -> None:
    """Write a program that classifies images with the .tflite FILE, and with no other.

    python: needs ai-edge-litert, NumPy and Pillow; gives what kzoo predict gives. kotlin: a class
    for Android. c: a header with the file as an array, for microcontrollers.

    \b
    Examples:
      kzoo snippet net.tflite --language python -o classify.py
      kzoo snippet net_int8.tflite --language c -o net.h
    """
    from kzoo.lite.snippet import snippet

    record = snippet(file, language, output=output, force=force).to_dict()
    show(record, f"written  {output}" if output else record["program"].removesuffix("\n"), as_json)
