"""Tasks from tables: what works, and a clear error for everything that does not."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from course_utils.data.tasks import Task, load_task
from course_utils.errors import DataError

BESIDE = Path(__file__).parents[3] / "shared"
REAL_MIRROR = Path(os.environ.get("COURSE_MIRROR") or BESIDE).expanduser().absolute()
SPLITS = ("train", "dev", "test")
USUAL = (("a.csv", ","), ("a.tsv", "\t"))


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No mirror, nobody to ask, empty caches."""
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def rows_of(n: int, labels=("neg", "pos"), *, start: int = 0) -> list[tuple[str, str]]:
    """n rows with different texts, the labels in turn."""
    return [(f"Text number {i} speaks.", labels[i % len(labels)]) for i in range(start, start + n)]


def tsv(file: Path, rows, header=("text", "label")) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join("\t".join(map(str, row)) for row in [header, *rows]) + "\n", "utf-8")
    return file


def jsonl(file: Path, rows) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": t, "label": label}, ensure_ascii=False) for t, label in rows]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def table(rows, **features) -> Dataset:
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    return Dataset.from_dict(
        columns, Features(text=Value("string"), **features) if features else None
    )


def load(data, **options) -> Task:
    return load_task(data, say=str, progress=False, **options)


def told(data, **options) -> list[str]:
    """What `load_task` says after the line about where the data is."""
    said: list[str] = []
    load_task(data, say=said.append, progress=False, **options)
    return said[1:]


def refused(data, **options) -> DataError:
    with pytest.raises(DataError) as error:
        load(data, **options)
    assert error.value.do
    return error.value


def pairs(task: Task, split: str) -> list[tuple[str, str]]:
    part = getattr(task, split)
    return [(t, task.labels[k]) for t, k in zip(part["text"], part["label"], strict=True)]


def all_pairs(task: Task) -> list[tuple[str, str]]:
    return [pair for split in SPLITS for pair in pairs(task, split)]


