"""The schema of the standard TFLite metadata, and values by its names to bytes and back.

It is tflite-support's metadata_schema.fbs, of version 1.5.0, as far as kzoo writes or reads it.
"""

from __future__ import annotations

import flatbuffers
import numpy as np
from flatbuffers.number_types import Int8Flags, Uint8Flags, Uint32Flags, UOffsetTFlags
from flatbuffers.table import Table

IDENTIFIER = b"M001"
FEATURE_PROPERTIES, IMAGE_PROPERTIES = 1, 2
NORMALIZATION_OPTIONS = 1
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
