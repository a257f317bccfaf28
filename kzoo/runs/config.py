"""A run's YAML config, checked before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from kzoo.errors import MissingError, UsageError, nearest
from kzoo.runs.schema import RunConfig, fields
from kzoo.runs.shipped import shipped_configs

Schema = TypeVar("Schema", bound=BaseModel)
MAX_BYTES = 1_000_000
SHOWN = 80
"""Characters of a wrong value that a message repeats."""


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a YAML config, applies ``a.b=value`` overrides, checks every key and value.

    ``path`` is a file, or the name of a config that ships with kzoo ("quickstart").

    Raises:
        MissingError: no such file.
        UsageError: not YAML, an unknown key (with the nearest), a wrong value.
    """
    return checked(read_values(path, shipped_configs()), overrides, str(path))


def read_values(path: str | os.PathLike, shipped: Mapping[str, Path], what: str = "config") -> dict:
    """What a YAML file, or one of the ``shipped``, says, unchecked; ``what`` it is."""
    file = _find(path, shipped, what)
    if file.stat().st_size > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES:,} bytes; is it a {what}?")
    try:
        text = file.read_text()
    except ValueError as error:
        raise UsageError(f"{path} is not a text file: {error}") from error
    values = _parse(text, str(path))
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no mapping of keys to values")
    return values


def checked(values: dict, overrides: Sequence[str], source: str) -> RunConfig:
    """The config of these values with their overrides; ``source`` is named where they are wrong."""
    for override in overrides:
        _apply(values, override)
    return valid(RunConfig, values, source, fields)


def valid(
    schema: type[Schema],
    values: dict,
    source: str,
    known: Callable[[Sequence[object]], Sequence[str]],
) -> Schema:
    """The values as a ``schema``; ``known`` gives the keys at a place, for messages."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(problem, known)}" for problem in error.errors())
        raise UsageError(f"{source} is not a valid config:\n{lines}") from error


def _find(path: str | os.PathLike, shipped: Mapping[str, Path], what: str) -> Path:
    if Path(path).is_file():
        return Path(path)
    if str(path) in shipped:
        return shipped[str(path)]
    raise MissingError(
        f"there is no {what} {str(path)!r}{nearest(str(path), shipped)}"
        + (f" (shipped with kzoo: {', '.join(shipped)})" if shipped else "")
    )


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases are not allowed", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":  # YAML 1.1 reads the key `on` as true
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3, without a point, as text; people write learning rates so.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)
# It reads 2:4, zeros in groups of four, as 124 in a system of sixty.
for _digit in "0123456789":
    _Loader.yaml_implicit_resolvers[_digit].insert(
        0, ("tag:yaml.org,2002:str", re.compile(r"\d+(:\d+)+$"))
    )


def _parse(text: str, source: str) -> object:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the date 2026-99-99
        raise UsageError(f"{source} is not YAML: {error}") from error


def read_arguments(arguments: Sequence[str]) -> dict[str, object]:
    """Reads ``("depth=3", "activation=tanh")`` as ``{"depth": 3, "activation": "tanh"}``.

    Raises:
        UsageError: no ``key=value``, a key twice, a value that is not YAML.
    """
    values: dict[str, object] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise UsageError(
                f"an argument is NAME=VALUE, such as alpha=0.5; {argument!r} was given"
            )
        if key in values:
            raise UsageError(f"the argument {key!r} is given twice")
        values[key] = _parse(text, f"the value of {argument!r}")
    return values


def _apply(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"an override is key=value, such as train.epochs=3; {override!r} was given"
        )
    value = _parse(text, f"the value of {override!r}")
    *parents, last = key.split(".")
    for parent in parents:
        place = _place(values, parent, override)
        inside = values[place] if isinstance(values, list) else values.get(place)
        if not isinstance(inside, (dict, list)):
            inside = values[place] = {}
        values = inside
    values[_place(values, last, override)] = value


def _place(values: dict | list, part: str, override: str) -> str | int:
    if isinstance(values, dict):
        return part
    if not part.isdecimal() or int(part) >= len(values):
        raise UsageError(
            f"{override!r}: there is a list of {len(values)} before {part!r}; "
            f"its items are called 0 to {len(values) - 1}"
        )
    return int(part)


def _explain(problem: dict, known_at: Callable[[Sequence[object]], Sequence[str]]) -> str:
    location = tuple(part for part in problem["loc"] if not str(part).startswith("<"))
    place = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = known_at(location[:-1])
        close = nearest(str(location[-1]), known)
        return f"unknown key {place!r}{close} (known: {', '.join(known)})"
    if problem["type"] == "missing":
        return f"{place} is missing"
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        return f"{place}: {text}" if place else text
    given = repr(problem["input"])
    given = given if len(given) <= SHOWN else f"{given[:SHOWN]}..."
    return f"{place}: {text}; {given} was given"