def in_a_process(code: str, *, hash_seed: str) -> str:
    """What the code prints in a process where sets have another order."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def sizes(task: Task) -> tuple[int, ...]:
    return tuple(len(getattr(task, split)) for split in SPLITS)


# --- formats ---


def as_tsv(file: Path, rows) -> None:
    tsv(file, rows)


def as_csv(file: Path, rows) -> None:
    file.write_text("text,label\n" + "".join(f'"{t}",{label}\n' for t, label in rows), "utf-8")


def as_jsonl(file: Path, rows) -> None:
    jsonl(file, rows)


def as_array(file: Path, rows) -> None:
    objects = [{"text": text, "label": label} for text, label in rows]
    file.write_text(json.dumps(objects, indent=1), "utf-8")


def as_parquet(file: Path, rows) -> None:
    table(rows).to_parquet(file)


FORMATS = {
    "a.tsv": as_tsv,
    "a.csv": as_csv,
    "a.CSV": as_csv,
    "a.jsonl": as_jsonl,
    "a.json": as_jsonl,
    "array.json": as_array,
    "array.jsonl": as_array,
    "a.parquet": as_parquet,
    "a.PARQUET": as_parquet,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_task(tmp_path, name):
    rows = rows_of(50)
    FORMATS[name](tmp_path / name, rows)
    task = load(tmp_path / name)
    assert sorted(all_pairs(task)) == sorted(rows)
    assert (task.name, task.labels) == (name.split(".")[0], ("neg", "pos"))
    assert sizes(task) == (42, 4, 4)
    assert task.train.column_names == ["text", "label"]
    assert task.fingerprint == load(tsv(tmp_path / "same.tsv", rows)).fingerprint
    assert list(task.unlabelled) == []


def test_a_csv_with_all_that_a_csv_may_have(tmp_path):
    """BOM, CRLF, quotes, doubled quotes, commas and line breaks inside quotes, blank lines."""
    rows = rows_of(18)
    lines = [f"{text},{label}" for text, label in rows]
    lines += [
        '"She said ""no"", twice.",neg',
        '"Line one.\r\nLine two, too.",pos',
        "",
        '5" disk,pos',
    ]
    content = "\r\n".join(["text,label", *lines]) + "\r\n"
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    found = dict(all_pairs(load("a.csv")))
    assert len(found) == 21
    assert found['She said "no", twice.'] == "neg"
    assert found["Line one. Line two, too."] == "pos"
    assert found['5" disk'] == "pos"


def test_a_tsv_has_no_quoting(tmp_path):
    rows = [*rows_of(20), ('"Half a quote', "neg"), ('a "quoted" word', "pos")]
    found = dict(all_pairs(load(tsv(tmp_path / "a.tsv", rows))))
    assert found['"Half a quote'] == "neg"
    assert found['a "quoted" word'] == "pos"


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"])
@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_line_ends_do_not_matter(tmp_path, name, end):
    mark = b"\t" if name == "a.tsv" else b","
    lines = [mark.join(map(str.encode, row)) for row in [("text", "label"), *rows_of(30)]]
    (tmp_path / name).write_bytes(end.join(lines))
    assert sorted(all_pairs(load(name))) == sorted(rows_of(30))


def test_crlf_and_bom_in_json_lines(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", rows_of(30))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert sorted(all_pairs(load(file))) == sorted(rows_of(30))


def test_a_line_separator_of_unicode_does_not_break_a_json_line(tmp_path):
    """JSON may hold U+2028, U+0085 and the like unescaped; `str.splitlines` would cut there."""
    text = "one\u2028two\u0085three\u000bfour"
    file = tmp_path / "a.jsonl"
    jsonl(file, [*rows_of(30), (text, "pos")])
    file.write_text(file.read_text("utf-8").replace("\\u000b", " "), "utf-8")
    assert ("one two three four", "pos") in all_pairs(load(file))


def test_chinese_text_and_labels(tmp_path):
    rows = [(f"酒店{i}号，房间很大。", "好评" if i % 2 else "差评") for i in range(40)]
    for name, write in FORMATS.items():
        write(tmp_path / name, rows)
        task = load(tmp_path / name)
        assert sorted(all_pairs(task)) == sorted(rows)
        assert task.labels == ("好评", "差评")


def test_white_space_is_made_plain(tmp_path):
    rows = [*rows_of(20), ("  two\u00a0 words \u3000", " pos "), ("a\nb\r\nc", "pos")]
    found = dict(all_pairs(load(jsonl(tmp_path / "a.jsonl", rows))))
    assert found["two words"] == "pos"
    assert found["a b c"] == "pos"
    assert set(found.values()) == {"neg", "pos"}


def test_other_columns_by_name(tmp_path):
    rows = [(i, label, text) for i, (text, label) in enumerate(rows_of(30))]
    file = tsv(tmp_path / "a.tsv", rows, header=("id", "stars", "review"))
    task = load(file, text="review", label="stars")
    assert sorted(all_pairs(task)) == sorted(rows_of(30))


def test_blanks_around_a_header_do_not_matter(tmp_path):
    lines = ["text, label", *(f"{text},{label}" for text, label in rows_of(30))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert load("a.csv").labels == ("neg", "pos")


# --- labels ---


def test_number_labels_are_sorted_as_numbers(tmp_path):
    rows = rows_of(144, labels=[str(k) for k in range(12)])
    task = load(tsv(tmp_path / "a.tsv", rows))
    assert task.labels == tuple(str(k) for k in range(12))
    assert sorted(all_pairs(task)) == sorted(rows)


def test_labels_of_one_value_are_in_one_order_in_every_process(tmp_path):
    """ "1" and "01" are the same number: a set of them has no order of its own."""
    tsv(tmp_path / "a.tsv", rows_of(60, labels=["01", "1", "2", "002", "2 "]))
    code = "from course_utils.data.tasks import load_task as l; print(l('a.tsv', say=str).labels)"
    seen = {in_a_process(code, hash_seed=seed) for seed in "123"}
    assert seen == {"('01', '1', '002', '2')"}


@pytest.mark.parametrize("big", ["9" * 30, "9" * 5000, "²", "1e3", "-"])
def test_labels_that_are_nearly_numbers_are_words(tmp_path, big):
    task = load(tsv(tmp_path / "a.tsv", rows_of(30, labels=["10", "9", big])))
    assert task.labels == tuple(sorted(["10", "9", big]))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((0, 1), ("0", "1")),
        ((0.0, 1.0), ("0", "1")),
        ((-1, 1), ("-1", "1")),
        ((False, True), ("False", "True")),
        ((0.5, 1.5), ("0.5", "1.5")),
    ],
)
def test_labels_that_are_json_values(tmp_path, values, names):
    file = jsonl(tmp_path / "a.jsonl", rows_of(30, labels=values))
    task = load(file)
    assert task.labels == names
    number = dict(zip(values, range(2), strict=True))
    for split in SPLITS:
        part = getattr(task, split)
        for text, label in zip(part["text"], part["label"], strict=True):
            assert label == number[values[int(text.split()[2]) % 2]]


@pytest.fixture
def numbered(tmp_path) -> Path:
    """A folder with three splits whose labels are numbers."""
    folder = tmp_path / "numbered"
    for k, split in enumerate(SPLITS):
        tsv(folder / f"{split}.tsv", rows_of(20, labels="012", start=100 * k))
    return folder


def test_numbers_are_numbers_without_labels_txt(numbered):
    assert load(numbered).labels == ("0", "1", "2")


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_labels_txt_names_the_numbers(numbered, ends):
    (numbered / "labels.txt").write_bytes(
        b"\xef\xbb\xbf" + ends.join(["zebra", "", "ape", "cat "]).encode()
    )
    task = load(numbered)
    assert task.labels == ("zebra", "ape", "cat")
    assert list(task.train["label"])[:4] == [0, 1, 2, 0]
    assert pairs(task, "test")[1] == ("Text number 201 speaks.", "zebra")


def test_labels_txt_orders_the_names(tmp_path):
    for k, split in enumerate(SPLITS):
        tsv(tmp_path / "a" / f"{split}.tsv", rows_of(20, start=100 * k))
    (tmp_path / "a" / "labels.txt").write_text("pos\nneg\nnever\n")
    task = load(tmp_path / "a")
    assert task.labels == ("pos", "neg", "never")
    assert pairs(task, "train") == rows_of(20)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("bad\ngood\n", "it has bad, good, but not 2"),
        ("a\nb\nB 2\n", None),
        ("", "it has nothing, but not 0, 1, 2"),
        ("x\nx\ny\n", "stands twice"),
        ("0\n1\n", "it has 0, 1, but not 2"),
    ],
)
def test_labels_txt_that_does_not_fit_is_refused(numbered, names, said):
    (numbered / "labels.txt").write_text(names)
    if said is None:
        assert load(numbered).labels == ("a", "b", "B 2")
    else:
        error = refused(numbered)
        assert said in str(error)
        assert error.where == numbered / "labels.txt"


def test_labels_txt_that_is_not_utf8(numbered):
    (numbered / "labels.txt").write_bytes("bad\ngut\nschön\n".encode("latin-1"))
    assert load(numbered).labels == ("bad", "gut", "schön")
    assert told(numbered)[0].startswith("labels.txt: read as cp1252 (detected)")


def test_a_labels_txt_beside_a_single_file_is_not_its_own(tmp_path):
    (tmp_path / "labels.txt").write_text("quite\nanother\nset\n")
    assert load(tsv(tmp_path / "a.tsv", rows_of(30))).labels == ("neg", "pos")


@pytest.mark.parametrize("labels_txt", [None, "bad\nmeh\ngood\n"])
def test_hidden_test_labels_are_refused(numbered, labels_txt):
    """GLUE writes -1 where it keeps the label to itself; Python would take the last name for it."""
    tsv(numbered / "test.tsv", rows_of(20, labels=["-1"], start=200))
    if labels_txt:
        (numbered / "labels.txt").write_text(labels_txt)
    assert "-1" in str(refused(numbered))


def test_a_label_seen_only_in_test(numbered):
    with open(numbered / "test.tsv", "a") as file:
        file.writelines(f"Another text {k}.\tnew{k}\n" for k in range(9))
    error = refused(numbered)
    assert "Labels in test that no training row has: new0, new1, new2, new3, new4 …" in str(error)
    assert error.where == numbered


# --- splits ---


def test_a_single_file_is_split_80_10_10_in_equal_shares(tmp_path):
    rows = [*rows_of(600), *rows_of(100, labels=["rare"], start=600)]
    task = load(tsv(tmp_path / "a.tsv", rows))
    assert sizes(task) == (560, 70, 70)
    counts = {split: Counter(label for _, label in pairs(task, split)) for split in SPLITS}
    assert counts["dev"] == counts["test"] == {"neg": 30, "pos": 30, "rare": 10}
    assert sorted(all_pairs(task)) == sorted(rows)


def test_no_text_is_in_two_splits(tmp_path):
    rows = [*rows_of(100), *rows_of(100), *((text, "neg") for text, _ in rows_of(100))]
    random.Random(0).shuffle(rows)
    rows += [(f"  {text.replace(' ', '  ')} ", label) for text, label in rows[:100]]
    task = load(tsv(tmp_path / "a.tsv", rows))
    texts = [set(getattr(task, split)["text"]) for split in SPLITS]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]
    assert sum(sizes(task)) == len(rows)
    assert all(texts)


def test_splits_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = [*rows_of(200), *((text, "pos") for text, _ in rows_of(60))]
    rows += [(text, "mixed") for text, _ in rows_of(120)]  # many texts have several labels
    task = load(tsv(tmp_path / "a.tsv", rows))
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        other = load(tsv(tmp_path / "a.tsv", rows))
        for split in SPLITS:
            assert sorted(pairs(other, split)) == sorted(pairs(task, split))


def test_splits_do_not_depend_on_the_process(tmp_path):
    """Python's own hash changes with every process; and these are the splits of every version."""
    tsv(tmp_path / "a.tsv", rows_of(60))
    code = (
        "from course_utils.data.tasks import load_task as l; t = l('a.tsv', say=str);"
        "print(t.fingerprint, *(x.split()[2] for x in (*t.dev['text'], *t.test['text'])))"
    )
    prints = {in_a_process(code, hash_seed=seed) for seed in "12"}
    assert len(prints) == 1
    _, *numbers = prints.pop().split()
    assert numbers == ["7", "15", "21", "24", "56", "58", "2", "3", "22", "26", "29", "51"]


