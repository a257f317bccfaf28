"""kzoo compile"""

from __future__ import annotations

import click

from kzoo.cli.terminal import byte_size, force_option, json_option, keep_record, pairs, show, table


@click.command("compile")
@click.argument("file", type=click.Path())
@click.option(
    "--target",
    type=click.Choice(["edgetpu"]),
    default="edgetpu",
    show_default=True,
    help="For what.",
)
@click.option(
    "-o", "--output", type=click.Path(), help="The file to write.  [default: FILE_edgetpu.tflite]"
)
@click.option(
    "--timeout", type=float, default=180.0, show_default=True, help="Seconds for the compilation."
)
@force_option
@json_option
def command(file, target, output, timeout, force, as_json) -> None:
    """Compile the int8 .tflite FILE for the Edge TPU, and compare with what kzoo lint predicts.

    Coral's edgetpu_compiler does it, which must be installed (x86-64 Linux).

    \b
    Example:
      kzoo compile net_int8.tflite
    """
    from kzoo.files import new_output
    from kzoo.lite.compile import compile, default_output

    output = output or str(default_output(file))
    new_output(f"{output}.json", force=force)
    record = compile(file, target=target, output=output, timeout=timeout, force=force).to_dict()
    keep_record("compile", output, record)
    show(record, "\n\n".join(filter(None, _parts(record))), as_json)


def _parts(record: dict) -> list[str]:
    sizes = {key: record[key] for key in ("on_chip_used", "on_chip_left", "off_chip")}
    used, left, off = (None if each is None else byte_size(each) for each in sizes.values())
    total = record["on_tpu"] + record["on_cpu"]
    rows = [[row["operator"], row["count"], row["status"]] for row in record["operators"]]
    apart = [[row["operator"], row["compiled"], row["predicted"]] for row in record["compared"]]
    return [
        pairs(
            [
                ("written", f"{record['output']}, {record['output']}.json"),
                ("size", byte_size(record["output_bytes"])),
                ("compiler", f"{record['compiler']}, {record['seconds']:.1f} s"),
                ("on the Edge TPU", f"{record['on_tpu']} of {total} operators"),
                ("memory on chip", used and f"{used} used, {left} left"),
                ("sent each time", off),
                ("prediction", "as kzoo lint predicts" if record["as_predicted"] else "differs"),
            ]
        ),
        table(["operator", "count", "status"], rows) if rows else "",
        table(["on the CPU", "compiled", "predicted"], apart) if apart else "",
    ]
