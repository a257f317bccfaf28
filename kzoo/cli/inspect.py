"""kzoo inspect"""

from __future__ import annotations

import click

from kzoo.cli.terminal import byte_size, force_option, json_option, pairs, show, table


@click.command("inspect")
@click.argument("file", type=click.Path())
@click.option("--tensors", is_flag=True, help="List the operators, with what each writes.")
@click.option("--graph", type=click.Path(), help="Draw its operators into this .svg file.")
@force_option
@json_option
def command(file, tensors, graph, force, as_json) -> None:
    """Look into the .tflite FILE: sizes, operators, memory, metadata.

    Nothing is run. Peak memory is of the tensors that are alive at the same time, constants left
    out. The graph has the operators in their order with their branches, layers, shapes, dtypes,
    and what each needs of weights and memory.

    \b
    Examples:
      kzoo inspect net_int8.tflite --tensors
      kzoo inspect net_int8.tflite --graph net.svg
    """
    from kzoo.files import new_output, write_bytes
    from kzoo.lite.inspect import inspect
    from kzoo.report.file_graph import graph_svg
    from kzoo.report.page import ending_of

    if graph is not None:
        ending_of(graph, "a drawing", (".svg",))
        new_output(graph, force=force)
    record = inspect(file, tensors=tensors or graph is not None).to_dict()
    if graph is not None:
        write_bytes(graph, graph_svg(record).encode())
        record["graph"] = graph
    coded = record["huffman_bytes"]
    notes = {k: v for k, v in record["notes"].items() if isinstance(v, (str, int, float)) and v}
    if classes := record["notes"].get("classes"):
        notes["classes"] = len(classes)
    text = pairs(
        [
            ("file", record["file"]),
            ("sha256", record["sha256"]),
            ("size", byte_size(record["bytes"])),
            ("gzip", byte_size(record["gzip_bytes"])),
            ("LZMA", byte_size(record["lzma_bytes"])),
            ("Huffman", coded and f"{byte_size(coded)} (weights and constants)"),
            ("by kind", _counts(record["bytes_by_kind"], byte_size)),
            ("input", port(record["input"])),
            ("output", port(record["output"])),
            ("operators", ", ".join(f"{n} {name}" for name, n in record["operators"].items())),
            ("float operators", ", ".join(record["float_islands"])),
            ("peak memory", f"{byte_size(record['peak_bytes'])} at {record['peak_layer']}"),
            *(("signature", _signature(each)) for each in record["signatures"]),
            ("minimum runtime", record["min_runtime"]),
            ("notes", _counts(notes)),
            (
                "metadata",
                _counts({name: value for name, value in record["metadata"].items() if value}),
            ),
            ("written", graph),
        ]
    )
    show(record, f"{text}\n\n{_operators(record['tensors'])}" if tensors else text, as_json)


def port(found: dict) -> str:
    """An input or output in one line."""
    return f"{found['name']} {times(found['shape'])} {quantized(found)}"


def times(shape: list[int]) -> str:
    """A shape: ``1 x 32 x 32 x 3``."""
    return " x ".join(map(str, shape)) or "scalar"


def quantized(found: dict) -> str:
    """The dtype of a tensor, and its scale and zero point if it has any."""
    if found["scale"] is None:
        return found["dtype"]
    return f"{found['dtype']}, scale {found['scale']:.6g}, zero point {found['zero_point']}"


def _counts(values: dict, form=str) -> str:
    return ", ".join(f"{name} {form(value)}" for name, value in values.items())


def _signature(found: dict) -> str:
    return f"{found['name']}: {', '.join(found['inputs'])} -> {', '.join(found['outputs'])}"


def _operators(rows: list[dict]) -> str:
    header = ["", "operator", "layer", "shape", "dtype", "scale", "zero", "weights", "alive"]
    shown = [
        [
            row["index"],
            row["operator"],
            row["layer"],
            times(row["shape"]),
            row["dtype"],
            "" if row["scale"] is None else f"{row['scale']:.4g}",
            "" if row["zero_point"] is None else row["zero_point"],
            f"{row['weight_bytes']:,}",
            f"{row['live_bytes']:,}",
        ]
        for row in rows
    ]
    return table(header, shown, spare=["alive", "zero", "scale"])
