"""PyTorch checkpoints: what was written is read, and nothing that a pickle asks for is done."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import pathlib
import pickle
import struct
import tracemalloc
import warnings
import zipfile
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kzoo.errors import BadInputError
from kzoo.zoo.weights import pickled
from kzoo.zoo.weights.read import read_checkpoint

MAGIC = 0x1950A86A20F9469CFC6C
CONTAINERS = ("zip", "legacy")
KINDS = {np.float32: "Float", np.float64: "Double", np.float16: "Half", np.int64: "Long"}


class Name(NamedTuple):
    """Pickled as a reference to ``module.name``, whether or not that exists here."""

    module: str
    name: str


class View(NamedTuple):
    """Pickled as torch.save does a tensor."""

    storage: np.ndarray
    offset: int
    size: tuple
    stride: tuple
    kind: str = ""
    function: str = "_rebuild_tensor_v2"


def tensor(array: np.ndarray) -> View:
    strides = tuple(step // array.itemsize for step in array.strides)
    return View(array.reshape(-1), 0, array.shape, strides)


class Raw(bytes):
    """Opcodes, written as they are."""


class Pickler(pickle._Pickler):  # the one in Python: that in C has no `save`
    def __init__(self, file, protocol):
        super().__init__(file, protocol)
        self.storages = {}

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Raw):
            self.write(value)
        elif isinstance(value, Name) and self.proto < 4:
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Name):
            super().save(str(value.module))
            super().save(str(value.name))
            self.write(pickle.STACK_GLOBAL)
        elif isinstance(value, View):
            storage = value.storage
            key = next(
                (key for key, known in self.storages.items() if known is storage),
                str(len(self.storages)),
            )
            self.storages[key] = storage
            kind = value.kind or KINDS[storage.dtype.type]
            self.save(Name("torch._utils", value.function))
            self.write(pickle.MARK)
            self.save(("storage", Name("torch", f"{kind}Storage"), key, "cpu", len(storage)))
            self.write(pickle.BINPERSID)
            for each in (*value[1:4], False, collections.OrderedDict()):
                self.save(each)
            self.write(pickle.TUPLE + pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def encoded(tree: object, container: str, protocol: int = 2, **options) -> bytes:
    """The bytes that torch.save writes for ``tree``; arrays as `tensor`."""
    file = io.BytesIO()
    pickler = Pickler(file, protocol)
    pickler.dump(tree)
    return (zipped if container == "zip" else joined)(file.getvalue(), pickler.storages, **options)


def zipped(data: bytes, storages: dict, *, order="little", compression=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("net/data.pkl", data)
        archive.writestr("net/byteorder", order)
        for key, storage in storages.items():
            swapped = storage.astype(storage.dtype.newbyteorder("<" if order == "little" else ">"))
            archive.writestr(f"net/data/{key}", swapped.tobytes())
        archive.writestr("net/version", "3\n")
    return file.getvalue()


def joined(data: bytes, storages: dict) -> bytes:
    parts = [pickle.dumps(value, 2) for value in (MAGIC, 1001, {"little_endian": True})]
    parts += [data, pickle.dumps(list(storages), 2)]
    for storage in storages.values():
        parts += [struct.pack("<q", len(storage)), storage.tobytes()]
    return b"".join(parts)


@pytest.fixture
def read(tmp_path):
    """read(bytes): the weights of a file of these bytes."""

    def read(data: bytes) -> dict[str, np.ndarray]:
        path = tmp_path / "file.pth"
        path.write_bytes(data)
        return read_checkpoint(path).arrays

    return read


@pytest.fixture
def refuses(read):
    """refuses(bytes, words): the file is bad input, for a reason with these words."""

    def refuses(data: bytes, words: str | None = None) -> None:
        with pytest.raises(BadInputError, match=words) as caught:
            read(data)
        assert "cannot read" in str(caught.value)

    return refuses


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == np.float32
        assert array.flags.writeable
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, np.asarray(expected[name], np.float32), strict=True)


RANDOM = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "bn.running_var": RANDOM.normal(size=4).astype(np.float64),
    "a.scale": np.asarray(2.5, np.float32),
    "fc.weight": RANDOM.normal(size=(2, 4)).astype(np.float16),
    "none": np.empty((0, 3), np.float32),
}
STATE = {name: tensor(array) for name, array in ARRAYS.items()}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", CONTAINERS)
def test_what_was_written_is_read_in_its_order(read, container, protocol):
    assert_same(read(encoded(STATE, container, protocol)), ARRAYS)


@pytest.mark.parametrize("container", CONTAINERS)
def test_integers_are_left_out(read, container):
    state = {"bn.num_batches_tracked": tensor(np.asarray([3])), **STATE}
    assert_same(read(encoded(state, container)), ARRAYS)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_of_a_checkpoint_the_state_dict_is_read(read, container, key):
    momentum = {"state": {0: {"buffer": tensor(np.ones(3, np.float32)), "step": 7}}}
    tree = {"epoch": 3, "best_prec1": 92.5, "optimizer": momentum, key: STATE, "note": None}
    assert_same(read(encoded(tree, container)), ARRAYS)


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_prefix_of_data_parallel_goes_if_all_have_it(read, container):
    parallel = {f"module.{name}": view for name, view in STATE.items()}
    assert_same(read(encoded(parallel, container)), ARRAYS)
    assert list(read(encoded({**parallel, **STATE}, container))) == [*parallel, *STATE]


@pytest.mark.parametrize("container", CONTAINERS)
def test_views_with_offset_and_strides(read, container):
    base = np.arange(24, dtype=np.float32)
    grid = base.reshape(4, 6)
    views = {
        "whole": ((4, 6), (6, 1), 0, grid),
        "transposed": ((6, 4), (1, 6), 0, grid.T),
        "part": ((2, 3), (6, 2), 6, grid[1:3, ::2]),
        "row": ((6,), (1,), 12, grid[2]),
        "repeated": ((3, 2), (0, 1), 5, np.tile(base[5:7], (3, 1))),
        "one": ((), (), 23, base[23]),
        "long stride": ((1, 2), (10**12, 1), 0, grid[:1, :2]),
        "none": ((0, 5), (5, 1), 24, np.empty((0, 5))),
    }
    tree = {name: View(base, at, size, stride) for name, (size, stride, at, _) in views.items()}
    assert_same(read(encoded(tree, container)), {name: each[3] for name, each in views.items()})


@pytest.mark.parametrize("container", CONTAINERS)
def test_bfloat16_is_the_upper_half_of_float32(read, container):
    bits = np.asarray([0x3F80, 0xC020, 0x7F80, 0x0001], np.uint16)
    view = View(bits, 0, (4,), (1,), kind="BFloat16")
    scalar = View(bits, 1, (), (), kind="BFloat16")
    found = read(encoded({"w": view, "s": scalar}, container))
    assert_same(found, {"w": [1.0, -2.5, np.inf, 2.0**-133], "s": -2.5})


def test_float64_beyond_float32_is_infinite_and_no_warning(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(encoded({"w": tensor(np.asarray([1e300, 1.0]))}, "zip"))
    assert_same(found, {"w": [np.inf, 1.0]})


def test_a_checkpoint_of_python_2(read):
    """Text as byte strings, and an OrderedDict that is given its pairs at once."""

    class Old(Pickler):
        def save(self, value, save_persistent_id=True):
            if type(value) is str and not isinstance(value, Name):
                self.write(b"U" + bytes([len(value)]) + value.encode())
            else:
                super().save(value, save_persistent_id)

    file = io.BytesIO()
    pickler = Old(file, 2)
    pickler.proto = 2
    pairs = [[name, view] for name, view in STATE.items()]
    call = Raw(b"ccollections\nOrderedDict\n")
    pickler.write(b"\x80\x02")
    for part in (call, (pairs,), Raw(b"R}b.")):
        pickler.save(part)
    assert_same(read(joined(file.getvalue(), pickler.storages)), ARRAYS)


def test_an_ordered_dict_with_metadata(read):
    state = collections.OrderedDict(STATE)
    state._metadata = collections.OrderedDict(conv={"version": 1})
    for container in CONTAINERS:
        assert_same(read(encoded(state, container)), ARRAYS)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_arguments_of_a_training_script_are_passed_over(read, container, protocol):
    more = argparse.Namespace(layers=[3, 4], fast=None)
    args = argparse.Namespace(lr=0.1, output=pathlib.PosixPath("/runs/1"), more=more)
    assert_same(read(encoded({"args": args, "state_dict": STATE}, container, protocol)), ARRAYS)


def test_a_zip_of_the_other_byte_order(read):
    assert_same(read(encoded(STATE, "zip", order="big")), ARRAYS)


def test_a_deflated_zip(read):
    assert_same(read(encoded(STATE, "zip", compression=zipfile.ZIP_DEFLATED)), ARRAYS)


class Runs:
    """Pickled as a call of ``function``, which Python's unpickler makes."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def programs(canary):
    """Values whose unpickling writes the file ``canary``, by all the ways there are."""
    touch = f"touch {canary}"
    write = f"open({str(canary)!r}, 'w').close()"
    text = b"X" + struct.pack("<I", len(touch)) + touch.encode()
    return {
        "a reduction": (Runs(os.system, touch), r"refused posix\.system"),
        "eval": (Runs(eval, write), r"refused (builtins|__builtin__)\.eval"),
        "os.system by name": (Raw(b"cos\nsystem\n" + text + b"\x85R"), r"refused os\.system"),
        "a name from the stack": (
            Raw(b"\x8c\x02os\x8c\x06system\x93" + text + b"\x85R"),
            r"refused os\.system",
        ),
        "a dotted name": (
            Raw(b"\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93)R"),
            r"refused collections\.OrderedDict\.__init__",
        ),
        "an instance": (Raw(b"(" + text + b"ios\nsystem\n"), "refused the pickle opcode INST"),
        "an object": (Raw(b"(cos\nsystem\n" + text + b"o"), r"refused os\.system"),
        "an extension": (Raw(b"\x82\x01"), "refused the pickle opcode EXT1"),
        "a new object": (Raw(b"ccollections\nOrderedDict\n)\x81"), "refused the pickle opcode"),
        "an argument": (
            argparse.Namespace(hook=Runs(os.system, touch)),
            r"refused posix\.system",
        ),
        "an object of arguments": (
            Raw(b"cargparse\nNamespace\n)\x81cos\nsystem\n" + text + b"\x85R"),
            r"refused os\.system",
        ),
        "arguments as a function": (
            Raw(b"cargparse\nNamespace\n)\x81" + text + b"\x85R"),
            "its pickle is damaged",
        ),
        "state of a name": (Raw(b"ccollections\nOrderedDict\n}b"), "its pickle is damaged"),
        "a call of a storage": (Raw(b"ctorch\nFloatStorage\n)R"), "refused a call of torch.Float"),
        "a call of a value": (Raw(b"K\x01)R"), "its pickle is damaged"),
        "a rebuilt storage": (
            Raw(b"ctorch.storage\n_load_from_bytes\n" + text + b"\x85R"),
            r"refused torch\.storage\._load_from_bytes",
        ),
    }


