"""A program for one .tflite: in Python, a class for Android, or the file as an array in C."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template

from kzoo.child import blame, call
from kzoo.errors import BadInputError, UsageError, one_of
from kzoo.files import new_output, write_bytes
from kzoo.lite.tflite_file import blaming_file, tflite_file

LANGUAGES = ("python", "kotlin", "c")
LITERT = "2.3.0"
"""The package for Android that the Kotlin class was written for."""
ROW = 16
"""Bytes in a line of an array in C."""

TAKEN = {
    "python": {
        "uint8": "images",
        "int8": "(images.astype(np.int16) - 128).astype(np.int8)",
        "float32": "images.astype(np.float32)",
    },
    "kotlin": {
        "uint8": "input.put(value.toByte())",
        "int8": "input.put((value - 128).toByte())",
        "float32": "input.putFloat(value.toFloat())",
    },
    "c": {
        "uint8": "a pixel as it is",
        "int8": "pixel - 128",
        "float32": "a pixel as it is, 0.0f to 255.0f",
    },
}
"""What a file takes for uint8 pixels, as `kzoo.lite.interpret.ENCODINGS`."""
GIVEN = {
    "uint8": "(output.get().toInt() and 0xFF).toFloat()",
    "int8": "output.get().toFloat()",
    "int16": "output.getShort().toFloat()",
    "float32": "output.getFloat()",
}
"""How Kotlin reads a number of the output."""
BYTES = {"uint8": 1, "int8": 1, "int16": 2, "float32": 4}


@dataclass(frozen=True)
class Snippet:
    """A program that `snippet` wrote.

    Attributes:
        file, sha256: the .tflite it is for, and no other.
        language: one of `LANGUAGES`.
        output: where it was written, or None.
        program: its text where it was not written; else None.
    """

    file: str
    sha256: str
    language: str
    output: str | None
    program: str | None

    def to_dict(self) -> dict:
        """The record as JSON values."""
        return asdict(self)


def snippet(
    file: str | os.PathLike,
    language: str,
    *,
    output: str | os.PathLike | None = None,
    force: bool = False,
) -> Snippet:
    """Writes a program that classifies images with one .tflite file.

    The one in Python needs ai-edge-litert or tflite-runtime, NumPy and Pillow, and gives the
    classes of `kzoo.lite.predict.predict`. The class in Kotlin is for Android. In C it is an array
    of the file's bytes, with what its input and output are.

    Args:
        file: a .tflite of images (n, h, w, c) to (n, classes).
        language: one of `LANGUAGES`.
        output: where to write it; None returns the text.
        force: whether an existing output is replaced.

    Raises:
        UsageError: no such language, or the output exists.
        MissingError: the file, or the output's folder, does not exist.
        BadInputError: it is no .tflite, is damaged, or does not map images to classes.
    """
    one_of("the language", language, LANGUAGES)
    path = tflite_file(file)
    if output is not None:
        new_output(output, force=force)
        if Path(output).resolve() == path.resolve():
            raise UsageError(f"the output {str(output)!r} is the model itself; give another -o")
    with blame(f"{file} cannot be read"):
        about = call("kzoo.lite.snippet:describe", file=str(path))
    write = {"python": _python, "kotlin": _kotlin, "c": _c}[language]
    program = write(path, about, Path(output) if output is not None else None)
    if output is not None:
        write_bytes(output, program.encode(errors="replace"))
    return Snippet(
        file=str(file),
        sha256=about["sha256"],
        language=language,
        output=None if output is None else str(output),
        program=program if output is None else None,
    )


@blaming_file
def describe(file: str) -> dict:
    """In the child: what a program has to know of a file.

    Returns:
        ``sha256``, ``input`` and ``output`` as of `kzoo.lite.inspect.Contents`, ``crop``,
        ``classes`` (names, or none), ``peak_bytes``, and ``softmax``, whether it ends in one.

    Raises:
        BadInputError: it is damaged, or does not map images to classes.
    """
    from kzoo.lite import flatbuffer
    from kzoo.lite.inspect import read
    from kzoo.network.model_file import checked_notes

    found = read(file, tensors=False, packed=False)
    notes = checked_notes(found["notes"])
    taken, given = found["input"], found["output"]
    image, classes = taken["shape"], given["shape"]
    fits = len(image) == 4 and len(classes) == 2 and min(image + classes) > 0
    if not fits or image[3] not in (1, 3):
        raise BadInputError(
            f"{file} maps {image} to {classes}; (n, height, width, 1 or 3) to (n, classes) is "
            "expected"
        )
    for port, known in ((taken, TAKEN["c"]), (given, BYTES)):
        if port["dtype"] not in known:
            raise BadInputError(
                f"{file} has {port['dtype']} tensors at its ends; {', '.join(known)} are expected"
            )
    if len(notes["classes"]) not in (0, classes[1]):
        raise BadInputError(
            f"{file} names {len(notes['classes'])} classes and gives {classes[1]} numbers"
        )
    softmax = flatbuffer.logits_tensor(flatbuffer.parse(Path(file).read_bytes(), file)) is not None
    return {
        **{key: found[key] for key in ("sha256", "input", "output", "peak_bytes")},
        "crop": notes["crop"],
        "classes": notes["classes"],
        "softmax": softmax,
    }


def _filled(template: str, language: str, path: Path, about: dict, /, **values) -> str:
    """A template with what all programs tell."""
    from kzoo import __version__

    _, height, width, channels = about["input"]["shape"]
    text = (Path(__file__).parent / template).read_text()
    return Template(text).substitute(
        values,
        file=_shown(path.name),
        version=__version__,
        sha256=about["sha256"],
        height=height,
        width=width,
        channels=channels,
        covered_height=round(height / about["crop"]),
        covered_width=round(width / about["crop"]),
        count=about["output"]["shape"][1],
        input_dtype=about["input"]["dtype"],
        encoded=TAKEN[language][about["input"]["dtype"]],
    )


def _python(path: Path, about: dict, output: Path | None) -> str:
    folder = path.resolve().parent
    seen_from = folder if output is None else output.resolve().parent
    names = "".join(f"    {name!r},\n" for name in about["classes"])
    count = about["output"]["shape"][1]
    return _filled(
        "snippet_python.txt",
        "python",
        path,
        about,
        program="classify.py" if output is None else _shown(output.name),
        path=repr(Path(os.path.relpath(folder, seen_from), path.name).as_posix()),
        classes=f"[\n{names}]" if names else f'[f"class {{i}}" for i in range({count})]',
        mode="RGB" if about["input"]["shape"][3] == 3 else "L",
        softmax="" if about["softmax"] else PYTHON_SOFTMAX,
    )


PYTHON_SOFTMAX = """\
    if (found < 0).any() or np.abs(found.sum(axis=1) - 1).max() >= 0.05:  # logits
        found = np.exp(found - found.max(axis=1, keepdims=True))
        found = found / found.sum(axis=1, keepdims=True)
