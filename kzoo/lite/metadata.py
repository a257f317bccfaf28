"""The standard TFLite metadata, which MediaPipe and Android Studio read.

A flatbuffer of its own inside the .tflite tells what the input and the output mean; the class names
are a text file in a ZIP archive behind it. Its schema is tflite-support's metadata_schema.fbs, of
version 1.5.0, whose writers do not install on current Pythons.

As all parsing, this is done in child processes only. Needs ai-edge-litert, not TensorFlow.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.number_types import Int8Flags, Uint8Flags, Uint32Flags, UOffsetTFlags
from flatbuffers.table import Table

from kzoo.errors import BadInputError
from kzoo.lite.flatbuffer import DTYPES, as_bytes, fill, parse

ENTRY = b"TFLITE_METADATA"
"""The name of the model's metadata entry that holds it."""
IDENTIFIER = b"M001"
LABELS = "labels.txt"
MAX_LABELS = 4_000_000
"""Bytes of class names that are read; an archive from elsewhere may unpack to anything."""

MIN_PARSER = "1.0.0"
"""The oldest reader that knows all that is written here: the newest of what is written decides.

Newer are: vocabularies (1.0.1), process units of a whole graph (1.1.0), groups of tensors (1.2.0),
audio (1.3.0), search indices (1.4.0), versions of associated files (1.4.1), custom data (1.5.0).
"""

TENSOR_AXIS_LABELS = 2
FEATURE_PROPERTIES, IMAGE_PROPERTIES = 1, 2
NORMALIZATION_OPTIONS = 1
COLOR_SPACES = {3: 1, 1: 2}
"""ColorSpaceType, RGB or GRAYSCALE, by the number of channels."""

NUMBERS = {"int8": Int8Flags, "uint8": Uint8Flags, "uint32": Uint32Flags}
TABLES = {
    "ModelMetadata": {
        "name": "text",
        "description": "text",
        "version": "text",
        "subgraph_metadata": ("SubGraphMetadata",),
        "author": "text",
        "license": "text",
        "associated_files": ("AssociatedFile",),
        "min_parser_version": "text",
    },
    "SubGraphMetadata": {
        "name": "text",
        "description": "text",
        "input_tensor_metadata": ("TensorMetadata",),
        "output_tensor_metadata": ("TensorMetadata",),
        "associated_files": ("AssociatedFile",),
    },
    "TensorMetadata": {
        "name": "text",
        "description": "text",
        "dimension_names": ("text",),
        "content": "Content",
        "process_units": ("ProcessUnit",),
        "stats": "Stats",
        "associated_files": ("AssociatedFile",),
    },
    "AssociatedFile": {
        "name": "text",
        "description": "text",
        "type": "int8",
        "locale": "text",
        "version": "text",
    },
    "Content": {
        "content_properties_type": "uint8",
        "content_properties": {
            FEATURE_PROPERTIES: "FeatureProperties",
            IMAGE_PROPERTIES: "ImageProperties",
        },
    },
    "FeatureProperties": {},
    "ImageProperties": {"color_space": "int8", "default_size": "ImageSize"},
    "ImageSize": {"width": "uint32", "height": "uint32"},
    "ProcessUnit": {
        "options_type": "uint8",
        "options": {NORMALIZATION_OPTIONS: "NormalizationOptions"},
    },
    "NormalizationOptions": {"mean": "floats", "std": "floats"},
    "Stats": {"max": "floats", "min": "floats"},
}
"""The schema: each table's fields in their order, each with its kind.

("X",) is a vector of X, and {1: "X"} a union, whose member the field before it numbers. What kzoo
neither writes nor reads is left out where it comes last in its table.
"""


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


def pack(values: dict) -> bytes:
    """A ModelMetadata as a flatbuffer, of values by the names in `TABLES`; none need be there.

    A field of a union is the table that the number in the field before it says.
    """
    builder = flatbuffers.Builder(1024)

    def table(name: str, values: dict) -> int:
        fields = []
        for slot, (field, kind) in enumerate(TABLES[name].items()):
            if field in values:
                if isinstance(kind, dict):
                    kind = kind[values[f"{field}_type"]]
                value = values[field] if kind in NUMBERS else referred(kind, values[field])
                fields.append((slot, kind, value))
        builder.StartObject(len(TABLES[name]))
        for slot, kind, value in fields:
            match kind:
                case "int8":
                    builder.PrependInt8Slot(slot, value, 0)
                case "uint8":
                    builder.PrependUint8Slot(slot, value, 0)
                case "uint32":
                    builder.PrependUint32Slot(slot, value, 0)
                case _:
                    builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return builder.EndObject()

    def referred(kind, value) -> int:
        """Where a value is that its table points to: it is written before the table."""
        if kind == "text":
            return builder.CreateString(value)
        if kind == "floats":
            return builder.CreateNumpyVector(np.array(value, np.float32))
        if kind in TABLES:
            return table(kind, value)
        offsets = [referred(kind[0], each) for each in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    builder.Finish(table("ModelMetadata", values), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def unpack(data: bytes) -> dict:
    """What `pack` was given; members of a union that are not in `TABLES` are left out.

    Raises:
        Exception: of any kind, if it is damaged.
    """
    # A sound flatbuffer holds little twice; one made to do harm refers to the same bytes over and
    # over, and would take for ever.
    left = 8 * len(data) + 1024

    def spend(start: int, count: int) -> None:
        nonlocal left
        left -= count + 4
        if left < 0 or not 0 <= start <= start + count <= len(data):
            raise ValueError("it refers to what is not there")

    def table(name: str, at: int) -> dict:
        held, found = Table(data, at), {}
        spend(at, 4)
        for slot, (field, kind) in enumerate(TABLES[name].items()):
            offset = held.Offset(4 + 2 * slot)
            if not offset:
                continue
            if isinstance(kind, dict):
                kind = kind.get(found.get(f"{field}_type"))
            if kind in NUMBERS:
                found[field] = held.Get(NUMBERS[kind], at + offset)
            elif kind is not None:
                found[field] = referred(kind, held, offset)
        return found

    def referred(kind, held: Table, offset: int):
        if kind in TABLES:
            return table(kind, held.Indirect(held.Pos + offset))
        start, count = held.Vector(offset), held.VectorLen(offset)
        spend(start, count if kind == "text" else 4 * count)
        if kind == "text":
            return data[start : start + count].decode("utf-8", "replace")
        if kind == "floats":
            return np.frombuffer(data, "<f4", count, start).tolist()
        return [referred(kind[0], held, start - held.Pos + 4 * i) for i in range(count)]

    first = Table(data, 0)
    return table("ModelMetadata", first.Get(UOffsetTFlags, 0))
