"""A run in tables and sentences: each kind of run has its own, and all are of the records."""

from __future__ import annotations

import json

import pytest

from kzoo.errors import BadInputError
from kzoo.report.html import write_report
from kzoo.report.records import read_records
from kzoo.report.sections import notices
from kzoo.report.summary import compressions, distillations, run_tables, studies
from kzoo.report.table import format_rows, rows, summary_rows


def change(folder, model, step, **fields) -> None:
    path = folder / "ledger" / f"{model}.{step}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_run_of_models_has_their_table(run_folder):
    (table,) = run_tables(run_folder)
    assert (table.header, table.cells) == format_rows(summary_rows(run_folder))
    assert "30 test images" in table.note


def test_a_study_has_a_row_per_network_and_a_column_per_shots(study_run, study_result):
    (table,) = run_tables(study_run)
    assert table.header == [
        "model",
        "parameters",
        "best head",
        *(f"{n} per class" for n in (1, 4, 16)),
    ]
    (cells,) = table.cells
    assert cells[:3] == ["net", "1,234", "softmax on head"]
    means = {(row["head"], row["cut"], row["shots"]): row for row in study_result()["means"]}
    for cell, shots in zip(cells[3:], (1, 4, 16), strict=True):
        assert cell == f"{100 * means['softmax', 'head', shots]['accuracy']:.1f} ± 5.0 %"
    assert summary_rows(study_run)[0]["fewshot"] == means["softmax", "head", 16]


def test_a_study_is_reported_in_its_run(study_run):
    page = write_report(study_run).read_text()
    assert "With 16 images per class, softmax on head does best: 52.0 ± 5.0 % right." in page
    assert "gate" not in page.partition("<nav>")[0]
    assert "not done" not in page
    tables = {path.name: path.read_text().count("\n") for path in (study_run / "tables").iterdir()}
    assert tables == {
        "net.fewshot.csv": 37, "net.fewshot_means.csv": 19, "net.fewshot_curves.csv": 61,
    }  # fmt: skip
    assert all(f"tables/{name}" in page for name in tables)
    names = {path.name.removeprefix("net.fewshot_") for path in (study_run / "plots").iterdir()}
    assert names == {
        f"{name}.png"
        for name in ("shots", "depth", "temperature", "iterations", "iterations_temperature")
    }
    assert page.count("data:image/png") == 5


def test_a_study_beside_trained_models_adds_its_table(run_folder, study_run):
    record = (study_run / "ledger" / "net.fewshot.json").read_text()
    (run_folder / "ledger" / "zeta.fewshot.json").write_text(record)
    models, few = run_tables(run_folder)
    assert [row[0] for row in models.cells] == ["zeta", "alpha"]
    assert [row[0] for row in few.cells] == ["zeta"]
    assert studies(read_records(run_folder))[0].startswith("zeta: With 16 images")


def test_a_damaged_study_is_named(study_run, study_result):
    result = study_result()
    del result["recipe"]
    change(study_run, "net", "fewshot", result=result)
    with pytest.raises(BadInputError, match=r"net\.fewshot\.json"):
        run_tables(study_run)


def test_a_distillation_sets_teacher_alone_and_distilled_beside_each_other(distilled_run):
    models, table = run_tables(distilled_run)
    assert len(models.cells) == 3
    assert [row[:2] for row in table.cells] == [
        ["big_teacher", "teacher"],
        ["small", "alone"],
        ["small_distilled", "distilled"],
    ]
    # A distilled network is built once, as the one that is trained alone.
    assert [row[4:6] for row in table.cells] == [["77,898", "12.2 M"]] * 3
    assert all(row[2] == "96.7 %" and row[3] == "0.1436" for row in table.cells)
    assert all(row[6] == "33.0" and row[8] == "18" for row in table.cells)


