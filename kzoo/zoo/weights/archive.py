"""Members of a zip archive as bytes, with every size that the archive declares checked first."""

from __future__ import annotations

import contextlib
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from kzoo.errors import BadInputError

MAX_EXPANSION = 100
SMALL = 1 << 20
"""A member may unpack to 1 MiB plus `MAX_EXPANSION` times its bytes; deflate could reach 1032."""

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)


@contextlib.contextmanager
def open_archive(path: Path, data: mmap.mmap) -> Iterator[zipfile.ZipFile]:
    """Opens the zip file ``path``, which ``data`` maps.

    Raises:
        BadInputError: its directory is damaged or cut off, or members overlap.
    """
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise BadInputError(f"the zip archive is damaged or cut short ({error})") from error
    with archive:
        if sum(info.compress_size for info in archive.infolist()) > len(data):
            raise BadInputError("the members of the zip archive are larger than the file")
        yield archive


def member(archive: zipfile.ZipFile, data: mmap.mmap, name: str) -> memoryview:
    """The bytes of one member: a view of ``data`` where it is stored, unpacked where deflated.

    Raises:
        BadInputError: it is absent, damaged, outside the file, encrypted, packed otherwise, or
            declares to unpack to far more than its bytes.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise BadInputError(f"the archive has no member {name!r}") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise BadInputError(f"the member {name!r} is encrypted, or neither stored nor deflated")
    if info.file_size > MAX_EXPANSION * info.compress_size + SMALL:
        raise BadInputError(
            f"the member {name!r} would unpack from {info.compress_size:,} bytes to "
            f"{info.file_size:,}"
        )
    if info.compress_type == zipfile.ZIP_STORED:
        content = _stored(info, data)
    else:
        try:
            content = memoryview(archive.read(info))
        except DAMAGE as error:
            raise BadInputError(f"the member {name!r} is damaged ({error})") from error
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise BadInputError(f"the member {name!r} is damaged (checksum)")
    return content


def _stored(info: zipfile.ZipInfo, data: mmap.mmap) -> memoryview:
    """Found by the local header (APPNOTE 4.3.7): its extra field pads the content to 64 bytes."""
    header = info.header_offset
    content = header + zipfile.sizeFileHeader
    if not 0 <= header <= content <= len(data) or data[header : header + 4] != b"PK\3\4":
        raise BadInputError(f"the header of the member {info.filename!r} is damaged")
    content += sum(struct.unpack("<HH", data[content - 4 : content]))
    if info.file_size != info.compress_size or content + info.file_size > len(data):
        raise BadInputError(f"the member {info.filename!r} is larger than the file")
    return memoryview(data)[content : content + info.file_size]