def test_splits_hold_when_rows_are_added(tmp_path):
    before = load(tsv(tmp_path / "a.tsv", rows_of(400)))
    after = load(tsv(tmp_path / "a.tsv", rows_of(404)))
    for split in ("dev", "test"):
        stayed = set(getattr(before, split)["text"]) & set(getattr(after, split)["text"])
        assert len(stayed) >= 35


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("train",), (160, 20, 20)),
        (("train", "test"), (180, 20, 40)),
        (("train", "dev"), (180, 40, 20)),
        (("train", "dev", "test"), (200, 40, 40)),
    ],
)
def test_missing_splits_are_taken_from_train(tmp_path, given, expected):
    for k, split in enumerate(given):
        n = 200 if split == "train" else 40
        tsv(tmp_path / "a" / f"{split}.tsv", rows_of(n, start=1000 * k))
    task = load(tmp_path / "a")
    assert sizes(task) == expected
    assert task.name == "a"
    everything = [
        row
        for k, s in enumerate(given)
        for row in rows_of(200 if s == "train" else 40, start=1000 * k)
    ]
    assert sorted(all_pairs(task)) == sorted(everything)


def test_given_splits_stay_as_they_are(numbered):
    task = load(numbered)
    for k, split in enumerate(SPLITS):
        assert pairs(task, split) == rows_of(20, labels="012", start=100 * k)


def test_small_classes_are_split_too(tmp_path):
    rows = rows_of(30, labels=[f"class {k}" for k in range(10)])
    task = load(tsv(tmp_path / "a.tsv", rows))
    assert sizes(task) == (10, 10, 10)
    assert all(set(getattr(task, split)["label"]) == set(range(10)) for split in SPLITS)


def test_a_class_of_two_stays_in_train(tmp_path):
    rows = [*rows_of(40), ("Rare one.", "rare"), ("Rare two.", "rare")]
    task = load(tsv(tmp_path / "a.tsv", rows))
    assert Counter(label for _, label in pairs(task, "train"))["rare"] == 2


@pytest.mark.parametrize(
    "names",
    [
        ("train.tsv", "dev.tsv", "test.tsv"),
        ("train.csv", "val.csv", "test.csv"),
        ("train.jsonl", "valid.json", "test.parquet"),
        ("data/train.tsv", "data/validation.tsv", "data/test.tsv"),
        (
            "plain_text/train-00000-of-00001.parquet",
            "plain_text/validation-00000-of-00001.parquet",
            "plain_text/test-00000-of-00001.parquet",
        ),
        ("Train.TSV", "DEV.csv", "Test.JSONL"),
    ],
)
def test_the_names_a_split_may_have(tmp_path, names):
    writers = {".tsv": as_tsv, ".csv": as_csv, ".parquet": as_parquet}
    for k, name in enumerate(names):
        file = tmp_path / "a" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        writers.get(file.suffix.lower(), as_jsonl)(file, rows_of(20, start=100 * k))
    (tmp_path / "a" / "README.md").write_text("# A set")
    task = load(tmp_path / "a")
    assert [pairs(task, split) for split in SPLITS] == [
        rows_of(20, start=100 * k) for k in range(3)
    ]


def test_files_that_only_look_like_a_split_are_left_alone(tmp_path):
    for name in (
        "train.tsv",
        "train_sentences.tsv",
        "contest.tsv",
        "train.tsv.bak",
        "dev-v1.1.json",
    ):
        tsv(tmp_path / "a" / name, rows_of(40))
    assert sizes(load(tmp_path / "a")) == (32, 4, 4)


def test_a_folder_below_counts_only_if_train_is_not_above(tmp_path):
    tsv(tmp_path / "a" / "train.tsv", rows_of(40))
    tsv(tmp_path / "a" / "old" / "train.tsv", rows_of(90))
    assert sum(sizes(load(tmp_path / "a"))) == 40


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train.tsv", "train.csv"), "train"),
        (("train.tsv", "dev.tsv", "validation.tsv"), "dev"),
        (("en/train.tsv", "zh/train.tsv"), "train"),
        (("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"), "train"),
    ],
)
def test_several_tables_for_one_split_are_named(tmp_path, names, split):
    for name in names:
        tsv(tmp_path / "a" / name, rows_of(20))
    error = refused(tmp_path / "a")
    assert f"could be the {split} split" in str(error)
    for name in [n for n in names if split != "dev" or "train" not in n]:
        assert str(tmp_path / "a" / name) in error.what


