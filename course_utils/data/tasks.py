"""A classification task from any table of texts and labels: checked first, then split."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict

from course_utils.data import pydocs
from course_utils.data.sources import TABLES, Found, find_data
from course_utils.data.tables import Pairs, decode, text_label_pairs
from course_utils.errors import DataError

MIN_ROWS = 20
SHARE = 0.1  # of train, for a dev or a test split that is missing
SPLIT_NAMES = {
    "train": {"train"},
    "dev": {"dev", "val", "valid", "validation"},
    "test": {"test"},
}


@dataclass(frozen=True)
class Task:
    """Texts with a class each: three splits with the columns `text` and `label` (its number)."""

    name: str
    labels: tuple[str, ...]
    train: Dataset
    dev: Dataset
    test: Dataset
    unlabelled: Sequence[str] = field(default=(), repr=False)

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
        }


def load_task(
    data: str | Path = "pydocs",
    *,
    text: str = "text",
    label: str = "label",
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> Task:
    """The task that `data` names: pydocs, reviews, probes, a set of the mirror, a file or a folder.

    `text` and `label` name the columns of a table. A single file is split 80/10/10: a missing dev
    or test split is a tenth of train, of each class the same share, chosen by a hash of the text.
    Raises `DataError` for a table that cannot be used, naming file, row and column.
    """
    found = find_data(data, say=say)
    if found.name == "pydocs" and found.origin == "built-in":
        splits, unlabelled = pydocs.task_splits(progress=progress)
        return Task("pydocs", pydocs.LABELS, **splits, unlabelled=unlabelled)
    tables = {
        split: text_label_pairs(table, where, text=text, label=label)
        for split, (table, where) in _tables(found.path).items()
    }
    names = _label_names(tables, found.path)
    return _checked(_name(found), names, _complete(tables), found.path)


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


def _label_names(tables: dict[str, Pairs], path: Path) -> tuple[str, ...]:
    """The classes in order: labels.txt in the folder, or those of the training rows, sorted."""
    used = {label for pairs in tables.values() for _, label in pairs}
    file = path / "labels.txt"
    if file.is_file():
        return _listed_names(tables, used, file)
    numbers = all(re.fullmatch(r"-?\d{1,18}", label) for label in used)
    seen = {label for _, label in tables["train"]}
    return tuple(sorted(seen, key=lambda label: (int(label) if numbers else 0, label)))


def _listed_names(tables: dict[str, Pairs], used: set[str], file: Path) -> tuple[str, ...]:
    """The lines of labels.txt; labels that are the numbers of its lines, from 0, become names."""
    names = [" ".join(line.split()) for line in decode(file).split("\n") if line.strip()]
    numbers = {str(k): name for k, name in enumerate(names)}
    if unknown := min(used - set(names), used - set(numbers), key=len):
        raise DataError(
            f"labels.txt does not fit the labels: it has {_some(names)}, but not {_some(unknown)}.",
            where=file,
            do="Write one class per line, named as in the tables or in the order of its number.",
        )
    if len(set(names)) < len(names):
        raise DataError("A name stands twice in labels.txt.", where=file, do="Remove one.")
    if not used <= set(names):
        for pairs in tables.values():
            pairs[:] = [(text, numbers[label]) for text, label in pairs]
    return tuple(names)


def _some(names: Sequence[str] | set[str]) -> str:
    shown = sorted(names)[:5] if isinstance(names, set) else names[:5]
    return ", ".join(shown) + (" …" if len(names) > 5 else "") or "nothing"


def _complete(tables: dict[str, Pairs]) -> dict[str, Pairs]:
    """All three splits; those that are missing are taken from train, by the hash of each text."""
    missing = [split for split in SPLIT_NAMES if split not in tables]
    split_of = _deal(tables["train"], missing)
    dealt = {split: [] for split in ("train", *missing)}
    for text, label in tables["train"]:
        dealt[split_of.get(text, "train")].append((text, label))
    return tables | dealt


def _deal(pairs: Pairs, splits: list[str]) -> dict[str, str]:
    """The split of each text that leaves train: of every class the same share to each of `splits`.

    The order of the rows does not matter, and a text goes to one split with all its rows.
    """
    texts_of: dict[str, set[str]] = defaultdict(set)
    for text, label in pairs:
        texts_of[label].add(text)
    split_of: dict[str, str] = {}
    for label in sorted(texts_of):
        ranked = sorted(texts_of[label], key=lambda text: hashlib.sha256(text.encode()).digest())
        size = max(1, round(SHARE * len(ranked))) if len(ranked) > len(splits) else 0
        for k, split in enumerate(splits):
            for text in ranked[k * size : (k + 1) * size]:
                split_of.setdefault(text, split)
    return split_of


def _checked(name: str, names: tuple[str, ...], tables: dict[str, Pairs], path: Path) -> Task:
    counts = {split: Counter(label for _, label in pairs) for split, pairs in tables.items()}
    total = sum(map(len, tables.values()))
    if total < MIN_ROWS:
        raise DataError(
            f"{total} rows are too few for a task.",
            where=path,
            do=f"Give at least {MIN_ROWS} rows.",
        )
    if empty := [split for split, pairs in tables.items() if not pairs]:
        raise DataError(
            f"There are {total} rows, but none for {' and '.join(empty)}.",
            where=path,
            do="Give each split some rows; to be split, a class needs 3 different texts.",
        )
    if len(counts["train"]) < 2:
        raise DataError(
            f"Every training row has the same label, {next(iter(counts['train']))!r}.",
            where=path,
            do="A task needs at least two classes.",
        )
    for split in ("dev", "test"):
        if unseen := set(counts[split]) - set(counts["train"]):
            raise DataError(
                f"Labels in {split} that no training row has: {_some(unseen)}.",
                where=path,
                do="Add training rows with these labels, or remove the rows that have them.",
            )
    number = {label: i for i, label in enumerate(names)}
    splits = {
        split: Dataset.from_dict(
            {"text": [text for text, _ in pairs], "label": [number[label] for _, label in pairs]}
        )
        for split, pairs in tables.items()
    }
    return Task(name, names, **splits)
