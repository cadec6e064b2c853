"""The contract of results.json, and a page that is safe and complete."""

from __future__ import annotations

import copy
import json
import os
from html.parser import HTMLParser

import pytest
from rich.console import Console

from course_utils.errors import DataError, OutputError
from course_utils.measure import report
from course_utils.measure.report import as_markdown, as_table, pareto, rows, validate, write_report

CONTRACT = [
    "name",
    "params",
    "size_mb",
    "latency_ms_p50",
    "latency_ms_p95",
    "throughput_32",
    "peak_memory_mb",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
    "agreement",
    "size_ratio",
    "speedup_batch1",
    "speedup_batch32",
    "retention",
]


def measured(name="teacher", *, size=90.0, p50=8.0, throughput=150.0, accuracy=0.9, **changes):
    return {
        "name": name,
        "params": 22_713_216,
        "size_mb": size,
        "latency_ms_p50": p50,
        "latency_ms_p95": 2 * p50,
        "throughput_32": throughput,
        "peak_memory_mb": 500.0,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.02,
        "accuracy_high": accuracy + 0.015,
        "macro_f1": accuracy - 0.001,
        "agreement": 1.0,
        "threads": 2,  # not part of the contract
    } | changes


@pytest.fixture
def table():
    return rows(
        [
            measured(),
            measured("student", size=60.0, p50=4.0, throughput=300.0, accuracy=0.882),
            measured("student int8", size=15.0, p50=0.5, throughput=900.0, accuracy=0.88),
        ]
    )


@pytest.fixture
def results(table):
    return {"machine": {"cpu": "A", "threads": 2}, "task": {"name": "T"}, "rows": table}


def test_rows_keep_the_contract_and_compare_with_the_first(table, results):
    validate(results)
    assert all(list(row) == CONTRACT for row in table)
    teacher, _, int8 = table
    assert {teacher[key] for key in report.RATIOS} == {1.0}
    assert int8["size_ratio"] == 6
    assert int8["speedup_batch1"] == 16
    assert int8["speedup_batch32"] == 6
    assert int8["retention"] == pytest.approx(0.88 / 0.9)


def test_rows_say_what_was_not_measured():
    row = measured("student")
    del row["macro_f1"], row["params"]
    with pytest.raises(DataError, match=r"(?s)params, macro_f1.*where: student"):
        rows([measured(), row])


def test_a_teacher_that_is_never_right_leaves_nothing_to_keep(results, tmp_path):
    nothing = {"accuracy": 0.0, "accuracy_low": 0.0, "macro_f1": 0.1}
    never = rows([measured(**nothing), measured("student")])
    assert [row["retention"] for row in never] == [None, None]
    report.write_report(tmp_path, **{**results, "rows": never})
    assert report.cells(never[1])[-1] == "–"
    with pytest.raises(DataError, match="retention is None, not"):
        validate({**results, "rows": [{**row, "retention": None} for row in results["rows"]]})


@pytest.mark.parametrize(
    ("row", "key", "value", "words"),
    [
        (1, "size_mb", 0.0, "not positive"),
        (1, "size_mb", -3, "not positive"),
        (0, "accuracy", 1.2, "not a share"),
        (0, "agreement", -0.1, "not a share"),
        (1, "latency_ms_p50", float("nan"), "not a finite number"),
        (1, "throughput_32", float("inf"), "not a finite number"),
        (1, "peak_memory_mb", "500", "not a finite number"),
        (1, "macro_f1", True, "not a finite number"),
        (1, "params", 1e6, "not a whole number"),
        (2, "accuracy_low", 0.95, "outside its interval"),
        (2, "latency_ms_p50", 100.0, "larger than latency_ms_p95"),
        (2, "size_ratio", 5.0, "its ratio to the first row"),
        (0, "retention", 0.99, "its ratio to the first row"),
        (2, "speedup_batch1", 1.0, "its ratio to the first row"),
        (1, "name", "", "not a name"),
        (1, "name", "teacher", "two rows named teacher"),
        (1, "threads", 2, "not part of the contract"),
    ],
)
def test_a_broken_row_is_found(results, row, key, value, words):
    broken = copy.deepcopy(results)
    broken["rows"][row][key] = value
    with pytest.raises(DataError, match=words):
        validate(broken)


@pytest.mark.parametrize("key", CONTRACT)
def test_a_missing_key_is_found(results, key):
    del results["rows"][1][key]
    with pytest.raises(DataError, match=key):
        validate(results)


@pytest.mark.parametrize("part", ["machine", "task", "rows"])
@pytest.mark.parametrize("value", [None, {}, [], "x"])
def test_a_missing_part_is_found(results, part, value):
    with pytest.raises(DataError, match=part):
        validate(results | {part: value})


def test_write_report(results, tmp_path):
    got = write_report(
        tmp_path / "out", results["machine"], results["task"], results["rows"], {"rounds": 5}
    )
    folder = tmp_path / "out"
    names = {"results.json", "results.md", "pareto.png", "report.html"}
    assert {file.name for file in folder.iterdir()} == names
    assert json.loads((folder / "results.json").read_text()) == got
    assert got == results | {"extra": {"rounds": 5}}
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "results.md").read_text() == as_markdown(results["rows"])


