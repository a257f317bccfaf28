"""What ``kzoo check`` prints, and how it ends."""

from __future__ import annotations

import json

import pytest

from kzoo.cli import cli


@pytest.fixture
def checked(trained, capsys):
    """checked(file, *options) -> (exit code, what is printed), against `trained` or another."""

    def run(file, *more, against=trained) -> tuple[int, str]:
        given = ["check", file, "--against", against, "--data", "digits", *more]
        code = cli([*map(str, given)], standalone_mode=False)
        return code or 0, capsys.readouterr().out

    return run


def test_the_usual_gates_are_met_or_named(checked, lite_int8):
    code, text = checked(lite_int8, "--gate")
    assert code == 0
    for told in ("reference kernels", "more threads", "batches of 4", "min_agreement 0.97"):
        assert told in text
    assert "gates not met" not in text
    code, text = checked(lite_int8, "--gate", "--max-drop", -100)
    assert code == 1
    assert "drops by" in text.split("gates not met")[1]


def test_the_worst_classes_are_shown_and_all_are_in_the_record(
    checked, lite_int8, lite_float, tmp_path
):
    import kzoo

    other = tmp_path / "other.keras"
    kzoo.build("lenet5", seed=5).save(other)
    code, text = checked(lite_int8, against=other)
    assert code == 0
    table = text.split("\n\n")[0].splitlines()
    assert table[0].split() == ["class", "images", "Keras", "file", "points", "lost", "gained"]
    assert len(table) == 2 + 5
    _, text = checked(lite_int8, "--json", against=other)
    assert len(json.loads(text)["per_class"]) == 10
    assert "points" not in checked(lite_float)[1]


def test_a_finding_is_told_with_what_to_do(checked, lite_float, tmp_path):
    from kzoo.lite import flatbuffer

    model = flatbuffer.parse(lite_float.read_bytes())
    operators = model.subgraphs[0].operators
    names = [flatbuffer.operator(model, op) for op in operators]
    first = names.index("AVERAGE_POOL_2D")
    codes = [flatbuffer.add_operator_code(model, name) for name in ("QUANTIZE", "DEQUANTIZE")]
    there_and_back = flatbuffer.add_rounding(
        model, int(operators[first].outputs[0]), (1 / 64, 0), codes
    )
    operators[first + 1 : first + 1] = there_and_back
    path = tmp_path / "m.tflite"
    path.write_bytes(flatbuffer.serialize(model))
    code, text = checked(path)
    assert code == 0  # advice, no gate
    assert "1 redundant conversion  DEQUANTIZE in stage1_1_pool" in text
    assert "-> quantize anew" in text
