"""The standard TFLite metadata, which MediaPipe and Android Studio read.

A flatbuffer of its own inside the .tflite tells what the input and the output mean; the class names
are a text file in a ZIP archive behind it. tflite-support, which has writers, does not install on
current Pythons.

As all parsing, this is done in child processes only. Needs ai-edge-litert, not TensorFlow.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kzoo.errors import BadInputError
from kzoo.lite.flatbuffer import DTYPES, as_bytes, fill, parse
from kzoo.lite.metadata_schema import (
    FEATURE_PROPERTIES,
    IDENTIFIER,
    IMAGE_PROPERTIES,
    NORMALIZATION_OPTIONS,
    pack,
    unpack,
)

ENTRY = b"TFLITE_METADATA"
"""The name of the model's metadata entry that holds it."""
LABELS = "labels.txt"
MAX_LABELS = 4_000_000
"""Bytes of class names that are read; an archive from elsewhere may unpack to anything."""

MIN_PARSER = "1.0.0"
"""The oldest reader that knows all that is written here: the newest of what is written decides.

Newer are: vocabularies (1.0.1), process units of a whole graph (1.1.0), groups of tensors (1.2.0),
audio (1.3.0), search indices (1.4.0), versions of associated files (1.4.1), custom data (1.5.0).
"""

TENSOR_AXIS_LABELS = 2
COLOR_SPACES = {3: 1, 1: 2}
"""ColorSpaceType, RGB or GRAYSCALE, by the number of channels."""


