"""A classification task from any table of texts and labels: checked first, then split."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict, Features, List, Value

from course_utils.data import pydocs
from course_utils.data.labels import (
    Tables,
    all_labels,
    check_labels,
    counts,
    label_names,
    odd_names,
    some,
    whole_numbers,
)
from course_utils.data.sources import TABLES, Found, find_data
from course_utils.data.tables import Labelled, Row, read_labelled
from course_utils.errors import DataError

MIN_ROWS = 20
MOST_SHARED = 0.5  # of the test texts, that stand in train, too
SHARE = 0.1  # of train, for a dev or a test split that is missing
SPLIT_NAMES = {
    "train": {"train"},
    "dev": {"dev", "val", "valid", "validation"},
    "test": {"test"},
}


@dataclass(frozen=True)
class Task:
    """Texts and their classes: three splits with the columns `text` and `label`.

    `label` is the number of the text's class or, in a multi-label task, the sorted list of the
    numbers of its classes, which may be empty.
    """

    name: str
    labels: tuple[str, ...]
    train: Dataset
    dev: Dataset
    test: Dataset
    unlabelled: Sequence[str] = field(default=(), repr=False)
    multi_label: bool = False

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when any text, label, split or order of rows does.

        Order counts because what is kept about the texts, a teacher's signals, goes row by row.
        """
        digest = hashlib.sha256(json.dumps([self.labels, list(self.unlabelled)]).encode())
        for split in (self.train, self.dev, self.test):
            digest.update(json.dumps([list(split["text"]), list(split["label"])]).encode())
        return digest.hexdigest()[:16]

    def as_dict(self) -> dict[str, object]:
        """Name, labels, sizes and fingerprint, ready for JSON."""
        sizes = {s: len(getattr(self, s)) for s in ("train", "dev", "test", "unlabelled")}
        return {
            "name": self.name,
            "labels": list(self.labels),
            **sizes,
            "fingerprint": self.fingerprint,
        } | ({"multi_label": True} if self.multi_label else {})


