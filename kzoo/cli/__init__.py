"""The command line: one click file per command, imported when that command is typed."""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import tempfile
from typing import IO

import click

from kzoo import __version__

COMMANDS = {
    "list": "What architectures exist.",
    "info": "The card of an architecture, its layers, a drawing of it.",
    "compare": "The cards of several architectures side by side.",
    "build": "Build an architecture and write it as a .keras file.",
    "data": "Validate, count and split a dataset, and build its store.",
    "finetune": "Train a model on images.",
    "fewshot": "Train classifiers on few images per class, on the features of a network.",
    "distill": "Train a small model on what a large one knows.",
    "sensitivity": "What each layer bears: zeros, few bits, fewer channels.",
    "prune": "Set most weights of a model to zero while the others are trained.",
    "cluster": "Give the kernels of a model few distinct values, and train these.",
    "slim": "Remove whole channels of a model, and train what is left.",
    "qat": "Train a model with the rounding of int8.",
    "recipe": "Compress a trained model in several steps, each reported.",
    "convert": "Write a Keras model as a float .tflite.",
    "quantize": "Write a Keras model as a .tflite of whole numbers: int8 and others.",
    "predict": "What a model sees in images.",
    "explain": "Why a model sees it: filters, activations, Grad-CAM, occlusion.",
    "evaluate": "How good a model is on labelled images, and where it is most wrong.",
    "check": "Compare a .tflite with the Keras model it came from, on real images.",
    "localize": "Where an int8 .tflite loses what its network knew, why, and what to do.",
    "lint": "Predict what share of a .tflite a target runs, and what is in the way.",
    "compile": "Compile a .tflite for the Edge TPU by Coral's compiler.",
    "inspect": "What is inside a .tflite: sizes, operators, memory, metadata.",
    "diff": "What two .tflite files have in common, and where they part.",
    "snippet": "Write a program for a .tflite: in Python, for Android, as an array in C.",
    "devices": "What can be measured on: this machine, phones, an Edge TPU.",
    "profile": "Measure the latency and memory of a .tflite.",
    "serve": "Serve a page on which any browser measures a .tflite, and tries it.",
    "run": "Run a whole pipeline from a config.",
    "report": "Write the HTML report of a run again.",
    "doctor": "What this machine can do, and what is missing.",
}
"""Each command's line in ``--help``; its module is ``kzoo.cli.<name>``, in it ``command``."""


class LazyGroup(click.Group):
    """A group whose commands are modules, so that ``--help`` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        # Not list(COMMANDS): when kzoo.cli.list is imported, it is `list` in this module.
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"kzoo.cli.{name}").command

    def resolve_command(self, ctx: click.Context, args: list[str]):
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from kzoo.errors import nearest

            raise click.UsageError(
                f"no command {args[0]!r}{nearest(args[0], COMMANDS)}", ctx
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str):
        from click.shell_completion import CompletionItem

        found = [CompletionItem(n, help=h) for n, h in COMMANDS.items() if n.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A first run, a minute long: kzoo run quickstart",
)
@click.version_option(__version__, prog_name="kzoo")
def cli() -> None:
    """From an architecture's name, or a folder of photos, to a small int8 model measured on your
    own device."""


def main() -> None:
    """The console script: a user's mistake ends with one message and an exit code, no traceback."""
    log = _divert_native_stderr()
    from kzoo.errors import KzooError, MissingError
    from kzoo.files import disk_errors
    from kzoo.light_keras import light_keras

    light_keras()
    try:
        # As Ctrl-C does, a termination removes temporary files and ends the children.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with disk_errors("the output"):
            code = cli(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _stop("stopped", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KzooError as error:
        _stop(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "kzoo":
            raise
        _stop(
            f"the package {error.name!r} is not installed; pip install it", MissingError.exit_code
        )
    except OSError as error:
        if error.filename is None:
            raise
        _stop(f"{error.strerror}: {str(error.filename)!r}", MissingError.exit_code)
    except Exception:
        log.seek(0)
        sys.stderr.write(log.read().decode(errors="replace"))
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _divert_native_stderr() -> IO[bytes]:
    """Sends what C++ code writes to file descriptor 2 to a file, returned to be shown on failure.

    TensorFlow writes banners there, some before its log level is read. Python's own ``sys.stderr``
    keeps the terminal.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    log = tempfile.TemporaryFile()  # noqa: SIM115 it is open until the process ends
    if sys.stderr is None:  # started with 2>&-
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        return log
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(log.fileno(), 2)
    sys.stderr = os.fdopen(
        terminal, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
    )
    faulthandler.enable(sys.stderr)
    return log


def _stop(message: str, code: int) -> None:
    click.echo(f"{click.style('kzoo:', fg='red', bold=True)} {message}", err=True)
    sys.exit(code)