@pytest.mark.parametrize("nested", [False, True], ids=["alone", "in a state dict"])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("program", programs(""))
def test_nothing_is_executed(refuses, tmp_path, program, container, nested):
    canary = tmp_path / "canary"
    value, words = programs(canary)[program]
    tree = {"state_dict": {**STATE, "w": value}} if nested else value
    refuses(encoded(tree, container), words)
    assert not canary.exists()


def test_the_canaries_sing_elsewhere(tmp_path):
    """So that the test above can fail: Python's unpickler does what these ask."""
    for name in (
        "a reduction",
        "eval",
        "os.system by name",
        "an instance",
        "an object",
        "an argument",
        "an object of arguments",
    ):
        canary = tmp_path / name.replace(" ", "_")
        file = io.BytesIO()
        Pickler(file, 2).dump(programs(canary)[name][0])
        pickle.loads(file.getvalue())
        assert canary.exists()


def test_the_name_of_what_is_refused_is_shown_as_plain_text(refuses):
    refuses(encoded(Raw(b"cos\nsys\x1b[2Jtem\n"), "zip"), r"refused os\.sys\\x1b\[2Jtem")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (1, (12,), (1,)),
        (0, (13,), (1,)),
        (0, (3, 4), (5, 1)),
        (0, (2,), (12,)),
        (-1, (4,), (1,)),
        (0, (-4,), (1,)),
        (8, (4,), (-1,)),
        (0, (2**61, 2**61), (0, 0)),
        (0, (2**47, 0, 2**47), (0, 0, 0)),
        (0, (2**200,), (1,)),
        (0, (12,), ()),
        (0, (1,) * 40, (1,) * 40),
        (0.0, (12,), (1,)),
        (0, ("12",), (1,)),
        (0, 12, (1,)),
        (None, (12,), (1,)),
    ],
)
def test_a_view_that_leaves_its_storage(refuses, container, offset, size, stride):
    base = np.arange(12, dtype=np.float32)
    refuses(encoded({"w": View(base, offset, size, stride)}, container))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_storage_of_an_unknown_kind(refuses, container):
    view = View(np.ones(4, np.float32), 0, (2,), (1,), kind="ComplexFloat")
    refuses(encoded({"w": view}, container), "refused torch.ComplexFloatStorage")


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_tensor_that_is_built_otherwise(refuses, container):
    view = tensor(np.ones(4, np.float32))._replace(function="_rebuild_sparse_tensor")
    refuses(encoded({"w": view}, container), r"refused torch\._utils\._rebuild_sparse_tensor")


