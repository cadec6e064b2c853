"""A shipped model's answers: for one text, for lines, for tables of every kind; without torch."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import TEXTS, write_classifier

from course_utils.errors import CourseError, DataError, ModelError, OutputError
from course_utils.ship import predict as ship
from course_utils.ship.onnx import to_onnx
from course_utils.ship.predict import main_command, predict_file, predict_lines, probabilities
from course_utils.ship.rows import encoding_of, new_names, open_table
from course_utils.ship.runtime import OnnxClassifier

GERMAN = "Die Größe ist schön für uns"
NEW = ("prediction", "probability")
MIXED = [*TEXTS, *" ".join(TEXTS[:4]).split()]  # words and texts: every class is some text's
HEAVY = ("torch", "transformers", "datasets", "pandas", "pyarrow", "sklearn", "psutil")


@pytest.fixture(scope="module")
def folder(tiny_onnx):
    return tiny_onnx["fp32"][0]  # not int8: there the batch's company moves a logit a little


@pytest.fixture
def model(folder):
    return OnnxClassifier(folder)


@pytest.fixture(scope="module")
def multi_label_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("multi")
    source = write_classifier(place / "source", problem_type="multi_label_classification")
    to_onnx(source, place / "onnx", int8=False)
    return place / "onnx"


def silent(_):
    pass


def expected(folder, texts) -> list[tuple[str, float]]:
    """The slow way: one text at a time, softmax written out."""
    model = OnnxClassifier(folder)
    found = []
    for text in texts:
        exps = np.exp(model.predict([text])[0])
        found.append((model.labels[int(exps.argmax())], float(exps.max() / exps.sum())))
    return found


def written(file: Path) -> list[dict]:
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    tabs = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if file.suffix == ".tsv" else {}
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig")), **tabs))


def write(file: Path, texts) -> Path:
    """A table of texts and their numbers, in the file's format."""
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    with file.open("w", encoding="utf-8", newline="") as stream:
        if file.suffix == ".jsonl":
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            style = {"delimiter": "\t"} if file.suffix == ".tsv" else {}
            table = csv.DictWriter(stream, ["id", "text"], **style)
            table.writeheader()
            table.writerows(rows)
    return file


# --- tables ---


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_a_table_keeps_order_and_columns_across_chunks(
    folder, model, tmp_path, monkeypatch, ending
):
    monkeypatch.setattr(ship, "CHUNK", 7)
    texts = [*MIXED, "größte 数组, really"]
    file, out = write(tmp_path / f"in{ending}", texts), tmp_path / f"out{ending}"
    summary = predict_file(model, file, out, say=silent)
    rows = written(out)
    assert list(rows[0]) == ["id", "text", *NEW]
    assert [(row["id"], row["text"]) for row in rows] == [(str(i), t) for i, t in enumerate(texts)]
    for row, (label, prob) in zip(rows, expected(folder, texts), strict=True):
        assert row["prediction"] == label
        assert float(row["probability"]) == pytest.approx(prob, abs=1e-4)
    assert (summary.rows, summary.empty) == (len(texts), 0)
    assert {row["prediction"] for row in rows} == {"numpy", "torch", "pandas"}


def test_no_more_than_a_chunk_is_in_memory(model, some_texts, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "CHUNK", 8)
    sizes = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda t, b: (sizes.append(len(t)), predict(t, b))[1])
    predict_file(model, write(tmp_path / "in.csv", some_texts[:20]), tmp_path / "out.csv")
    assert sizes == [8, 8, 4]


def test_quotes_separators_and_line_breaks_in_cells_come_back(model, tmp_path):
    texts = ['he said "the array"', "one, two; three", "a line\r\nand another\nand more", "  the "]
    file, out = write(tmp_path / "in.csv", texts), tmp_path / "out.csv"
    predict_file(model, file, out)
    rows = list(csv.DictReader(io.StringIO(out.read_bytes().decode(), newline="")))
    assert [row["text"] for row in rows] == texts


@pytest.mark.parametrize("mark", [";", "|", "\t"])
def test_the_separator_is_found_said_and_kept(model, tmp_path, mark):
    said = []
    (tmp_path / "in.csv").write_text(f"id{mark}text\n1{mark}the array\n", encoding="utf-8")
    predict_file(model, tmp_path / "in.csv", tmp_path / "out.csv", say=said.append)
    head, row = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert head == mark.join(("id", "text", *NEW))
    assert row.startswith(f"1{mark}the array{mark}")
    assert repr(mark) in said[0]