def load_task(
    data: str | Path = "pydocs",
    *,
    text: str = "text",
    label: str = "label",
    label_separator: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> Task:
    """The task that `data` names: pydocs, reviews, probes, a set of the mirror, a file or a folder.

    `text` and `label` name the columns of a table. A single file is split 80/10/10: a missing dev
    or test split is a tenth of train, of each class the same share, chosen by a hash of the text;
    a text with several classes counts for its rarest. `label_separator` (";" in "a;b") makes the
    task multi-label, as lists in the label column do. `encoding` and `separator` say how text
    files are to be read, where what is found by itself is wrong. What was done is told to `say`;
    a line that begins with "! " is a warning.

    Raises `DataError` for a table that cannot be used, naming file, row and column; for labels
    that are no classes; and when most of the test texts stand in train.
    """
    if label_separator == "":
        raise DataError("The label separator is empty.", do="Give what stands between labels: ';'.")
    found = find_data(data, say=say)
    if found.name == "pydocs" and found.origin == "built-in":
        splits, unlabelled = pydocs.task_splits(progress=progress)
        return Task("pydocs", pydocs.LABELS, **splits, unlabelled=unlabelled)
    options = {"text": text, "label": label, "label_separator": label_separator}
    options |= {"encoding": encoding, "separator": separator, "say": say}
    read = {
        split: read_labelled(table, where, **options)
        for split, (table, where) in _tables(found.path).items()
    }
    multi_label = _one_kind(read, found.path)
    tables = whole_numbers({split: labelled.rows for split, labelled in read.items()})
    if label_separator and all(len(names) < 2 for names in all_labels(tables)):
        say(f"! No row has two labels: {label_separator!r} stands in no cell of {label!r}.")
    names = label_names(tables, found.path, say)
    complete = _complete(tables)
    task = _checked(_name(found), names, complete, found.path, multi_label)
    refuse_same_texts(task, found.path)
    for line in _told(task, complete, given=tables):
        say(line)
    return task


def refuse_same_texts(task: Task, where: str | Path | None = None) -> None:
    """Nothing; raises `DataError` if more than half of a dev or test split's texts are in train."""
    train = set(task.train["text"])
    for split in ("dev", "test"):
        texts = list(getattr(task, split)["text"])
        shared = sum(text in train for text in texts)
        if shared > MOST_SHARED * len(texts):
            raise DataError(
                f"{shared:,} of the {len(texts):,} texts of {split} are also in train: a score on "
                "them would say nothing about new texts.",
                where=where,
                do=f"Give another table for {split}, or none: then a part of train is kept apart.",
            )


def _name(found: Found) -> str:
    path = found.path.resolve() if found.origin == "path" else Path(found.name)
    return path.stem if found.path.is_file() else path.name


def _tables(path: Path) -> dict[str, tuple[Path | Dataset, str | Path]]:
    """What holds each split, and how to call that place: a file, or a part of a saved data set."""
    if path.is_file():
        return {"train": (path, path)}
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        here = [(name, part, f"{path}, split {name}") for name, part in _saved(path).items()]
    else:
        here = [(_split_name(file), file, file) for file in _files(path)]
    tables = {}
    for split, names in SPLIT_NAMES.items():
        parts = [(table, where) for name, table, where in here if name in names]
        if len(parts) > 1:
            raise DataError(
                f"Several tables could be the {split} split: "
                f"{', '.join(str(where) for _, where in parts)}.",
                where=path,
                do="Give the path of one file, or keep one table per split.",
            )
        if parts:
            tables[split] = parts[0]
    if "train" not in tables:
        names = ", ".join(name for name, *_ in here[:8]) or "no table"
        raise DataError(
            f"There is no table train, as {', '.join(TABLES)} or split of a data set.",
            where=path,
            do=f"There is {names}: name the training table train, or give a file's own path.",
        )
    return tables


def _saved(path: Path) -> dict[str, Dataset]:
    """The splits that `save_to_disk` wrote, by name."""
    try:
        saved = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"This saved data set cannot be loaded: {error}.", where=path, do="Save it again."
        ) from None
    return saved if isinstance(saved, DatasetDict) else {"train": saved}


def _files(folder: Path) -> list[Path]:
    """The tables in a folder; if there is no train among them, those of the folders below too."""
    for files in (folder.iterdir(), folder.rglob("*")):
        tables = sorted(f for f in files if f.suffix.lower() in TABLES and f.is_file())
        if "train" in map(_split_name, tables):
            break
    return tables


def _split_name(file: Path) -> str:
    """The file's name without its ending and the Hub's -00000-of-00001."""
    return re.sub(r"-\d+-of-\d+$", "", file.stem).lower()


def _one_kind(read: dict[str, Labelled], path: Path) -> bool:
    """Whether the task is multi-label; raises `DataError` if its splits disagree."""
    lists = [split for split, labelled in read.items() if labelled.multi_label]
    if lists and len(lists) < len(read):
        raise DataError(
            f"The labels are lists in {' and '.join(lists)}, but not in the other splits.",
            where=path,
            do="Write the labels of all splits as lists, or of none.",
        )
    return bool(lists)


def _complete(tables: Tables) -> Tables:
    """All three splits; those that are missing are taken from train, by the hash of each text."""
    missing = [split for split in SPLIT_NAMES if split not in tables]
    split_of = _deal(tables["train"], missing)
    dealt = {split: [] for split in ("train", *missing)}
    for row in tables["train"]:
        dealt[split_of.get(row[0], "train")].append(row)
    return tables | dealt