@pytest.mark.parametrize("names", [(), ("data.tsv", "test.tsv"), ("train.txt", "test.txt")])
def test_a_folder_without_train(tmp_path, names):
    (tmp_path / "a").mkdir()
    for name in names:
        tsv(tmp_path / "a" / name, rows_of(20))
    error = refused(tmp_path / "a")
    assert "no table train" in str(error)
    assert error.where == tmp_path / "a"
    for name in names:
        assert Path(name).stem in error.do or name.endswith(".txt")


def test_the_name_of_a_task(tmp_path, monkeypatch):
    tsv(tmp_path / "wiki.v2" / "train.tsv", rows_of(30))
    tsv(tmp_path / "my.reviews.tsv", rows_of(30))
    assert load(tmp_path / "wiki.v2").name == "wiki.v2"
    assert load("my.reviews.tsv").name == "my.reviews"
    monkeypatch.chdir(tmp_path / "wiki.v2")
    assert load(".").name == "wiki.v2"


# --- saved `datasets` folders ---


def save(saved: Dataset | DatasetDict, folder: Path) -> Path:
    datasets.disable_progress_bars()
    saved.save_to_disk(folder)
    return folder


def test_a_saved_data_set_is_split(tmp_path):
    task = load(save(table(rows_of(50)), tmp_path / "saved"))
    assert (task.name, sizes(task)) == ("saved", (42, 4, 4))
    assert sorted(all_pairs(task)) == sorted(rows_of(50))


@pytest.mark.parametrize("dev", ["dev", "val", "valid", "validation"])
def test_a_saved_dictionary_has_its_splits(tmp_path, dev):
    parts = {s: table(rows_of(20, start=100 * k)) for k, s in enumerate(("train", dev, "test"))}
    task = load(save(DatasetDict(parts), tmp_path / "saved"))
    assert [pairs(task, split) for split in SPLITS] == [
        rows_of(20, start=100 * k) for k in range(3)
    ]


def test_class_numbers_of_a_saved_data_set_are_named(tmp_path):
    names = ClassLabel(names=["world", "business", "sports"])
    rows = rows_of(60, labels=range(3))
    saved = table(rows, label=names)
    expected = sorted((text, names.int2str(label)) for text, label in rows)
    task = load(save(DatasetDict(train=saved), tmp_path / "saved"))
    assert task.labels == ("business", "sports", "world")
    assert sorted(all_pairs(task)) == expected
    saved.to_parquet(tmp_path / "a.parquet")
    assert sorted(all_pairs(load(tmp_path / "a.parquet"))) == expected


def test_hidden_labels_of_a_saved_data_set(tmp_path):
    parts = {
        split: table(rows_of(20, labels=labels), label=ClassLabel(names=["neg", "pos"]))
        for split, labels in (("train", [0, 1]), ("test", [-1]))
    }
    error = refused(save(DatasetDict(parts), tmp_path / "saved"))
    assert "Labels in test that no training row has: -1" in str(error)


def test_further_splits_of_a_saved_data_set_are_left_alone(tmp_path):
    """As IMDB's "unsupervised", whose labels are all -1."""
    names = ClassLabel(names=["neg", "pos"])
    parts = {
        "train": table(rows_of(40, labels=[0, 1]), label=names),
        "unsupervised": table(rows_of(40, labels=[-1], start=40), label=names),
    }
    task = load(save(DatasetDict(parts), tmp_path / "saved"))
    assert sum(sizes(task)) == 40


def test_columns_nobody_asked_for_are_not_read(tmp_path):
    """Reading an image column would ask for a library; a saved format would give tensors."""
    saved = table(rows_of(40, labels=[0, 1])).add_column(
        "image", [{"path": "x", "bytes": b"no"}] * 40
    )
    saved = saved.cast_column("image", datasets.Image()).with_format("torch")
    assert load(save(saved, tmp_path / "saved")).labels == ("0", "1")


def test_a_saved_dictionary_without_train(tmp_path):
    saved = DatasetDict(test=table(rows_of(20)), extra=table(rows_of(20)))
    error = refused(save(saved, tmp_path / "saved"))
    assert "no table train" in str(error)
    assert "test, extra" in str(error) or "extra, test" in str(error)


def test_a_saved_dictionary_with_two_dev_splits(tmp_path):
    parts = {s: table(rows_of(20)) for s in ("train", "dev", "validation")}
    assert "could be the dev split" in str(refused(save(DatasetDict(parts), tmp_path / "saved")))


def test_a_saved_data_set_without_the_column_is_named(tmp_path):
    saved = DatasetDict(
        train=table(rows_of(40)), test=table(rows_of(20)).rename_column("text", "t")
    )
    error = refused(save(saved, tmp_path / "saved"))
    assert "saved, split test" in str(error)
    assert "It has: t, label" in str(error)


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("damage", [cut_in_half, Path.unlink, lambda file: file.write_bytes(b"")])
def test_a_saved_data_set_that_is_damaged(tmp_path, damage):
    folder = save(table(rows_of(40)), tmp_path / "saved")
    damage(next(folder.glob("*.arrow")))
    error = refused(folder)
    assert "cannot be loaded" in str(error)
    assert error.where == folder


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("content", ["", "{", '{"_data_files": [{"filena'])
def test_a_saved_data_set_whose_description_is_torn(tmp_path, name, content):
    folder = save(table(rows_of(40)), tmp_path / "saved")
    (folder / name).write_text(content)
    assert "cannot be loaded" in str(refused(folder))


# --- tables that cannot be used ---


def test_no_such_column(tmp_path):
    file = tsv(tmp_path / "a.tsv", rows_of(30), header=("sentence", "stars"))
    error = refused(file)
    assert "no column 'text' and no column 'label'" in error.what
    assert "It has: sentence, stars" in error.do
    assert error.where == file
    assert "no column 'body'." in refused(file, text="body", label="stars").what


