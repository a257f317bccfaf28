"""Checkpoints of PyTorch as arrays, without PyTorch: zip archives, and the files before 1.6.

Both hold a pickle of the structure, in which a tensor is (storage, offset, size, stride), and the
bytes of the storages beside it: ``torch/serialization.py`` of PyTorch 2.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kzoo.errors import BadInputError
from kzoo.zoo.weights.archive import SMALL, member
from kzoo.zoo.weights.float32 import float32, float32_of_bits
from kzoo.zoo.weights.pickled import Global, Opaque, unpickle

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_SIZE = 2**48
MAX_RANK = 32

BFLOAT16 = "bfloat16"
STORAGES = {
    "torch.FloatStorage": "f4",
    "torch.DoubleStorage": "f8",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": BFLOAT16,
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "?",
}
FLOATS = ("f4", "f8", "f2", BFLOAT16)

NESTED = ("state_dict", "model", "model_state_dict")
"""Where training scripts put the state dict, beside the epoch and the optimizer."""
PARALLEL = "module."
"""What DataParallel puts before every name."""

ARGUMENTS = (
    *("argparse.Namespace", "torch.device"),
    *("pathlib.PosixPath", "pathlib._local.PosixPath"),  # the latter of Python 3.13
)
"""What training scripts keep of their arguments; no tensor needs it."""

MAX_SHARING = 8
"""The arrays may be together this many times the storages: tensors share storages, or are views
that repeat a value, and half precision doubles."""


class Storage(NamedTuple):
    """``count`` numbers in a row; ``kind`` is a value of `STORAGES`."""

    kind: str
    key: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_archive(archive: zipfile.ZipFile, data: mmap.mmap) -> dict[str, np.ndarray]:
    """The float tensors of a zip checkpoint, as `kzoo.zoo.weights.read.read_checkpoint`.

    Args:
        archive: with a member ``<name>/data.pkl``.
        data: the same file, mapped.
    """
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1 or f"{roots[0]}constants.pkl" in names:
        raise BadInputError(
            "it is a TorchScript program, not a checkpoint; save its state_dict() with torch.save"
        )
    (root,) = roots
    order = "<"
    if f"{root}byteorder" in names:
        order = {b"little": "<", b"big": ">"}.get(bytes(member(archive, data, f"{root}byteorder")))
        if order is None:
            raise BadInputError("its byteorder is neither little nor big")
    storages: dict[str, Storage] = {}
    pickled = io.BytesIO(member(archive, data, f"{root}data.pkl"))
    tensors = _floats(_state_dict(unpickle(pickled, KNOWN, _persistent(storages))))
    buffers = {}
    for key in {tensor.storage.key for tensor in tensors.values()}:
        content = member(archive, data, f"{root}data/{key}")
        buffers[key] = _numbers(content, 0, storages[key], order)
    return _arrays(tensors, buffers)


def read_torch_legacy(data: mmap.mmap) -> dict[str, np.ndarray]:
    """The float tensors of a checkpoint of before PyTorch 1.6: pickles, then the storages."""
    data.seek(0)
    storages: dict[str, Storage] = {}
    persistent = _persistent(storages)
    if unpickle(data, KNOWN, persistent) != MAGIC:
        raise BadInputError("it is a pickle, but not of PyTorch; only state dicts of it are read")
    if unpickle(data, KNOWN, persistent) != PROTOCOL:
        raise BadInputError(f"it is of an unknown version of PyTorch's format (not {PROTOCOL})")
    unpickle(data, KNOWN, persistent)  # sizes of C types on the machine that wrote it
    tensors = _floats(_state_dict(unpickle(data, KNOWN, persistent)))
    keys = unpickle(data, KNOWN, persistent)
    if (
        type(keys) is not list
        or not all(type(key) is str for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise BadInputError("its list of storages is damaged")
    buffers, position = {}, data.tell()
    for key in keys:
        header = data[position : position + 8]
        if len(header) < 8 or struct.unpack("<q", header) != (storages[key].count,):
            raise BadInputError(f"it is cut short or damaged at its storage {key!r}")
        buffers[key] = _numbers(data, position + 8, storages[key], "<")
        position += 8 + buffers[key].nbytes
    return _arrays(tensors, buffers)


def _persistent(storages: dict[str, Storage]):
    """The meaning of a persistent id, ``("storage", type, key, device, count[, view])``.

    What it meets is noted in ``storages``.
    """

    def storage(given: object) -> Storage:
        word, kind, key, _, count, *view = given[:6]
        if word != "storage" or type(kind) is not Global or type(key) is not str:
            raise TypeError("a persistent id that is no storage")
        if STORAGES.get(str(kind)) is None or view not in ([], [None]):
            raise BadInputError(f"a storage of {kind} is not read")
        found = Storage(STORAGES[str(kind)], key, _whole(count))
        if storages.setdefault(key, found) != found:
            raise ValueError(f"two storages {key!r}")
        return found

    return storage


def _whole(number: object) -> int:
    if type(number) is not int or not 0 <= number < MAX_SIZE:
        raise ValueError("a size, an offset or a stride that is none")
    return number


def _size(numbers=()) -> tuple[int, ...]:
    if type(numbers) not in (tuple, list) or len(numbers) > MAX_RANK:
        raise TypeError("a shape or strides of no tensor")
    return tuple(map(_whole, numbers))


def _tensor(storage, offset, size, stride, *_) -> Tensor:
    shape, strides = _size(size), _size(stride)
    if type(storage) is not Storage or len(shape) != len(strides):
        raise TypeError("a tensor of other parts than storage, offset, size and stride")
    last = _whole(offset) + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.count:
        raise BadInputError(
            f"a tensor of shape {shape} reaches to element {last:,} of a storage of "
            f"{storage.count:,}"
        )
    if math.prod(max(n, 1) for n in shape) >= MAX_SIZE:
        raise BadInputError(f"a tensor of shape {shape}")
    return Tensor(storage, offset, shape, strides)


def _parameter(data, *_) -> Tensor:
    if type(data) is not Tensor:
        raise TypeError("a parameter without a tensor")
    return data


def _ordered(pairs=()) -> dict:
    """Python 2 gave the pairs at once, Python 3 adds them later."""
    found = {}
    for key, value in pairs:
        if type(key) is not str:
            raise TypeError(f"a key of type {type(key).__name__}")
        found[key] = value
    if pairs:
        pairs.clear()  # so that a list of a million pairs is not taken a million times
    return found


KNOWN = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered,
    **dict.fromkeys(STORAGES),
    **dict.fromkeys(ARGUMENTS, Opaque),
}
"""All that a pickle may name."""


def _state_dict(checkpoint: object) -> dict:
    for key in NESTED:
        inner = checkpoint.get(key) if isinstance(checkpoint, dict) else None
        if isinstance(inner, dict) and any(type(value) is Tensor for value in inner.values()):
            return inner
    if not isinstance(checkpoint, dict):
        raise BadInputError(f"it holds a {type(checkpoint).__name__}; a state_dict is expected")
    return checkpoint


def _floats(state: dict) -> dict[str, Tensor]:
    found = {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and type(value) is Tensor and value.storage.kind in FLOATS
    }
    if all(name.startswith(PARALLEL) for name in found):
        return {name.removeprefix(PARALLEL): value for name, value in found.items()}
    return found


def _numbers(content, start: int, storage: Storage, order: str) -> np.ndarray:
    """A storage's numbers, not copied; bfloat16 as its bits."""
    dtype = np.dtype("u2" if storage.kind == BFLOAT16 else storage.kind).newbyteorder(order)
    if start + storage.count * dtype.itemsize > len(content):
        raise BadInputError(f"it is cut short at its storage {storage.key!r}")
    return np.frombuffer(content, dtype, storage.count, start)


def _arrays(tensors: Mapping[str, Tensor], buffers: Mapping[str, np.ndarray]):
    asked = sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
    held = sum(buffers[key].nbytes for key in {each.storage.key for each in tensors.values()})
    if asked > MAX_SHARING * held + SMALL:
        raise BadInputError(f"its tensors share {held:,} bytes and would unpack to {asked:,}")
    return {name: _array(each, buffers[each.storage.key]) for name, each in tensors.items()}


def _array(tensor: Tensor, buffer: np.ndarray) -> np.ndarray:
    if 0 in tensor.shape:
        return np.empty(tensor.shape, np.float32)
    steps = [
        step * buffer.itemsize if n > 1 else 0
        for n, step in zip(tensor.shape, tensor.strides, strict=True)
    ]
    view = np.ndarray(
        tensor.shape, buffer.dtype, buffer, tensor.offset * buffer.itemsize, tuple(steps)
    )
    return float32_of_bits(view) if tensor.storage.kind == BFLOAT16 else float32(view)