def test_nothing_is_written_when_the_contract_is_broken(results, tmp_path):
    results["rows"][1]["accuracy"] = 2
    with pytest.raises(DataError):
        write_report(tmp_path / "out", results["machine"], results["task"], results["rows"])
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions work differently here")
def test_a_place_that_cannot_be_written(results, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_report(tmp_path / "file", results["machine"], results["task"], results["rows"])


def test_markdown_has_a_line_for_each_model_and_units(table):
    table[1]["name"] = "a|b <i>"
    head, rule, *lines = as_markdown(table).splitlines()
    assert "size (MB)" in head
    assert "latency p50 (ms)" in head
    assert len(lines) == 3
    assert {line.replace(r"\|", "").count("|") for line in (head, rule, *lines)} == {15}
    assert lines[1].startswith(r"| a\|b &lt;i&gt; | 22.7 | 60.0 | 1.5 | 4.00 | 8.00 | 2.0 | 300 |")
    assert "| 88.2 (86.2–89.7) |" in lines[1]


def test_the_terminal_shows_every_model_and_reads_no_markup(table):
    table[1]["name"] = "[red]x[/red]"
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - a sink
    console.print(as_table(table))
    text = console.export_text()
    assert "[red]x[/red]" in text
    assert "88.0 (86.0–89.5)" in text
    assert len(text.splitlines()) == 4 + 13


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def find(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_is_whole_and_takes_nothing_from_elsewhere(results, tmp_path):
    results["task"] = {"name": "reviews", "labels": ["good", "bad"], "shuffled": False}
    write_report(tmp_path, results["machine"], results["task"], results["rows"], {"rounds": 7})
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "http" not in text
    assert not page.find("script") + page.find("link")
    (image,) = page.find("img")
    assert image["src"].startswith("data:image/png;base64,iVBOR")
    assert "student int8: 15.0 MB, 88.0%, 0.5 ms" in image["alt"]
    assert "prefers-color-scheme: dark" in text
    words = " ".join(page.words)
    for expected in ("Results: reviews", "good, bad", "no", "cpu", "rounds", "88.0 (86.0–89.5)"):
        assert expected in words


def test_many_models_have_a_line_each_and_few_a_column(results, tmp_path):
    first, few = results["rows"][0], len(results["rows"])
    many = [*results["rows"], *(first | {"name": f"twin {k}"} for k in range(8 - few))]
    n_numbers = len(report.headers()) - 1
    for models, n_columns in ((results["rows"], few), (many, n_numbers)):
        write_report(tmp_path, results["machine"], results["task"], models)
        page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
        assert [header["scope"] for header in page.find("th")].count("col") == n_columns + 1


def test_differences_are_kept_and_shown_with_their_intervals(results, tmp_path):
    one = {"name": "student", "than": "<teacher>", "points": -1.25, "half_width": 0.5}
    facts = results["machine"], results["task"], results["rows"]
    got = write_report(tmp_path, *facts, differences=[one])
    assert got["differences"] == [one]
    assert json.loads((tmp_path / "results.json").read_text()) == got
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert {"<teacher>", "-1.2 ± 0.5"} <= set(words)


def test_more_models_than_colours_still_look_different(table):
    rows = [table[0] | {"name": f"model {k}", "size_mb": 90.0 - k} for k in range(20)]
    handles = pareto(rows).legends[0].legend_handles
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == 20


def test_the_page_escapes_everything_a_user_can_name(results, tmp_path):
    evil = "<script>alert('x')</script>\"><img onerror=alert(1)>"
    results["task"] = {"name": evil, evil: evil, "labels": [evil, {"deep": evil}]}
    for row in results["rows"][1:]:
        row["name"] = f"{row['name']} {evil} $x^$"
    machine = {evil: evil}
    write_report(tmp_path, machine, results["task"], results["rows"], {evil: {evil: [evil]}})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.find("script") == []
    (image,) = page.find("img")
    assert set(image) == {"src", "alt"}
    assert evil in image["alt"]
    assert "".join(page.words).count(evil) >= 2 + 2 + 2 + 2 + 2 + 2


def test_the_figure_names_every_model_and_hides_none(table):
    table[1]["size_mb"] = table[0]["size_mb"] * 1.01  # one would cover the other
    table[1]["accuracy"] = table[0]["accuracy"]
    figure = pareto(table)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    centres = [
        line.get_transform().transform(line.get_xydata()[0]) for line, _, _ in axes.containers
    ]
    for k, one in enumerate(centres):
        for other in centres[k + 1 :]:
            assert abs(one - other).max() > 8  # pixels
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["teacher · 8 ms", "student · 4 ms", "student int8 · 0.5 ms"]
    assert axes.get_xscale() == "log"
    assert "MB" in axes.get_xlabel()
    assert figure.get_suptitle().endswith("?")
    colours = {line.get_color() for line, _, _ in axes.containers}
    markers = {line.get_marker() for line, _, _ in axes.containers}
    assert len(colours) == len(markers) == 3