"""


def _kotlin(path: Path, about: dict, output: Path | None) -> str:  # noqa: ARG001
    parts = re.findall("[0-9A-Za-z]+", path.stem)
    name = "".join(part[0].upper() + part[1:] for part in parts)
    given, count = about["output"], about["output"]["shape"][1]
    scaled = f" * {_float(given['scale'])}" if given["scale"] is not None else ""
    shift = f" - {float(given['zero_point'])}f" if given["scale"] is not None else ""
    # One text: a list of thousands of names is more than a method of the JVM can hold.
    named = "".join(f"\n{each}" for each in map(_in_raw_text, about["classes"]))
    listed = (
        f'"""{named}""".drop(1).split("\\n")' if named else f'List({count}) {{ "class " + it }}'
    )
    return _filled(
        "snippet.kt",
        "kotlin",
        path,
        about,
        # Not the name alone: the class of float.tflite would be Kotlin's Float.
        name=f"{name if name[:1].isalpha() else f'Model{name}'}Classifier",
        litert=LITERT,
        asset=_text(path.name).replace("$", "\\$"),
        input_bytes=BYTES[about["input"]["dtype"]] * math.prod(about["input"]["shape"]),
        output_bytes=BYTES[given["dtype"]] * math.prod(given["shape"]),
        classes=listed,
        value=f"({GIVEN[given['dtype']]}{shift}){scaled}",
        added=KOTLIN_ADDED[about["input"]["shape"][3]],
        softmax="" if about["softmax"] else KOTLIN_SOFTMAX,
    )


KOTLIN_ADDED = {
    3: """\
            sums[at] += red
            sums[at + 1] += green
            sums[at + 2] += blue""",
    1: "            sums[at] += 0.299 * red + 0.587 * green + 0.114 * blue",
}
KOTLIN_SOFTMAX = """
        if (values.any { it < 0f } || abs(values.sum() - 1f) >= 0.05f) { // logits
            val most = values.max()
            for (i in values.indices) values[i] = kotlin.math.exp(values[i] - most)
            val sum = values.sum()
            for (i in values.indices) values[i] /= sum
        }"""


def _one_line(name: str) -> str:
    return " ".join(name.splitlines())


def _in_raw_text(name: str) -> str:
    """A name inside a Kotlin text in three quotes, which knows no escapes."""
    return re.sub('[$"]', lambda found: f"${{'{found[0]}'}}", _one_line(name))


def _c(path: Path, about: dict, output: Path | None) -> str:  # noqa: ARG001
    from kzoo import __version__

    name = re.sub("[^0-9A-Za-z]+", "_", path.stem).strip("_")
    name = f"{name}_tflite" if name[:1].isalpha() else f"model_{name}_tflite".replace("__", "_")
    guard = f"KZOO_{name.upper()}_H"
    data, taken, given = path.read_bytes(), about["input"], about["output"]
    digits = [f"0x{value:02x}" for value in range(256)]
    rows = [
        "    " + ",".join([digits[value] for value in data[start : start + ROW]])
        for start in range(0, len(data), ROW)
    ]
    names = [f"    {_text(_one_line(each))}" for each in about["classes"]]
    gives = "probabilities" if about["softmax"] else "numbers (logits, if they do not sum to 1)"
    lines = [
        f"/* {_shown(path.name)} (SHA-256 {about['sha256']}) as an array, for",
        " * tflite::GetModel of TensorFlow Lite Micro. Include it in one source file only.",
        " *",
        f" * Input: {_times(taken)} of {taken['dtype']}, each {TAKEN['c'][taken['dtype']]}.",
        f" * Output: {given['shape'][1]} {gives}"
        + (f", each (value - {name}_output_zero_point) *" if given["scale"] is not None else "."),
        *([f" * {name}_output_scale."] if given["scale"] is not None else []),
        f" * {about['peak_bytes']:,} bytes of tensors are alive at once; an arena takes more.",
        " *",
        f" * Written by kzoo {__version__}. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#ifndef __cplusplus",
        "#include <stdalign.h>",
        "#endif",
        "",
        "enum {",
        f"    {name}_input_height = {taken['shape'][1]},",
        f"    {name}_input_width = {taken['shape'][2]},",
        f"    {name}_input_channels = {taken['shape'][3]},",
        f"    {name}_classes = {given['shape'][1]}",
        "};",
        *_quantization(name, "input", taken),
        *_quantization(name, "output", given),
        "",
        *(
            _array(f"static const char *const {name}_class_names[{len(names)}]", names)
            if names
            else []
        ),
        *_array(f"alignas(16) static const unsigned char {name}[{len(data)}]", rows),
        f"static const unsigned int {name}_len = {len(data)};",
        "",
        f"#endif /* {guard} */",
    ]
    return "".join(f"{line}\n" for line in lines)


def _quantization(name: str, end: str, port: dict) -> list[str]:
    if port["scale"] is None:
        return []
    return [
        f"static const float {name}_{end}_scale = {_float(port['scale'])};",
        f"static const int {name}_{end}_zero_point = {port['zero_point']};",
    ]


def _array(head: str, rows: Sequence[str]) -> list[str]:
    return [f"{head} = {{", *(f"{row}," for row in rows[:-1]), rows[-1], "};", ""]


def _float(value: float) -> str:
    """A float32 as C and Kotlin write it: the shortest decimals that give it back."""
    return f"{float(f'{value:.9g}')!r}f"


def _text(value: str) -> str:
    """A text in the quotes of C and Kotlin, as UTF-8 where it is printable."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("??", "?\\?")
    return '"' + "".join(each if each.isprintable() else "?" for each in escaped) + '"'


def _shown(name: str) -> str:
    """A file's name in a comment, which it must not end."""
    return re.sub(r"[^\w .,()+-]", "?", name)


def _times(port: dict) -> str:
    return " x ".join(map(str, port["shape"]))
