"""The table of contents: what ``kzoo`` offers, explained, typed, and free until it is used."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing

import pytest

import kzoo


@pytest.mark.parametrize("name", kzoo.__all__)
def test_every_public_name_is_a_function_with_a_docstring_and_annotations(name):
    function = getattr(kzoo, name)
    assert inspect.isfunction(function)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("name", kzoo.__all__)
def test_the_docstring_tells_of_every_parameter(name):
    function = getattr(kzoo, name)
    described = inspect.getdoc(function)
    if len(inspect.signature(function).parameters) > 1:
        for parameter in inspect.signature(function).parameters:
            # As an argument of its own, or within the words on another.
            told = re.search(rf"^ *{parameter}:|``{parameter}``", described, re.MULTILINE)
            assert told, f"{name} does not tell what {parameter} is"


def test_what_is_listed_is_what_is_imported():
    assert sorted(kzoo.__all__) == kzoo.__all__ == sorted(kzoo._API)
    assert set(kzoo.__all__) <= set(dir(kzoo))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="finetnue"):
        _ = kzoo.finetnue


def test_importing_kzoo_imports_nothing_heavy():
    program = "import kzoo, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "kzoo" in loaded
    assert not loaded & {"numpy", "keras", "tensorflow", "pydantic", "click", "rich", "yaml"}


def test_records_are_typed():
    verbs = (
        "finetune", "fewshot", "distill", "explain", "convert", "quantize", "evaluate", "check",
        "profile", "run",
    )  # fmt: skip
    for name in verbs:
        function = getattr(kzoo, name)
        module = sys.modules[function.__module__]
        record = getattr(module, function.__annotations__["return"], None)
        assert record is not None, name
        assert typing.get_type_hints(record.to_dict, vars(module))["return"] is dict