@pytest.mark.parametrize("tree", [[], "text", 3, None, {}, {"epoch": 3}, {"model": {}}])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_checkpoint_without_weights(refuses, container, tree):
    refuses(encoded(tree, container), "a state_dict is expected|no floating-point arrays")


def test_another_pickle(refuses):
    refuses(pickle.dumps({"w": [1.0, 2.0]}), "not of PyTorch")
    refuses(pickle.dumps({"w": np.ones(3)}), "refused numpy")
    refuses(pickle.dumps(MAGIC) + pickle.dumps(1002), "unknown version")


def test_a_program_of_torchscript(refuses):
    file = io.BytesIO(encoded(STATE, "zip"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("net/constants.pkl", b"")
    refuses(file.getvalue(), "TorchScript")


# Small files that would take much memory or time.


@pytest.fixture
def frugal():
    """The block allocates less than 64 MB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_thousand_views_of_one_storage(refuses, container):
    whole = tensor(np.ones(100_000, np.float32))
    refuses(
        encoded({f"w{i}": whole for i in range(1000)}, container), "would unpack to 400,000,000"
    )


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("container", CONTAINERS)
def test_one_number_repeated(refuses, container):
    view = View(np.ones(1, np.float32), 0, (2**20, 2**20), (0, 0))
    refuses(encoded({"w": view}, container), "would unpack")


@pytest.mark.usefixtures("frugal")
def test_a_member_that_unpacks_to_far_more(refuses):
    zeros = np.zeros(50_000_000, np.int8).view(np.float32)
    file = io.BytesIO()
    pickler = Pickler(file, 2)
    pickler.dump({"w": tensor(zeros)})
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", file.getvalue())
        with archive.open("net/data/0", "w") as member:
            for _ in range(50):
                member.write(bytes(1_000_000))
    refuses(packed.getvalue(), "would unpack from")


def test_members_that_share_their_bytes(refuses):
    """The directory of a zip may list the same bytes a thousand times."""
    data = encoded({"w": tensor(np.zeros(10_000, np.float32))}, "zip")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        end = archive.start_dir
        entries = data[end : data.rindex(b"PK\5\6")]
        count = len(archive.namelist())
    repeated = entries * 200
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *[count * 200] * 2, len(repeated), end, 0)
    refuses(data[:end] + repeated + tail, "larger than the file")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [8, 10_000, 2**32 - 2])
def test_a_member_of_another_size_than_declared(refuses, compression, size):
    data = bytearray(encoded(STATE, "zip", compression=compression))
    entry = data.rindex(b"net/data/0") - 46
    data[entry + 24 : entry + 28] = struct.pack("<I", size)
    refuses(bytes(data), "net/data/0")


PAIRS = b"".join(b"U\x04%04dN\x86" % number for number in range(3000))
ORDERED = b"ccollections\nOrderedDict\n"


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize(
    "opcodes",
    [
        pytest.param(
            b"]q\0(" + PAIRS + b"e" + (ORDERED + b"h\0\x85R") * 1000, id="a list taken often"
        ),
        pytest.param(b"}r\xff\xff\xff\x7f", id="a memo of 16 GB"),
        pytest.param(b"})" + b"q\0h\0\x86" * 60 + b"Ns", id="a key whose hash never ends"),
        pytest.param(b"\x8d" + b"\xff" * 7 + b"\x0f", id="a string of an exabyte"),
        pytest.param(b"\x8b\xff\xff\xff\x7f", id="an integer of 2 GB"),
        pytest.param(b"(" * 20_000 + b"t" * 20_000, id="tuples in tuples"),
    ],
)
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_pickle_that_is_a_bomb(refuses, container, opcodes):
    refuses(encoded(Raw(opcodes), container))


def test_a_pickle_without_end(refuses, monkeypatch):
    monkeypatch.setattr(pickled, "MAX_OPCODES", 1000)
    refuses(encoded([[]] * 2000, "zip"), "more than 1,000 opcodes")


# Damage.


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("tenth", range(10))
def test_a_file_cut_short(refuses, container, tenth):
    data = encoded(STATE, container)
    refuses(data[: len(data) * tenth // 10])


@pytest.mark.parametrize("count", [0, 107, 109, -1, 2**62])
def test_a_storage_of_another_length_than_its_tensors_say(refuses, count):
    weights = ARRAYS["conv.weight"].tobytes()
    data = encoded(STATE, "legacy")
    assert struct.pack("<q", 108) + weights in data
    data = data.replace(struct.pack("<q", 108) + weights, struct.pack("<q", count) + weights)
    refuses(data, "damaged at its storage '0'")


def test_a_flipped_bit_in_the_weights_of_a_zip(refuses):
    data = bytearray(encoded(STATE, "zip"))
    data[data.index(ARRAYS["conv.weight"].tobytes()) + 5] ^= 1
    refuses(bytes(data), "damaged")


flips = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8)


@settings(max_examples=300, deadline=None)
@given(container=st.sampled_from(CONTAINERS), flips=flips)
def test_damage_gives_weights_or_an_explained_error(tmp_path_factory, container, flips):
    data = bytearray(encoded(STATE, container))
    for where, value in flips:
        data[int(where * len(data))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    path.write_bytes(data)
    try:
        found = read_checkpoint(path).arrays
    except BadInputError:
        return
    assert all(array.dtype == np.float32 for array in found.values())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_any_pickle_gives_a_value_or_an_explained_error(opcodes):
    with contextlib.suppress(BadInputError):
        pickled.unpickle(io.BytesIO(b"\x80\x02" + opcodes + b"."), {}, lambda given: given)


# The real thing.


def test_checkpoints_on_cifar(shared):
    for name, arrays, numbers, total in (
        ("resnet20-12fca82f.th", 97, 271_098, 21349.5626),
        ("resnet56-4bfd9763.th", 277, 857_082, 41377.0863),
    ):
        found = read_checkpoint(shared / "cifar-resnet" / name).arrays
        assert len(found) == arrays
        assert next(iter(found)) == "conv1.weight"
        assert found["conv1.weight"].shape == (16, 3, 3, 3)
        assert sum(array.size for array in found.values()) == numbers
        sizes = sum(np.abs(array).sum(dtype=np.float64) for array in found.values())
        assert sizes == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=CONTAINERS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_pytorch_writes(tmp_path, options, protocol):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pth"
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = net.state_dict()
    expected = {name: value for name, value in state.items() if value.is_floating_point()}
    assert len(expected) == len(state) - 1

    def saved(tree) -> dict:
        torch.save(tree, path, pickle_protocol=protocol, **options)
        return read_checkpoint(path).arrays

    assert_same(saved(state), expected)
    assert_same(saved(torch.nn.DataParallel(net).state_dict()), expected)
    net(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    optimizer.step()
    expected = {name: value.detach() for name, value in expected.items()}
    tree = {"epoch": 1, "model": net.state_dict(), "optimizer": optimizer.state_dict()}
    assert_same(saved(tree), expected)

    grid = torch.arange(24.0).reshape(4, 6)
    views = {
        "transposed": grid.t(),
        "part": grid[1:3, ::2],
        "expanded": grid[:, :1].expand(4, 3),
        "half": grid.half(),
        "bfloat16": grid.bfloat16(),
        "double": grid.double(),
        "scalar": grid[1, 2],
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(grid),
    }
    found = saved({**views, "whole": grid.int(), "size": grid.size()})
    assert_same(found, {name: view.detach().float().numpy() for name, view in views.items()})

    for program in (net, [net], {"model": net}):
        with pytest.raises(BadInputError, match=r"refused torch\.nn\.modules"):
            saved(program)


def test_what_torchscript_writes(tmp_path):
    torch = pytest.importorskip("torch")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "net.pt")
    with pytest.raises(BadInputError, match="TorchScript"):
        read_checkpoint(tmp_path / "net.pt")