def with_metadata(
    data: bytes, notes: dict, apart: Mapping[str, np.ndarray] | None = None
) -> bytearray:
    """The file with the standard metadata, the same bytes for the same arguments.

    To be called last: writing a parsed file drops what stands behind the flatbuffer.

    Args:
        data: a .tflite of one image to one vector with a signature, as
            `kzoo.lite.flatbuffer.finish` leaves it.
        notes: those kzoo puts into the file. Used are ``model``, ``classes``, ``quantization``,
            ``pixels`` and ``crop``, and ``version``, ``author`` and ``licence``, if there.
        apart: large constants that are still to be put in, see `kzoo.lite.flatbuffer.fill`.

    Raises:
        BadInputError: ``data`` is no .tflite.
    """
    model = parse(data)
    graph = model.subgraphs[0]
    classes = [" ".join(name.splitlines()) for name in notes.get("classes") or []]
    if len(classes) != graph.tensors[graph.outputs[0]].shape[-1]:
        classes = []  # readers match names and outputs by their position
    packed = pack(_described(model, notes, bool(classes)))
    held = next((entry for entry in model.metadata or [] if entry.name == ENTRY), None)
    if held is None:
        held = schema.MetadataT()
        held.name, held.buffer = ENTRY, len(model.buffers)
        model.buffers.append(schema.BufferT())
        model.metadata = [*(model.metadata or []), held]
    model.buffers[held.buffer].data = np.frombuffer(packed, np.uint8)
    fill(model, apart or {})
    file = as_bytes(model)
    if classes:
        # Stored, as readers map the file into memory and look into it there. Undated.
        stream = _Behind(len(file))
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            member = zipfile.ZipInfo(LABELS, date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(member, "".join(f"{name}\n" for name in classes))
        file += stream.getvalue()
    return file


class _Behind(io.BytesIO):
    """A stream whose first position is that behind a file."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def tell(self) -> int:
        return self._start + super().tell()

    def seek(self, position: int, whence: int = 0) -> int:
        return self._start + super().seek(position - self._start * (whence == 0), whence)


def _described(model: schema.ModelT, notes: dict, labelled: bool) -> dict:
    """The ModelMetadata, as `pack` takes it."""
    graph = model.subgraphs[0]
    image, output = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    _, height, width, channels = (int(size) for size in image.shape)
    gives = model.signatureDefs[0].outputs[0].name.decode()
    name, quantization = notes.get("model", "classifier"), notes.get("quantization", "")
    kind = f"{name} in {quantization}" if quantization else name
    crop = notes.get("crop", 1.0)
    share = f", {crop:g} of the shorter side" if crop != 1 else ""
    mean, std = _normalization(image)
    taken = {
        "name": "image",
        "description": f"{width} x {height} pixels from the middle of the image{share}; "
        f"{notes.get('pixels', 'pixels')}, the model normalizes them itself",
        "content": {
            "content_properties_type": IMAGE_PROPERTIES,
            "content_properties": {
                "color_space": COLOR_SPACES.get(channels, 0),
                "default_size": {"width": width, "height": height},
            },
        },
        "process_units": [
            {
                "options_type": NORMALIZATION_OPTIONS,
                "options": {"mean": [mean], "std": [std]},
            }
        ],
        "stats": _stats(image, 0.0, 255.0),
    }
    given = {
        "name": gives,
        "description": f"{gives} of {output.shape[-1]} classes",
        "content": {"content_properties_type": FEATURE_PROPERTIES, "content_properties": {}},
    }
    if gives == "probabilities" or not DTYPES[output.type].startswith("float"):
        given["stats"] = _stats(output, 0.0, 1.0)
    if labelled:
        described = "class names, one per line, in the order of the outputs"
        label = {"name": LABELS, "description": described, "type": TENSOR_AXIS_LABELS}
        given["associated_files"] = [label]
    told = {
        "version": notes.get("version"),
        "author": notes.get("author"),
        "license": _licence(notes),
    }
    return {
        "name": name,
        "description": f"Image classifier, {kind}, of {output.shape[-1]} classes",
        **{key: value for key, value in told.items() if value},
        "subgraph_metadata": [
            {"input_tensor_metadata": [taken], "output_tensor_metadata": [given]}
        ],
        "min_parser_version": MIN_PARSER,
    }


def _licence(notes: dict) -> str | None:
    """``Apache-2.0 (the weights efficientnet_lite0.in1k)``."""
    licence, weights = notes.get("licence"), notes.get("weights")
    return f"{licence} (the weights {weights})" if licence and weights else licence


def _normalization(image: schema.TensorT) -> tuple[float, float]:
    """Mean and standard deviation by which pixels of [0, 255] become the input's real values.

    Files of kzoo take pixels: 0 and 1, without which MediaPipe refuses float files. In a quantized
    file the input's quantization undoes them: a reader that follows the standard, as Android
    Studio's code, normalizes first and quantizes then, which gives the pixel back.
    """
    found = image.quantization
    if found is None or found.scale is None or not len(found.scale):
        return 0.0, 1.0
    shift = 128 if DTYPES[image.type] == "int8" else 0
    return float(found.zeroPoint[0]) + shift, 1 / float(found.scale[0])


def _stats(tensor: schema.TensorT, low: float, high: float) -> dict:
    """The range of a float tensor, or of the whole numbers that another can hold."""
    dtype = DTYPES[tensor.type]
    if not dtype.startswith("float"):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return {"max": [float(high)], "min": [float(low)]}


def read_metadata(data: bytes, name: str = "the file") -> dict:
    """The standard metadata of a .tflite from anywhere; empty where it has none.

    Returns:
        ``name``, ``description``, ``version``, ``author``, ``licence``, ``min_parser_version``:
        texts, empty where not told; ``normalization`` of the input: ``{"mean", "std"}``, one number
        or one per channel each, or empty; ``labels``: the names of the outputs, or empty.

    Raises:
        BadInputError: the metadata of ``name`` are damaged.
    """
    try:
        packed = _entry(data)
        if packed is None or packed[4:8] != IDENTIFIER:
            return {}
        found = unpack(packed)
        graph = next(iter(found.get("subgraph_metadata", [])), {})
        image = next(iter(graph.get("input_tensor_metadata", [])), {})
        output = next(iter(graph.get("output_tensor_metadata", [])), {})
        normalization = next(
            (
                {"mean": unit["options"].get("mean", []), "std": unit["options"].get("std", [])}
                for unit in image.get("process_units", [])
                if unit.get("options")
            ),
            {},
        )
        if not all(math.isfinite(x) for values in normalization.values() for x in values):
            raise ValueError("its normalization is not finite")
        label = next(
            (
                file["name"]
                for file in output.get("associated_files", [])
                if file.get("type") == TENSOR_AXIS_LABELS and file.get("name")
            ),
            "",
        )
        return {
            **{key: found.get(key, "") for key in ("name", "description", "version", "author")},
            "licence": found.get("license", ""),
            "min_parser_version": found.get("min_parser_version", ""),
            "normalization": normalization,
            "labels": _labels(data, label) if label else [],
        }
    except Exception as error:
        raise BadInputError(
            f"{name} has damaged metadata ({type(error).__name__}: {error})"
        ) from error


def _entry(data: bytes) -> bytes | None:
    model = schema.Model.GetRootAs(data)
    for i in range(model.MetadataLength()):
        if model.Metadata(i).Name() == ENTRY:
            buffer = model.Buffers(model.Metadata(i).Buffer())
            if buffer.DataLength():
                return buffer.DataAsNumpy().tobytes()
            # Very large files have their buffers behind the flatbuffer.
            return data[buffer.Offset() :][: buffer.Size()] if buffer.Offset() > 1 else None
    return None


def _labels(data: bytes, name: str) -> list[str]:
    """The lines of a member of the archive behind the model; none if there is no such member.

    Tools that rewrite a .tflite may drop the archive and leave its name; the model still runs.
    """
    stream = io.BytesIO(data)
    if not zipfile.is_zipfile(stream):
        start = data.rfind(b"PK\3\4")
        if start >= 0 and data[start + 30 :].startswith(name.encode()):
            raise ValueError(f"the file is cut off in {name}")
        return []
    with zipfile.ZipFile(stream) as archive:
        if name not in archive.namelist():
            return []
        if archive.getinfo(name).file_size > MAX_LABELS:
            raise ValueError(f"{name} has more than {MAX_LABELS:,} bytes")
        text = archive.read(name).decode("utf-8-sig", "replace")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]