@pytest.mark.parametrize("name", FORMATS)
def test_no_such_column_in_any_format(tmp_path, name):
    FORMATS[name](tmp_path / name, rows_of(30))
    assert "text, label" in refused(tmp_path / name, text="body").do


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_another_separator_is_found(tmp_path, name, mark):
    lines = [mark.join(row) for row in [("text", "label"), *rows_of(30)]]
    (tmp_path / name).write_text("\n".join(lines))
    assert sorted(all_pairs(load(name))) == sorted(rows_of(30))
    assert any(repr(mark) in line for line in told(name)) == ((name, mark) not in USUAL)
    assert "It has: text, label" in refused(name, text="body").do


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_an_empty_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    error = refused(tmp_path / name)
    assert "empty" in str(error) or "not a whole parquet" in str(error)
    assert error.where == tmp_path / name


@pytest.mark.parametrize("content", ["\n\n \n", "[]", "\ufeff"])
def test_a_file_with_nothing_in_it(tmp_path, content):
    for name in ("a.csv", "a.json"):
        (tmp_path / name).write_text(content)
        refused(tmp_path / name)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.parquet"])
def test_a_header_only(tmp_path, name):
    (tmp_path / "a.tsv").write_text("text\tlabel\n")
    (tmp_path / "a.csv").write_text("text,label")
    table([], label=Value("string")).to_parquet(tmp_path / "a.parquet")
    error = refused(tmp_path / name)
    assert "0 rows are too few" in str(error)
    assert error.where == tmp_path / name


@pytest.mark.parametrize("n", [1, 3, 19])
def test_too_few_rows(tmp_path, n):
    error = refused(tsv(tmp_path / "a.tsv", rows_of(n)))
    assert f"{n} rows are too few" in str(error)
    assert "at least 20" in error.do
    assert sum(sizes(load(tsv(tmp_path / "a.tsv", rows_of(20))))) == 20


@pytest.mark.parametrize("split", SPLITS)
def test_one_split_without_rows(numbered, split):
    tsv(numbered / f"{split}.tsv", [])
    assert f"none for {split}" in str(refused(numbered))


def test_labels_that_are_all_different(tmp_path):
    """The wrong column was named."""
    error = refused(tsv(tmp_path / "a.tsv", rows_of(100)), label="text")
    assert "look like ids or texts: 100 different ones in 100 rows" in str(error)
    assert "--label" in error.do


@pytest.mark.parametrize(("n", "fine"), [(20, True), (21, False)])
def test_labels_that_are_measurements(tmp_path, n, fine):
    labels = [f"{k / 8:.3f}" for k in range(1, 400) if k % 8][:n]
    file = tsv(tmp_path / "a.tsv", rows_of(300, labels=["1", "2", *labels]))
    if fine:
        assert len(load(file).labels) == n + 2
    else:
        assert "look like measurements: 21 different numbers" in str(refused(file))


def test_whole_numbers_with_a_point_are_whole_numbers(tmp_path):
    """As pandas writes whole numbers beside a missing one."""
    whole = load(tsv(tmp_path / "a.tsv", rows_of(60, labels=["1.0", "2", "10.0"])))
    assert whole.labels == ("1", "2", "10")
    others = load(tsv(tmp_path / "b.tsv", rows_of(60, labels=["1.0", "1.5"])))
    assert others.labels == ("1.0", "1.5")


def test_mixed_labels_are_said(tmp_path):
    said = told(tsv(tmp_path / "a.tsv", rows_of(60, labels=["1", "2", "good", "Good"])))
    assert "! Numbers and words are mixed in the labels: 1, 2; Good, good." in said
    assert any(line.startswith("! These labels differ in capitals only") for line in said)
    assert not any(line[:2] == "! " for line in told(tsv(tmp_path / "b.tsv", rows_of(60))))


def test_five_hundred_classes(tmp_path):
    labels = [f"class {k}" for k in range(500)]
    task = load(tsv(tmp_path / "a.tsv", rows_of(2500, labels=labels)))
    assert sizes(task) == (1500, 500, 500)
    assert len(task.labels) == 500


def test_one_to_a_thousand(tmp_path):
    rows = [*rows_of(3000, labels=["many"]), *rows_of(3, labels=["few"], start=3000)]
    task = load(tsv(tmp_path / "a.tsv", rows))
    assert [Counter(k for _, k in pairs(task, split))["few"] for split in SPLITS] == [1, 1, 1]


def test_a_class_of_one_stays_in_train_and_is_said(tmp_path):
    file = tsv(tmp_path / "a.tsv", [*rows_of(60), ("The only one.", "rare")])
    assert ("The only one.", "rare") in pairs(load(file), "train")
    assert "rare (1 in train)" in told(file)[-1]


def test_a_text_of_a_rare_class_stays_in_train(tmp_path):
    """A common class has all its texts, too, and must not carry them off."""
    for k in range(8):
        rare = [(text, "rare") for text, _ in rows_of(60)[2 * k : 2 * k + 2]]
        task = load(tsv(tmp_path / "a.tsv", [*rows_of(60), *rare]))
        assert [row for row in pairs(task, "train") if row[1] == "rare"] == rare


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_same_table_for_train_and_test(numbered, split):
    shutil.copy(numbered / "train.tsv", numbered / f"{split}.tsv")
    error = refused(numbered)
    assert f"20 of the 20 texts of {split} are also in train" in str(error)
    assert error.where == numbered


def test_half_of_the_test_texts_may_be_in_train(numbered):
    known, new = rows_of(20, labels="012"), rows_of(20, labels="012", start=200)
    tsv(numbered / "test.tsv", known[:10] + new[:10])
    load(numbered)
    tsv(numbered / "test.tsv", known[:11] + new[:10])
    assert "11 of the 21" in str(refused(numbered))