def test_what_distillation_gains_is_said(distilled_run):
    record = json.loads((distilled_run / "ledger" / "small_distilled.check.json").read_text())
    keras = record["result"]["int8"]["keras"]
    keras |= {"accuracy": 1.0, "interval": [0.9945, 1.0]}
    change(distilled_run, "small_distilled", "check", result=record["result"])
    records = read_records(distilled_run)
    (sentence,) = distillations(records, rows(records))
    assert sentence == (
        "small gets 100.0 % right distilled and 96.7 % alone (+3.33 points); its teacher "
        "big_teacher gets 96.7 %."
    )


def test_a_teacher_that_was_trained_again_makes_the_distilled_one_out_of_date(distilled_run):
    def told() -> list[str]:
        records = read_records(distilled_run)
        found = notices(records, rows(records))
        assert not any("not done" in text for text in found)
        return [text.partition(" is ")[0] for text in found if "OUT OF DATE" in text]

    assert told() == []
    change(distilled_run, "big_teacher", "finetune", outputs={"models/big_teacher.keras": "0" * 64})
    assert told() == [
        *(f"big_teacher: the record of {step}" for step in ("convert", "quantize", "check")),
        "small_distilled: the record of distill",
    ]


def test_a_chain_has_its_stages_one_below_the_other_and_what_each_left(chain_run):
    models, table = run_tables(chain_run)
    assert [row[0] for row in models.cells] == ["net", "net_1_slim", "net_2_qat"]
    assert table.title == "Compression of net"
    assert len(table.header) == len(table.cells[0])
    assert [row[3:7] for row in table.cells] == [
        ["77,898", "12.2 M", "99.0", "97.8"],
        ["38,949 ÷2.0", "6.00 M ÷2.0", "49.5 ÷2.0", "48.3 ÷2.0"],
        ["25,966 ÷3.0", "6.00 M ÷2.0", "33.0 ÷3.0", "31.8 ÷3.1"],
    ]
    assert all(row[1:3] == ["96.7 %", "90.0 %"] for row in table.cells)


def test_what_a_chain_bought_is_said(chain_run):
    records = read_records(chain_run)
    found = rows(records)
    (sentence,) = compressions(records, found)
    ratio = found[2]["gzip_int8"] / found[0]["gzip_int8"]
    assert sentence == (
        f"net_2_qat takes {ratio:.2f} of the download (int8, gzip) and 1.00 of the latency of net, "
        "and its int8 file gets 90.0 % right (+0.00 points)."
    )
    page = write_report(chain_run).read_text()
    assert sentence in page
    assert "not done" not in page
    assert "OUT OF DATE" not in page
    for fact in ("made of", "net_1_slim", "25.0 %", "12.3 kB", "batches of 32"):
        assert fact in page.partition('id="model-3"')[2]


def test_a_network_that_was_compressed_again_makes_the_next_out_of_date(chain_run):
    change(chain_run, "net_1_slim", "compress", outputs={"models/net_1_slim.keras": "0" * 64})
    records = read_records(chain_run)
    told = [text for text in notices(records, rows(records)) if "OUT OF DATE" in text]
    assert [text.partition(" is ")[0] for text in told] == [
        *(f"net_1_slim: the record of {step}" for step in ("convert", "quantize", "check")),
        "net_2_qat: the record of compress",
    ]


@pytest.mark.parametrize("chains", [{"net": ["other"]}, {"other": ["net"]}, {"net": 3}, 3])
def test_a_damaged_chain_is_told(chain_run, chains):
    run = json.loads((chain_run / "run.json").read_text())
    (chain_run / "run.json").write_text(json.dumps(run | {"chains": chains}))
    with pytest.raises(BadInputError, match=r"run\.json"):
        read_records(chain_run)


@pytest.mark.parametrize(
    "distilled", [{"small": {}}, {"other": {"teacher": "big_teacher", "alone": "small"}}, 3]
)
def test_a_damaged_distillation_is_told(distilled_run, distilled):
    run = json.loads((distilled_run / "run.json").read_text())
    (distilled_run / "run.json").write_text(json.dumps(run | {"distilled": distilled}))
    with pytest.raises(BadInputError, match=r"run\.json"):
        read_records(distilled_run)
