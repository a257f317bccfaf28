"""The report stands alone, says what the records say, and trusts no text in them."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from kzoo.errors import BadInputError, MissingError
from kzoo.report.html import write_report
from kzoo.report.table import format_rows, summary_rows

REST = b'"inputs": {}, "settings": {}, "outputs": {}, "environment": {}, "date": ""}'
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The tags with their attributes, and the text outside of the style sheet."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self._style = False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = self._style and tag != "style"

    def handle_data(self, data):
        if not self._style:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def source(reported) -> str:
    return (reported / "report.html").read_text()


@pytest.fixture(scope="module")
def page(source) -> Page:
    return Page(source)


def edit(folder, model, step, change) -> None:
    path = folder / "ledger" / f"{model}.{step}.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def keep_steps(folder, *kept) -> None:
    for path in (folder / "ledger").iterdir():
        if path.name.split(".")[1] not in kept:
            path.unlink()


def keep_one_model(folder) -> None:
    """Less to draw, where a second model adds nothing."""
    (folder / "run.json").write_text(json.dumps({"name": "mini", "models": ["zeta"]}))


def test_it_requests_nothing_and_executes_nothing(source, page):
    allowed = {"src": "data:image/png;base64,", "href": "#"}
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"srcset", "data", "action", "poster", "background"}
            if name in allowed:
                assert value.startswith(allowed[name])
    assert not re.search(r"@import|url\(", source)


def test_every_picture_is_a_whole_png_with_a_description(page):
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    # curves, confusion, sizes, latency and two samples of each of two models, and a reliability
    assert len(pictures) == 13
    for picture in pictures:
        assert picture["alt"]
        data = base64.b64decode(picture["src"].partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.format == "PNG"


def test_the_figures_are_files_too(reported):
    names = {path.name for path in (reported / "plots").iterdir()}
    kinds = ("curves", "confusion", "sizes", "latency")
    drawn = {f"{model}.{kind}.png" for model in ("zeta", "alpha") for kind in kinds}
    assert names == drawn | {"zeta.reliability.png"}


def test_every_cell_of_the_summary_stands_in_it(reported, source):
    header, cells = format_rows(summary_rows(reported))
    for row in cells:
        written = "".join(
            f'<td data-label="{title}">{cell}</td>' for title, cell in zip(header, row, strict=True)
        )
        assert written in source


@pytest.mark.parametrize(
    "text",
    [
        "96.7 %",  # the Keras model: 29 of 30
        "83.3 to 99.4 %",
        "90.0 %",  # int8: 27 of 30
        "74.4 to 96.5 %",
        "93.3 %",  # agreement
        "int8 loses 6.67 points; it answers differently from the Keras model on 2 of 30 images",
        "0.414",
        "2.39",
        "3 of 30 images wrong",
        "Phase 1: 2 epochs of head by adam, learning rate 0.002, cosine",
        "4 epochs in 18 s",
        "319,824",
        "Float islands in the int8 file: 1 : MUL in stage1_1",
        "ai-edge-litert 2.3.0, XNNPACK for 94 % of nodes",
        "measured",
        "52.1 MB",
        "Example CPU",
        "CPU governor performance",
        "load (1 min) 0.5 to 1.25",
        "cut off at byte 512",
        "a/1.png = b/1.png",
        "A & B 1998",
        "int8 WRONG, float right",
        "55.1 %",
        "on a scale of 73 to 100 % macro-F1 log-loss (nats) ECE agreement",
        "4.6 %",  # the expected calibration error
        "The int8 file is more confident than it is right by 2.3 points on average",
        "up to 35.4 % on 30 images",
        "cat & dog 10 88.9 % 80.0 % 84.2 % 94.7 %",
        "Wrong answers on the test split, the most confident first.",
        "From the test split, spread evenly over what is left of it.",
        "From the test split, the int8 file's mistakes first: not a random draw.",  # alpha's
    ],
)
def test_it_says_what_the_records_say(page, text):
    assert text in page.text


def test_the_hashes_of_all_files_are_there(reported, page):
    hashes = {
        digest
        for path in (reported / "ledger").iterdir()
        for digest in json.loads(path.read_text())["outputs"].values()
    }
    assert len(hashes) == 9  # four models' files each, and one strip of samples, the same for both
    assert all(digest in page.text for digest in hashes)


def test_text_of_records_is_text(source, page):
    assert "<script" not in source
    assert html.escape(HOSTILE) in source
    assert HOSTILE in page.text
    assert "</pre><script>bad()</script>" in page.text  # the config's


def test_a_gate_that_is_not_met_is_the_first_thing_said(page):
    assert page.text.index("A gate is NOT MET by zeta.") < page.text.index("Summary")
    assert "zeta : top-1 agreement 0.9333 is below 0.97" in page.text
    assert "top-1 agreement at least 0.97" in page.text


def test_met_gates_are_said_only_when_all_was_checked(run_folder):
    keep_steps(run_folder, "check")
    edit(run_folder, "zeta", "check", lambda record: record["result"]["int8"].update(failures=[]))
    assert "Every gate is met." in Page(write_report(run_folder).read_text()).text
    (run_folder / "ledger" / "alpha.check.json").unlink()
    text = Page(write_report(run_folder).read_text()).text
    assert "Every gate is met." not in text
    assert "No check of alpha stands." in text


def test_classes_are_listed_from_the_lowest_f1_up(page):
    table = page.text[page.text.index("3 classes, the lowest F1 first") :]
    places = [table.index(name) for name in ("cat & dog", HOSTILE, '"quoted" $x^{')]
    f1 = {"cat & dog": 16 / 19, HOSTILE: 20 / 22, '"quoted" $x^{': 18 / 19}
    assert places == sorted(places)
    assert [*f1.values()] == sorted(f1.values())


def test_older_records_have_neither_classes_nor_calibration(run_folder):
    (run_folder / "run.json").write_text(json.dumps({"name": "mini", "models": ["alpha"]}))
    text = Page(write_report(run_folder).read_text()).text
    assert "96.7 %" in text
    for said in ("macro-F1", "ECE", "Calibration", "lowest F1", "Worst mistakes"):
        assert said not in text


def test_too_few_runs_are_invalid(source, page):
    assert source.count('class="invalid">INVALID</td>') == 4  # alpha: two files, two thread counts
    assert "p90 is INVALID: 40 runs, and it takes 64" in page.text


@pytest.mark.parametrize(
    ("simd", "said"), [(["avx2"], True), (["avx2", "avx512_vnni"], False), (None, False)]
)
def test_a_slow_int8_is_explained_by_the_processor(run_folder, simd, said):
    keep_one_model(run_folder)

    def slow(record):
        record["environment"]["machine"] |= {} if simd is None else {"simd": simd}
        for kind, p50 in (("float32", 1.0), ("int8", 2.0)):
            for run in record["result"][kind]["runs"]:
                run["latency"]["p50_ms"] = p50

    edit(run_folder, "zeta", "profile", slow)
    text = Page(write_report(run_folder).read_text()).text
    assert "zeta: int8 is SLOWER: it takes 2.00 times as long" in text
    assert ("has no dot products of bytes" in text) == said


def test_steps_not_done_are_named_and_left_out(run_folder):
    keep_one_model(run_folder)
    keep_steps(run_folder, "build", "finetune")
    page = Page(write_report(run_folder).read_text())
    assert "zeta: not done: convert, quantize, check, profile." in page.text
    assert "The record of the dataset is missing." in page.text
    assert "96.7 %" in page.text
    # The curves, and of the Keras model the confusion matrix and the reliability.
    assert sum(tag == "img" for tag, _ in page.tags) == 3
    assert "Classes, Keras model" in page.text
    assert "Sample predictions" not in page.text


def test_a_run_with_nothing_done_has_a_report(run_folder):
    keep_steps(run_folder)
    text = Page(write_report(run_folder).read_text()).text
    assert "Nothing was trained and checked yet." in text


def test_a_record_of_an_older_file_is_called_out_of_date(run_folder, page):
    assert "OUT OF DATE" not in page.text
    keep_one_model(run_folder)
    keep_steps(run_folder, "finetune", "convert", "quantize")
    edit(
        run_folder,
        "zeta",
        "finetune",
        lambda record: record.update(outputs={"models/zeta.keras": "0" * 64}),
    )
    edit(run_folder, "zeta", "quantize", lambda record: record.update(inputs={"model": "0" * 64}))
    text = Page(write_report(run_folder).read_text()).text
    assert "zeta: the record of convert is OUT OF DATE: finetune was done again after it." in text
    assert text.count("OUT OF DATE") == 1


def test_samples_that_are_not_the_recorded_file_are_not_shown(run_folder):
    keep_steps(run_folder, "build", "check")
    Image.new("RGB", (16, 8), "blue").save(run_folder / "samples" / "zeta.png")
    (run_folder / "samples" / "alpha.png").unlink()
    page = Page(write_report(run_folder).read_text())
    assert page.text.count("The pictures are missing or were changed") == 2
    assert sum(tag == "img" for tag, _ in page.tags) == 2 + 1  # confusion of each, a reliability
    assert page.text.count("int8 WRONG, float right") == 2


def test_the_same_records_give_the_same_bytes(run_folder):
    keep_one_model(run_folder)
    keep_steps(run_folder, "build", "check")
    first = write_report(run_folder).read_bytes()
    assert write_report(run_folder).read_bytes() == first


def test_no_run_folder(tmp_path):
    with pytest.raises(MissingError, match=r"is no folder.*kzoo run"):
        write_report(tmp_path / "absent")
    with pytest.raises(MissingError, match=r"has no run\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"[1, 2]",
        b"\xff\xfe\x00",
        b'{"result": {}}',
        b'{"result": [],' + REST,
        b'{"result": {},' + REST,
    ],
)
def test_a_damaged_record_is_named(run_folder, damage):
    (run_folder / "ledger" / "zeta.finetune.json").write_bytes(damage)
    with pytest.raises(BadInputError, match=r"zeta\.finetune\.json"):
        write_report(run_folder)
    assert not (run_folder / "report.html").exists()


def test_a_model_name_leaves_the_folder_never(run_folder):
    (run_folder / "run.json").write_text(json.dumps({"name": "x", "models": ["../../zeta"]}))
    with pytest.raises(BadInputError, match=r"run\.json"):
        write_report(run_folder)