def test_quotes_in_a_table_with_tabs_are_text_or_quoting(model, tmp_path):
    plain, quoted = tmp_path / "plain.tsv", tmp_path / "quoted.tsv"
    plain.write_text('text\tid\n"the array" is\t1\n', encoding="utf-8")
    quoted.write_text('text\tid\n"the\tarray"\t1\n', encoding="utf-8")
    assert [*open_table(plain)] == [['"the array" is', "1"]]
    assert [*open_table(quoted)] == [["the\tarray", "1"]]
    for file in (plain, quoted):
        predict_file(model, file, tmp_path / "out.tsv")
        assert (tmp_path / "out.tsv").read_text(encoding="utf-8").startswith(
            file.read_text(encoding="utf-8").splitlines()[0] + "\tprediction\tprobability\n"
            + file.read_text(encoding="utf-8").splitlines()[1] + "\t"
        )  # fmt: skip


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_no_cell_is_a_formula(model, tmp_path, ending):
    cells = ["=1+2", "+the", "-the array", "@sum", "-5", "the = array"]
    file = write(tmp_path / f"in{ending}", cells)
    predict_file(model, file, tmp_path / f"out{ending}")
    texts = [row["text"] for row in written(tmp_path / f"out{ending}")]
    assert texts == ["'=1+2", "'+the", "'-the array", "'@sum", "-5", "the = array"]


def test_a_class_or_a_column_is_no_formula_either(tmp_path):
    names = {0: "=cmd", 1: "=cmd|x", 2: "@a"}
    source = write_classifier(
        tmp_path / "m", id2label=names, label2id={v: k for k, v in names.items()}
    )
    to_onnx(source, tmp_path / "onnx", int8=False)
    (tmp_path / "in.csv").write_text("=a,text\n1,the array\n", encoding="utf-8")
    predict_file(OnnxClassifier(tmp_path / "onnx"), tmp_path / "in.csv", tmp_path / "out.csv")
    (row,) = written(tmp_path / "out.csv")
    assert "'=a" in row
    assert row["prediction"][:2] in ("'=", "'@")


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_an_empty_text_gets_an_empty_answer_and_is_counted(folder, tmp_path, capsys, ending):
    texts = ["the array", "", "  \u3000", "a tensor"]
    file, out = write(tmp_path / f"in{ending}", texts), tmp_path / f"out{ending}"
    main_command(folder, None, file=file, out=out)
    rows = written(out)
    nothing = None if ending == ".jsonl" else ""
    assert [row["prediction"] == nothing for row in rows] == [False, True, True, False]
    assert [row["probability"] == nothing for row in rows] == [False, True, True, False]
    said = capsys.readouterr().out
    assert "4 rows in" in said
    assert "texts per second" in said
    assert "2 without a text" in said


def test_texts_that_were_cut_are_counted(folder, tmp_path, capsys):
    texts = ["the " * 62, "the " * 63, "the " * 500_000]  # 62 words, [CLS] and [SEP]: 64 fit
    main_command(folder, None, file=write(tmp_path / "in.csv", texts), out=tmp_path / "out.csv")
    assert "2 cut, for the model reads 64 tokens" in capsys.readouterr().out
    with (tmp_path / "out.csv").open(encoding="utf-8") as stream:
        assert sum(map(len, stream)) > 2_000_000  # the cell itself is kept as it was


def test_columns_that_are_there_already_keep_their_names(model, tmp_path):
    said = []
    file = tmp_path / "in.csv"
    file.write_text("text,prediction\nthe array,old\n", encoding="utf-8")
    predict_file(model, file, tmp_path / "out.csv", say=said.append)
    (row,) = written(tmp_path / "out.csv")
    assert list(row) == ["text", "prediction", "prediction_2", "probability_2"]
    assert row["prediction"] == "old"
    assert row["prediction_2"] in model.labels
    assert "prediction_2 and probability_2" in said[0]
    assert new_names(["probability", "prediction_2"]) == ("prediction_3", "probability_3")