def test_one_class_only(tmp_path, numbered):
    error = refused(tsv(tmp_path / "a.tsv", rows_of(30, labels=["same"])))
    assert "same label, 'same'" in str(error)
    assert "two classes" in error.do
    for split in SPLITS:
        tsv(numbered / f"{split}.tsv", rows_of(20, labels="0"))
    assert "same label, '0'" in str(refused(numbered))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "bad", [("", "pos"), (" \u00a0\u3000", "pos"), ("A text.", ""), ("A text.", " ")]
)
def test_rows_without_text_or_label_are_left_out_and_said(tmp_path, name, bad):
    rows = rows_of(30)
    rows[7] = rows[29] = bad
    FORMATS[name](tmp_path / name, rows)
    kept = [row for row in rows if row != bad]
    assert sorted(all_pairs(load(tmp_path / name))) == sorted(kept)
    said = "2 of 30 rows have no text or no label and are left out (data row 8, 30)."
    assert f"! {name}: {said}" in told(tmp_path / name)


def test_more_than_a_fifth_without_text_are_refused(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [*rows_of(24), *[("", "pos")] * 6])
    assert sum(sizes(load(file))) == 24
    file = jsonl(tmp_path / "a.jsonl", [*rows_of(24), *[("", "pos")] * 7])
    assert "7 of 31 rows have no text" in str(refused(file))


def test_many_empty_texts_are_not_all_listed(tmp_path):
    rows = [("", "pos") for _ in range(30)]
    assert str(refused(jsonl(tmp_path / "a.jsonl", rows)).where).endswith("row 1, 2, 3, 4, 5 …")


@pytest.mark.parametrize(
    "bad",
    [
        {"label": "pos"},
        {"text": "A text."},
        {"text": None, "label": "pos"},
        {"text": "A text.", "label": None},
        {"text": "A text.", "label": float("nan")},
        {"text": "A text.", "label": {"is": "pos"}},
        {"text": ["A", "text."], "label": "pos"},
        {"text": 7, "label": "pos"},
        {"text": "cut inside an emoji \ud83d", "label": "pos"},
        {"text": "A text.", "label": "\udc00"},
        {},
    ],
)
def test_a_json_row_without_text_or_label(tmp_path, bad):
    file = jsonl(tmp_path / "a.jsonl", rows_of(30))
    lines = file.read_text().splitlines()
    lines.insert(4, json.dumps(bad))
    file.write_text("\n".join(lines))
    assert sorted(all_pairs(load(file))) == sorted(rows_of(30))
    assert "! a.jsonl: 1 of 31 rows have no text or no label and are left out (data row 5)." in (
        told(file)
    )


def test_a_missing_label_in_a_data_frame(tmp_path):
    """One missing value makes pandas write all numbers as 0.0 and 1.0."""
    labels = [0.0, 1.0] * 15
    table([(f"Text {i}.", label) for i, label in enumerate(labels)]).to_parquet(
        tmp_path / "a.parquet"
    )
    assert load("a.parquet").labels == ("0", "1")
    labels[3] = float("nan")
    table([(f"Text {i}.", label) for i, label in enumerate(labels)]).to_parquet(
        tmp_path / "a.parquet"
    )
    assert load("a.parquet").labels == ("0", "1")
    assert "(data row 4)" in told("a.parquet")[0]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.json"])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_bytes_that_are_not_utf8(tmp_path, name, encoding):
    rows = rows_of(30)
    rows[11] = ("Das Café ist schön.", "pos")
    FORMATS[name](tmp_path / name, rows)
    (tmp_path / name).write_bytes((tmp_path / name).read_text("utf-8").encode(encoding))
    assert sorted(all_pairs(load(name))) == sorted(rows)
    assert f"{name}: read as cp1252 (detected): --encoding to choose another." in told(name)
    error = refused(name, encoding="utf-8")
    line = 12 if "json" in name else 13
    assert "0xe9 is not UTF-8" in str(error)
    assert error.where == f"{name}, line {line}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_the_other_encodings_of_unicode(tmp_path, encoding):
    file = tsv(tmp_path / "a.tsv", rows_of(30))
    file.write_bytes(file.read_text().encode(encoding))
    assert sorted(all_pairs(load(file))) == sorted(rows_of(30))
    assert f"read as {encoding} (detected)" in told(file)[0]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_nul_bytes(tmp_path, name):
    FORMATS[name](tmp_path / name, rows_of(30))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content.replace(b"number 4 ", b"number\x004 "))
    error = refused(tmp_path / name)
    assert "0x00" in str(error)
    assert str(error.where).endswith("line 5" if "json" in name else "line 6")


@pytest.mark.parametrize(
    ("name", "line", "count"),
    [
        ("a.csv", "good, but slow,pos", 3),
        ("a.csv", "no label", 1),
        ("a.csv", "a text,pos,", 3),
        ("a.tsv", "a\ttab\tpos", 3),
        ("a.tsv", "no label", 1),
    ],
)
def test_ragged_rows(tmp_path, name, line, count):
    FORMATS[name](tmp_path / name, rows_of(30))
    lines = (tmp_path / name).read_text().splitlines()
    lines.insert(9, line)
    (tmp_path / name).write_text("\n".join(lines))
    error = refused(tmp_path / name)
    assert f"{count} fields under a header of 2" in str(error)
    assert error.where == f"{tmp_path / name}, line 10"
    assert ("quotes" if name == "a.csv" else "tab") in error.do


def test_the_line_counts_line_breaks_in_quotes(tmp_path):
    lines = ["text,label", '"one\ntwo\nthree",pos', "", "a,b,c"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert str(refused("a.csv").where).endswith("line 6")


@pytest.mark.parametrize("line", ['"a quote that never ends,pos', '"a "quote" inside",pos'])
def test_broken_quotes_swallow_no_rows(tmp_path, line):
    lines = ["text,label", *(f"{text},{label}" for text, label in rows_of(40))]
    lines.insert(5, line)
    (tmp_path / "a.csv").write_text("\n".join(lines))
    error = refused("a.csv")
    assert str(error.where).endswith("a.csv, line 6")
    assert "quotes" in error.do


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_very_long_text(tmp_path, name):
    rows = [*rows_of(30), ("word " * 1_999_999 + "end", "pos")]  # 10 MB
    FORMATS[name](tmp_path / name, rows)
    assert rows[-1] in all_pairs(load(tmp_path / name))


@pytest.mark.parametrize("name", ["text", "label"])
def test_a_column_that_is_there_twice(tmp_path, name):
    rows = [(text, label, "x") for text, label in rows_of(30)]
    file = tsv(tmp_path / "a.tsv", rows, header=("text", "label", name))
    assert f"Several columns are called {name!r}" in str(refused(file))


def test_columns_without_a_name_may_be_there_twice(tmp_path):
    rows = [("", *row, "") for row in rows_of(30)]
    assert sum(sizes(load(tsv(tmp_path / "a.tsv", rows, header=("", "text", "label", ""))))) == 30


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "cut o',
        "{'text': 'a', 'label': 'b'}",
        "text,label",
        "[" * 100_000,
        '{"label": ' + "9" * 5000 + "}",
    ],
)
def test_a_broken_json_line(tmp_path, line):
    file = jsonl(tmp_path / "a.jsonl", rows_of(30))
    lines = file.read_text().splitlines()
    lines.insert(16, line)
    file.write_text("\n\n".join(lines))  # blank lines count as lines
    error = refused(file)
    assert "not JSON" in str(error)
    assert error.where == f"{file}, line 33"


