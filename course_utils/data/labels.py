"""The names of a task's classes: in which order they stand, and whether they are classes at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from course_utils.data.tables import Row
from course_utils.data.text_files import encoding_note, read_text
from course_utils.errors import DataError

MOST_MEASUREMENTS = 20  # different labels such as 3.7
MOST_CLASSES = 0.5  # of the rows

Tables = dict[str, list[Row]]  # the rows of each split


def all_labels(tables: Tables) -> Iterable[tuple[str, ...]]:
    """The labels of every row of every split."""
    return (names for rows in tables.values() for _, names in rows)


def whole_numbers(tables: Tables) -> Tables:
    """The tables; where all labels are whole numbers, 1.0 (as pandas may write 1) becomes 1."""
    used = {name for names in all_labels(tables) for name in names}
    if not all(re.fullmatch(r"-?\d+(\.0+)?", name) for name in used):
        return tables
    return {
        split: [
            (text, tuple(dict.fromkeys(n.partition(".")[0] for n in names))) for text, names in rows
        ]
        for split, rows in tables.items()
    }


def label_names(tables: Tables, path: Path, say: Callable[[str], object]) -> tuple[str, ...]:
    """The classes in order: labels.txt in the folder, or those of the training rows, sorted."""
    used = {name for names in all_labels(tables) for name in names}
    file = path / "labels.txt"
    if file.is_file():
        return _listed_names(tables, used, file, say)
    numbers = all(re.fullmatch(r"-?\d{1,18}", name) for name in used)
    seen = {name for _, names in tables["train"] for name in names}
    return tuple(sorted(seen, key=lambda name: (int(name) if numbers else 0, name)))


def _listed_names(
    tables: Tables, used: set[str], file: Path, say: Callable[[str], object]
) -> tuple[str, ...]:
    """The lines of labels.txt; labels that are the numbers of its lines, from 0, become names."""
    content, encoding = read_text(file)
    if note := encoding_note(file, encoding):
        say(note)
    listed = [" ".join(line.split()) for line in content.split("\n") if line.strip()]
    numbers = {str(k): name for k, name in enumerate(listed)}
    if unknown := min(used - set(listed), used - set(numbers), key=len):
        raise DataError(
            f"labels.txt does not fit the labels: it has {some(listed)}, but not {some(unknown)}.",
            where=file,
            do="Write one class per line, named as in the tables or in the order of its number.",
        )
    if len(set(listed)) < len(listed):
        raise DataError("A name stands twice in labels.txt.", where=file, do="Remove one.")
    if not used <= set(listed):
        for rows in tables.values():
            rows[:] = [(text, tuple(numbers[name] for name in names)) for text, names in rows]
    return tuple(listed)


def check_labels(rows: list[Row], path: Path) -> None:
    """Nothing; raises `DataError` for labels that are measurements, ids or texts."""
    used = {name for _, names in rows for name in names}
    measured = [name for name in used if re.fullmatch(r"[+-]?\d*\.\d*[1-9]\d*", name)]
    if len(measured) > MOST_MEASUREMENTS:
        raise DataError(
            f"The labels look like measurements: {len(measured):,} different numbers that are not "
            f"whole, such as {some(measured[:3])}.",
            where=path,
            do="Give a column of classes; put measurements into a few ranges first.",
        )
    if len(used) > MOST_CLASSES * len(rows):
        raise DataError(
            f"The labels look like ids or texts: {len(used):,} different ones in {len(rows):,} "
            f"rows, such as {some(used)}.",
            where=path,
            do="Name the column of the classes with --label, or give more rows of each class.",
        )


def some(names: Sequence[str] | set[str]) -> str:
    """The first five names, for a message."""
    shown = sorted(names)[:5] if isinstance(names, set) else names[:5]
    shown = [name if len(name) <= 40 else name[:39] + "…" for name in shown]
    return ", ".join(shown) + (" …" if len(names) > 5 else "") or "nothing"


def counts(rows: Iterable[Row]) -> Counter[str]:
    """The number of rows with each label."""
    return Counter(name for _, names in rows for name in names)


def odd_names(labels: Sequence[str]) -> Iterator[str]:
    """Warnings about names that may not be meant as they are."""
    if alike := _alike(labels):
        yield f"! These labels differ in capitals only, and are different classes: {some(alike)}."
    numbers = [name for name in labels if re.fullmatch(r"[+-]?\d+(\.\d+)?", name)]
    if 0 < len(numbers) < len(labels):
        words = [name for name in labels if name not in numbers]
        yield f"! Numbers and words are mixed in the labels: {some(numbers)}; {some(words)}."


def _alike(labels: Sequence[str]) -> list[str]:
    """Labels that are the same but for capitals."""
    folded = Counter(label.casefold() for label in labels)
    return [label for label in labels if folded[label.casefold()] > 1]