def _deal(rows: list[Row], splits: list[str]) -> dict[str, str]:
    """The split of each text that leaves train: of every class the same share to each of `splits`.

    The order of the rows does not matter, and a text goes to one split with all its rows. A text
    with several labels is dealt with those of its rarest one, as in iterative stratification
    (Sechidis et al. 2011); texts without a label are a class of their own.
    """
    texts_of: dict[str, set[str]] = defaultdict(set)
    for text, names in rows:
        for name in names or ("",):
            texts_of[name].add(text)
    split_of: dict[str, str] = {}
    for name in sorted(texts_of, key=lambda name: (len(texts_of[name]), name)):
        own = texts_of[name].difference(split_of)
        ranked = sorted(own, key=lambda text: hashlib.sha256(text.encode()).digest())
        size = max(1, round(SHARE * len(ranked))) if len(ranked) > len(splits) else 0
        for k, split in enumerate(splits):
            split_of |= dict.fromkeys(ranked[k * size : (k + 1) * size], split)
        split_of |= dict.fromkeys(ranked[len(splits) * size :], "train")
    return split_of


def _checked(
    name: str, labels: tuple[str, ...], tables: Tables, path: Path, multi_label: bool
) -> Task:
    """The task, its labels as numbers; `DataError` if it cannot be learned or measured."""
    used = {split: counts(rows) for split, rows in tables.items()}
    total = sum(map(len, tables.values()))
    if total < MIN_ROWS:
        raise DataError(
            f"{total} rows are too few for a task.",
            where=path,
            do=f"Give at least {MIN_ROWS} rows.",
        )
    check_labels([row for rows in tables.values() for row in rows], path)
    if empty := [split for split, rows in tables.items() if not rows]:
        raise DataError(
            f"There are {total} rows, but none for {' and '.join(empty)}.",
            where=path,
            do="Give each split some rows; to be split, a class needs 3 different texts.",
        )
    if len(used["train"]) < 2:
        only = next(iter(used["train"]), None)
        raise DataError(
            f"Every training row has the same label, {only!r}."
            if not multi_label
            else f"The training rows have one label, {only!r}, or none.",
            where=path,
            do="A task needs at least two classes.",
        )
    for split in ("dev", "test"):
        if unseen := set(used[split]) - set(used["train"]):
            raise DataError(
                f"Labels in {split} that no training row has: {some(unseen)}.",
                where=path,
                do="Add training rows with these labels, or remove the rows that have them.",
            )
    number = {label: i for i, label in enumerate(labels)}
    kind = List(Value("int64")) if multi_label else Value("int64")
    splits = {}
    for split, rows in tables.items():
        numbers = [sorted(number[label] for label in names) for _, names in rows]
        columns = {
            "text": [text for text, _ in rows],
            "label": numbers if multi_label else [k for (k,) in numbers],
        }
        splits[split] = Dataset.from_dict(columns, Features(text=Value("string"), label=kind))
    return Task(name, labels, **splits, multi_label=multi_label)


def _told(task: Task, complete: Tables, given: Tables) -> Iterable[str]:
    """What became of the tables, in short lines."""
    kind = ", a text may have several or none" if task.multi_label else ""
    yield f"{len(task.labels)} classes{kind}: {some(task.labels)}."
    sizes = f"{len(task.train):,} to train on, {len(task.dev):,} dev, {len(task.test):,} test"
    if missing := [split for split in SPLIT_NAMES if split not in given]:
        share = "by their rarest label" if task.multi_label else "of each class the same share"
        yield f"{sizes}: {' and '.join(missing)} taken from train by a hash of the text, {share}."
    else:
        yield f"{sizes}: as given."
    used = counts(complete["train"])
    everywhere = set(counts(complete["dev"])) & set(counts(complete["test"]))
    if alone := [name for name in task.labels if used[name] and name not in everywhere]:
        shown = some([f"{name} ({used[name]:,} in train)" for name in alone])
        yield f"! {_n_classes(len(alone))} not in dev or not in test, so no score tells: {shown}."
    if unused := [name for name in task.labels if not used[name]]:
        yield f"! {_n_classes(len(unused))} of labels.txt without a text in train: {some(unused)}."
    yield from odd_names(task.labels)


def _n_classes(n: int) -> str:
    return "1 class is" if n == 1 else f"{n} classes are"