@pytest.mark.parametrize(
    ("columns", "asked", "texts"),
    [("a,text", "text", 1), ("a,b", "b", 1), ("review", "text", 0), (" text ,b", "text", 0)],
)
def test_the_column_of_texts(tmp_path, columns, asked, texts):
    (tmp_path / "in.csv").write_text(f"{columns}\n", encoding="utf-8")
    assert open_table(tmp_path / "in.csv", asked).column == texts


@pytest.mark.parametrize(
    ("columns", "asked", "said"),
    [
        ("a,b", "text", "There is no column 'text'.*a, b"),
        ("a", "review", "There is no column 'review'.*has: a"),
        ("text,a,text", "text", "Several columns are called 'text'"),
    ],
)
def test_a_column_that_is_not_there(model, tmp_path, columns, asked, said):
    (tmp_path / "in.csv").write_text(f"{columns}\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"(?s){said}"):
        predict_file(model, tmp_path / "in.csv", tmp_path / "out.csv", column=asked)


def test_a_header_alone_gives_a_header_alone(model, tmp_path):
    (tmp_path / "in.csv").write_text("id,text\n", encoding="utf-8")
    summary = predict_file(model, tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "id,text,prediction,probability\n"
    assert summary.rows == 0


def test_json_values_of_every_kind_stay(model, tmp_path):
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = ['{"text": "the array", "n": 1.5, "more": {"a": [null]}}', "", '{"n": 2}',
             '{"text": 7}', '{"text": "half \\ud83d"}']  # fmt: skip
    file.write_text("\n".join(lines), encoding="utf-8")
    summary = predict_file(model, file, out)
    rows = written(out)
    assert rows[0]["more"] == {"a": [None]}
    assert list(rows[0]) == ["text", "n", "more", *NEW]
    assert rows[1] == {"n": 2, "prediction": None, "probability": None}
    assert rows[3]["text"] == "half \ud83d"
    assert rows[3]["prediction"] in model.labels
    assert (summary.rows, summary.empty) == (4, 2)


# --- encodings ---


@pytest.mark.parametrize(
    ("encoding", "marked"),
    [
        ("utf-8", False),
        ("utf-8-sig", True),
        ("utf-16", True),
        ("cp1252", False),
        ("gb18030", False),
    ],
)
def test_an_encoding_is_found_and_the_answers_are_utf8(model, tmp_path, encoding, marked):
    said = []
    text = (
        "这个数组很好，我非常喜欢它的颜色"
        if encoding == "gb18030"
        else "Die Größe ist schön für uns"
    )
    (tmp_path / "in.csv").write_bytes(f"id,text\n1,{text}\n".encode(encoding))
    predict_file(model, tmp_path / "in.csv", tmp_path / "out.csv", say=said.append)
    (row,) = written(tmp_path / "out.csv")
    assert row["text"] == text
    assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbf") == marked
    assert bool(said) == (not encoding.startswith("utf-8"))


def test_a_character_across_two_blocks_is_utf8(tmp_path, monkeypatch):
    from course_utils.ship import rows

    monkeypatch.setattr(rows, "BLOCK", 1)
    (tmp_path / "in.csv").write_text("text\n数组\n", encoding="utf-8")
    said = []
    assert encoding_of(tmp_path / "in.csv", said.append) == "utf-8"
    assert said == []


# --- what goes wrong: nothing is written, and what was there stays ---


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.csv", b"id,text\n1,a\n2,b,c\n3,d\n", "3 fields under a header of 2.*line 3"),
        ("in.csv", b'id,text\n1,"a\nb"\n2\n', "1 fields under a header of 2.*line 4"),
        ("in.csv", b'id,text\n1,"a\n', "cannot be read.*line 2"),
        ("in.tsv", b"id\ttext\n1\ta\tb\n", "3 fields.*line 2"),
        ("in.csv", b"", "This table is empty"),
        ("in.jsonl", b"", "This table is empty"),
        ("in.jsonl", b'{"text": "a"}\n{"text"\n', "not a JSON object.*line 2"),
        ("in.jsonl", b"[1]\n", "not a JSON object.*line 1"),
        ("in.csv", b"id,text\n1,a\0b\n", "zeros.*line 2"),
        ("in.csv", "id,text\n1,数组数组\n2,\udcff\n".encode("utf-8", "surrogateescape"), "line 3"),
        ("in.xlsx", b"PK", "ends in '.xlsx'"),
    ],
)  # fmt: skip
def test_a_bad_table_is_told_by_its_line(model, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    out = (tmp_path / "out").with_suffix(Path(name).suffix)
    out.write_text("old")
    with pytest.raises(DataError, match=f"(?s){said}"):
        predict_file(model, tmp_path / name, out)
    assert out.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([name, out.name])


def test_the_table_itself_is_not_replaced(model, tmp_path):
    file = write(tmp_path / "in.csv", TEXTS)
    before = file.read_bytes()
    (tmp_path / "link.csv").symlink_to(file)
    for out in (file, tmp_path / "." / "in.csv", tmp_path / "link.csv"):
        with pytest.raises(OutputError, match="would be overwritten"):
            predict_file(model, file, out)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("out.tsv", "format of the table"),
        ("", "not a file"),
        ("in.csv/o.csv", "where a folder is needed"),
    ],
)
def test_a_place_that_cannot_be_written(model, tmp_path, out, said):
    file = write(tmp_path / "in.csv", TEXTS)
    with pytest.raises(OutputError, match=said):
        predict_file(model, file, tmp_path / out)


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write")
def test_a_folder_that_is_not_writable(model, tmp_path):
    file = write(tmp_path / "in.csv", TEXTS)
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Choose a folder you may write to"):
        predict_file(model, file, tmp_path / "closed" / "out.csv")


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_was_there_stays_when_it_stops_in_the_middle(
    model, some_texts, tmp_path, monkeypatch, stopped
):
    monkeypatch.setattr(ship, "CHUNK", 8)
    file, out = write(tmp_path / "in.csv", some_texts), tmp_path / "out.csv"
    out.write_text("old")
    predict, calls = model.predict, []

    def second_fails(texts, batch_size):
        calls.append(len(texts))
        if len(calls) == 2:
            raise stopped
        return predict(texts, batch_size)

    monkeypatch.setattr(model, "predict", second_fails)
    with pytest.raises(KeyboardInterrupt if stopped is KeyboardInterrupt else OutputError):
        predict_file(model, file, out)
    assert calls == [8, 8]
    assert out.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    monkeypatch.setattr(model, "predict", predict)
    predict_file(model, file, out)
    assert len(written(out)) == 40
    assert stat.S_IMODE(out.stat().st_mode) == 0o644