def test_a_broken_array(tmp_path):
    as_array(tmp_path / "a.json", rows_of(30))
    lines = (tmp_path / "a.json").read_text().splitlines()
    lines[9] = lines[9].rstrip(",")  # after the second object's text
    lines[6] = lines[6].rstrip(",")
    (tmp_path / "a.json").write_text("\n".join(lines))
    error = refused(tmp_path / "a.json")
    assert "not JSON" in str(error)
    assert str(error.where).endswith("line 8")


@pytest.mark.parametrize("row", ["7", '"text"', "null", "[1, 2]"])
def test_a_json_row_that_is_no_object(tmp_path, row):
    file = jsonl(tmp_path / "a.jsonl", rows_of(30))
    file.write_text(file.read_text() + row)
    error = refused(file)
    assert "not a JSON object" in str(error)
    assert str(error.where).endswith("row 31")


def test_json_in_columns(tmp_path):
    """As pandas writes a frame by default."""
    columns = {"text": {str(i): t for i, (t, _) in enumerate(rows_of(30))}, "label": {}}
    (tmp_path / "a.json").write_text(json.dumps(columns))
    refused("a.json")


@pytest.mark.parametrize("content", [b"PAR1 this is not parquet", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_not_parquet(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    error = refused("a.parquet")
    assert "not a whole parquet file" in str(error)
    assert str(error.where) == "a.parquet"


def test_half_a_parquet_file(tmp_path):
    as_parquet(tmp_path / "a.parquet", rows_of(3000))
    cut_in_half(tmp_path / "a.parquet")
    assert "not a whole parquet file" in str(refused("a.parquet"))


def test_a_parquet_file_that_changed_is_read_again(tmp_path):
    as_parquet(tmp_path / "a.parquet", rows_of(30))
    load("a.parquet")
    as_parquet(tmp_path / "a.parquet", rows_of(40))
    assert sum(sizes(load("a.parquet"))) == 40
    assert not (tmp_path / "hf" / "datasets").exists()


def test_names_that_are_nothing(tmp_path):
    for name in ("nowhere.tsv", "./nowhere", "../../etc/passwd", "no such set", ""):
        refused(name)
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    assert ".csv" in refused("./a.xlsx").do


# --- several labels for a text ---

MULTI = [("a", "b"), ("b",), (), ("c", "a"), ("b", "c")]


def multi_rows(n: int) -> list[tuple[str, tuple[str, ...]]]:
    return [(f"Text number {i} speaks.", MULTI[i % len(MULTI)]) for i in range(n)]


def as_sets(task: Task) -> dict[str, set[str]]:
    return {
        text: {task.labels[k] for k in numbers}
        for split in SPLITS
        for text, numbers in zip(
            getattr(task, split)["text"], getattr(task, split)["label"], strict=True
        )
    }


def test_cells_with_several_labels(tmp_path):
    """Blanks around a name are nothing, and what stands twice counts once."""
    rows = [(text, " ;".join([*names, *names[:1], ""])) for text, names in multi_rows(50)]
    file = tsv(tmp_path / "a.tsv", rows)
    task = load(file, label_separator=";")
    assert task.labels == ("a", "b", "c")
    assert task.multi_label is task.as_dict()["multi_label"] is True
    assert as_sets(task) == {text: set(names) for text, names in multi_rows(50)}
    assert all(row == sorted(row) for row in task.train["label"])
    assert "left out" not in "".join(told(file, label_separator=";"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_lists_of_labels(tmp_path, name):
    rows = [(text, list(names)) for text, names in multi_rows(50)]
    (as_parquet if name == "a.parquet" else as_jsonl)(tmp_path / name, rows)
    task = load(tmp_path / name)
    assert task.multi_label
    assert as_sets(task) == {text: set(names) for text, names in multi_rows(50)}


def test_lists_of_class_numbers_are_named(tmp_path):
    kind = datasets.List(ClassLabel(names=["x", "y", "z"]))
    rows = [(text, ["abc".index(name) for name in names]) for text, names in multi_rows(50)]
    task = load(save(table(rows, label=kind), tmp_path / "saved"))
    named = dict(zip("abc", "xyz", strict=True))
    assert as_sets(task) == {t: {named[name] for name in names} for t, names in multi_rows(50)}


def test_every_label_is_in_every_split_if_it_can_be(tmp_path):
    rows = [*multi_rows(200), *((f"Rare {k}.", ("rare", "a")) for k in range(10))]
    file = tsv(tmp_path / "a.tsv", [(text, ";".join(names)) for text, names in rows])
    task = load(file, label_separator=";")
    for split in SPLITS:
        n = Counter(k for row in getattr(task, split)["label"] for k in row)
        assert n[task.labels.index("rare")] == (8 if split == "train" else 1)
        assert any(not row for row in getattr(task, split)["label"])


def test_a_label_separator_that_separates_nothing_is_said(tmp_path):
    file = tsv(tmp_path / "a.tsv", rows_of(50))
    assert "! No row has two labels: ';' stands in no cell of 'label'." in (
        told(file, label_separator=";")
    )
    assert "empty" in str(refused(file, label_separator=""))


def test_lists_in_one_split_only(numbered):
    (numbered / "test.tsv").unlink()
    as_jsonl(numbered / "test.jsonl", rows_of(20, labels=[["0"], ["1"]], start=200))
    assert "lists in test, but not in the other splits" in str(refused(numbered))


def test_a_single_label_or_none_is_no_task(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", rows_of(50, labels=[["a"], []]))
    assert "one label, 'a', or none" in str(refused(file))


# --- the task itself ---


def test_what_a_task_tells(tmp_path):
    task = load(tsv(tmp_path / "a.tsv", rows_of(50)))
    told = task.as_dict()
    assert json.loads(json.dumps(told)) == told
    assert told == {
        "name": "a",
        "labels": ["neg", "pos"],
        "train": 42,
        "dev": 4,
        "test": 4,
        "unlabelled": 0,
        "fingerprint": task.fingerprint,
    }
    assert re.fullmatch("[0-9a-f]{16}", task.fingerprint)


def test_the_fingerprint_tells_every_change(numbered):
    first = load(numbered)
    rows = rows_of(20, labels="012", start=100)
    changes = {
        "text": [("Another text.", "0"), *rows[1:]],
        "letter": [(rows[0][0].upper(), rows[0][1]), *rows[1:]],
        "label": [(rows[0][0], "0"), (rows[1][0], "0"), *rows[2:]],
        "swapped": [(rows[0][0], rows[1][1]), (rows[1][0], rows[0][1]), *rows[2:]],
        "fewer": rows[:-1],
        "twice": [*rows, rows[-1]],
        "order": rows[::-1],
    }
    seen = {first.fingerprint}
    for changed in changes.values():
        tsv(numbered / "dev.tsv", changed)
        seen.add(load(numbered).fingerprint)
    tsv(numbered / "dev.tsv", rows)
    shutil.move(numbered / "dev.tsv", numbered / "was_dev")
    shutil.move(numbered / "test.tsv", numbered / "dev.tsv")
    shutil.move(numbered / "was_dev", numbered / "test.tsv")
    seen.add(load(numbered).fingerprint)  # dev and test changed places
    (numbered / "labels.txt").write_text("a\nb\nc\n")
    seen.add(load(numbered).fingerprint)
    assert len(seen) == len(changes) + 3


def test_the_fingerprint_moves_with_a_row_from_one_split_to_the_next():
    rows = rows_of(4, labels=[0, 1])

    def fingerprint(cut: int, unlabelled=()) -> str:
        train, dev = table(rows[:cut]), table(rows[cut:])
        return Task("a", ("x", "y"), train, dev, dev, unlabelled).fingerprint

    assert len({fingerprint(1), fingerprint(2), fingerprint(3), fingerprint(2, ["more"])}) == 4


def test_the_fingerprint_tells_nothing_else(numbered, tmp_path):
    first = load(numbered)
    assert load(numbered).fingerprint == first.fingerprint
    copy = tmp_path / "another name"
    for k, split in enumerate(SPLITS):
        jsonl(copy / f"{split}.jsonl", rows_of(20, labels=[0, 1, 2], start=100 * k))
    assert load(copy).fingerprint == first.fingerprint
    (numbered / "README.md").write_text("Not part of it.")
    os.utime(numbered / "train.tsv", (0, 0))
    assert load(numbered).fingerprint == first.fingerprint


# --- sets by name ---


@pytest.mark.parametrize(("name", "classes", "least"), [("reviews", 2, 600), ("probes", 8, 240)])
def test_the_courses_own_sets(name, classes, least):
    said = []
    task = load_task(name, say=said.append, progress=False)
    assert task.name == name
    assert len(task.labels) == classes
    assert sum(sizes(task)) >= least
    assert "built in" in said[0]
    assert {label for split in SPLITS for _, label in pairs(task, split)} == set(task.labels)


def test_a_set_of_the_mirror(tmp_path, monkeypatch):
    for k, split in enumerate(SPLITS):
        tsv(tmp_path / "mirror" / "data" / "mine" / f"{split}.tsv", rows_of(20, start=100 * k))
    monkeypatch.setenv("COURSE_MIRROR", str(tmp_path / "mirror"))
    task = load("mine")
    assert (task.name, sizes(task)) == ("mine", (20, 20, 20))
    assert "mine" in refused("not-mine").do


@pytest.fixture
def real_mirror(monkeypatch):
    if not (REAL_MIRROR / "data").is_dir():
        pytest.skip("COURSE_MIRROR is not set and no shared/data lies beside the repository")
    monkeypatch.setenv("COURSE_MIRROR", str(REAL_MIRROR))


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sst2", (67_349, 872, 1_821)),
        ("zh_hotel_sentiment", (5_591, 621, 1_553)),
        ("zh_shopping_sentiment", (18_000, 2_000, 4_000)),
    ],
)
def test_the_real_mirrors_classification_sets(real_mirror, name, expected):
    task = load(name)
    assert (task.name, task.labels) == (name, ("negative", "positive"))
    assert sizes(task) == expected
    if name == "sst2":
        assert [sum(getattr(task, split)["label"]) for split in SPLITS] == [37_569, 444, 909]
    else:
        assert not set(task.train["text"]) & set(task.dev["text"])
        shares = [sum(part["label"]) / len(part) for part in (task.train, task.dev)]
        assert abs(shares[0] - shares[1]) < 0.001


@pytest.mark.mirror
def test_one_file_of_the_real_mirror(real_mirror):
    task = load(REAL_MIRROR / "data" / "sst2" / "train_sentences.tsv")
    assert (sum(sizes(task)), task.labels) == (6_920, ("0", "1"))


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("ner_btc", "tokens, tags"),
        ("ner_wikigold", "tokens, tags"),
        ("ner_wnut17", "tokens, tags"),
        ("squad", "id, context, question, answers"),
        ("wikitext2", "no table train"),
    ],
)
def test_the_real_mirrors_other_sets_are_no_tasks(real_mirror, name, has):
    assert has in str(refused(name))


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "text", "label"), [("ner_btc", "tokens", "tags"), ("squad", "question", "answers")]
)
def test_lists_are_neither_texts_nor_labels(real_mirror, name, text, label):
    assert "have no text or no label" in str(refused(name, text=text, label=label))
