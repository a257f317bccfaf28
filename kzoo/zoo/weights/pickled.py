"""Pickles read as data: a stack machine that imports nothing and calls only what it was given.

Python's own unpickler runs what a file names. Even with `find_class` overridden it takes a memo of
16 GB, or a tuple whose hash never ends, from a file of a hundred bytes. Here `pickletools` of the
standard library decodes the opcodes, and those which tensors and plain values need are carried out.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import BinaryIO, NamedTuple

from kzoo.errors import BadInputError

MAX_OPCODES = 2_000_000
"""A checkpoint of a thousand tensors with its optimizer takes 100,000."""

VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING"),  # text as Python 2 wrote it
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Global(NamedTuple):
    """What a pickle calls ``module.name``: a name, never the object."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Opaque:
    """Stands for an object that no tensor needs; of its arguments and attributes it keeps none."""

    def __init__(self, *_):
        pass


def unpickle(
    file: BinaryIO, known: Mapping[str, Callable | None], persistent: Callable[[object], object]
) -> object:
    """Reads one pickle from where ``file`` stands, and leaves it behind the pickle.

    Args:
        file: open for reading, with ``tell``.
        known: ``"module.name"`` → the function that stands for it, or None where the pickle may
            name it but not call it. Objects are made of those alone that `Opaque` stands for.
        persistent: persistent id → the value it stands for.

    Returns:
        None, bool, int, float, str, tuple, list, dict, `Global`, `Opaque`, and what the functions
        return.

    Raises:
        BadInputError: another name or opcode (it says which), a damaged pickle, or an endless one.
    """
    try:
        return _Machine(known, persistent).run(file)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise BadInputError(f"its pickle is damaged ({type(error).__name__}: {error})") from error


class _Machine:
    def __init__(self, known, persistent):
        self.known, self.persistent = known, persistent
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self, file):
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                return self.stack.pop()
            if count == MAX_OPCODES:
                raise BadInputError(f"its pickle has more than {MAX_OPCODES:,} opcodes")
            self.step(opcode.name, argument)

    def step(self, name: str, argument) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case _ if name in VALUES:
                stack.append(argument)
            case _ if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "MARK":
                self.marks.append(len(stack))
            case "TUPLE":
                items = self.since_mark()
                stack.append(tuple(items))
            case _ if name in TUPLES:
                stack.append(tuple(self.pop(TUPLES[name])))
            case "APPEND":
                self.extend(self.pop(1))
            case "APPENDS":
                self.extend(self.since_mark())
            case "SETITEM":
                self.update(self.pop(2))
            case "SETITEMS":
                self.update(self.since_mark())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(self.named(*self.pop(2)))
            case "REDUCE":
                function, arguments = self.pop(2)
                stack.append(self.call(function, arguments))
            case "NEWOBJ":
                function, arguments = self.pop(2)
                if type(function) is not Global or self.known[str(function)] is not Opaque:
                    raise BadInputError(f"refused the pickle opcode {name}")
                stack.append(self.call(function, arguments))
            case "BUILD":
                # Attributes of a dict: a state dict's ``_metadata``, which no tensor needs.
                self.pop(1)
                if type(stack[-1]) is not Opaque:
                    self.expect(dict)
            case "BINPERSID":
                stack.append(self.persistent(stack.pop()))
            case _:
                raise BadInputError(f"refused the pickle opcode {name}")

    def pop(self, count: int) -> list:
        start = len(self.stack) - count
        if start < 0:
            raise IndexError("the stack is empty")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def since_mark(self) -> list:
        return self.pop(len(self.stack) - self.marks.pop())

    def expect(self, kind: type):
        """The value on top of the stack, which stays there."""
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"{kind.__name__} expected, not {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def extend(self, items: list) -> None:
        self.expect(list).extend(items)

    def update(self, items: list) -> None:
        target = self.expect(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # The hash of a tuple of tuples may take for ever.
            if not isinstance(key, (str, int, float, type(None))):
                raise TypeError(f"a key of type {type(key).__name__}")
            target[key] = value

    def named(self, module, name) -> Global:
        if f"{module}.{name}" not in self.known:
            shown = ascii(f"{module}.{name}")[1:-1][:100]
            raise BadInputError(
                f"refused {shown}: only tensors and plain values are taken from a pickle; "
                "where the file was made, save the state_dict() alone"
            )
        return Global(module, name)

    def call(self, function, arguments):
        if type(function) is not Global or type(arguments) is not tuple or len(arguments) > 16:
            raise TypeError("a call of what is no function")
        meaning = self.known[str(function)]
        if meaning is None:
            raise BadInputError(f"refused a call of {function}")
        return meaning(*arguments)