# --- one text, and lines ---


def test_one_text_gets_a_line_per_class_best_first(folder, capsys):
    main_command(folder, "the array", file=None, out=None)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    label, prob = expected(folder, ["the array"])[0]
    assert lines[0] == [label, f"{prob:.1%}"]
    assert {name for name, _ in lines} == {"numpy", "torch", "pandas"}
    shares = [float(share.rstrip("%")) for _, share in lines]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_five_of_many_classes_are_shown(tmp_path, capsys):
    names = {k: f"class {k}" for k in range(9)}
    source = write_classifier(
        tmp_path / "m", id2label=names, label2id={v: k for k, v in names.items()}
    )
    to_onnx(source, tmp_path / "onnx", int8=False)
    main_command(tmp_path / "onnx", "the array " * 50, file=None, out=None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[5] == "(The text was cut: the model reads 64 tokens.)"


def test_lines_of_standard_input_are_answered_one_by_one(folder, model):
    given = ["the array", "", "a tensor größer"]
    stream = io.StringIO()

    def lines():  # each answer is there before the next line is asked for
        for number, text in enumerate(given):
            assert stream.getvalue().count("\n") == number
            yield f"{text}\n".encode()

    predict_lines(model, lines(), stream)
    said = stream.getvalue().splitlines()
    assert said[1] == "\t"
    for line, (label, prob) in zip(said[::2], expected(folder, given[::2]), strict=True):
        assert line.split("\t")[0] == label
        assert float(line.split("\t")[1]) == pytest.approx(prob, abs=1e-4)
    with pytest.raises(DataError, match=r"(?s)not UTF-8.*line 2"):
        predict_lines(model, [b"the\n", b"\xff\n"], stream)


def test_several_classes_or_none_may_be_right(multi_label_folder, tmp_path, capsys):
    model = OnnxClassifier(multi_label_folder)
    probs = 1 / (1 + np.exp(-model.predict(TEXTS, 1)))
    right = [{model.labels[k] for k in np.flatnonzero(row > 0.5)} for row in probs]
    assert {len(names) for names in right} >= {1, 2}  # or it could as well be one class each
    predict_file(model, write(tmp_path / "in.csv", TEXTS), tmp_path / "out.csv")
    predict_file(model, write(tmp_path / "in.jsonl", TEXTS), tmp_path / "out.jsonl")
    for csv_row, json_row, names in zip(
        written(tmp_path / "out.csv"), written(tmp_path / "out.jsonl"), right, strict=True
    ):
        assert set(filter(None, csv_row["prediction"].split(";"))) == names
        assert set(json_row["prediction"]) == names
        assert all(prob >= 0.5 for prob in json_row["probability"])
        assert len(json_row["probability"]) == len(names)
    main_command(multi_label_folder, TEXTS[0], file=None, out=None)
    shown = capsys.readouterr().out
    assert {name for name in model.labels if name in shown} == right[0]


def test_none_of_the_classes_is_said(multi_label_folder, capsys, monkeypatch):
    low = np.full((1, 3), -1.0, np.float32)
    monkeypatch.setattr(OnnxClassifier, "predict", lambda *_: low)
    main_command(multi_label_folder, "the array", file=None, out=None)
    assert capsys.readouterr().out == "none of the classes\n"


def test_probabilities_of_large_logits():
    logits = np.array([[1000, -1000], [0, 0]], np.float32)
    np.testing.assert_allclose(probabilities(logits, multi_label=False), [[1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(
        probabilities(logits, multi_label=True), [[1, 0], [0.5, 0.5]], atol=1e-9
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"text": None, "file": "a.csv", "out": None}, "belong together"),
        ({"text": None, "file": None, "out": "a.csv"}, "belong together"),
        ({"text": "a", "file": "a.csv", "out": "b.csv"}, "one of the two"),
        ({"text": " ", "file": None, "out": None}, "no word in this text"),
        ({"text": None, "file": "missing.csv", "out": "b.csv"}, "no such file"),
        ({"text": None, "file": "missing", "out": "b.csv"}, "no such file"),
        ({"text": None, "file": ".", "out": "b.csv"}, "This is a folder"),
    ],
)
def test_words_that_do_not_go_together(folder, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CourseError, match=said):
        main_command(folder, **words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        main_command(tmp_path / "none", "a", file=None, out=None)


# --- the command, in a process of its own ---


def course_predict(*words, given=None, before="") -> subprocess.CompletedProcess:
    code = f"{before}import sys; from course_utils.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, "predict", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        input=given,
        check=False,
    )


def test_it_needs_neither_torch_nor_anything_as_heavy(folder, tmp_path):
    refuse = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name.split('.')[0] in {HEAVY}:\n"
        "            raise ImportError(f'{name} is not installed here')\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    file = write(tmp_path / "in.csv", MIXED)
    done = course_predict(folder, "--file", file, "--out", tmp_path / "out.csv", before=refuse)
    assert done.returncode == 0, done.stderr
    assert f"{len(MIXED)} rows in" in done.stdout
    for row, (label, prob) in zip(
        written(tmp_path / "out.csv"), expected(folder, MIXED), strict=True
    ):
        assert row["prediction"] == label
        assert float(row["probability"]) == pytest.approx(prob, abs=1e-4)
    done = course_predict(folder, "-", given="the array\nthe\n", before=refuse)
    assert done.returncode == 0, done.stderr
    labels = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert labels == [label for label, _ in expected(folder, ["the array", "the"])]


@pytest.mark.parametrize("words", [["missing", "a"], ["--file", "missing.csv", "--out", "out.csv"]])
def test_the_command_ends_in_words(folder, words):
    words = words if words[0] == "missing" else [folder, *words]
    done = course_predict(*words)
    assert done.returncode == 2
    assert "There is no such" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_stops_early_is_no_error(folder):
    code = "from course_utils.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "predict", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(b"the array\n")
    process.stdin.flush()
    assert process.stdout.readline().count(b"\t") == 1  # answered while the input is still open
    process.stdout.close()
    _, errors = process.communicate(b"the\n" * 50)
    assert errors == b""
    assert process.returncode == 0
